"""Conjugate gradients: the betas by hand, and directions that are conjugate where a line search is exact."""

from itertools import combinations, pairwise

import pytest
import torch

from impactreg.components.optimizers import ConjugateGradient
from impactreg.components.optimizers.conjugate_gradient import BETAS, ConjugateGradientSettings
from impactreg.components.transforms.linear import AffineTransform
from impactreg.errors import ParameterError

BEFORE, GRADIENT, DIRECTION = (torch.tensor(v).double() for v in ([1.0, 2.0], [3.0, -1.0], [2.0, -1.0]))
CURVATURE = [1.0, 5.0, 20.0, 3.0, 0.5, 8.0]


def optimizer(**settings):
    return ConjugateGradient(ConjugateGradientSettings(**settings))


@pytest.mark.parametrize(
    ("name", "beta"),
    [
        ("SteepestDescent", 0),
        ("FletcherReeves", 10 / 5),
        ("PolakRibiere", (3 * 2 + 3) / 5),
        ("DaiYuan", 10 / (2 * 2 + 3)),
        ("HestenesStiefel", 9 / 7),
        ("DaiYuanHestenesStiefel", 9 / 7),
    ],
)
def test_betas_are_those_of_their_authors(name, beta):
    assert BETAS[name](BEFORE, GRADIENT, DIRECTION) == pytest.approx(beta)


def test_the_mixed_beta_is_never_negative():
    # g'(g - g0) < 0 < d'(g - g0)
    assert BETAS["HestenesStiefel"](4 * GRADIENT, GRADIENT, -DIRECTION) < 0
    assert BETAS["DaiYuanHestenesStiefel"](4 * GRADIENT, GRADIENT, -DIRECTION) == 0


@pytest.mark.parametrize("name", list(BETAS)[1:])
def test_a_beta_without_a_denominator_is_infinite(name):
    before = torch.zeros(2).double() if name in ("FletcherReeves", "PolakRibiere") else GRADIENT
    assert BETAS[name](before, GRADIENT, DIRECTION) == float("inf")


@pytest.mark.parametrize("name", list(BETAS)[1:])
def test_exact_searches_solve_a_bowl_in_as_many_conjugate_directions_as_it_has_axes(landscape, finish, name):
    transform = AffineTransform(torch.tensor([1.0, 0, 0, 1, 0, 0]).double(), torch.zeros(2).double())
    field = landscape(transform=transform, curvature=CURVATURE)
    start = torch.tensor([1.0, -2, 3, -1, 2, 1]).double()
    asked = optimizer(
        conjugate_gradient_type=name,
        line_search_gradient_tolerance=1e-9,
        line_search_value_tolerance=1e-10,
        step_length=0.1,
    )
    taken, reason = finish(asked.steps(field, start))
    places = [start, *(step.parameters for step in taken)]
    steps = [(b - a) / (b - a).norm() for a, b in pairwise(places)][:6]
    assert reason == "The gradient magnitude has (nearly) vanished"
    assert torch.allclose(places[6], torch.zeros(6).double(), atol=1e-5)
    for one, other in combinations(steps, 2):
        assert abs(float(one @ field.curvature @ other)) < 1e-4


def test_each_search_first_tries_the_step_of_the_one_before(landscape, finish):
    field = landscape(curvature=[1.0, 30.0])
    asked = optimizer(step_length=0.003, maximum_number_of_iterations=4, generate_line_search_iterations=True)
    taken, _ = finish(asked.steps(field, torch.tensor([1.0, -2.0]).double()))
    ends = [s.columns["3:StepLength"] for s in taken if s.columns["5:Phase"] == "Main"]
    firsts = [s.columns["3:StepLength"] for s in taken if s.columns["1b:LineItNr"] == 0][:-1]
    tried = [s.columns["3:StepLength"] for a, s in pairwise(taken) if a.columns["1b:LineItNr"] == "start"]
    assert firsts
    assert tried == pytest.approx([0.003, *ends[:-1]])


def test_eleven_searches_that_change_nothing_end_the_resolution(landscape, finish):
    field = landscape(curvature=[1.0, 30.0], slope=[1e6, 0.0])
    asked = optimizer(value_tolerance=2.0, gradient_magnitude_tolerance=0, stop_if_wolfe_not_satisfied=False)
    taken, reason = finish(asked.steps(field, torch.tensor([1.0, -2.0]).double()))
    assert reason == "Almost no decrease in function value anymore"
    assert len(taken) == 11


def test_an_infinite_beta_ends_the_resolution(landscape, finish):
    field = landscape(curvature=[0.0, 0.0], slope=[3.0, 4.0])
    asked = optimizer(stop_if_wolfe_not_satisfied=False, maximum_number_of_line_search_iterations=5)
    taken, reason = finish(asked.steps(field, torch.zeros(2).double()))
    assert (len(taken), reason) == (1, "The beta factor became infinite")


def test_an_unknown_type_is_an_error():
    with pytest.raises(ParameterError, match="DaiYuan"):
        optimizer(conjugate_gradient_type="Powell")
