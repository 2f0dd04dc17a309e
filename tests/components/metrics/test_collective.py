"""Metrics of all samples together: pieces, masks, what is asked for."""

import pytest
import torch

from impactreg.components.metrics import metric as metrics
from impactreg.components.metrics.collective import CollectiveMetric
from impactreg.components.samplers import Samples
from impactreg.components.transforms.linear import TranslationTransform
from impactreg.components.transforms.transform import Combination
from impactreg.errors import RegistrationError
from impactreg.images import Mask

NAMES = ["AdvancedNormalizedCorrelation", "AdvancedKappaStatistic"]
KEYS = {"ForegroundValue": 3, "UseForegroundValue": True}


@pytest.fixture
def given(pair, samples):
    """Images and samples of labels 3 and 1, for either metric."""
    images = tuple(i.with_data(1 + 2 * (i.data > 3.4).float()) for i in pair)
    return images, Samples(samples.points, 1 + 2 * (samples.values > 0.5).double())


def shift(*by):
    return Combination(TranslationTransform(torch.tensor(by, dtype=torch.float64), torch.zeros(len(by)).double()))


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("kind", ["euler", "spline"])
def test_points_in_pieces_give_the_same_value_and_gradient(metric, given, transforms, monkeypatch, name, kind):
    images, samples = given
    made = metric(name, *images, order=0, **KEYS) if "Kappa" in name else metric(name, *images, **KEYS)
    whole = made.evaluate(transforms[kind], samples)
    monkeypatch.setattr(metrics, "POINTS_AT_ONCE", 9)
    pieces = made.evaluate(transforms[kind], samples)
    assert isinstance(made, CollectiveMetric)
    assert pieces.value == pytest.approx(whole.value)
    assert float(whole.gradient.abs().max()) > 1e-3
    torch.testing.assert_close(pieces.gradient, whole.gradient)


@pytest.mark.parametrize("name", NAMES)
def test_without_a_gradient_there_is_none(metric, given, transforms, name):
    images, samples = given
    made = metric(name, *images, **KEYS)
    found = made.evaluate(transforms["affine"], samples, gradient=False)
    assert found.gradient is None
    assert found.value == pytest.approx(made.evaluate(transforms["affine"], samples).value)


@pytest.mark.parametrize("name", NAMES)
def test_only_points_that_stay_in_the_moving_image_and_mask_count(metric, given, name):
    (fixed, moving), samples = given
    mask = Mask(moving.grid.points()[:, 0].reshape(moving.grid.shape) < 12, moving.grid)
    by = shift(1, -2, 0.5)
    kept = mask.contains(by(samples.points))
    far = torch.tensor([[500.0, 0.0, 0.0]]).double()
    every = Samples(torch.cat([samples.points, far]), torch.cat([samples.values, far[:, 1]]))
    found = metric(name, fixed, moving, changes={"moving_mask": mask}, **KEYS).evaluate(by, every)
    alone = Samples(samples.points[kept], samples.values[kept])
    expected = metric(name, fixed, moving, **KEYS).evaluate(by, alone)
    assert 0 < len(alone) < len(samples)
    assert found.value == pytest.approx(expected.value)
    torch.testing.assert_close(found.gradient, expected.gradient)


@pytest.mark.parametrize("name", NAMES)
def test_too_few_samples_inside_are_an_error(metric, given, name):
    images, samples = given
    with pytest.raises(RegistrationError, match=r"^Too many samples map outside moving image buffer: 0 / 70"):
        metric(name, *images).evaluate(shift(0, 0, 500), samples)


@pytest.mark.parametrize("name", NAMES)
def test_scales_of_the_moving_derivative_weigh_the_world_axes(metric, given, name):
    images, samples = given
    plain, scaled = (
        metric(name, *images, **KEYS, **keys).evaluate(shift(0.5, 0, 0), samples)
        for keys in ({}, {"MovingImageDerivativeScales": [1, 0, 0.5]})
    )
    assert scaled.value == plain.value
    torch.testing.assert_close(scaled.gradient, plain.gradient * torch.tensor([1, 0, 0.5]).double())
