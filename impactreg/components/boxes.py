"""Boxes: many small lattices of points with the same shape, and B-splines at all of their points at once.

Where the axes of a lattice are those of a B-spline's grid, the weights of a point are products of the weights along the
axes, which the points of a lattice share: a box is then one small block of coefficients, multiplied by one small matrix
an axis, instead of a gather of (order + 1)^D numbers for every point.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from jaxtyping import Float, Int, Shaped
from torch import Tensor

from impactreg.components import splines
from impactreg.components.interpolators import Interpolant
from impactreg.components.transforms.bspline import BSplineTransform
from impactreg.components.transforms.transform import Combination, Mapped, Parameters, Points
from impactreg.images import sums
from impactreg.images.grid import Grid
from impactreg.images.image import Image

POINTS_AT_ONCE = 1 << 13
"""Points that are transformed together where nothing better can be done: what is known of them stays in the cache."""
MOST_MARGIN = 32
"""Voxels beyond the border of an image for which coefficients are kept; points farther outside cost more."""
PARALLEL = 1e-9
"""How far the axes of a lattice may lean, as a share of their length, and still be those of a grid."""


@dataclass(frozen=True, eq=False)
class Boxes:
    """Lattices of `shape` (last axis first, as tensors have it): point (i, j, k) of box n, with i along the first axis,
    lies at corners[n] + axes[n] (i, j, k) in world space (mm); the axes of one box stand for those of all.
    """

    corners: Float[Tensor, "boxes dim"]
    axes: Float[Tensor, "some_boxes dim axes"]
    shape: tuple[int, ...]
    known_axes: "np.ndarray | None" = None
    """The axes that all boxes share, where they are known without asking the device."""

    def __len__(self) -> int:
        return len(self.corners)

    def __getitem__(self, some: slice) -> "Boxes":
        if len(self.axes) > 1:
            return Boxes(self.corners[some], self.axes[some], self.shape)
        return Boxes(self.corners[some], self.axes, self.shape, self._shared_axes)

    def some(self, which: Shaped[Tensor, " some"]) -> "Boxes":
        """The boxes of these numbers, or those where `which` is true."""
        axes = self.axes[which] if len(self.axes) > 1 else self.axes
        return Boxes(self.corners[which], axes, self.shape, self.known_axes)

    @property
    def points_each(self) -> int:
        """How many points a box has."""
        return math.prod(self.shape)

    @cached_property
    def points(self) -> Points:
        """All points, box by box, each in raster order."""
        offsets = _raster(self.shape, self.corners) @ self.axes.mT
        return (self.corners[:, None, :] + offsets).reshape(-1, self.corners.shape[1])

    def within(self, start: Sequence[int], shape: tuple[int, ...]) -> "Boxes":
        """The same part of every box: from index `start` (tensor order) on, of another shape."""
        moved = torch.tensor(start[::-1], dtype=self.corners.dtype, device=self.corners.device)
        return Boxes(self.corners + self.axes @ moved, self.axes, shape, self.known_axes)

    def steps_on(self, grid: Grid) -> tuple[float, ...] | None:
        """By how many voxels of a grid the points of a box go on along each axis; None where the axes differ."""
        if len(self.axes) > 1 or self.axes.shape[1] != self.axes.shape[2]:
            return None
        turned = grid.inverse_matrix @ self._shared_axes
        steps = np.diagonal(turned)
        lean = np.abs(turned - np.diag(steps)).max()
        return tuple(float(s) for s in steps) if lean <= PARALLEL * np.abs(steps).min() else None

    @cached_property
    def _shared_axes(self) -> "np.ndarray":
        return np.asarray(self.axes[0].cpu().numpy()) if self.known_axes is None else self.known_axes


@dataclass(frozen=True, eq=False)
class BoxSupport:
    """The block of coefficients under every box, on a grid of `shape` (z, y, x).

    `start` is the first grid point of each block (x, y, z); `weights` [boxes, points, taps] are those of the block's
    points along each axis, x first, for each point of the box along that axis.
    """

    start: Int[Tensor, "boxes dim"]
    weights: Sequence[Tensor]
    shape: tuple[int, ...]

    @classmethod
    def of(
        cls,
        index: Float[Tensor, "boxes dim"],
        steps: Sequence[float],
        counts: Sequence[int],
        order: int,
        shape: tuple[int, ...],
    ) -> "BoxSupport":
        """Of boxes of `counts` points (x, y, z) that start at continuous grid indices and go on by `steps`.

        The weights of a point are zero where its support leaves the grid.
        """
        numbers = torch.tensor(steps, dtype=index.dtype, device=index.device)
        starts, weights = [], []
        for axis, (count, size) in enumerate(zip(counts, reversed(shape), strict=True)):
            along = index[:, axis, None] + torch.arange(count, dtype=index.dtype, device=index.device) * numbers[axis]
            start, weight = _weights(along, order, size, _taps(steps[axis], count, order, size))
            starts.append(start)
            weights.append(weight)
        return cls(torch.stack(starts, dim=1), weights, shape)

    def values(self, coefficients: Float[Tensor, " numbers"]) -> Float[Tensor, "boxes channel *space"]:
        """The spline with channels-last coefficients."""
        grid_points, length = math.prod(self.shape), self._lengths[0]
        channels = coefficients.numel() // grid_points
        table = coefficients.as_strided((grid_points - length + 1, length * channels), (channels, 1))
        block = table.index_select(0, self._runs.reshape(-1))
        boxes = len(self.start)
        for weight in reversed(self.weights):
            # the axis in front is contracted and comes back at the end, so that the next one is in front
            block = torch.bmm(block.reshape(boxes, weight.shape[2], -1).mT, weight.mT.to(block).contiguous())
        return block.reshape(boxes, channels, *(w.shape[1] for w in reversed(self.weights)))

    def spread(self, gradient: Float[Tensor, "boxes channel *space"]) -> Float[Tensor, "channel control_points"]:
        """What a gradient to `values` is to the coefficients."""
        boxes, channels = gradient.shape[:2]
        block = gradient
        for weight in self.weights:
            block = torch.bmm(weight.mT.contiguous(), block.reshape(boxes, -1, weight.shape[1]).mT)
        index = self._runs[:, :, None] + torch.arange(self._lengths[0], device=self.start.device)
        total = gradient.new_zeros(math.prod(self.shape), channels)
        return total.index_add_(0, index.reshape(-1), block.reshape(-1, channels)).T

    @property
    def _lengths(self) -> list[int]:
        return [w.shape[2] for w in self.weights]

    @cached_property
    def _runs(self) -> Int[Tensor, "boxes runs"]:
        """Raster index of the first grid point of every run along x, y fastest."""
        strides = splines.raster_strides(self.shape)
        runs = (self.start * torch.tensor(strides, device=self.start.device)).sum(dim=1, keepdim=True)
        for stride, length in reversed(list(zip(strides, self._lengths, strict=True))[1:]):
            steps = torch.arange(length, device=runs.device) * stride
            runs = (runs[:, :, None] + steps).reshape(len(runs), -1)
        return runs


class BoxInterpolant:
    """The values of an image at the points of boxes, which may leave the image: its border is mirrored, as often as
    need be; see `Interpolant`.
    """

    def __init__(self, image: Image, order: int, reach: float) -> None:
        """`reach` is how far (mm) outside the points of most boxes are expected."""
        voxels = math.ceil(reach / min(image.grid.spacing)) + 1
        self._interpolant = Interpolant.of(image, order, margin=min(voxels, MOST_MARGIN))
        self._margin = min(voxels, MOST_MARGIN)

    def values(self, boxes: Boxes) -> Float[Tensor, "boxes channel *space"]:
        """The values at all points."""
        spline, grid = self._interpolant.scalars, self._interpolant.grid
        steps = boxes.steps_on(grid)
        counts = boxes.shape[::-1]
        if steps is None or not _pays(steps, counts, spline.order, spline.shape) or self._leaves(boxes, steps):
            values = self._interpolant.values(grid.index_to_world(_folded(grid.world_to_index(boxes.points), grid)))
            return values.reshape(len(boxes), *boxes.shape, -1).movedim(-1, 1)
        index = grid.world_to_index(boxes.corners) + spline.rim
        return BoxSupport.of(index, steps, counts, spline.order, spline.shape).values(spline.coefficients)

    def _leaves(self, boxes: Boxes, steps: tuple[float, ...]) -> bool:
        """Whether some point lies beyond the margin."""
        grid = self._interpolant.grid
        first = grid.world_to_index(boxes.corners)
        extent = [s * (n - 1) for s, n in zip(steps, boxes.shape[::-1], strict=True)]
        last = first + torch.tensor(extent, dtype=first.dtype, device=first.device)
        size = torch.tensor(grid.size, dtype=first.dtype, device=first.device)
        low, high = torch.minimum(first, last), torch.maximum(first, last)
        return bool(((low < -self._margin) | (high > size - 1 + self._margin)).any())


def _folded(index: Float[Tensor, "points dim"], grid: Grid) -> Float[Tensor, "points dim"]:
    """Indices mirrored about the outermost voxel centres until they are between them."""
    last = torch.tensor(grid.size, dtype=index.dtype, device=index.device) - 1
    period = (2 * last).clamp(min=1)
    once = torch.remainder(index, period)
    return torch.where(last > 0, torch.minimum(once, period - once), 0.0)


def mapped(transform: Combination, boxes: Boxes) -> Mapped:
    """The transformed points of all boxes, with what pulls gradients back to the parameters and nothing else."""
    current, grid = transform.current, getattr(transform.current, "grid", None)
    if type(current) is BSplineTransform and isinstance(grid, Grid) and _first(transform):
        steps = boxes.steps_on(grid)
        if steps is not None and _pays(steps, boxes.shape[::-1], current.order, grid.shape):
            return _MappedBoxes(transform, current, boxes, steps)
    return _MappedLinearly(transform, boxes.points) if current.linear else _MappedPieces(transform, boxes.points)


class _MappedBoxes(Mapped):
    """Boxes under a B-spline whose grid has their axes."""

    def __init__(
        self, transform: Combination, current: BSplineTransform, boxes: Boxes, steps: tuple[float, ...]
    ) -> None:
        index = current.grid.world_to_index(boxes.corners)
        self._support = BoxSupport.of(index, steps, boxes.shape[::-1], current.order, current.grid.shape)
        self._shape = boxes.shape
        coefficients = current.parameters.reshape(current.dimension, -1).T.reshape(-1).to(boxes.corners)
        displacement = self._support.values(coefficients).movedim(1, -1).reshape(-1, current.dimension)
        before = boxes.points if transform.initial is None else transform.initial(boxes.points)
        self.points = before + displacement

    def pull_back(self, gradient: Points) -> Parameters:
        """The sum of J' gradient over all points."""
        boxes = gradient.reshape(len(self._support.start), *self._shape, -1).movedim(-1, 1)
        return self._support.spread(boxes.contiguous()).reshape(-1)


