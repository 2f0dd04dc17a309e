"""Resampling between grids with the same axes, slab by slab: what a model sees, and its results on the image's grid."""

from dataclasses import dataclass
from functools import cached_property
from math import sqrt

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from impactreg.errors import ImageError
from impactreg.images.grid import Grid
from impactreg.images.image import Image
from impactreg.images.storage import Storage, slabs

POLE = sqrt(3) - 2
"""Of the filter that turns samples into coefficients of a cubic B-spline."""
TAPS = 18
"""So far from a sample the filter has fallen below double precision's tenth digit."""


@dataclass(frozen=True)
class Regridding:
    """An image, B-spline interpolated at the voxels of a grid with the same axes: order 1 linear, or 3.

    Linear interpolation continues the image by its border values, order 3 mirrors it, as elastix's interpolators do.
    Raises `ImageError` where the axes differ.
    """

    image: Image
    grid: Grid
    order: int

    def __post_init__(self) -> None:
        gap = np.abs(np.array(self.grid.direction) - np.array(self.image.grid.direction)).max()
        if self.grid.dimension != self.image.dimension or gap > 1e-6:
            raise ImageError("an image is only resampled onto a grid with the same axes")

    def rows(self, part: slice) -> Float[Tensor, "channel *space"]:
        """The values at some indices of the grid's slowest axis, as float32 (float64 for an image of float64)."""
        rows = range(*part.indices(self.grid.shape[0]))
        first, last, matrix = (rows.start, rows.stop, None) if self._is_same(0) else self._local(0, rows)
        data = self.image.data[:, first:last]
        data = data.to(torch.float64 if data.dtype == torch.float64 else torch.float32)
        matrices: tuple[Tensor | None, ...] = (matrix, *self._full)
        for axis, weights in enumerate(matrices):
            if weights is not None:
                data = torch.tensordot(weights.to(data), data, dims=([1], [axis + 1])).movedim(0, axis + 1)
        return data.contiguous()

    def all(self, storage: Storage) -> Image:
        """The whole image; the image itself where nothing changes."""
        if all(self._is_same(axis) for axis in range(self.grid.dimension)):
            return self.image
        kind = torch.float64 if self.image.data.dtype == torch.float64 else torch.float32
        data = storage.zeros((self.image.channels, *self.grid.shape), kind)
        for part in slabs(self.grid.shape[0], data[:, 0].nbytes):
            data[:, part] = self.rows(part)
            storage.release()
        return Image(data, self.grid)

    @cached_property
    def _full(self) -> tuple[Tensor | None, ...]:
        axes = range(1, self.grid.dimension)
        return tuple(self._spread(axis, self._local(axis, range(self.grid.shape[axis]))) for axis in axes)

    def _spread(self, axis: int, local: tuple[int, int, Tensor]) -> Tensor | None:
        first, last, matrix = local
        if self._is_same(axis):
            return None
        spread = matrix.new_zeros(len(matrix), self.image.data.shape[1 + axis])
        spread[:, first:last] = matrix
        return spread

    def _is_same(self, axis: int) -> bool:
        count = self.grid.shape[axis]
        places = self._places(axis, range(count))
        return count == self.image.grid.shape[axis] and bool((places - torch.arange(count)).abs().max() < 1e-6)

    def _places(self, axis: int, indices: range) -> Float[Tensor, " indices"]:
        """Continuous indices of the image at indices of the grid along an axis."""
        (start,) = self.image.grid.world_to_index(torch.tensor([self.grid.origin], dtype=torch.float64)).tolist()
        step = self.grid.spacing[::-1][axis] / self.image.grid.spacing[::-1][axis]
        first: float = start[::-1][axis]
        return first + step * torch.arange(indices.start, indices.stop, dtype=torch.float64)

    def _local(self, axis: int, indices: range) -> tuple[int, int, Float[Tensor, "indices local"]]:
        """The range of samples that some values depend on, and the weights of these samples."""
        count = self.image.data.shape[1 + axis]
        taps, weights = cardinal(self.order, self._places(axis, indices))
        folded = _clamped(taps, count) if self.order < 2 else _mirrored(taps, count)
        first, last = int(folded.min()), int(folded.max()) + 1
        return first, last, weights.new_zeros(len(taps), last - first).scatter_add_(1, folded - first, weights)


def cardinal(order: int, places: Float[Tensor, " places"]) -> tuple[Tensor, Float[Tensor, "places taps"]]:
    """The samples around each continuous index and their weights in the interpolating spline of order 1 or 3."""
    base = places.floor()
    if order < 2:
        part = (places - base)[:, None]
        return base.long()[:, None] + torch.arange(2), torch.cat([1 - part, part], 1)
    offsets = torch.arange(-TAPS, TAPS + 2, dtype=torch.float64)
    # M. Unser, "Splines: a perfect fit for signal and image processing", 1999: the filter's impulse response
    knots = torch.arange(-1, 3, dtype=torch.float64)
    response = -6 * POLE / (1 - POLE**2) * POLE ** (knots[:, None] - offsets).abs()
    return base.long()[:, None] + offsets.long(), _cubic((places - base)[:, None] - knots) @ response


def _cubic(x: Tensor) -> Tensor:
    x = x.abs()
    return torch.where(x < 1, 2 / 3 - x**2 + x**3 / 2, (2 - x).clamp(min=0) ** 3 / 6)


def _clamped(index: Tensor, count: int) -> Tensor:
    return index.clamp(0, count - 1)


def _mirrored(index: Tensor, count: int) -> Tensor:
    period = max(2 * (count - 1), 1)
    folded = index.abs() % period
    return torch.where(folded >= count, period - folded, folded)
