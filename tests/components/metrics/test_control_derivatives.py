"""Derivatives of a spline at its control points: its own, and their transpose."""

import pytest
import torch

from impactreg.components.metrics.control_derivatives import control_derivatives, pulled_to_coefficients
from impactreg.components.transforms.bspline import BSplineTransform
from impactreg.images import Grid

GRID = Grid.of((7, 6, 8), (3, 4, 2), (-5, 2, 1))


def coefficients(n=3):
    size = GRID.shape[-n:]
    return torch.randn(n, *size, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def test_they_are_those_of_the_spline_inside_the_grid():
    given = coefficients()
    found = control_derivatives(given, GRID.spacing, 2)
    local = BSplineTransform(given.reshape(-1), GRID).local(GRID.points())
    inner = (slice(None), *[slice(2, -2)] * 3)
    shape = (*GRID.shape, 3)
    for axis in range(3):
        orders = tuple(int(a == axis) for a in range(3))
        slope = (local.jacobian[:, :, axis] - torch.eye(3).double()[axis]).reshape(shape).movedim(-1, 0)
        torch.testing.assert_close(found[orders][inner], slope[inner])
        for other in range(3):
            mixed = tuple(a + int(i == other) for i, a in enumerate(orders))
            bend = local.hessian[:, :, axis, other].reshape(shape).movedim(-1, 0)
            torch.testing.assert_close(found[mixed][inner], bend[inner])


def test_coefficients_beyond_the_border_repeat_the_outermost():
    constant = control_derivatives(torch.ones(2, 5, 6, dtype=torch.float64), (2.0, 3.0), 2)
    assert all(values.abs().max() < 1e-12 for values in constant.values())


@pytest.mark.parametrize("n", [2, 3])
def test_gradients_go_back_by_the_transpose(n):
    given, spacing = coefficients(n), GRID.spacing[:n]
    found = control_derivatives(given, spacing, 2)
    assert len(found) == (9 if n == 3 else 5)
    generator = torch.Generator().manual_seed(1)
    gradients = {k: torch.randn(v.shape, generator=generator, dtype=torch.float64) for k, v in found.items()}
    forward = sum(float((found[k] * gradients[k]).sum()) for k in found)
    assert float((pulled_to_coefficients(gradients, spacing) * given).sum()) == pytest.approx(forward)
