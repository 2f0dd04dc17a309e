"""Coarser exact grids of feature maps, and where their points lie in the voxels of another map."""

import math
from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from impactreg.images.grid import Grid
from impactreg.images.image import Image


def pooled(image: Image, shape: Sequence[int], *, corners: bool = False) -> Image:
    """The means over cells that share each axis evenly (adaptive average pooling), with the cells' centres as voxels.

    `shape` (z, y, x) has at most as many cells as there are voxels. With `corners` the cells are put as `stretched`
    does.
    """
    if tuple(shape) == image.grid.shape:
        return image
    if len(shape) == 3:
        data = functional.adaptive_avg_pool3d(image.data, (shape[0], shape[1], shape[2]))
    else:
        data = functional.adaptive_avg_pool2d(image.data, (shape[0], shape[1]))
    if corners:
        return stretched(data, image.grid)
    factors = [n / c for n, c in zip(image.grid.shape, shape, strict=True)]
    return Image(data, coarser(image.grid, factors, [(f - 1) / 2 for f in factors], shape))


def stretched(data: Float[Tensor, "channel *coarse"], grid: Grid) -> Image:
    """Data on a grid whose outermost points are those of `grid`, and whose only point along an axis is its middle."""
    sizes = list(zip(grid.shape, data.shape[1:], strict=True))
    factors = [(n - 1) / (c - 1) if c > 1 and n > 1 else float(n) for n, c in sizes]
    return Image(data, coarser(grid, factors, [0.0 if c > 1 else (n - 1) / 2 for n, c in sizes], data.shape[1:]))


def thinned(image: Image, factors: Sequence[int]) -> Image:
    """Every factor-th voxel along each axis (z, y, x), from the middle of the first `factor` on."""
    if max(factors) == 1:
        return image
    first = [min(f // 2, n - 1) for f, n in zip(factors, image.grid.shape, strict=True)]
    data = image.data[(slice(None), *(slice(start, None, f) for start, f in zip(first, factors, strict=True)))]
    return Image(data, coarser(image.grid, factors, first, data.shape[1:]))


def coarser(grid: Grid, factors: Sequence[float], first: Sequence[float], shape: Sequence[int]) -> Grid:
    """The grid of so many points (all z, y, x) that begins at the index `first` and has steps of `factors` voxels."""
    start = torch.tensor([list(reversed(list(map(float, first))))], dtype=torch.float64)
    origin = grid.index_to_world(start)[0].tolist()
    spacing = [step * f for step, f in zip(grid.spacing, reversed(factors), strict=True)]
    return Grid.of(tuple(reversed(list(shape))), spacing, origin, grid.direction)


def alike(image: Image, lattice: Grid, *, corners: bool = False) -> Image:
    """A map pooled on its own grid as near as whole factors come to the spacing of a lattice; with `corners` as near
    as whole numbers of points come, which are put as `stretched` does.
    """
    if corners:
        axes = zip(image.grid.size, image.grid.spacing, lattice.spacing, strict=True)
        counts = [max(1, min(n, round((n - 1) * step / wanted) + 1)) for n, step, wanted in axes]
        return pooled(image, counts[::-1], corners=True)
    ratios = zip(lattice.spacing, image.grid.spacing, image.grid.size, strict=True)
    size = [max(1, n // max(1, math.floor(a / b + 0.5))) for a, b, n in ratios]
    return pooled(image, size[::-1])


def axes_in(grid: Grid, moving: Grid, linear: Float[Tensor, "dim dim"]) -> Float[Tensor, "dim dim"]:
    """What turns millimetres along the axes of `grid` into voxels of `moving`, with a linear map in between."""
    direction = torch.tensor(grid.direction, dtype=torch.float64)
    return torch.tensor(moving.inverse_matrix.copy()) @ linear @ direction


def looked_up(points: Float[Tensor, "points dim"], moving: Grid) -> Float[Tensor, "dim points"]:
    """World points as continuous voxel indices (x, y, z) of a map, as float32: half a millionth of 1,000 voxels."""
    return moving.world_to_index(points).T.to(torch.float32).contiguous()
