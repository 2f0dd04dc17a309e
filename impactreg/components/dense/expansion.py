"""Control grids of a dense field: from displacements at few control points to displacements on a finer lattice, and
back.

Every lattice here has the axes of the fixed image, so that the way from control points to it is one small matrix per
axis; its adjoint, which takes gradients back, and its least-squares inverse are products of small matrices too.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from impactreg.components import splines
from impactreg.images.grid import Grid

Interpolation = Literal["Linear", "BSpline", "Corners"]
Field = Float[Tensor, "dim *space"]
OnControl = Float[Tensor, "dim *control"]
OnLattice = Float[Tensor, "dim *lattice"]
Positions = Float[Tensor, " _"]

CUBIC = 3
"""Order of the splines of `(ImpactControlInterpolation "BSpline")`."""
WEAKEST = 1e-3
"""Combinations of control points that show less than this share of the strongest one are left at 0 by a fit."""


@dataclass(frozen=True)
class ControlGrid:
    """Control points along the axes of the fixed image: how many on each axis (z, y, x) and how many voxels apart.

    Linear: `size` cells share the image evenly and the points are their centres, so that with as many points as voxels
    both coincide. Corners: the outermost of as many points are the outermost voxels; the step is said to be the same.
    BSpline: the points lie around the image as those of elastix's B-spline transforms.
    """

    size: tuple[int, ...]
    step: tuple[float, ...]
    voxels: tuple[int, ...]
    interpolation: Interpolation

    @classmethod
    def of(cls, fixed: Grid, steps: Sequence[float], interpolation: Interpolation) -> "ControlGrid":
        """The grid of about so many voxels (z, y, x) between two control points."""
        voxels = fixed.shape
        if interpolation != "BSpline":
            size = tuple(max(1, int(n / step)) for n, step in zip(voxels, steps, strict=True))
            return cls(size, tuple(n / c for n, c in zip(voxels, size, strict=True)), voxels, interpolation)
        size = tuple(math.ceil(n / step) + CUBIC for n, step in zip(voxels, steps, strict=True))
        return cls(size, tuple(map(float, steps)), voxels, interpolation)

    def weights(self, axis: int, positions: Float[Tensor, " points"]) -> Float[Tensor, "points control"]:
        """What the control points of an axis (0 is z) give to continuous voxel indices."""
        count, step, voxels = self.size[axis], self.step[axis], self.voxels[axis]
        matrix = torch.zeros(len(positions), count, dtype=torch.float64)
        if self.interpolation != "BSpline":
            first, step = self._places(axis)
            index = ((positions.double() - first) / step).clamp(0, count - 1)
            start, weights = splines.weights(1, index)
        else:
            first = -((count - 1) * step - (voxels - 1)) / 2
            start, weights = splines.weights(CUBIC, (positions.double() - first) / step)
        taps = start.long()[:, None] + torch.arange(weights.shape[1])
        known = (taps >= 0) & (taps < count)
        return matrix.scatter_add_(1, taps.clamp(0, count - 1), torch.where(known, weights, 0.0))

    def _places(self, axis: int) -> tuple[float, float]:
        """The first control point of an axis and the distance of any two, in voxels, unless there are splines."""
        count, step, last = self.size[axis], self.step[axis], self.voxels[axis] - 1
        if self.interpolation == "Corners" and count > 1:
            return 0.0, last / (count - 1)
        return (step - 1) / 2, step

    @property
    def positions(self) -> list[Positions]:
        """The continuous fixed voxel index of the control points along each axis (z, y, x); not for splines."""
        places = [self._places(axis) for axis in range(len(self.size))]
        return [
            first + step * torch.arange(n, dtype=torch.float64)
            for n, (first, step) in zip(self.size, places, strict=True)
        ]

    def fit(self, fixed: Grid, displacement: Field) -> OnControl:
        """The control points for a displacement of every fixed voxel: the nearest in the sense of least squares, or
        with Corners the displacement at them.
        """
        if self.interpolation != "Corners":
            return self.expansion(fixed, fixed, displacement).fit(displacement)
        voxels = ControlGrid.of(fixed, [1.0] * len(self.size), "Linear")
        return voxels.expansion_to(self.positions, displacement)(displacement)

    def expansion(self, fixed: Grid, lattice: Grid, like: Tensor) -> "Expansion":
        """The way to the points of a lattice that has the axes of the fixed image, in the number type and on the
        device of `like`.
        """
        return self.expansion_to(positions_on(fixed, lattice), like)

    def expansion_to(self, positions: Sequence[Positions], like: Tensor) -> "Expansion":
        """The way to a lattice at these continuous voxel indices along each axis (z, y, x)."""
        return Expansion(tuple(_thin(self.weights(axis, at).to(like)) for axis, at in enumerate(positions)))


@dataclass(frozen=True, eq=False)
class Expansion:
    """A matrix [lattice, control] for each axis (z, y, x), or None where both are the same."""

    matrices: tuple[Tensor | None, ...]

    def __call__(self, control: OnControl) -> OnLattice:
        """Displacements on the lattice."""
        return _along_axes(control, self.matrices)

    def adjoint(self, gradient: OnLattice) -> OnControl:
        """The gradient to the control points of what has this gradient to the lattice."""
        return _along_axes(gradient, tuple(None if m is None else m.T for m in self.matrices))

    def squared(self) -> "Expansion":
        """The same way with squared weights: what the diagonal of a normal matrix needs."""
        return Expansion(tuple(None if m is None else m.square() for m in self.matrices))

    def fit(self, lattice: OnLattice) -> OnControl:
        """The control points that come nearest to a field on the lattice, in the sense of least squares."""
        return _along_axes(lattice, self._inverses)

    @cached_property
    def _inverses(self) -> tuple[Tensor | None, ...]:
        inverse = [None if m is None else torch.linalg.pinv(m.double(), rtol=WEAKEST).to(m) for m in self.matrices]
        return tuple(inverse)


def positions_on(fixed: Grid, lattice: Grid) -> list[Positions]:
    """The continuous fixed voxel index of the lattice points along each axis (z, y, x)."""
    (first,) = fixed.world_to_index(torch.tensor([lattice.origin], dtype=torch.float64)).tolist()
    ratios = [a / b for a, b in zip(lattice.spacing, fixed.spacing, strict=True)]
    lines = zip(reversed(first), reversed(ratios), lattice.shape, strict=True)
    return [start + ratio * torch.arange(n, dtype=torch.float64) for start, ratio, n in lines]


def smoothed(control: Field, passes: int) -> Field:
    """Box filters of 3 points along each axis, with zeros beyond the border: what average pooling does with stride 1.

    The filter is its own adjoint.
    """
    for _ in range(passes):
        for axis in range(1, control.ndim):
            total, n = control.clone(), control.shape[axis]
            total.narrow(axis, 1, n - 1).add_(control.narrow(axis, 0, n - 1))
            total.narrow(axis, 0, n - 1).add_(control.narrow(axis, 1, n - 1))
            control = total.div_(3)
    return control


def _thin(matrix: Tensor) -> Tensor | None:
    """None for a matrix that changes nothing."""
    same = matrix.shape[0] == matrix.shape[1] and bool(
        torch.allclose(matrix, torch.eye(len(matrix)).to(matrix), atol=1e-6)
    )
    return None if same else matrix


def _along_axes(values: Tensor, matrices: Sequence[Tensor | None]) -> Tensor:
    """Each matrix applied along its axis, those first that make the field smaller."""
    order = sorted(range(len(matrices)), key=lambda axis: _growth(matrices[axis]))
    for axis in order:
        matrix = matrices[axis]
        if matrix is not None:
            values = _along(values, matrix, axis + 1)
    return values


def _growth(matrix: Tensor | None) -> float:
    return 1.0 if matrix is None else matrix.shape[0] / matrix.shape[1]


def _along(values: Tensor, matrix: Tensor, axis: int) -> Tensor:
    shape = values.shape
    if axis == values.ndim - 1:
        return torch.matmul(values, matrix.T)
    rows = values.reshape(math.prod(shape[:axis]), shape[axis], -1)
    return torch.matmul(matrix, rows).reshape(*shape[:axis], matrix.shape[0], *shape[axis + 1 :])
