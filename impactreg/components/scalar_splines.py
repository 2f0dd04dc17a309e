"""B-splines of one number per voxel: values and index gradients at many points, points last in memory.

With a single channel there is no row of channels to multiply at once, so the points themselves are the rows: every tap
is one vector over all points, and axis by axis these vectors are weighted and summed.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import torch
from jaxtyping import Float, Int
from torch import Tensor

from impactreg.components import splines

Weights = Sequence[Float[Tensor, "dim points"]]
"""For every tap, its weights along x, y, z."""


@dataclass(frozen=True)
class Scalars:
    """The coefficients of a spline of some order (0 to 3), in raster order on a grid of `shape` (z, y, x).

    Index 0 lies `rim` grid points inside that grid on every axis.
    """

    coefficients: Float[Tensor, " numbers"]
    order: int
    shape: tuple[int, ...]
    rim: int = 0


def value(spline: Scalars, index: Float[Tensor, "points dim"]) -> Float[Tensor, " points"]:
    """The spline at continuous indices (x, y, z)."""
    taps, offset = _taps(spline, index)
    weights = splines.basis(spline.order, offset)
    for axis in range(len(offset) - 1, -1, -1):
        taps = _along(taps, weights, axis)
    return taps


def value_and_slopes(
    spline: Scalars, index: Float[Tensor, "points dim"]
) -> tuple[Float[Tensor, " points"], Float[Tensor, "points dim"]]:
    """As `value`, with the derivatives to the indices x, y, z."""
    order = spline.order
    taps, offset = _taps(spline, index)
    weights, slopes = splines.basis(order, offset), splines.basis_derivative(order, offset)
    gradient: list[Tensor] = []
    for axis in range(len(offset) - 1, -1, -1):
        gradient = [_along(partial, weights, axis) for partial in gradient]
        gradient.append(taps[1] - taps[0] if order == 1 else _along(taps, slopes, axis))
        taps = _along(taps, weights, axis)
    return taps, torch.stack(gradient[::-1], dim=1)


def _taps(spline: Scalars, index: Float[Tensor, "points dim"]) -> tuple[Tensor, Float[Tensor, "dim points"]]:
    """The coefficients under every point, axes z, y, x and points, and the offset of each point from its first tap."""
    along_axes = index.T.contiguous()
    start = splines.support_start(spline.order, along_axes)
    steps = start.new_tensor(splines.raster_strides(spline.shape))
    first = (start * steps[:, None]).sum(dim=0).long()
    offsets = _offsets(spline.order + 1, spline.shape, spline.rim, index.device)
    found = spline.coefficients.index_select(0, (offsets[:, None] + first).reshape(-1))
    shape = [spline.order + 1] * len(spline.shape)
    return found.reshape(*shape, -1), (along_axes - start).to(found.dtype)


def _along(taps: Tensor, weights: Weights, axis: int) -> Tensor:
    """The sum over the first axis of the taps, which is `axis` (0 for x) of space."""
    if len(weights) == 2:
        return torch.lerp(taps[0], taps[1], weights[1][axis])
    total = taps[0] * weights[0][axis]
    for tap, weight in zip(taps[1:], weights[1:], strict=True):
        total.addcmul_(tap, weight[axis])
    return total


@lru_cache(maxsize=64)
def _offsets(taps: int, shape: tuple[int, ...], rim: int, device: torch.device) -> Int[Tensor, " block"]:
    """Raster offsets of a block of taps, axes z, y, x, that starts `rim` grid points behind each point's own."""
    offsets = torch.zeros(1, dtype=torch.long)
    for step in reversed(splines.raster_strides(shape)):
        offsets = (offsets[:, None] + (torch.arange(taps) + rim) * step).reshape(-1)
    return offsets.to(device)
