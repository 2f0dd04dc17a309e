"""The conditions on rigid transforms: rotations, stretches and bends at the control points."""

import numpy as np
import pytest
import torch

from impactreg.components.metrics.rigidity_conditions import ControlPoints, linearity, orthonormality, properness
from impactreg.components.transforms.bspline import BSplineTransform
from impactreg.images import Grid

TURN = np.linalg.qr(np.random.default_rng(0).normal(size=(3, 3)))[0]
TURN[:, 0] *= np.linalg.det(TURN)
GRIDS = {
    "2D": Grid.of((7, 6), (3, 4), (-5, 2)),
    "3D": Grid.of((7, 6, 8), (3, 4, 2), (-5, 2, 1)),
    "oblique": Grid.of((7, 6, 8), (3, 4, 2), (-5, 2, 1), TURN),
    "mirrored": Grid.of((7, 6, 8), (3, 4, 2), (-5, 2, 1), TURN * [1, 1, -1]),
}


@pytest.fixture(params=GRIDS)
def grid(request):
    return GRIDS[request.param]


def moved(grid, displacement):
    """A spline whose coefficients are a displacement, seen from the control points that are not at the border."""
    inner = torch.zeros(grid.shape, dtype=torch.float64)
    inner[(slice(1, -1),) * grid.dimension] = 1
    spline = BSplineTransform(displacement(grid.points()).T.reshape(-1), grid)
    return ControlPoints(spline, inner / inner.sum())


def rotation(n, angle=0.4):
    turn = torch.eye(n, dtype=torch.float64)
    turn[:2, :2] = torch.from_numpy(np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]))
    return turn


def test_rotations_are_rigid(grid):
    turn = rotation(grid.dimension)
    points = moved(grid, lambda p: p @ turn.T - p + 3)
    for condition in (linearity, orthonormality, properness):
        value, gradients = condition(points)
        assert float(value) == pytest.approx(0, abs=1e-12)
        assert points.pull_back(gradients).abs().max() < 1e-12


def test_a_stretch_is_neither_orthonormal_nor_proper(grid):
    n = grid.dimension
    points = moved(grid, lambda p: 0.1 * p)
    assert float(orthonormality(points)[0]) == pytest.approx(n * (1.1**2 - 1) ** 2)
    assert float(properness(points)[0]) == pytest.approx((1.1**n - 1) ** 2)
    assert float(linearity(points)[0]) == pytest.approx(0, abs=1e-12)


def test_a_shear_keeps_the_volume():
    points = moved(GRIDS["2D"], lambda p: torch.stack([0.3 * p[:, 1], 0 * p[:, 1]], dim=1))
    assert float(orthonormality(points)[0]) == pytest.approx(0.3**2 + (0.3**2) ** 2)
    assert float(properness(points)[0]) == pytest.approx(0, abs=1e-12)


def test_bends_are_counted_with_the_factors_of_elastix():
    grid = GRIDS["2D"]
    pure = moved(grid, lambda p: torch.stack([0.05 * p[:, 0] ** 2, 0 * p[:, 0]], dim=1))
    mixed = moved(grid, lambda p: torch.stack([0.1 * p[:, 0] * p[:, 1], 0 * p[:, 0]], dim=1))
    assert float(linearity(pure)[0]) == pytest.approx((0.1 / 2) ** 2)
    assert float(linearity(mixed)[0]) == pytest.approx((0.1 / 12) ** 2)


@pytest.mark.parametrize("condition", [linearity, orthonormality, properness])
def test_the_gradients_are_those_of_finite_differences(grid, condition):
    generator = torch.Generator().manual_seed(0)
    shares = torch.rand(grid.shape, generator=generator, dtype=torch.float64)
    parameters, direction = (
        torch.randn(grid.dimension * grid.number_of_voxels, generator=generator, dtype=torch.float64) for _ in range(2)
    )

    def at(step):
        return ControlPoints(BSplineTransform(parameters + step * direction, grid), shares)

    gradient = at(0).pull_back(condition(at(0))[1])
    expected = float(condition(at(1e-6))[0] - condition(at(-1e-6))[0]) / 2e-6
    assert float(gradient @ direction) == pytest.approx(expected, rel=1e-6)
