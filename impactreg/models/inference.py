"""Any image-to-image model over a whole image: feature maps, labels, synthesis, denoising; in blended tiles."""

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import inf, prod
from pathlib import Path
from typing import Any, Literal

import torch
from torch import nn

from impactreg.errors import ModelError, OutputError
from impactreg.images.conversion import as_image
from impactreg.images.files import FORMATS, ITK_FORMATS, FilePath, read_image, write_image
from impactreg.images.image import Image
from impactreg.images.storage import Storage, half_of_memory
from impactreg.models.blending import gaussian
from impactreg.models.catalogue import locate
from impactreg.models.contract import Contract, ask, listed
from impactreg.models.extractor import Extractor, rounded_direction
from impactreg.models.features import sampling_grid, statistics
from impactreg.models.finishing import Finishing
from impactreg.models.geometry import Matrix
from impactreg.models.passes import Pass, Progress, Tiling, frames, placed, tile_shape
from impactreg.models.regridding import Regridding

TILE = {2: 512, 3: 96}
"""Axes up to this many voxels are one tile unless the caller says otherwise, longer ones tiles of this length."""
LARGEST = 1 << 31
"""As many voxels as convolutions can count."""

logger = logging.getLogger(__name__)

Model = str | Path | Extractor | nn.Module
Numbers = float | Sequence[float]


def features(
    image: Any,
    model: Model,
    *,
    layers: str | Sequence[bool] | None = None,
    patch: int | Sequence[int] | None = None,
    overlap: Numbers | None = None,
    voxel: Numbers | None = None,
    axis: Literal["x", "y", "z"] | None = None,
    pca: int | None = None,
    labels: bool = False,
    grid: Literal["model", "image"] = "model",
    dimension: int | None = None,
    channels: int | None = None,
    device: torch.device | str = "cpu",
    mixed_precision: bool = False,
    models: Sequence[Path] = (),
    memory: float | None = None,
    output: FilePath | None = None,
    progress: Progress | None = None,
) -> list[Image]:
    """What a model makes of a whole image: one `Image` on the CPU for each layer wanted, float32, on its exact grid.

    `image` is whatever `as_image` takes; `model` is the name or path of a TorchScript file, or a module: an extractor
    that keeps the contract, or any network that makes an image of an image (segmentation, synthesis, denoising).

    - `layers`: which outputs are wanted, such as "01" for the second of two (`ImpactLayersMask`); all by default.
    - `voxel`: spacing at which the model sees the image (mm; one number or x, y, z), by cubic B-spline interpolation;
      the image's own by default.
    - `patch`: size of the tiles (voxels; one number or x, y, z), 0 for a whole axis; by default axes of up to 96
      voxels (2D: 512) are whole. A tile larger than the image is continued by its border.
    - `overlap`: of neighbouring tiles, in voxels or, below 1, as a share of the tile; by default the least that
      covers the field of view of the layers, half a tile if that is larger.
    - `axis`: along which a 2D model sees a 3D image slice by slice; z by default.
    - `pca`: so many principal components of the channels instead of these (`ImpactPCA`: the strongest last).
    - `labels`: the number of the channel with the highest value instead of the values, as whole numbers.
    - `grid`: "image" brings results to the image's grid (linearly; labels after that).
    - `dimension`, `channels`: of the model's input; found by asking the model.
    - `memory`: GiB of results kept in memory, by default half of the machine's; more lies in temporary files beside
      `output` that disappear with the results. Uncompressed NIfTI files larger than this are read where needed.
    - `output`: a file that is written, whole or not at all; of several layers each gets its number in its name,
      `name.L2.nii.gz`.
    - `progress`: called with the numbers of tiles done and of all.

    Tiles are blended by Gaussian weights, and count for nothing where they see their cut: tiles give what one pass
    would give wherever the overlap covers the field of view. Raises `ModelError` for a model that is missing or does
    not fit, `ImageError` for the image, `OutputError` for what cannot be written.
    """
    storage = _storage(memory, output)
    wish, along = _Wish(pca, labels, grid), _axis(axis or "z")
    extractor = listed(_extractor(model, _device(device), models))
    mask = None if layers is None else _mask(extractor.name, layers)
    read = read_image(image, storage=storage) if isinstance(image, str | Path) else as_image(image)
    contract = ask(
        extractor,
        read.dimension,
        read.channels,
        dimension=dimension,
        channels=channels,
        layers=None if mask is None else len(mask),
    )
    if axis is not None and contract.dimension >= read.dimension:
        logger.warning("%s: axis %s has no effect: the model sees the image whole, not in slices", extractor.name, axis)
    run = _Run(extractor, contract, mask or (True,) * contract.layers, along, mixed_precision, storage, progress)
    seen = read
    if voxel is not None:
        seen = Regridding(read, sampling_grid(read.grid, _three(voxel, read.dimension)), 3).all(storage)
    maps = run.maps(seen, _known(extractor, read), patch, overlap)
    del seen
    results = list(_finished(maps, run, wish.finishing(read), storage))
    if output is not None:
        for number, result in zip(run.numbers, results, strict=True):
            path = output_path(Path(output), number if len(results) > 1 else None)
            write_image(result, path)
            logger.info("%s: %r", path, result)
    return results


