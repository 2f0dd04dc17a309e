"""Feature maps of a whole image, as the Static mode of the IMPACT metric uses them: in one pass or in blended tiles."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from math import inf, lcm, prod

import torch
from jaxtyping import Float, Shaped
from torch import Tensor

from impactreg.errors import ModelError
from impactreg.images import sums
from impactreg.images.grid import Grid
from impactreg.images.image import Image
from impactreg.models.extractor import Extractor, rounded_direction
from impactreg.models.geometry import Layer, Matrix, independent, measure
from impactreg.models.tiling import Cut, Mosaic

BATCH_VOXELS = 1 << 18
BATCH_LIMIT = 32

Tile = tuple[int, tuple[int, ...]]


def sampling_grid(grid: Grid, voxel_size: Sequence[float]) -> Grid:
    """The grid on which a model sees an image: origin and direction kept, spacing exactly `voxel_size` (mm; x, y, z).

    Each axis has size * spacing / voxel points, rounded, at least one (`ImpactVoxelSize`). Raises `ModelError` where
    the numbers do not fit the grid.
    """
    if len(voxel_size) != grid.dimension or not all(0 < step < inf for step in voxel_size):
        raise ModelError(f"a voxel size of {grid.dimension} positive numbers (mm) is needed, not {tuple(voxel_size)}")
    extents = zip(grid.size, grid.spacing, voxel_size, strict=True)
    size = tuple(max(1, int(count * step / voxel + 0.5)) for count, step, voxel in extents)
    return Grid(size, tuple(map(float, voxel_size)), grid.origin, grid.direction)


def statistics(image: Image) -> tuple[float, float, float, float]:
    """Minimum, maximum, mean and sigma of all voxels, as models are given them.

    Sigma is the sample standard deviation (N - 1), as in `itk::StatisticsImageFilter`; it is 0 for a single voxel.
    """
    values = image.data.double()
    sigma = float(sums.deviation(values)) if values.numel() > 1 else 0.0
    return float(values.min()), float(values.max()), float(sums.mean(values)), sigma


def extract(
    extractor: Extractor,
    image: Image,
    *,
    model_dimension: int,
    channels: int,
    patch_size: Sequence[int],
    layers_mask: Sequence[bool],
    statistics: "Sequence[float] | Tensor",
    mixed_precision: bool = False,
) -> list[Image]:
    """The layers of an image that `layers_mask` selects, each on its own exact grid, as float32 on the model's device.

    `image` already lies on its `sampling_grid`; one channel is repeated to `channels`. A `patch_size`
    (`ImpactPatchSize`; x, y, z, as many as `model_dimension`) of 0 is the whole axis; else half-overlapping tiles of
    that size are blended, and an image smaller than a tile is continued by its border. A 2D model sees a 3D image
    slice by slice along z. `statistics` are those of the whole image. Besides its result this needs the memory of one
    batch of tiles. Raises `ModelError` where the model does not fit the image or breaks its contract.
    """
    volume = _volume(extractor, image, model_dimension, channels)
    tile = _tile_shape(extractor, patch_size, volume)
    direction: Matrix = tuple(map(tuple, rounded_direction(image.grid.direction).double().tolist()))
    run = _Pass(extractor, volume, tile, tuple(layers_mask), torch.as_tensor(statistics), direction, mixed_precision)
    flat = image.dimension == model_dimension
    return [_placed(image.grid, data[:, 0] if flat else data, layer) for data, layer in run.maps()]


@dataclass(frozen=True)
class _Pass:
    """One pass of a model over all frames [channel, frame, *space] of an image: the 3D image itself or its slices."""

    extractor: Extractor
    volume: Shaped[Tensor, "channel frame *space"]
    tile: tuple[int, ...]
    mask: tuple[bool, ...]
    statistics: Tensor
    direction: Matrix
    mixed_precision: bool

    @torch.no_grad()
    def maps(self) -> list[tuple[Float[Tensor, "channel frame *space"], Layer]]:
        """The map and the geometry of each selected layer."""
        shape = tuple(self.volume.shape[2:])
        start = (0,) * len(shape)
        first = self._layers([(0, start)], [Cut.of(*sizes, 1) for sizes in zip(shape, self.tile, strict=True)])
        layers = self._geometry(first)
        cuts = _cuts(self.extractor, shape, self.tile, layers)
        sizes = [tuple(layer.shape[2:]) for layer in first]
        mosaics = [Mosaic(cuts, layer, size, self.volume.shape[1]) for layer, size in zip(layers, sizes, strict=True)]
        self._add(mosaics, [(0, start)], first)
        del first
        for batch in self._batches(cuts):
            self._add(mosaics, batch, self._layers(batch, cuts))
        chosen = zip(mosaics, layers, self.mask, strict=True)
        return [(mosaic.map, layer) for mosaic, layer, wanted in chosen if wanted]

    def _geometry(self, layers: list[Tensor]) -> tuple[Layer, ...]:
        """Where the layers lie; nothing is to be measured if one tile holds the image and no layer is strided."""
        if self.tile == tuple(self.volume.shape[2:]) and all(tuple(layer.shape[2:]) == self.tile for layer in layers):
            ones, zeros = (1.0,) * len(self.tile), (0.0,) * len(self.tile)
            return tuple(Layer(layer.shape[1], ones, zeros, (inf,) * len(self.tile), True) for layer in layers)
        with torch.enable_grad():
            return measure(self.extractor, self.tile, layers, self.volume.shape[0], self.direction)

    def _batches(self, cuts: Sequence[Cut]) -> Iterator[list[Tile]]:
        """All tiles but the first, as many at a time as the memory of a large tile allows."""
        starts = list(product(*(cut.starts for cut in cuts)))
        rest = [(frame, start) for frame in range(self.volume.shape[1]) for start in starts][1:]
        channels = self.volume.shape[0]
        count = max(1, min(BATCH_LIMIT, BATCH_VOXELS // (channels * prod(self.tile))))
        if rest and count > 1 and not independent(self.extractor, self.tile, channels, len(self.mask), self.direction):
            count = 1
        for first in range(0, len(rest), count):
            yield rest[first : first + count]

    def _layers(self, batch: list[Tile], cuts: Sequence[Cut]) -> list[Tensor]:
        tiles = torch.stack([self._cut(cuts, frame, starts) for frame, starts in batch])
        tiles = tiles.to(self.extractor.device, torch.float32)
        number, precision = len(self.mask), self.mixed_precision
        return self.extractor.layers(tiles, number, self.statistics, self.direction, mixed_precision=precision)

    def _cut(self, cuts: Sequence[Cut], frame: int, starts: tuple[int, ...]) -> Shaped[Tensor, "channel *space"]:
        tile = self.volume[:, frame]
        for axis, (cut, start) in enumerate(zip(cuts, starts, strict=True), start=1):
            tile = cut.take(tile, axis, start)
        return tile

    def _add(self, mosaics: list[Mosaic], batch: list[Tile], layers: list[Tensor]) -> None:
        for mosaic, layer, wanted in zip(mosaics, layers, self.mask, strict=True):
            for (frame, starts), values in zip(batch, layer.float(), strict=True):
                if wanted:
                    mosaic.add(frame, starts, values)


def _volume(
    extractor: Extractor, image: Image, model_dimension: int, channels: int
) -> Shaped[Tensor, "channel frame *space"]:
    if not 2 <= model_dimension <= image.dimension:
        raise ModelError(f"{extractor.name}: a {model_dimension}D model cannot take a {image.dimension}D image")
    if image.channels not in (1, channels):
        raise ModelError(f"{extractor.name}: the model takes {channels} channels, but the image has {image.channels}")
    data = image.data.expand(channels, *image.data.shape[1:])
    return data if model_dimension < image.dimension else data[:, None]


def _tile_shape(extractor: Extractor, patch_size: Sequence[int], volume: Tensor) -> tuple[int, ...]:
    shape = volume.shape[2:]
    if len(patch_size) != len(shape) or min(patch_size) < 0:
        written = " ".join(map(str, patch_size))
        raise ModelError(f"{extractor.name}: a patch size of {len(shape)} numbers from 0 on is needed, not {written}")
    return tuple(patch or size for patch, size in zip(reversed(patch_size), shape, strict=True))


def _cuts(
    extractor: Extractor, shape: tuple[int, ...], tile: tuple[int, ...], layers: Sequence[Layer]
) -> tuple[Cut, ...]:
    """The cut of each axis; raises `ModelError` where the layers of tiles cannot be put together."""
    cuts = []
    for axis, (size, length) in enumerate(zip(shape, tile, strict=True)):
        strides = [layer.stride[axis] for layer in layers]
        alignment = lcm(*(int(stride) for stride in strides if stride == int(stride)))
        if size > length and (any(stride != int(stride) for stride in strides) or alignment > length):
            written = ", ".join(f"{stride:g}" for stride in strides)
            raise ModelError(
                f"{extractor.name}: layers of stride {written} cannot be put together from patches of {length} voxels "
                f"along an axis of {size}; use a larger patch, or 0 for the whole axis"
            )
        cuts.append(Cut.of(size, length, alignment))
    return tuple(cuts)


def _placed(grid: Grid, data: Float[Tensor, "channel *space"], layer: Layer) -> Image:
    """A layer on its grid, found from the image's grid; slices of a 2D model keep their places along z."""
    missing = grid.dimension - len(layer.stride)
    stride = (*reversed(layer.stride), *[1.0] * missing)
    offset = (*reversed(layer.offset), *[0.0] * missing)
    origin = grid.origin
    if any(offset):
        (moved,) = grid.index_to_world(torch.tensor([offset], dtype=torch.float64)).tolist()
        origin = tuple(moved)
    spacing = tuple(step * times for step, times in zip(grid.spacing, stride, strict=True))
    return Image(data, Grid(tuple(data.shape[:0:-1]), spacing, origin, grid.direction))
