"""From control points to displacements, both ways."""

import pytest
import torch

from impactreg.components.dense.expansion import ControlGrid, smoothed
from impactreg.components.dense.motions import Displacement, Flow
from impactreg.images import Grid

GRID = Grid.of((12, 10, 8), (1.0, 2.0, 1.5))
UNIT = (1.5, 2.0, 1.0)


def control(interpolation="Linear"):
    return ControlGrid.of(GRID, [2, 2, 2], interpolation)


def flow(interpolation="Linear", *, both_ways=True):
    return Flow(control(interpolation), 0, 5, UNIT, torch.zeros(1, dtype=torch.float64), both_ways)


def test_a_displacement_is_the_smoothed_control_points(generator):
    motion = Displacement(control(), 2)
    parameters = torch.randn(3, *motion.control.size, generator=generator)
    moved = motion.of(parameters)
    torch.testing.assert_close(moved.forward, smoothed(parameters, 2))
    gradient = torch.randn(parameters.shape, generator=generator)
    torch.testing.assert_close(
        (moved.pull_back(gradient, None) * parameters).sum(), (gradient * moved.forward).sum(), atol=1e-3, rtol=1e-4
    )
    assert motion.nodes is motion.control


@pytest.mark.parametrize("interpolation", ["Linear", "BSpline"])
def test_a_constant_velocity_flows_by_itself_there_and_back(interpolation):
    motion = flow(interpolation)
    velocity = torch.tensor([0.3, -0.2, 0.5], dtype=torch.float64)[:, None, None, None]
    moved = motion.of(velocity.expand(3, *motion.control.size))
    torch.testing.assert_close(moved.forward, velocity.expand(3, *motion.nodes.size))
    torch.testing.assert_close(moved.backward, -moved.forward)


def test_the_nodes_of_splines_are_twice_as_dense_as_their_control_points():
    assert flow("BSpline").nodes.size == tuple(n for n in GRID.shape)
    assert flow(both_ways=False).of(torch.zeros(3, *control().size).double()).backward is None


@pytest.mark.parametrize("interpolation", ["Linear", "BSpline"])
def test_gradients_of_a_flow_are_pulled_back_exactly(interpolation, generator):
    motion = flow(interpolation)
    shape = (3, *motion.control.size)
    parameters = 0.2 * torch.randn(shape, generator=generator, dtype=torch.float64)
    direction = torch.randn(shape, generator=generator, dtype=torch.float64)
    moved = motion.of(parameters)
    there, back = (torch.randn(moved.forward.shape, generator=generator).double() for _ in range(2))

    def value(step):
        at = motion.of(parameters + step * direction)
        return (at.forward * there).sum() + (at.backward * back).sum()

    slope = (value(1e-5) - value(-1e-5)) / 2e-5
    torch.testing.assert_close((moved.pull_back(there, back) * direction).sum(), slope, rtol=1e-5, atol=1e-5)
