"""Distances of feature maps under autograd: those of the closed forms, in pieces, for both sides."""

import pytest
import torch

from impactreg.components.metrics import feature_distance as room
from impactreg.components.metrics.distances import DISTANCES
from impactreg.components.metrics.feature_distance import feature_distance


@pytest.fixture
def maps(generator):
    return tuple(torch.rand(5, 9, generator=generator, dtype=torch.float64) + 0.1 for _ in range(2))


@pytest.mark.parametrize("name", DISTANCES)
def test_a_distance_is_the_same_with_fixed_and_moving_features_exchanged(name, maps):
    fixed, moving = (each.T for each in maps)
    assert float(DISTANCES[name](fixed, moving)[0]) == pytest.approx(float(DISTANCES[name](moving, fixed)[0]))


@pytest.mark.parametrize("at_once", [4, 100])
@pytest.mark.parametrize("name", DISTANCES)
def test_both_derivatives_pass_gradcheck_in_pieces_and_whole(name, at_once, maps, monkeypatch):
    monkeypatch.setitem(room.POINTS_AT_ONCE, "cpu", at_once)
    fixed, moving = (each.requires_grad_() for each in maps)
    torch.testing.assert_close(feature_distance(name, fixed, moving), DISTANCES[name](fixed.T, moving.T)[0])
    assert torch.autograd.gradcheck(lambda f, m: feature_distance(name, f, m), (fixed, moving))


@pytest.mark.parametrize("name", DISTANCES)
def test_features_of_zeros_give_finite_derivatives(name):
    fixed, moving = (torch.zeros(3, 4, requires_grad=True) for _ in range(2))
    value = feature_distance(name, fixed, moving)
    value.backward()
    assert bool(value.isfinite() & fixed.grad.isfinite().all() & moving.grad.isfinite().all())
    if name == "Dice":
        assert value.item() == -1
        assert not bool(moving.grad.any())


def test_half_precision_is_compared_in_single(maps):
    fixed, moving = (each.half().requires_grad_() for each in maps)
    value = feature_distance("Cosine", fixed, moving)
    value.backward()
    assert value.dtype == torch.float32
    assert moving.grad.dtype == torch.float16
    torch.testing.assert_close(value, feature_distance("Cosine", fixed.float(), moving.float()), rtol=0, atol=0)


@pytest.mark.parametrize("name", DISTANCES)
def test_second_derivatives_pass_gradcheck(name, maps):
    fixed, moving = (each[:, :4].clone().requires_grad_() for each in maps)
    assert torch.autograd.gradgradcheck(lambda f, m: feature_distance(name, f, m), (fixed, moving))
