"""Limited-memory BFGS against the matrices of BFGS itself."""

import itertools

import pytest
import torch

from impactreg.components.optimizers import QuasiNewtonLBFGS
from impactreg.components.optimizers.quasi_newton import QuasiNewtonLBFGSSettings

CURVATURE = [1.0, 5.0, 20.0, 3.0, 0.5, 8.0]


@pytest.fixture
def bowl(landscape):
    """A bowl of six parameters, and a start on its side."""
    from impactreg.components.transforms.linear import AffineTransform

    transform = AffineTransform(torch.tensor([1.0, 0, 0, 1, 0, 0]).double(), torch.zeros(2).double())
    return landscape(transform=transform, curvature=CURVATURE), torch.tensor([1.0, -2, 3, -1, 2, 1]).double()


def optimizer(**settings):
    return QuasiNewtonLBFGS(QuasiNewtonLBFGSSettings(step_length=0.1, **settings))


def updated(inverse, step, change):
    """The BFGS update of an inverse Hessian."""
    rho = 1 / (step @ change)
    left = torch.eye(len(step)).double() - rho * torch.outer(step, change)
    return left @ inverse @ left.T + rho * torch.outer(step, step)


@pytest.mark.parametrize("memory", [1, 2, 5])
def test_directions_are_those_of_the_bfgs_matrix_of_the_last_steps(bowl, finish, memory):
    field, start = bowl
    taken, _ = finish(optimizer(lbfgs_update_accuracy=memory, maximum_number_of_iterations=7).steps(field, start))
    places = [start, *(step.parameters for step in taken)]
    gradients = [field.gradient(place) for place in places]
    steps = [b - a for a, b in itertools.pairwise(places)]
    changes = [b - a for a, b in itertools.pairwise(gradients)]
    for k in range(1, len(steps)):
        newest, past = changes[k - 1], range(max(0, k - memory), k)
        inverse = torch.eye(6).double() * (steps[k - 1] @ newest) / (newest @ newest)
        for i in past:
            inverse = updated(inverse, steps[i], changes[i])
        expected = -inverse @ gradients[k] * taken[k].columns["3:StepLength"]
        assert torch.allclose(steps[k], expected, rtol=1e-7, atol=1e-12)


def test_the_first_direction_has_length_one(bowl, finish):
    taken, _ = finish(optimizer(maximum_number_of_iterations=3).steps(*bowl))
    assert taken[0].columns["4b:||SearchDir||"] == pytest.approx(1)
    assert taken[1].columns["4b:||SearchDir||"] != pytest.approx(1)


def test_without_a_memory_all_directions_are_gradients_of_length_one(bowl, finish):
    field, start = bowl
    taken, _ = finish(optimizer(lbfgs_update_accuracy=0, maximum_number_of_iterations=4).steps(field, start))
    assert [step.columns["4b:||SearchDir||"] for step in taken] == pytest.approx([1] * 4)
    gradient = field.gradient(start)
    assert torch.allclose(taken[0].parameters - start, -taken[0].columns["3:StepLength"] * gradient / gradient.norm())


def test_a_plane_has_no_curvature_to_go_by(landscape, finish):
    field = landscape(curvature=[0.0, 0.0], slope=[3.0, 4.0])
    asked = optimizer(stop_if_wolfe_not_satisfied=False, maximum_number_of_line_search_iterations=5)
    taken, reason = finish(asked.steps(field, torch.zeros(2).double()))
    assert reason == "The diagonal matrix is invalid"
    assert len(taken) == 1


def test_a_step_of_nothing_ends_the_resolution(bowl, finish):
    asked = optimizer(stop_if_wolfe_not_satisfied=False, maximum_number_of_line_search_iterations=1)
    taken, reason = finish(asked.steps(*bowl))
    assert reason == "The last step size was (nearly) zero"
    assert taken[-1].columns["3:StepLength"] == 0
