"""Distances between features: values by hand, derivatives by autograd of the plain formulas."""

import pytest
import torch

from impactreg.components.metrics.distances import DISTANCES, RELATIVE_DISTANCES
from impactreg.parameters.impact_settings import Distance

FIXED = torch.tensor([[3.0, 4.0], [1.0, 0.0]], dtype=torch.float64)
MOVING = torch.tensor([[4.0, 3.0], [0.0, 2.0]], dtype=torch.float64)
DECAY = float(torch.exp(torch.tensor(-0.1, dtype=torch.float64)))
BY_HAND = {
    "L1": (1 + 1 + 1 + 2) / 4,
    "L2": (1 + 1 + 1 + 4) / 4,
    "Cosine": -(24 / 25 + 0) / 2,
    "L1Cosine": -(24 / 25 * DECAY + 24 / 25 * DECAY) / 4,
    "DotProduct": -(24 + 0) / 2,
    "Dice": -(2 * 24 / 14 + 0) / 2,
    "NCC": -(1 + 1) / 2,
}


def cosines(f, m):
    return (f * m).sum(1) / (f.norm(dim=1) * m.norm(dim=1))


def correlation(f, m):
    f, m = f - f.mean(0), m - m.mean(0)
    return (f * m).sum(0) / (f.square().sum(0) * m.square().sum(0)).sqrt()


PLAIN = {
    "L1": lambda f, m: (m - f).abs().mean(),
    "L2": lambda f, m: (m - f).square().mean(),
    "Cosine": lambda f, m: -cosines(f, m).mean(),
    "L1Cosine": lambda f, m: -(cosines(f, m)[:, None] * torch.exp(-0.1 * (f - m).abs())).mean(),
    "DotProduct": lambda f, m: -(f * m).sum(1).mean(),
    "Dice": lambda f, m: -(2 * (f * m).sum(1) / (f + m).sum(1)).mean(),
    "NCC": lambda f, m: -correlation(f, m).mean(),
}


class Given(torch.autograd.Function):
    """A distance whose derivative is the one that it returns itself."""

    @staticmethod
    def forward(context, distance, fixed, moving):
        value, derivative = distance(fixed, moving)
        context.save_for_backward(derivative)
        return value

    @staticmethod
    def backward(context, arriving):
        return None, None, arriving * context.saved_tensors[0]


@pytest.fixture
def features(generator):
    return tuple(torch.rand(9, 5, generator=generator, dtype=torch.float64) + 0.1 for _ in range(2))


def test_there_are_the_seven_distances_that_a_parameter_file_may_name():
    assert set(DISTANCES) == set(PLAIN) == set(BY_HAND) == set(Distance.__args__)
    assert sorted(RELATIVE_DISTANCES) == ["L1", "L2"]


@pytest.mark.parametrize("name", DISTANCES)
def test_values_are_those_computed_by_hand(name):
    assert float(DISTANCES[name](FIXED, MOVING)[0]) == pytest.approx(BY_HAND[name])


@pytest.mark.parametrize("name", DISTANCES)
def test_the_derivative_is_that_of_the_plain_formula(name, features):
    fixed, moving = features
    moving = moving.clone().requires_grad_()
    expected = PLAIN[name](fixed, moving)
    expected.backward()
    value, derivative = DISTANCES[name](fixed, moving.detach())
    torch.testing.assert_close(value, expected.detach())
    torch.testing.assert_close(derivative, moving.grad)


@pytest.mark.parametrize("name", DISTANCES)
def test_the_derivative_passes_gradcheck(name, features):
    fixed, moving = features
    assert torch.autograd.gradcheck(lambda m: Given.apply(DISTANCES[name], fixed, m), moving.clone().requires_grad_())


@pytest.mark.parametrize("name", DISTANCES)
def test_identical_features_are_an_optimum_but_for_the_products(name, features):
    fixed, _ = features
    value, derivative = DISTANCES[name](fixed, fixed)
    if name in ("DotProduct", "Dice"):
        assert float(value) < 0
    else:
        assert float(value) == pytest.approx(0 if name in RELATIVE_DISTANCES else -1)
        torch.testing.assert_close(derivative, torch.zeros_like(derivative))


@pytest.mark.parametrize("name", DISTANCES)
@pytest.mark.parametrize("empty", ["fixed", "moving", "both"])
def test_vectors_of_zeros_give_finite_numbers(name, empty, features):
    fixed, moving = (f.clone() for f in features)
    if empty != "moving":
        fixed[2] = 0
    if empty != "fixed":
        moving[2] = 0
    value, derivative = DISTANCES[name](fixed, moving)
    assert bool(value.isfinite())
    assert bool(derivative.isfinite().all())
    if name in ("Cosine", "L1Cosine"):
        assert not bool(derivative[2].any()) or empty == "moving"


@pytest.mark.parametrize("name", ["Cosine", "L1Cosine"])
def test_a_vector_of_zeros_has_cosine_zero_and_no_derivative(name):
    zeros = torch.zeros(2, 3, dtype=torch.float64)
    for fixed, moving in ((zeros, zeros + 1), (zeros + 1, zeros), (zeros, zeros)):
        value, derivative = DISTANCES[name](fixed, moving)
        assert float(value) == 0
        assert not bool(derivative.any())


def test_dice_of_nothing_and_nothing_is_one_and_stays():
    fixed = torch.tensor([[0.0, 0.0], [1.0, 0.0]], dtype=torch.float64)
    moving = torch.tensor([[0.0, 0.0], [0.0, 1.0]], dtype=torch.float64)
    value, derivative = DISTANCES["Dice"](fixed, moving)
    assert float(value) == pytest.approx(-(1 + 0) / 2)
    assert derivative[0].tolist() == [0, 0]


def test_a_channel_that_is_constant_correlates_by_zero(features):
    fixed, moving = (f.clone() for f in features)
    fixed[:, 1], moving[:, 3] = 0.5, 0.25
    value, derivative = DISTANCES["NCC"](fixed, moving)
    kept = [0, 2, 4]
    assert float(value) == pytest.approx(float(-correlation(fixed[:, kept], moving[:, kept]).sum() / 5))
    assert not bool(derivative[:, [1, 3]].any())


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_channel_that_is_constant_but_for_rounding_correlates_by_zero(dtype, generator):
    fixed, moving = torch.randn(2, 5000, 3, generator=generator, dtype=dtype)
    fixed[:, 1], moving[:, 2] = 0.7, 0.3
    value, derivative = DISTANCES["NCC"](fixed, moving)
    assert float(value) == pytest.approx(float(-correlation(fixed[:, :1], moving[:, :1]).sum() / 3), abs=1e-6)
    assert not bool(derivative[:, 1:].any())