def output_path(path: Path, layer: int | None) -> Path:
    """The file of a layer among several: its number, from 1 on, before the extension."""
    if layer is None:
        return path
    extension = _extension(path)
    return path.with_name(f"{path.name.removesuffix(extension)}.L{layer}{extension}")


@dataclass(frozen=True)
class _Wish:
    """What a caller wants of the layers."""

    pca: int | None
    labels: bool
    grid: str

    def __post_init__(self) -> None:
        if self.grid not in ("model", "image"):
            raise ModelError(f'grid "{self.grid}" is not known: use "model" or "image"')
        if self.labels and self.pca is not None:
            raise ModelError("labels and principal components exclude each other: ask for one of them")
        if self.pca is not None and self.pca < 1:
            raise ModelError(f"PCA keeps one component or more, not {self.pca}")

    def finishing(self, image: Image) -> Finishing:
        return Finishing(self.pca, self.labels, image.grid if self.grid == "image" else None)


@dataclass(frozen=True)
class _Run:
    """A model with all that is settled before an image is seen."""

    extractor: Extractor
    contract: Contract
    mask: tuple[bool, ...]
    axis: int
    mixed_precision: bool
    storage: Storage
    progress: Progress | None

    @property
    def numbers(self) -> list[int]:
        """Of the layers wanted, from 1 on."""
        return [number for number, wanted in enumerate(self.mask, start=1) if wanted]

    def maps(
        self, image: Image, known: torch.Tensor, patch: int | Sequence[int] | None, overlap: Numbers | None
    ) -> list[Image]:
        """The layers wanted; `known` are the image's statistics."""
        name = self.extractor.name
        axis = min(self.axis, image.dimension - 1)
        volume = frames(self.extractor, image, self.contract.dimension, self.contract.channels, axis)
        tile = tile_shape(self.extractor, _patch(patch, tuple(volume.shape[2:])), volume)
        if prod(tile) * volume.shape[0] > LARGEST:
            written = " x ".join(map(str, reversed(tile)))
            raise ModelError(f"{name}: a patch of {written} voxels is more than a model can take; use a smaller patch")
        tiling = Tiling(_overlap(name, overlap, tile), gaussian, exact=True)
        direction: Matrix = tuple(map(tuple, rounded_direction(image.grid.direction).double().tolist()))
        one = Pass(
            self.extractor,
            volume,
            tile,
            self.mask,
            known,
            direction,
            self.mixed_precision,
            tiling,
            axis,
            self.storage,
            self.progress,
        )
        return [placed(image.grid, data, layer, axis) for data, layer in one.maps()]


