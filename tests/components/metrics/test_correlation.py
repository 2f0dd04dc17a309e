"""AdvancedNormalizedCorrelation: known correlations, exact gradients, constant images, a key that does nothing."""

import logging
import math

import numpy as np
import pytest
import torch

from impactreg.components.metrics.correlation import negative_correlation
from impactreg.components.samplers import Samples
from impactreg.components.transforms.linear import TranslationTransform
from impactreg.components.transforms.transform import Combination
from impactreg.images import Image

NAME = "AdvancedNormalizedCorrelation"
STAY = Combination(TranslationTransform(torch.zeros(2).double(), torch.zeros(2).double()))
RANDOM = Image.of(torch.rand(6, 8, generator=torch.Generator().manual_seed(0)), (1.5, 1.0))


def at_voxels(image):
    return Samples(image.grid.points(), image.scalar.reshape(-1).double())


@pytest.mark.parametrize(("factor", "expected"), [(2.5, -1), (-0.3, 1)])
def test_an_affine_copy_of_the_intensities_correlates_fully(metric, factor, expected):
    moving = RANDOM.with_data(RANDOM.data.double() * factor + 700)
    found = metric(NAME, RANDOM, moving, order=1).evaluate(STAY, at_voxels(RANDOM))
    assert found.value == pytest.approx(expected, abs=1e-9)
    assert found.gradient.tolist() == pytest.approx([0, 0], abs=1e-9)


def test_the_value_is_minus_the_correlation_of_numpy(metric, pair, samples, transforms):
    made = metric(NAME, *pair)
    moving = made.moving.values(transforms["affine"](samples.points))[:, 0]
    found = made.evaluate(transforms["affine"], samples)
    assert found.value == pytest.approx(-np.corrcoef(samples.values, moving)[0, 1])


@pytest.mark.parametrize("order", [1, 2, 3])
@pytest.mark.parametrize("kind", ["translation", "euler", "affine", "spline"])
def test_the_gradient_is_that_of_the_value(metric, pair, samples, transforms, assert_slopes, kind, order):
    assert_slopes(metric(NAME, *pair, order=order), transforms[kind], samples, rtol=1e-5, step=1e-6)


@pytest.mark.parametrize("compose", [True, False])
def test_the_gradient_on_top_of_an_initial_transform_is_that_of_the_value(
    metric, pair, samples, transforms, assert_slopes, compose
):
    transform = Combination(transforms["spline"].current, transforms["affine"], compose)
    assert_slopes(metric(NAME, *pair), transform, samples, rtol=1e-5)


def test_the_derivative_to_the_moving_values_is_that_of_the_correlation():
    generator = torch.Generator().manual_seed(1)
    fixed, moving = torch.randn(2, 12, generator=generator, dtype=torch.float64)
    moving.requires_grad_()
    value = -torch.corrcoef(torch.stack([fixed, moving]))[0, 1]
    value.backward()
    found, derivative = negative_correlation(fixed, moving.detach())
    assert found == pytest.approx(float(value.detach()))
    torch.testing.assert_close(derivative, moving.grad)


def test_large_means_cost_no_digits():
    generator = torch.Generator().manual_seed(1)
    fixed, moving = torch.randn(2, 500, generator=generator, dtype=torch.float64)
    near, derivative = negative_correlation(fixed, moving)
    far, far_derivative = negative_correlation(fixed + 1e6, moving - 1e6)
    assert math.isclose(near, far, rel_tol=1e-8)
    torch.testing.assert_close(derivative, far_derivative, rtol=1e-7, atol=1e-10)


@pytest.mark.parametrize("flat", ["fixed", "moving"])
def test_constant_values_correlate_with_nothing(flat):
    values = {"fixed": torch.arange(4.0).double(), "moving": torch.arange(4.0).double(), flat: torch.ones(4).double()}
    value, derivative = negative_correlation(**values)
    assert value == 0
    assert derivative.tolist() == [0, 0, 0, 0]


@pytest.mark.parametrize(("written", "warned"), [(False, True), (True, False)])
def test_means_that_are_not_to_be_subtracted_are_warned_of(metric, pair, caplog, written, warned):
    with caplog.at_level(logging.WARNING):
        metric(NAME, *pair, SubtractMean=written)
    assert ("SubtractMean" in caplog.text) is warned
