"""Regularisers of a displacement field on its control grid: quadratic forms, so that a gradient is all they need.

Displacements and distances are in the same unit, so that a derivative is a pure number whatever the grid.
"""

from collections.abc import Sequence
from itertools import combinations_with_replacement

import torch
from jaxtyping import Float
from torch import Tensor

Field = Float[Tensor, "dim *space"]
Steps = Sequence[float]


def diffusion_gradient(field: Field, steps: Steps) -> Field:
    """The derivative of the diffusion energy: the sum over axes of the mean squared forward difference over the
    squared distance of the control points (z, y, x), as `itk::ImpactFineRegistration` has it.

    The energy is half the scalar product of this with the field. Axes of one point do not count.
    """
    gradient = torch.zeros_like(field)
    for axis, step in enumerate(steps, start=1):
        if field.shape[axis] > 1:
            slope = _difference(field, axis)
            gradient += _adjoint(slope, axis) * (2 / (slope.numel() * step**2))
    return gradient


def bending_gradient(field: Field, steps: Steps) -> Field:
    """The derivative of the bending energy: the sum over pairs of axes of the mean squared second difference, divided
    by the distances of the control points (Rueckert et al. 1999); mixed pairs count twice.

    The energy is half the scalar product of this with the field, in 1 / mm^2 where both are in mm.
    """
    gradient = torch.zeros_like(field)
    for one, other in combinations_with_replacement(range(1, field.ndim), 2):
        if field.shape[one] > 1 + (one == other) and field.shape[other] > 1:
            curve = _difference(_difference(field, one), other)
            area = (steps[one - 1] * steps[other - 1]) ** 2
            times = 2 * (1 + (one != other)) / (curve.numel() * area)
            gradient += _adjoint(_adjoint(curve, other), one) * times
    return gradient


def energy(field: Field, gradient: Field) -> Float[Tensor, ""]:
    """The energy of a quadratic regulariser, from its gradient at the field."""
    return (field * gradient).sum() / 2


REGULARISERS = {"Diffusion": diffusion_gradient, "Bending": bending_gradient}
"""By their names in `ImpactRegularization`."""


def _difference(field: Tensor, axis: int) -> Tensor:
    n = field.shape[axis]
    return field.narrow(axis, 1, n - 1) - field.narrow(axis, 0, n - 1)


def _adjoint(slope: Tensor, axis: int) -> Tensor:
    """What `_difference` does, transposed."""
    shape = list(slope.shape)
    n = shape[axis]
    shape[axis] = n + 1
    result = slope.new_zeros(shape)
    result.narrow(axis, 1, n).add_(slope)
    result.narrow(axis, 0, n).sub_(slope)
    return result
