"""The three conditions on a rigid transform, at the control points of a cubic B-spline, with their derivatives."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import torch
from jaxtyping import Float
from torch import Tensor

from impactreg.components.metrics.control_derivatives import Derivatives, control_derivatives, pulled_to_coefficients
from impactreg.components.transforms.bspline import BSplineTransform
from impactreg.components.transforms.transform import Parameters
from impactreg.images import sums

Columns = Float[Tensor, "dim axes control_points"]
Judged = tuple[Float[Tensor, ""], Derivatives]
"""The value of a condition, and its gradients to derivatives of the spline at the control points."""


@dataclass(frozen=True)
class ControlPoints:
    """The derivatives of a spline at its control points, and how much each point counts; `shares` [z, y, x] sum up to
    1.
    """

    spline: BSplineTransform
    shares: Float[Tensor, "*grid"]

    @classmethod
    def of(cls, spline: BSplineTransform, shares: Float[Tensor, " control_points"]) -> "ControlPoints":
        """The control points of a spline."""
        return cls(spline, shares.reshape(spline.grid.shape))

    @cached_property
    def derivatives(self) -> Derivatives:
        """First and second derivatives of the displacement along the grid's axes."""
        coefficients = self.spline.parameters.reshape(-1, *self.spline.grid.shape)
        return control_derivatives(coefficients, self.spline.grid.spacing, 2)

    @cached_property
    def columns(self) -> Columns:
        """[k, a, point]: the derivative of T_k along axis a of the grid (no unit); a rotation has orthonormal ones."""
        axes = self.axes
        slopes = [self.derivatives[_once(a, len(axes))].reshape(len(axes), -1) for a in range(len(axes))]
        return torch.stack(slopes, dim=1) + axes[:, :, None]

    @cached_property
    def axes(self) -> Float[Tensor, "dim axes"]:
        """The directions of the grid's axes as columns."""
        return torch.tensor(self.spline.grid.direction, dtype=torch.float64).to(self.spline.parameters)

    def to_derivatives(self, gradient: Columns) -> Derivatives:
        """A gradient to `columns` as gradients to the first derivatives."""
        n = len(self.axes)
        return {_once(a, n): gradient[:, a].reshape(n, *self.shares.shape) for a in range(n)}

    def pull_back(self, gradients: Derivatives) -> Parameters:
        """The gradient to the parameters of the spline."""
        return pulled_to_coefficients(gradients, self.spline.grid.spacing).reshape(-1)


@dataclass(frozen=True)
class Condition:
    """A condition as a metric uses it: by how much it counts, and whether it does."""

    of: Callable[[ControlPoints], Judged]
    name: str
    weight: float
    used: bool

    def columns(self, value: float, gradient: float) -> dict[str, float]:
        """What is reported of it in every iteration."""
        return {f"Metric-{self.name}": value, f"||Gradient-{self.name}||": gradient}


def orthonormality(points: ControlPoints) -> Judged:
    """The sum of (C'C - I)^2 over the upper triangle, where C are the columns of a control point."""
    columns = points.columns
    n = len(columns)
    shares = points.shares.reshape(-1)
    products = (columns[:, :, None] * columns[:, None]).sum(dim=0)
    lacking = products - torch.eye(n).to(columns)[:, :, None]
    upper = torch.ones(n, n).triu().to(columns)[:, :, None]
    value = sums.total(upper * lacking.square() * shares)
    # the diagonal counts once but depends on its column twice
    twice = 2 + 2 * torch.eye(n).to(columns)[:, :, None]
    return value, points.to_derivatives(((twice * lacking * shares) * columns[:, None]).sum(dim=2))


def properness(points: ControlPoints) -> Judged:
    """(det C / det(axes) - 1)^2, that is the squared relative change of volume."""
    columns, shares = points.columns, points.shares.reshape(-1)
    cofactors = _cofactors(columns)
    side = torch.linalg.det(points.axes).sign()
    lacking = side * (cofactors[:, 0] * columns[:, 0]).sum(dim=0) - 1
    value = sums.total(lacking.square() * shares)
    return value, points.to_derivatives(2 * side * lacking * shares * cofactors)


def linearity(points: ControlPoints) -> Judged:
    """The sum of squared second derivatives: pure ones halved, mixed ones divided by the spacings of their axes."""
    spacing = points.spline.grid.spacing
    value = points.shares.new_zeros(())
    gradients: Derivatives = {}
    for orders, found in points.derivatives.items():
        if sum(orders) == 2:
            factor = 0.25 if 2 in orders else 1.0
            for order, step in zip(orders, spacing, strict=True):
                factor /= step**2 if order == 1 else 1.0
            gradients[orders] = 2 * factor * points.shares * found
            value = value + 0.5 * sums.total(gradients[orders] * found)
    return value, gradients


def _once(axis: int, dimension: int) -> tuple[int, ...]:
    return tuple(int(a == axis) for a in range(dimension))


def _cofactors(columns: Columns) -> Columns:
    """The derivatives of the determinant to each element."""
    if len(columns) == 2:
        (a, b), (c, d) = columns
        return torch.stack([torch.stack([d, -c]), torch.stack([-b, a])])
    first, second, third = columns.unbind(dim=1)
    crossed = [torch.linalg.cross(u, v, dim=0) for u, v in ((second, third), (third, first), (first, second))]
    return torch.stack(crossed, dim=1)
