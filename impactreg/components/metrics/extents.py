"""How far boxes can go under a transform: bounds that need no look at their points.

A sample of the Jacobian mode counts where its whole patch maps inside the moving image. Of most patches bounds tell: a
linear transform is known from its matrix, and a B-spline's displacements lie between the least and the largest of the
coefficients nearby, since its weights are positive and add up to 1.
"""

import math
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from impactreg.components.boxes import Boxes
from impactreg.components.transforms.bspline import BSplineTransform
from impactreg.components.transforms.linear import LinearTransform
from impactreg.components.transforms.transform import Combination, Transform
from impactreg.images.grid import Grid

ROUNDING = 1e-6
"""By how many voxels bounds are widened for what float64 may lose."""
MOST_TAPS = 512
"""Control points near a box, above which looking at them costs more than looking at the points of the box."""


class Told(NamedTuple):
    """Of which boxes all points are inside for sure, and of which one is outside for sure."""

    inside: Bool[Tensor, " boxes"]
    outside: Bool[Tensor, " boxes"]


class _Extents(NamedTuple):
    """Parallelepipeds `middle` +- their `arms`, of whose points each may be elsewhere by up to `slack` (mm) along the
    axes x, y, z of the world.
    """

    middle: Float[Tensor, "boxes dim"]
    arms: Float[Tensor, "some_boxes dim axes"]
    slack: Float[Tensor, "boxes dim"]


def told(transform: Combination, boxes: Boxes, grid: Grid) -> Told | None:
    """Which boxes map inside the buffer of an image, as far as bounds tell; None where nothing is known of the
    transform.
    """
    extents: _Extents | None = _of(boxes)
    for combination in transform.chain():
        added = combination.initial is not None and not combination.compose
        extents = None if added or extents is None else _moved(combination.current, extents)
    return None if extents is None else _within(extents, grid)


def _of(boxes: Boxes) -> _Extents:
    last = torch.tensor([n - 1 for n in boxes.shape[::-1]], dtype=boxes.corners.dtype, device=boxes.corners.device)
    arms = boxes.axes * (last / 2)
    return _Extents(boxes.corners + arms.sum(dim=2), arms, torch.zeros_like(boxes.corners))


def _moved(transform: Transform, extents: _Extents) -> _Extents | None:
    if isinstance(transform, LinearTransform):
        matrix = transform.matrix().to(extents.slack)
        return _Extents(transform(extents.middle), matrix @ extents.arms, extents.slack @ matrix.abs().T)
    if type(transform) is BSplineTransform:
        return _bent(transform, extents)
    return None


def _bent(transform: BSplineTransform, extents: _Extents) -> _Extents | None:
    grid = transform.grid
    middle, half = _on(grid, extents)
    # the support of order p at continuous index u begins at the control point floor(u - (p - 1) / 2) and has p + 1
    before = (transform.order - 1) / 2
    begin = torch.floor(middle - half - before - ROUNDING).long()
    end = torch.floor(middle + half - before + ROUNDING).long() + transform.order
    taps = ((end - begin).amax(dim=0) + 1).tolist()
    if math.prod(taps) > MOST_TAPS:
        return None
    near = transform.parameters.reshape(grid.dimension, -1).index_select(1, _places(begin, taps, grid).reshape(-1))
    least, most = (ends.T for ends in torch.aminmax(near.reshape(grid.dimension, len(begin), -1), dim=2))
    # beyond the grid there is no displacement
    leaves = ~((begin >= 0) & (end < _size(grid, begin))).all(dim=1, keepdim=True)
    least, most = torch.where(leaves, least.clamp(max=0), least), torch.where(leaves, most.clamp(min=0), most)
    return _Extents(extents.middle + (least + most) / 2, extents.arms, extents.slack + (most - least) / 2)


def _places(begin: Int[Tensor, "boxes dim"], taps: list[int], grid: Grid) -> Int[Tensor, "boxes taps"]:
    """Raster indices of the control points from `begin` on, those beyond the grid being replaced by the nearest."""
    found, stride = torch.zeros(len(begin), 1, dtype=torch.long, device=begin.device), 1
    for axis, (count, size) in enumerate(zip(taps, grid.size, strict=True)):
        along = begin[:, axis, None] + torch.arange(count, device=begin.device)
        along = along.clamp(min=0, max=size - 1) * stride
        found = (found[:, :, None] + along[:, None, :]).reshape(len(begin), -1)
        stride *= size
    return found


def _within(extents: _Extents, grid: Grid) -> Told:
    middle, half = _on(grid, extents._replace(slack=torch.zeros_like(extents.slack)))
    slack = _on(grid, extents)[1] - half + ROUNDING
    size = _size(grid, middle)
    low, high = middle - half, middle + half
    inside = (low - slack >= -0.5) & (high + slack < size - 0.5)
    # some corner of the parallelepiped is at least so far out
    outside = (low + slack < -0.5) | (high - slack >= size - 0.5)
    return Told(inside.all(dim=1), outside.any(dim=1))


def _on(grid: Grid, extents: _Extents) -> tuple[Float[Tensor, "boxes dim"], Float[Tensor, "boxes dim"]]:
    """Middles, and half the sides, of the index boxes that hold the extents."""
    inverse = torch.as_tensor(grid.inverse_matrix.copy()).to(extents.slack)
    half = (inverse @ extents.arms).abs().sum(dim=2) + extents.slack @ inverse.abs().T
    return grid.world_to_index(extents.middle), half


def _size(grid: Grid, like: Tensor) -> Tensor:
    return torch.tensor(grid.size, dtype=like.dtype, device=like.device)
