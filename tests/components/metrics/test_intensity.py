"""AdvancedMeanSquares: by hand on translations, exact gradients, masks, borders, pieces."""

from dataclasses import replace

import pytest
import torch

from impactreg.components.metrics import metric as metrics
from impactreg.components.samplers import Samples
from impactreg.components.transforms.linear import TranslationTransform
from impactreg.components.transforms.transform import Combination
from impactreg.errors import RegistrationError
from impactreg.images import Image, Mask

RAMP = Image.of(2 * torch.arange(8.0).repeat(6, 1), (1.5, 1.0))


def shift(*by):
    return Combination(TranslationTransform(torch.tensor(by, dtype=torch.float64), torch.zeros(len(by)).double()))


def at_voxels(image):
    return Samples(image.grid.points(), image.scalar.reshape(-1).double())


def test_a_shift_along_a_ramp_costs_the_square_of_its_rise(metric):
    given = metric("AdvancedMeanSquares", RAMP, RAMP, order=1)
    inner = Samples(*(v[(RAMP.grid.points()[:, 0] < 9)] for v in (at_voxels(RAMP).points, at_voxels(RAMP).values)))
    found = given.evaluate(shift(0.75, 0), inner)  # half a voxel: the ramp rises by 1
    assert found.value == pytest.approx(1)
    assert found.gradient.tolist() == pytest.approx([2 * 1 * 2 / 1.5, 0])


def test_identical_images_cost_nothing(metric):
    found = metric("AdvancedMeanSquares", RAMP, RAMP, order=3).evaluate(shift(0, 0), at_voxels(RAMP))
    assert found.value == pytest.approx(0, abs=1e-9)
    assert found.gradient.tolist() == pytest.approx([0, 0], abs=1e-5)


@pytest.mark.parametrize("order", [1, 2, 3])
@pytest.mark.parametrize("kind", ["translation", "euler", "affine", "spline"])
def test_the_gradient_is_that_of_the_value(metric, pair, samples, transforms, assert_slopes, kind, order):
    given = metric("AdvancedMeanSquares", *pair, order=order)
    assert_slopes(given, transforms[kind], samples, rtol=1e-5, step=1e-6)


@pytest.mark.parametrize("compose", [True, False])
def test_the_gradient_on_top_of_an_initial_transform_is_that_of_the_value(
    metric, pair, samples, transforms, assert_slopes, compose
):
    given = metric("AdvancedMeanSquares", *pair)
    assert_slopes(given, Combination(transforms["spline"].current, transforms["affine"], compose), samples, rtol=1e-5)


def test_points_in_pieces_give_the_same_value_and_gradient(metric, pair, samples, transforms, monkeypatch):
    given = metric("AdvancedMeanSquares", *pair)
    whole = given.evaluate(transforms["spline"], samples)
    monkeypatch.setattr(metrics, "POINTS_AT_ONCE", 9)
    pieces = given.evaluate(transforms["spline"], samples)
    assert pieces.value == pytest.approx(whole.value)
    torch.testing.assert_close(pieces.gradient, whole.gradient)


def test_without_a_gradient_there_is_none(metric, pair, samples):
    found = metric("AdvancedMeanSquares", *pair).evaluate(shift(0, 0, 0), samples, gradient=False)
    assert found.gradient is None
    assert found.value == metric("AdvancedMeanSquares", *pair).evaluate(shift(0, 0, 0), samples).value


def test_only_points_that_stay_in_the_moving_image_and_mask_count(metric, pair, samples):
    fixed, moving = pair
    mask = Mask(moving.grid.points()[:, 0].reshape(moving.grid.shape) < 12, moving.grid)
    by = shift(1, -2, 0.5)
    kept = mask.contains(by(samples.points))
    far = torch.tensor([[500.0, 0.0, 0.0]]).double()
    every = Samples(torch.cat([samples.points, far]), torch.cat([samples.values, far[:, 1]]))
    found = metric("AdvancedMeanSquares", fixed, moving, changes={"moving_mask": mask}).evaluate(by, every)
    alone = Samples(samples.points[kept], samples.values[kept])
    expected = metric("AdvancedMeanSquares", fixed, moving).evaluate(by, alone)
    assert 0 < len(alone) < len(samples)
    assert found.value == pytest.approx(expected.value)
    torch.testing.assert_close(found.gradient, expected.gradient)


