"""What a model file is: the input that it takes, its layers and their places, found out by running it."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import product
from math import inf, isfinite, isnan, nan
from pathlib import Path
from typing import final

import torch
from torch import Tensor

from impactreg.errors import ModelError
from impactreg.models.cards import CardFile
from impactreg.models.contract import taken
from impactreg.models.extractor import Extractor
from impactreg.models.geometry import Layer, Size, identity, measure
from impactreg.models.lock import digest

SIDES = (32, 64, 29, 14, 128, 224)
"""Inputs that are tried: deep networks need large ones, transformers their own."""

CHANNELS = (1, 3, 2, 4)
ENOUGH = 5
"""So many samples of a layer along each axis tell its place without a larger input."""

CENTRED = -300.0, 300.0, 0.0, 100.0
"""Statistics of the images that are tried: minimum, maximum, mean and deviation."""


@final
@dataclass(frozen=True)
class Description:
    """A model by its behaviour on an input of `shape` (z, y, x) with `input_channels`.

    `shapes` are those of the layers without batch and channel. `sha256` is None for a module that is no file.
    """

    extractor: Extractor
    sha256: str | None
    input_channels: int
    shape: Size
    layers: tuple[Layer, ...]
    shapes: tuple[Size, ...]

    @property
    def dimension(self) -> int:
        """2 or 3."""
        return len(self.shape)

    @property
    def parameters(self) -> int:
        """How many numbers the model holds, buffers included."""
        module = self.extractor.module
        return sum(held.numel() for held in (*module.parameters(), *module.buffers()))

    @property
    def field_of_view(self) -> tuple[tuple[float, ...], ...]:
        """For each layer, how many voxels along x, y and z one feature depends on; infinite: more than there were."""
        reaches = [layer.reach if all(map(isfinite, layer.reach)) else (inf,) * self.dimension for layer in self.layers]
        return tuple(tuple(2 * reach + 1 for reach in reversed(reach)) for reach in reaches)

    @property
    def measured(self) -> int:
        """How many layers, from the first on, had enough samples for their places to be measured."""
        unmeasured = (at for at, layer in enumerate(self.layers) if any(map(isnan, layer.reach)))
        return next(unmeasured, len(self.layers))


def describe(
    path: Path,
    *,
    name: str | None = None,
    card: CardFile | None = None,
    dimension: int | None = None,
    channels: int | None = None,
    side: int | None = None,
) -> Description:
    """Loads a model file and finds out by small inputs what it takes and makes.

    A card, or else the arguments, say what is known of its dimension and input channels; `side` is the length of the
    input along each axis. Raises `ModelError` where the model takes nothing that was tried, or breaks the contract.
    """
    extractor = Extractor.load(path, name=name)
    if any(given is not None and given < 1 for given in (channels, side)):
        raise ModelError(f"{extractor.name}: an input has channels and sides from 1 on, not less")
    if card is not None:
        dimension, channels = dimension or card.dimension, channels or card.input_channels
    x, number = taken(extractor, _inputs(dimension, channels, side), CENTRED)
    layers = extractor.layers(x.requires_grad_(True), number, CENTRED, identity(x.ndim - 2))
    shapes = tuple(tuple(layer.shape[2:]) for layer in layers)
    return Description(extractor, digest(path), x.shape[1], tuple(x.shape[2:]), _places(extractor, x, layers), shapes)


def parameter_lines(
    described: Description,
    model: str,
    *,
    mask: str | None = None,
    card: CardFile | None = None,
    voxel_size: float | None = None,
    jacobian: bool = False,
    level: int = 0,
) -> list[str]:
    """The lines of a parameter file that use a model in a resolution.

    `mask` has a 1 for each layer that is used; by default the first one alone. In Jacobian mode the patch is the
    field of view of the deepest of them, measured or from the card; in Static mode the whole image is taken at once.
    `voxel_size` in mm is that of the card unless given. What nobody knows becomes a comment.
    """
    mask = _checked_mask(described, mask or "1")
    if described.extractor.arguments == 1:
        # Such a model always makes all its layers, and elastix wants a digit for each.
        mask = mask.ljust(len(described.layers), "0")
    axes = described.dimension
    channels = [described.layers[at].channels for at, used in enumerate(mask) if used == "1"]
    patch = _patch(described, mask.rindex("1"), card) if jacobian else (0,) * axes
    if voxel_size is None:
        voxel_size = card.voxel_size if card else None
    elif not 0 < voxel_size < inf:
        raise ModelError(f"{model}: a voxel size is a positive number (mm), not {voxel_size:g}")
    line = partial(impact_line, level=level)
    return [
        line("ModelsPath", model),
        line("Dimension", axes),
        line("NumberOfChannels", described.input_channels),
        line("PatchSize", *patch) if patch else f"// ImpactPatchSize{level} is needed: no field of view was found",
        line("VoxelSize", *[voxel_size] * 3) if voxel_size else f"// ImpactVoxelSize{level} in mm is needed, too",
        line("LayersMask", mask),
        line("SubsetFeatures", *channels),
        line("PCA", *(0 for _ in channels)),
        line("Distance", *("L2" for _ in channels)),
        line("LayersWeight", *(1 for _ in channels)),
        f'(ImpactMode "{"Jacobian" if jacobian else "Static"}")',
    ]


def impact_line(key: str, *values: str | float, level: int = 0) -> str:
    """A line of a parameter file for a resolution: `ImpactModelsPath0` is the key "ModelsPath" of the first."""
    written = " ".join(f'"{value}"' if isinstance(value, str) else f"{value:.10g}" for value in values)
    return f"(Impact{key}{level} {written})"


def noise(shape: Sequence[int], seed: int = 0) -> Tensor:
    """An image of smooth and rough structures in the range of a CT: mean 0, deviation 100."""
    x = 100 * torch.randn(tuple(shape), generator=torch.Generator().manual_seed(seed))
    ramp = torch.linspace(-1, 1, shape[-1])
    return (x + 50 * ramp).clamp(*CENTRED[:2])


def _inputs(dimension: int | None, channels: int | None, side: int | None) -> Iterator[Tensor]:
    dimensions, numbers = (dimension,) if dimension else (3, 2), (channels,) if channels else CHANNELS
    sides = (side,) if side else SIDES
    for size, axes, number in product(sides, dimensions, numbers):
        if size**axes <= SIDES[1] ** 3:
            yield noise((1, number, *(size,) * axes))


def _places(extractor: Extractor, x: Tensor, layers: Sequence[Tensor]) -> tuple[Layer, ...]:
    """The geometry of the layers: measured up to the first that has too few samples to be measured on such an input."""
    shape: Size = tuple(x.shape[2:])
    few = [min(layer.shape[2:]) < ENOUGH <= max(shape) for layer in layers]
    number = max(few.index(True) if True in few else len(layers), 1)
    measured = measure(extractor, shape, layers[:number], x.shape[1], identity(len(shape)))
    return (*measured, *(_unmeasured(shape, layer) for layer in layers[number:]))


def _unmeasured(shape: Size, layer: Tensor) -> Layer:
    ratios = tuple(side / samples for side, samples in zip(shape, layer.shape[2:], strict=True))
    unknown = (nan,) * len(shape)
    return Layer(layer.shape[1], ratios, unknown, unknown, layer.requires_grad)


def _checked_mask(described: Description, mask: str) -> str:
    number = len(described.layers)
    if set(mask) - {"0", "1"} or "1" not in mask or len(mask) > number:
        raise ModelError(
            f"{described.extractor.name}: a mask of layers is up to {number} digits 0 and 1, one of them 1, not {mask}"
        )
    return mask


def _patch(described: Description, deepest: int, card: CardFile | None) -> tuple[int, ...] | None:
    measured = described.field_of_view[deepest]
    if all(map(isfinite, measured)):
        return tuple(round(size) for size in measured)
    told = None
    if card is not None and deepest < len(card.layers):
        told = card.layers[deepest].field_of_view or card.patch_size
    return (told,) * described.dimension if isinstance(told, int) else told