class _MappedLinearly(Mapped):
    """Points under a linear transform, whose Jacobian to its parameters is linear in the point: that at the corners of
    one simplex says all.
    """

    def __init__(self, transform: Combination, points: Points) -> None:
        self._current = transform.current
        before = points if _first(transform) or transform.initial is None else transform.initial(points)
        self._before = before
        self.points = self._current(before)
        if transform.initial is not None and not transform.compose:
            self.points = self.points + transform.initial(points) - points

    def pull_back(self, gradient: Points) -> Parameters:
        """The sum of J' gradient over all points."""
        first = self._before[:1]
        moments = sums.inner(self._before - first, gradient)
        corners = torch.cat([first, first + torch.eye(first.shape[1], dtype=first.dtype, device=first.device)])
        rest = sums.inner(torch.ones_like(gradient[:, :1]), gradient) - moments.sum(dim=0, keepdim=True)
        return self._current.at(corners).pull_back(torch.cat([rest, moments]))


class _MappedPieces(Mapped):
    """Points under any transform, piece by piece."""

    def __init__(self, transform: Combination, points: Points) -> None:
        self._pieces = [transform.at(piece) for piece in points.split(POINTS_AT_ONCE)]
        self.points = torch.cat([piece.points for piece in self._pieces])

    def pull_back(self, gradient: Points) -> Parameters:
        """The sum of J' gradient over all points; once only, so that what is known of each piece can be forgotten."""
        total: Parameters | None = None
        for part in reversed(gradient.split(POINTS_AT_ONCE)):
            pulled = self._pieces.pop().pull_back(part)
            total = pulled if total is None else total + pulled
        if total is None:
            raise ValueError("there is no gradient of no points")
        return total