def test_samples_of_the_image_border_count_up_to_half_a_voxel_beyond(metric):
    given = metric("AdvancedMeanSquares", RAMP, RAMP, order=1, RequiredRatioOfValidSamples=0)
    first = Samples(torch.tensor([[0.0, 2.0]]).double(), torch.zeros(1).double())
    assert given.evaluate(shift(-0.74, 0), first).value == pytest.approx(0.9867**2, rel=1e-3)  # mirrored
    with pytest.raises(RegistrationError):
        given.evaluate(shift(-0.76, 0), first)


@pytest.mark.parametrize(
    ("keys", "enough"),
    [
        ({}, False),
        ({"RequiredRatioOfValidSamples": 0.1}, True),
        ({"CheckNumberOfSamples": False}, True),
        ({"RequiredRatioOfValidSamples": 0.3}, False),
    ],
)
def test_too_few_samples_inside_are_an_error_as_the_map_says(metric, keys, enough):
    given, far = metric("AdvancedMeanSquares", RAMP, RAMP, **keys), shift(10.6, 0)
    if enough:
        assert given.evaluate(far, at_voxels(RAMP)).value > 0
        return
    with pytest.raises(RegistrationError, match=r"^Too many samples map outside moving image buffer: 6 / 48"):
        given.evaluate(far, at_voxels(RAMP))


def test_no_sample_inside_is_always_an_error(metric):
    given = metric("AdvancedMeanSquares", RAMP, RAMP, CheckNumberOfSamples=False)
    with pytest.raises(RegistrationError, match="0 / 48 are inside"):
        given.evaluate(shift(0, 1000), at_voxels(RAMP))


def test_normalization_divides_by_the_largest_difference(metric):
    fixed, moving = RAMP, RAMP.with_data(RAMP.data * 3 + 5)
    plain, scaled = (
        metric("AdvancedMeanSquares", fixed, moving, UseNormalization=use).evaluate(shift(0.3, 0.1), at_voxels(RAMP))
        for use in (False, True)
    )
    factor = 100 / (47 - 0) ** 2
    assert scaled.value == pytest.approx(plain.value * factor)
    torch.testing.assert_close(scaled.gradient, plain.gradient * factor)


def test_normalization_looks_inside_the_masks(metric):
    low = Mask(RAMP.grid.points()[:, 0].reshape(RAMP.grid.shape) < 4, RAMP.grid)
    masks = {"fixed_mask": low, "moving_mask": low}
    inner = at_voxels(RAMP)
    found = metric("AdvancedMeanSquares", RAMP, RAMP, changes=masks, UseNormalization=True)
    plain = metric("AdvancedMeanSquares", RAMP, RAMP, changes=masks)
    by = shift(0.3, 0)
    assert found.evaluate(by, inner).value == pytest.approx(plain.evaluate(by, inner).value * 100 / 4**2)


def test_constant_images_are_not_normalised(metric):
    flat = replace(RAMP, data=torch.ones_like(RAMP.data))
    given = metric("AdvancedMeanSquares", flat, flat, UseNormalization=True)
    samples = Samples(at_voxels(flat).points, at_voxels(flat).values + 3)
    assert given.evaluate(shift(0, 0), samples).value == pytest.approx(9)


def test_the_gradient_of_the_moving_image_may_be_scaled_along_the_axes_of_the_world(metric, pair, samples, transforms):
    plain = metric("AdvancedMeanSquares", *pair).evaluate(transforms["translation"], samples)
    scaled = metric("AdvancedMeanSquares", *pair, MovingImageDerivativeScales=[1, 0.5]).evaluate(
        transforms["translation"], samples
    )
    assert scaled.value == plain.value
    torch.testing.assert_close(scaled.gradient, plain.gradient * torch.tensor([1, 0.5, 1]).double())


def test_the_gradient_may_be_scaled_along_the_axes_of_the_moving_image(metric):
    turned = Image.of(RAMP.scalar, (1.5, 1.0), direction=((0.6, -0.8), (0.8, 0.6)))
    axes = torch.tensor(turned.grid.direction).double()
    keys = {"MovingImageDerivativeScales": [1, 0.25], "ScaleGradientWithRespectToMovingImageOrientation": True}
    plain, scaled = (
        metric("AdvancedMeanSquares", turned, turned, **said).evaluate(shift(0.2, 0.3), at_voxels(turned))
        for said in ({}, keys)
    )
    along = axes @ torch.diag(torch.tensor([1, 0.25]).double()) @ axes.T
    torch.testing.assert_close(scaled.gradient, along @ plain.gradient)
