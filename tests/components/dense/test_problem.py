"""The fine registration of one resolution as a function of its control points."""

import pytest
import torch

from impactreg.components.dense.comparison import Comparison
from impactreg.components.dense.expansion import ControlGrid
from impactreg.components.dense.motions import Displacement
from impactreg.components.dense.problem import Problem, Term
from impactreg.components.dense.regularisers import diffusion_gradient, energy
from impactreg.components.dense.warp import FeatureMap
from impactreg.images import Grid, Image

GRID = Grid.of((10, 9, 8), (1.0, 1.0, 1.0))
SLOPE = torch.tensor([1.0, -2.0, 0.5])


def ramp(offset=0.0):
    return (GRID.indices().float() @ SLOPE).reshape(1, *GRID.shape) + offset


def problem(offset=3.0, weight=0.7, passes=0):
    """A ramp and a higher one, on every voxel, with control points at every second one."""
    control = ControlGrid.of(GRID, [2, 2, 2], "Linear")
    rows = ramp().reshape(-1, 1)
    comparison = Comparison(
        "L2",
        1.0,
        rows,
        FeatureMap.of(Image(ramp(offset), GRID)),
        GRID.indices().T.float(),
        torch.eye(3),
        outside_counts=True,
    )
    term = Term(comparison, control.expansion(GRID, GRID, rows), GRID.shape)
    return Problem(Displacement(control, passes), [term], control.step, "Diffusion", weight)


def control_points(generator):
    return 0.3 * torch.randn(3, 4, 4, 5, generator=generator)


def test_at_rest_there_is_the_distance_alone():
    found = problem().at(torch.zeros(3, 4, 4, 5))
    assert (float(found.distance), float(found.regularization)) == (pytest.approx(9.0, rel=1e-4), 0.0)
    assert float(found.value) == float(found.distance)


def test_the_regularization_is_that_of_the_smoothed_control_points(generator):
    parameters, asked = control_points(generator), problem(passes=1)
    shown = asked.motion.of(parameters).forward
    expected = energy(shown, diffusion_gradient(shown, asked.steps)) * 0.7
    torch.testing.assert_close(asked.at(parameters).regularization, expected)


@pytest.mark.parametrize("passes", [0, 1])
def test_the_derivative_and_the_curvature_agree_with_small_steps(passes, generator):
    asked = problem(passes=passes)
    parameters = 0.3 + 0.1 * control_points(generator)
    direction = 0.02 * control_points(generator)
    found = asked.at(parameters, curved=True)
    values = [asked.at(parameters + step * direction) for step in (-1.0, 1.0)]
    slope = (values[1].value - values[0].value) / 2
    torch.testing.assert_close((found.gradient * direction).sum(), slope, rtol=2e-2, atol=1e-4)
    assert float((direction * found.curve(direction)).sum()) > 0
    assert bool((found.diagonal > 0).all())


def test_the_reference_is_where_the_moving_features_were_taken(generator):
    parameters, asked = control_points(generator), problem()
    moved = Problem(asked.motion, asked.terms, asked.steps, asked.regularization, asked.weight, parameters)
    found = moved.at(parameters)
    assert float(found.distance) == pytest.approx(9.0, rel=1e-4)
    torch.testing.assert_close(found.regularization, asked.at(parameters).regularization)


def test_scaled_distances_begin_with_the_weight_of_their_layer():
    asked, rest = problem(), torch.zeros(3, 4, 4, 5)
    scales = asked.scales(rest)
    assert scales == pytest.approx((1 / 9,), rel=1e-4)
    assert float(asked.scaled(scales).at(rest).distance) == pytest.approx(1.0)
    assert problem(offset=0.0).scales(rest) == (1.0,)