def _finished(maps: list[Image], run: _Run, finishing: Finishing, storage: Storage) -> Iterator[Image]:
    for number in run.numbers:
        # Each layer is given up as soon as nothing more is needed of it.
        layer = maps.pop(0).to(device="cpu")
        yield finishing.finished(layer, f"{run.extractor.name}: layer {number} of {len(run.mask)}", storage)


def _storage(memory: float | None, output: FilePath | None) -> Storage:
    """Room for results; what cannot be written in the end is told before anything is computed."""
    if memory is not None and not 0 <= memory < inf:
        raise OutputError(f"memory is a number of GiB from 0 on, not {memory:g}")
    bound = half_of_memory() if memory is None else int(memory * 2**30)
    if output is None:
        return Storage(bound)
    path = Path(output)
    _extension(path)
    if path.is_dir() or not path.parent.is_dir():
        raise OutputError(f"{path}: there is no folder for it, or a folder has its name")
    return Storage(bound, path.parent)


def _extension(path: Path) -> str:
    known = [f".{each}" for each in ("nii.gz", *FORMATS, *ITK_FORMATS)]
    found = next((each for each in known if path.name.lower().endswith(each)), None)
    if found is None:
        raise OutputError(f'{path}: "{path.suffix}" files cannot be written: use one of {", ".join(FORMATS)}')
    return path.name[-len(found) :]


def _device(written: torch.device | str) -> torch.device:
    try:
        return torch.device(written)
    except RuntimeError:
        raise ModelError(f'device "{written}" is not known: use cpu, cuda or cuda:N') from None


def _extractor(model: Model, device: torch.device, folders: Sequence[Path]) -> Extractor:
    if isinstance(model, nn.Module):
        return Extractor.of(model).on(device)
    if isinstance(model, Extractor):
        return model.on(device)
    return Extractor.load(locate(str(model), search=folders), device, name=str(model))


def _mask(name: str, layers: str | Sequence[bool]) -> tuple[bool, ...]:
    written = layers if isinstance(layers, str) else "".join(str(int(wanted)) for wanted in layers)
    if not set(written) <= {"0", "1"} or "1" not in written:
        raise ModelError(
            f'{name}: layers are a 1 for each one wanted and a 0 for each other, such as "01", not "{layers}"'
        )
    return tuple(digit == "1" for digit in written)


def _axis(axis: str) -> int:
    if axis not in ("x", "y", "z"):
        raise ModelError(f'axis "{axis}" is not known: slices are seen along x, y or z')
    return "zyx".index(axis)


def _three(numbers: Numbers, count: int) -> tuple[float, ...]:
    return (float(numbers),) * count if isinstance(numbers, int | float) else tuple(numbers)


def _patch(patch: int | Sequence[int] | None, shape: tuple[int, ...]) -> tuple[int, ...]:
    """Sizes in the order x, y, z."""
    if patch is None:
        most = TILE[len(shape)]
        return tuple(0 if size <= most else most for size in reversed(shape))
    return (patch,) * len(shape) if isinstance(patch, int) else tuple(patch)


def _overlap(name: str, overlap: Numbers | None, tile: tuple[int, ...]) -> tuple[float | None, ...]:
    """For each axis, z first."""
    if overlap is None:
        return (None,) * len(tile)
    given = _three(overlap, len(tile))[::-1]
    if len(given) != len(tile) or not all(0 <= each < length for each, length in zip(given, tile, strict=True)):
        written = " ".join(f"{each:g}" for each in reversed(given))
        patch = " ".join(map(str, reversed(tile)))
        raise ModelError(
            f"{name}: an overlap of {written} does not go with a patch of {patch}: "
            "give voxels below the patch's, or a share below 1"
        )
    return given


def _known(extractor: Extractor, image: Image) -> torch.Tensor:
    """The statistics of the image, which most models do not ask for."""
    return torch.tensor(statistics(image)) if extractor.arguments > 2 else torch.zeros(4)