def _first(transform: Combination) -> bool:
    """Whether the current transform sees the points of the fixed image as they are."""
    return transform.initial is None or not transform.compose


def _taps(step: float, count: int, order: int, size: int) -> int:
    """How many grid points along an axis are under the points of a box."""
    return min(math.ceil(abs(step) * (count - 1)) + order + 1, size)


def _pays(steps: Sequence[float], counts: Sequence[int], order: int, shape: tuple[int, ...]) -> bool:
    """Whether blocks hold clearly fewer numbers than the supports of all points do."""
    taps = [_taps(s, n, order, size) for s, n, size in zip(steps, counts, reversed(shape), strict=True)]
    return bool(2 * math.prod(taps) <= math.prod(counts) * (order + 1) ** len(shape))


def _weights(
    index: Float[Tensor, "boxes points"], order: int, size: int, taps: int
) -> tuple[Int[Tensor, " boxes"], Float[Tensor, "boxes points taps"]]:
    """Where the block of each box starts along an axis, and the weights of its points."""
    first, weights = splines.weights(order, index)
    start = first.amin(dim=1).clamp(min=0, max=size - taps)
    inside = (first >= 0) & (first + order < size)
    place = (first - start[:, None]).clamp(min=0, max=taps - order - 1).long()
    place = place[:, :, None] + torch.arange(order + 1, device=index.device)
    block = index.new_zeros(*index.shape, taps)
    return start.long(), block.scatter_(2, place, weights * inside[:, :, None])


def _raster(shape: tuple[int, ...], like: Tensor) -> Float[Tensor, "points axes"]:
    """The indices of all points of a lattice, the first axis first and fastest."""
    ranges = [torch.arange(n, dtype=like.dtype, device=like.device) for n in shape]
    return torch.stack([m.reshape(-1) for m in reversed(torch.meshgrid(*ranges, indexing="ij"))], dim=1)
