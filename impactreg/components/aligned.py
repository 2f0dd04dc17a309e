"""Resampling onto a grid that shares the image's origin and axes: one small matrix per axis instead of a gather per
voxel.
"""

import torch
from jaxtyping import Float
from torch import Tensor

from impactreg.components import splines
from impactreg.images.grid import Grid
from impactreg.images.image import Image


def resample_aligned(image: Image, grid: Grid, order: int) -> Image:
    """The image, B-spline interpolated (order 0 to 3, mirrored border), at the voxels of `grid`.

    `grid` must have the image's origin and direction. The result equals `Interpolant.of(image,
    order).values(grid.points())`.
    """
    data = image.data.to(torch.float64 if image.data.dtype == torch.float64 else torch.float32)
    for axis, (old, new) in enumerate(zip(reversed(image.grid.spacing), reversed(grid.spacing), strict=True), start=1):
        steps = torch.arange(grid.shape[axis - 1], dtype=torch.float64) * (new / old)
        matrix = _interpolation_matrix(order, data.shape[axis], steps).to(data)
        data = torch.tensordot(matrix, data, dims=([1], [axis])).movedim(0, axis)
    return Image(data.contiguous(), grid)


def _interpolation_matrix(order: int, n: int, index: Float[Tensor, " new"]) -> Float[Tensor, "new old"]:
    """What turns n samples along a line into the values at continuous indices."""
    start, weights = splines.weights(order, index)
    taps = start.long()[:, None] + torch.arange(order + 1)
    period = max(2 * (n - 1), 1)
    folded = taps.abs() % period
    folded = torch.where(folded >= n, period - folded, folded)
    gather = torch.zeros(len(index), n, dtype=torch.float64).scatter_add_(1, folded, weights)
    return gather if order < 2 or n == 1 else gather @ splines.inverse_filter(order, n)
