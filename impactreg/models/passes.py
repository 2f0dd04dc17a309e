"""One pass of a model over an image: tile by tile, slice by slice, with the geometry of its layers measured."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import groupby, product
from math import ceil, inf, lcm, prod

import torch
from jaxtyping import Float, Shaped
from torch import Tensor

from impactreg.errors import ModelError
from impactreg.images.grid import Grid
from impactreg.images.image import Image
from impactreg.images.storage import Storage
from impactreg.models.blending import Window, raised_cosine
from impactreg.models.equivariance import periods
from impactreg.models.extractor import Extractor
from impactreg.models.geometry import Layer, Matrix, independent, measure
from impactreg.models.tiling import Cut, Mosaic

BATCH_VOXELS = 1 << 18
BATCH_LIMIT = 32

Tile = tuple[int, tuple[int, ...]]
Progress = Callable[[int, int], None]
"""Called with the number of tiles that are done, and of all tiles."""


@dataclass(frozen=True)
class Tiling:
    """How tiles overlap and are blended.

    `overlap` holds for each axis (z, y, x) voxels, or a share of the tile if below 1; an axis of None has the least
    that covers the field of view, but at most half a tile. Without any, tiles overlap by half. `exact_ends` lets the
    last tile end with the image if the model takes such a tile; else it is continued by the image's border.
    """

    overlap: tuple[float | None, ...] | None = None
    window: Window = raised_cosine
    exact: bool = False


@dataclass(frozen=True)
class Pass:
    """One pass of a model over all frames [channel, frame, *space] of an image: the 3D image itself or its slices.

    `tile` is the size of tiles along the axes of space, `mask` tells which layers are wanted, and frames follow each
    other along `axis` of the image's space. The maps lie in `storage`, without it on the device of the model.
    """

    extractor: Extractor
    volume: Shaped[Tensor, "channel frame *space"]
    tile: tuple[int, ...]
    mask: tuple[bool, ...]
    statistics: Tensor
    direction: Matrix
    mixed_precision: bool = False
    tiling: Tiling = Tiling()
    axis: int = 0
    storage: Storage | None = None
    progress: Progress | None = None

    @torch.no_grad()
    def maps(self) -> list[tuple[Float[Tensor, "channel frame *space"], Layer]]:
        """The map and the geometry of each selected layer; raises `ModelError` where the model breaks its contract."""
        shape = tuple(self.volume.shape[2:])
        start = (0,) * len(shape)
        # The first tile is looked at at once: what is wrong with a model mostly is wrong everywhere.
        whole = [Cut.of(*sizes, 1) for sizes in zip(shape, self.tile, strict=True)]
        first = self._layers([(0, start)], whole, check_values=True)
        layers, step = self._periodic(self._geometry(first))
        cuts = self._cuts(layers, first, step)
        sizes = [tuple(layer.shape[2:]) for layer in first]
        mosaics = [self._mosaic(cuts, *pair) for pair in zip(layers, sizes, strict=True)]
        self._add(mosaics, [(0, start)], first)
        del first
        self._fill(mosaics, cuts)
        chosen = zip(range(len(layers)), mosaics, layers, self.mask, strict=True)
        return [(self._checked(mosaic.map, number), layer) for number, mosaic, layer, wanted in chosen if wanted]

    def _mosaic(self, cuts: Sequence[Cut], layer: Layer, per_tile: Sequence[int]) -> Mosaic:
        return Mosaic(
            cuts,
            layer,
            per_tile,
            self.volume.shape[1],
            window=self.tiling.window,
            storage=self.storage,
            frame_axis=self.axis,
        )

    def _fill(self, mosaics: list[Mosaic], cuts: Sequence[Cut]) -> None:
        total = prod(len(cut.starts) for cut in cuts) * self.volume.shape[1]
        done = 1
        for batch in self._batches(cuts):
            if self.progress is not None:
                self.progress(done, total)
            self._add(mosaics, batch, self._layers(batch, cuts))
            done += len(batch)
            if self.storage is not None:
                self.storage.release()
        if self.progress is not None:
            self.progress(total, total)

    def _geometry(self, layers: list[Tensor]) -> tuple[Layer, ...]:
        """Where the layers lie; nothing is measured if one tile holds the image and no wanted layer is strided."""
        pairs = zip(layers, self.mask, strict=True)
        fine = all(tuple(layer.shape[2:]) == self.tile for layer, wanted in pairs if wanted)
        if fine and self.tile == tuple(self.volume.shape[2:]):
            ones, zeros = (1.0,) * len(self.tile), (0.0,) * len(self.tile)
            return tuple(Layer(layer.shape[1], ones, zeros, (inf,) * len(self.tile), True) for layer in layers)
        with torch.enable_grad():
            return measure(self.extractor, self.tile, layers, self.volume.shape[0], self.direction)

    def _periodic(self, layers: tuple[Layer, ...]) -> tuple[tuple[Layer, ...], int]:
        """The layers with the reach that any of their samples may have, and the step at which tiles may start."""
        if not self.tiling.exact or self.tile == tuple(self.volume.shape[2:]):
            return layers, 1
        found = periods(self.extractor, self.tile, self.volume.shape[0], layers, self.direction)
        widened = tuple(_widened(*pair) for pair in zip(layers, found, strict=True))
        return widened, lcm(*(period for period in found if period))

    def _cuts(self, layers: Sequence[Layer], first: Sequence[Tensor], step: int) -> tuple[Cut, ...]:
        """The cut of each axis; raises `ModelError` where the layers of tiles cannot be put together."""
        sizes = zip(self.volume.shape[2:], self.tile, strict=True)
        cuts = tuple(self._cut(axis, *pair, layers, step) for axis, pair in enumerate(sizes))
        if not self.tiling.exact or not any(cut.overhanging for cut in cuts):
            return cuts
        shorter = tuple(replace(cut, continued=not cut.overhanging) for cut in cuts)
        corner = tuple(cut.starts[-1] for cut in cuts)
        try:
            last = self._layers([(0, corner)], shorter)
        except ModelError:
            return cuts
        fitting = all(_complete(cuts, *three) for three in zip(layers, first, last, strict=True))
        return shorter if fitting else cuts

    def _cut(self, axis: int, size: int, length: int, layers: Sequence[Layer], step: int) -> Cut:
        strides = [layer.stride[axis] for layer in layers]
        alignment = lcm(*(int(stride) for stride in strides if stride == int(stride)))
        if size > length and (any(stride != int(stride) for stride in strides) or alignment > length):
            written = ", ".join(f"{stride:g}" for stride in strides)
            raise ModelError(
                f"{self.extractor.name}: layers of stride {written} cannot be put together from patches of {length} "
                f"voxels along an axis of {size}; use a larger patch, or 0 for the whole axis"
            )
        wanted = [layer.reach[axis] for layer, chosen in zip(layers, self.mask, strict=True) if chosen]
        common = lcm(alignment, step)
        overlap = self._overlap(axis, length, max(wanted, default=inf))
        return Cut.of(size, length, common if common <= length else alignment, overlap)

    def _overlap(self, axis: int, length: int, reach: float) -> int | None:
        if self.tiling.overlap is None:
            return None
        given = self.tiling.overlap[axis]
        if given is None:
            return min(length // 2, ceil(2 * reach + 1)) if reach < inf else length // 2
        return int(given * length) if given < 1 else int(given)

    def _batches(self, cuts: Sequence[Cut]) -> Iterator[list[Tile]]:
        """All tiles but the first, as many of one size at a time as the memory of a large tile allows."""
        starts = list(product(*(cut.starts for cut in cuts)))
        rest = [(frame, start) for frame in range(self.volume.shape[1]) for start in starts][1:]
        channels = self.volume.shape[0]
        count = max(1, min(BATCH_LIMIT, BATCH_VOXELS // (channels * prod(self.tile))))
        if rest and count > 1 and not independent(self.extractor, self.tile, channels, len(self.mask), self.direction):
            count = 1
        for _, alike in groupby(rest, lambda tile: _ends(cuts, tile[1])):
            tiles = list(alike)
            for first in range(0, len(tiles), count):
                yield tiles[first : first + count]

    def _layers(self, batch: list[Tile], cuts: Sequence[Cut], *, check_values: bool = False) -> list[Tensor]:
        tiles = torch.stack([self._take(cuts, frame, starts) for frame, starts in batch])
        tiles = tiles.to(self.extractor.device, torch.float32)
        number, precision = len(self.mask), self.mixed_precision
        return self.extractor.layers(
            tiles, number, self.statistics, self.direction, mixed_precision=precision, check_values=check_values
        )

    def _take(self, cuts: Sequence[Cut], frame: int, starts: tuple[int, ...]) -> Shaped[Tensor, "channel *space"]:
        tile = self.volume[:, frame]
        for axis, (cut, start) in enumerate(zip(cuts, starts, strict=True), start=1):
            tile = cut.take(tile, axis, start)
        return tile

    def _add(self, mosaics: list[Mosaic], batch: list[Tile], layers: list[Tensor]) -> None:
        for mosaic, layer, wanted in zip(mosaics, layers, self.mask, strict=True):
            for (frame, starts), values in zip(batch, layer.float(), strict=True):
                if wanted:
                    mosaic.add(frame, starts, values)

    def _checked(self, found: Tensor, number: int) -> Tensor:
        if not _finite(found):
            cause = "" if _finite(self.volume) else ", as has its input"
            which = f"layer {number + 1} of {len(self.mask)}"
            raise ModelError(f"{self.extractor.name}: {which} has values that are not finite numbers{cause}")
        return found


def frames(extractor: Extractor, image: Image, model_dimension: int, channels: int, axis: int = 0) -> Tensor:
    """The image as [channel, frame, *space] for a model: one frame, or the slices along `axis` of space for a 2D model.

    One channel is repeated, without taking memory. Raises `ModelError` where the model cannot take such an image.
    """
    if not 2 <= model_dimension <= image.dimension:
        raise ModelError(f"{extractor.name}: a {model_dimension}D model cannot take a {image.dimension}D image")
    if image.channels not in (1, channels):
        raise ModelError(f"{extractor.name}: the model takes {channels} channels, but the image has {image.channels}")
    data = image.data.expand(channels, *image.data.shape[1:])
    return data.movedim(1 + axis, 1) if model_dimension < image.dimension else data[:, None]


def tile_shape(extractor: Extractor, patch_size: Sequence[int], volume: Tensor) -> tuple[int, ...]:
    """The size of tiles (z, y, x) that a patch size (x, y, z) means; 0 is the whole axis. Raises `ModelError`."""
    shape = volume.shape[2:]
    if len(patch_size) != len(shape) or min(patch_size) < 0:
        written = " ".join(map(str, patch_size))
        raise ModelError(f"{extractor.name}: a patch size of {len(shape)} numbers from 0 on is needed, not {written}")
    return tuple(patch or size for patch, size in zip(reversed(patch_size), shape, strict=True))


def placed(grid: Grid, data: Float[Tensor, "channel frame *space"], layer: Layer, axis: int = 0) -> Image:
    """A layer on its grid, found from the image's grid; slices of a 2D model keep their places along `axis`."""
    stride, offset = list(layer.stride), list(layer.offset)
    if len(stride) < grid.dimension:
        stride.insert(axis, 1.0)
        offset.insert(axis, 0.0)
        values = data.movedim(1, 1 + axis)
    else:
        values = data[:, 0]
    origin = grid.origin
    if any(offset):
        (moved,) = grid.index_to_world(torch.tensor([offset[::-1]], dtype=torch.float64)).tolist()
        origin = tuple(moved)
    spacing = tuple(step * times for step, times in zip(grid.spacing, reversed(stride), strict=True))
    return Image(values, Grid(tuple(values.shape[:0:-1]), spacing, origin, grid.direction))


def _widened(layer: Layer, period: int | None) -> Layer:
    """What a sample sees lies further to one side of it where it stands elsewhere in the period; or it sees all."""
    further = zip(layer.reach, layer.stride, strict=True)
    return replace(layer, reach=tuple(inf if period is None else reach + period - stride for reach, stride in further))


def _finite(values: Tensor) -> bool:
    bounds = (torch.aminmax(channel) for channel in values)
    return all(bool(torch.isfinite(low) & torch.isfinite(high)) for low, high in bounds)


def _ends(cuts: Sequence[Cut], starts: tuple[int, ...]) -> tuple[bool, ...]:
    """Along which axes a tile is shorter than others."""
    pairs = zip(cuts, starts, strict=True)
    return tuple(not cut.continued and start == cut.starts[-1] for cut, start in pairs)


def _complete(cuts: Sequence[Cut], layer: Layer, first: Tensor, last: Tensor) -> bool:
    """Whether the shorter last tile has all samples that are missing at the end of each axis."""
    return all(
        round(cut.starts[-1] / layer.stride[axis]) + last.shape[2 + axis]
        == cut.samples(layer.stride[axis], layer.offset[axis], first.shape[2 + axis])
        for axis, cut in enumerate(cuts)
    )
