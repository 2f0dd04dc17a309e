"""Feature maps of a whole image, as the Static mode of the IMPACT metric uses them: in one pass or in blended tiles."""

from collections.abc import Iterator, Sequence
from math import inf

import torch
from torch import Tensor

from impactreg.errors import ModelError
from impactreg.images import sums
from impactreg.images.grid import Grid
from impactreg.images.image import Image
from impactreg.images.storage import slabs
from impactreg.models.extractor import Extractor, rounded_direction
from impactreg.models.geometry import Matrix
from impactreg.models.passes import Pass, frames, placed, tile_shape


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
    count = image.data.numel()
    low = min(float(piece.min()) for piece in _pieces(image))
    high = max(float(piece.max()) for piece in _pieces(image))
    mean = sum(float(sums.total(piece.double())) for piece in _pieces(image)) / count
    squares = sum(float(sums.total((piece.double() - mean).square())) for piece in _pieces(image))
    return low, high, mean, (squares / (count - 1)) ** 0.5 if count > 1 else 0.0


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
    volume = frames(extractor, image, model_dimension, channels)
    tile = tile_shape(extractor, patch_size, volume)
    direction: Matrix = tuple(map(tuple, rounded_direction(image.grid.direction).double().tolist()))
    run = Pass(extractor, volume, tile, tuple(layers_mask), torch.as_tensor(statistics), direction, mixed_precision)
    return [placed(image.grid, data, layer) for data, layer in run.maps()]


def _pieces(image: Image) -> Iterator[Tensor]:
    """All voxels, a slab at a time: in double precision, a whole image could be too much for the memory."""
    for part in slabs(image.data.shape[1], image.data[:, 0].numel() * torch.float64.itemsize):
        yield image.data[:, part]
