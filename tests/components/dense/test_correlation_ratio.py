"""Correlation ratio of two images."""

import pytest
import torch

from impactreg.components.dense.correlation_ratio import CorrelationRatio


def test_what_follows_by_any_function_has_no_rest(generator):
    fixed = torch.randint(0, 8, (500,), generator=generator).double()
    moving = torch.sin(fixed * 2)
    value, slope, _ = CorrelationRatio(fixed, 8, float(moving.var()))(moving, torch.ones_like(fixed))
    assert float(value) == pytest.approx(0, abs=1e-12)
    assert float(slope.abs().max()) == pytest.approx(0, abs=1e-12)


def test_what_does_not_follow_has_its_whole_variance_as_rest(generator):
    fixed, moving = torch.rand(2, 20000, generator=generator, dtype=torch.float64)
    value, *_ = CorrelationRatio(fixed, 4, float(moving.var()))(moving, torch.ones_like(fixed))
    assert float(value) == pytest.approx(1, abs=0.01)


def test_the_derivative_is_exact_though_the_function_changes_too(generator):
    fixed, moving, weights, direction = torch.rand(4, 300, generator=generator, dtype=torch.float64)
    ratio = CorrelationRatio(fixed, 5, 0.1)
    slope = ratio(moving, weights)[1]
    ahead, behind = (ratio(moving + step * direction, weights)[0] for step in (1e-6, -1e-6))
    assert float(slope @ direction) == pytest.approx(float((ahead - behind) / 2e-6), rel=1e-6)


def test_an_image_of_one_value_says_nothing():
    moving = torch.tensor([1.0, 2.0, 3.0, 6.0])
    value, slope, _ = CorrelationRatio(torch.full((4,), 7.0), 64, 2.0)(moving, torch.ones(4))
    assert float(value) == pytest.approx(float(moving.var(correction=0)) / 2)
    torch.testing.assert_close(slope, (moving - 3) / 4)
