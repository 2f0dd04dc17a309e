"""The weights of control points: those of the spline's own formulas, and their derivatives."""

import numpy as np
import pytest
import torch

from impactreg.components import splines
from impactreg.components.transforms.spline_support import VALUES_AT_ONCE, Support
from impactreg.images import Grid

GRIDS = {2: Grid.of((7, 6), (3, 4), (-5, 2)), 3: Grid.of((7, 6, 8), (3, 4, 2), (-5, 2, 1))}


def inside(grid, order, count=20):
    random = torch.rand(count, grid.dimension, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    room = torch.tensor(grid.size, dtype=torch.float64) - order
    return grid.index_to_world((order - 1) / 2 + random * room)


@pytest.mark.parametrize("order", [1, 2, 3])
@pytest.mark.parametrize("dimension", [2, 3])
def test_weights_and_indices_are_those_of_the_spline(order, dimension):
    grid = GRIDS[dimension]
    points = inside(grid, order)
    support = Support.of(points, grid, order)
    index = grid.world_to_index(points)
    start = splines.support_start(order, index)
    torch.testing.assert_close(support.weights, splines.products(order, index - start)[:, 0])
    assert torch.equal(support.index, splines.flat_indices(start.long(), order + 1, grid.shape))


@pytest.mark.parametrize("order", [1, 2, 3])
def test_slopes_are_those_of_the_spline(order):
    grid = GRIDS[3]
    points = inside(grid, order)
    coefficients = torch.randn(grid.number_of_voxels, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    support = Support.of(points, grid, order)
    channels = torch.zeros(grid.number_of_voxels, 3, dtype=torch.float64)
    channels[:, 1] = coefficients
    found = support.derivatives(channels.reshape(-1), 1).reshape(-1, 3, 3)
    index = grid.world_to_index(points)
    slopes = splines.products(order, index - splines.support_start(order, index), slopes=True)[:, 1:]
    for axis in range(3):
        expected = (slopes[:, axis] * coefficients[support.index]).sum(dim=1) / grid.spacing[axis]
        torch.testing.assert_close(found[:, 1, axis], expected)
    assert not found[:, [0, 2]].any()


@pytest.mark.parametrize("order", [1, 2])
def test_what_is_pulled_is_the_transpose_of_the_derivatives(order):
    turn = np.linalg.qr(np.random.default_rng(0).normal(size=(3, 3)))[0]
    grid = Grid.of((7, 6, 8), (3, 4, 2), (-5, 2, 1), turn)
    support = Support.of(inside(grid, 3), grid, 3)
    generator = torch.Generator().manual_seed(1)
    coefficients = torch.randn(3 * grid.number_of_voxels, generator=generator, dtype=torch.float64)
    gradient = torch.randn(20, 3 * 3**order, generator=generator, dtype=torch.float64)
    taps = support.pulled(gradient, order)
    there = coefficients.reshape(-1, 3)[support.index]
    forward = (support.derivatives(coefficients, order) * gradient).sum()
    assert float((taps * there).sum()) == pytest.approx(float(forward))


def test_pieces_hold_every_point_in_order():
    points = inside(GRIDS[2], 3, 2 * VALUES_AT_ONCE + 3)
    support = Support.of(points, GRIDS[2], 3)
    pieces = support.pieces(VALUES_AT_ONCE)
    assert [len(p.start) for p in pieces] == [VALUES_AT_ONCE, VALUES_AT_ONCE, 3]
    assert torch.equal(torch.cat([p.index for p in pieces]), support.index)
    torch.testing.assert_close(torch.cat([p.weights for p in pieces]), support.weights)


def test_weights_are_zero_where_the_support_leaves_the_grid():
    support = Support.of(torch.tensor([[-30.0, 5.0], [2.0, 99.0]], dtype=torch.float64), GRIDS[2], 3)
    assert not support.weights.any()
    assert int(support.index.max()) < GRIDS[2].number_of_voxels
