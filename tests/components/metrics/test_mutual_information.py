"""Mutual information: closed forms, exact gradients, settings, what is refused."""

import math
from dataclasses import replace

import pytest
import torch

from impactreg.components.metrics import metric as metrics
from impactreg.components.metrics import mutual_information
from impactreg.components.metrics.metric import Metric
from impactreg.components.samplers import Samples
from impactreg.components.transforms.linear import TranslationTransform
from impactreg.components.transforms.transform import Combination
from impactreg.errors import ParameterError, RegistrationError
from impactreg.images import Grid, Image, Mask
from impactreg.parameters import ParameterMap

NAMES = ["AdvancedMattesMutualInformation", "NormalizedMutualInformation"]
HALVES = Image.of((torch.arange(8) // 4 * 100.0).repeat(8, 1))
ROWS = HALVES.with_data(HALVES.data.mT.contiguous())
BOX = {"MovingKernelBSplineOrder": 0}


def shift(*by):
    return Combination(TranslationTransform(torch.tensor(by, dtype=torch.float64), torch.zeros(len(by)).double()))


def at_voxels(image):
    return Samples(image.grid.points(), image.scalar.reshape(-1).double())


def of_image(samples, image):
    """The samples with values that belong to the image."""
    low, high = float(image.data.min()), float(image.data.max())
    return replace(samples, values=low + (high - low) * samples.values)


def read(name, **keys):
    return Metric.named(name).Settings.read(ParameterMap.from_dict(keys, "map.txt"), label="Metric0")


@pytest.mark.parametrize("fixed_order", [0, 1, 2, 3])
def test_two_equal_halves_share_one_bit_whatever_the_kernels(metric, fixed_order):
    given = metric(NAMES[0], HALVES, HALVES, order=1, FixedKernelBSplineOrder=fixed_order, **BOX)
    assert given.evaluate(shift(0, 0), at_voxels(HALVES)).value == pytest.approx(-math.log(2))


def test_normalised_two_equal_halves_score_two(metric):
    given = metric(NAMES[1], HALVES, HALVES, order=1, **BOX)
    assert given.evaluate(shift(0, 0), at_voxels(HALVES)).value == pytest.approx(-2)


@pytest.mark.parametrize("order", [0, 1, 2, 3])
@pytest.mark.parametrize(("name", "value"), [(NAMES[0], 0), (NAMES[1], -1)])
def test_halves_across_share_nothing(metric, name, value, order):
    given = metric(name, HALVES, ROWS, order=1, MovingKernelBSplineOrder=order, FixedKernelBSplineOrder=order)
    found = given.evaluate(shift(0, 0), at_voxels(HALVES))
    assert found.value == pytest.approx(value, abs=1e-12)


@pytest.mark.parametrize("name", NAMES)
def test_a_cubic_kernel_adds_its_own_entropy_to_that_of_the_moving_image(metric, name):
    rim = 0.001 / (1 + 0.002 / 29)  # where the lowest intensity is in its bin
    outer = (1 - rim) ** 3 / 6, rim**3 / 6
    inner = 2 / 3 - rim**2 * (2 - rim) / 2
    blur = -sum(share * math.log(share) for share in (*outer, inner, 1 - inner - sum(outer)))
    bit = math.log(2)
    expected = -bit if name == NAMES[0] else -(bit + bit + blur) / (bit + blur)
    given = metric(name, HALVES, HALVES, order=1, MovingLimitRangeRatio=0.0)
    assert given.evaluate(shift(0, 0), at_voxels(HALVES)).value == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("fixed_order", [0, 3])
@pytest.mark.parametrize("order", [1, 2, 3])
@pytest.mark.parametrize("kind", ["euler", "spline"])
@pytest.mark.parametrize("name", NAMES)
def test_the_gradient_is_that_of_the_value(
    metric, pair, samples, transforms, assert_slopes, name, kind, order, fixed_order
):
    keys = {"MovingKernelBSplineOrder": order, "FixedKernelBSplineOrder": fixed_order, "NumberOfHistogramBins": 10}
    given = metric(name, *pair, **keys)
    assert_slopes(given, transforms[kind], of_image(samples, pair[0]), rtol=1e-4, step=1e-6)


@pytest.mark.parametrize("name", NAMES)
def test_intensities_out_of_range_still_have_exact_gradients(metric, pair, samples, transforms, assert_slopes, name):
    fixed, moving = pair
    narrow = Mask((moving.scalar - 3).abs() < 0.8, moving.grid)  # its range is a third of the image's
    given = metric(name, fixed, moving, changes={"moving_mask": narrow}, NumberOfHistogramBins=8)
    object.__setattr__(given.scene, "moving_mask", None)
    assert_slopes(given, transforms["affine"], of_image(samples, fixed), rtol=1e-4, step=1e-6)


@pytest.mark.parametrize("compose", [True, False])
def test_the_gradient_on_top_of_an_initial_transform_is_that_of_the_value(
    metric, pair, samples, transforms, assert_slopes, compose
):
    given = metric(NAMES[0], *pair, NumberOfHistogramBins=10)
    both = Combination(transforms["spline"].current, transforms["affine"], compose)
    assert_slopes(given, both, of_image(samples, pair[0]), rtol=1e-4, step=1e-6)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("order", [1, 2, 3])
def test_a_step_down_the_gradient_lowers_the_value(metric, pair, samples, transforms, name, order):
    given = metric(name, *pair, NumberOfHistogramBins=8, MovingKernelBSplineOrder=order)
    values = of_image(samples, pair[0])
    here = given.evaluate(transforms["affine"], values)
    step = -1e-4 * here.gradient / here.gradient.norm()
    there = transforms["affine"].with_parameters(transforms["affine"].parameters + step)
    assert given.evaluate(there, values).value < here.value


def test_the_gradient_of_order_0_is_that_of_the_line_between_bins(metric):
    ramp = Image.of(torch.arange(40.0).repeat(6, 1))
    given = metric(NAMES[0], ramp, ramp, order=1, NumberOfHistogramBins=4, **BOX)
    found = given.evaluate(shift(3, 0), at_voxels(ramp)).gradient
    assert found[0] > 0
    assert found[1] == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize("name", NAMES)
def test_points_in_pieces_give_the_same_value_and_gradient(metric, pair, samples, transforms, monkeypatch, name):
    given, values = metric(name, *pair), of_image(samples, pair[0])
    whole = given.evaluate(transforms["spline"], values)
    for module in (metrics, mutual_information):
        monkeypatch.setattr(module, "POINTS_AT_ONCE", 9)
    pieces = given.evaluate(transforms["spline"], values)
    assert pieces.value == pytest.approx(whole.value, rel=1e-12)
    torch.testing.assert_close(pieces.gradient, whole.gradient)


@pytest.mark.parametrize("name", NAMES)
def test_the_same_samples_give_the_same_bits(metric, pair, samples, transforms, name):
    given, values = metric(name, *pair), of_image(samples, pair[0])
    first, second = (given.evaluate(transforms["spline"], values) for _ in range(2))
    assert first.value == second.value
    assert torch.equal(first.gradient, second.gradient)


def test_without_a_gradient_there_is_none(metric, pair, samples):
    found = metric(NAMES[0], *pair).evaluate(shift(0, 0, 0), samples, gradient=False)
    assert found.gradient is None
    assert found.value == pytest.approx(metric(NAMES[0], *pair).evaluate(shift(0, 0, 0), samples).value, rel=1e-12)


@pytest.mark.parametrize("name", NAMES)
def test_only_points_that_stay_in_the_moving_image_and_mask_count(metric, pair, samples, name):
    fixed, moving = pair
    whole = Mask(torch.ones(moving.grid.shape, dtype=torch.bool), moving.grid)
    part = Mask(moving.grid.points()[:, 0].reshape(moving.grid.shape) < 12, moving.grid)
    by, values = shift(1, -2, 0.5), of_image(samples, fixed)
    kept = part.contains(by(values.points))
    far = torch.tensor([[500.0, 0.0, 0.0]]).double()
    every = Samples(torch.cat([values.points, far]), torch.cat([values.values, far[:, 1]]))
    given, plain = (metric(name, fixed, moving, changes={"moving_mask": whole}) for _ in range(2))
    object.__setattr__(given.scene, "moving_mask", part)
    found = given.evaluate(by, every)
    expected = plain.evaluate(by, Samples(values.points[kept], values.values[kept]))
    assert 0 < int(kept.sum()) < len(samples)
    assert found.value == pytest.approx(expected.value)
    torch.testing.assert_close(found.gradient, expected.gradient)


@pytest.mark.parametrize("name", NAMES)
def test_bins_cover_the_intensities_inside_the_masks(metric, name):
    ramp = Image.of(torch.arange(16.0).repeat(6, 1))
    low = Mask(ramp.scalar < 8, ramp.grid)
    inner = Samples(*(v[low.inside.reshape(-1)] for v in (at_voxels(ramp).points, at_voxels(ramp).values)))
    masked = metric(name, ramp, ramp, changes={"fixed_mask": low, "moving_mask": low}, order=1)
    half = ramp.with_data(torch.where(low.inside, ramp.data, 3.0))
    plain = metric(name, half, half, order=1)
    assert masked.evaluate(shift(0, 0), inner).value == pytest.approx(plain.evaluate(shift(0, 0), inner).value)


@pytest.mark.parametrize("order", [0, 1, 2, 3])
@pytest.mark.parametrize(("name", "value"), [(NAMES[0], 0), (NAMES[1], -1)])
def test_constant_images_share_nothing_and_pull_nowhere(metric, name, value, order):
    flat = HALVES.with_data(torch.full_like(HALVES.data, 7))
    given = metric(name, flat, flat, MovingKernelBSplineOrder=order)
    found = given.evaluate(shift(0.3, 0.2), Samples(at_voxels(flat).points[9:20], at_voxels(flat).values[9:20]))
    assert found.value == pytest.approx(value, abs=1e-9)
    assert found.gradient.tolist() == pytest.approx([0, 0], abs=1e-6)


def test_too_few_samples_inside_are_an_error(metric):
    with pytest.raises(RegistrationError, match="Too many samples map outside moving image buffer: 0 / 64"):
        metric(NAMES[0], HALVES, HALVES).evaluate(shift(0, 1000), at_voxels(HALVES))


@pytest.mark.parametrize("name", NAMES)
def test_the_gradient_of_the_moving_image_may_be_scaled(metric, pair, samples, transforms, name):
    values = of_image(samples, pair[0])
    plain = metric(name, *pair).evaluate(transforms["translation"], values)
    scaled = metric(name, *pair, MovingImageDerivativeScales=[1, 0.25, 0]).evaluate(transforms["translation"], values)
    assert scaled.value == plain.value
    torch.testing.assert_close(scaled.gradient, plain.gradient * torch.tensor([1, 0.25, 0]).double())


def test_the_numbers_of_bins_are_those_of_each_image_or_of_both():
    keys = {"NumberOfHistogramBins": [16, 24], "NumberOfMovingHistogramBins": 40}
    settings = Metric.named(NAMES[0]).Settings
    assert read(NAMES[0]).bins == (32, 32)
    assert settings.read(ParameterMap.from_dict(keys), level=1).bins == (24, 40)


@pytest.mark.parametrize(
    ("keys", "key"),
    [
        ({"NumberOfHistogramBins": 3}, "NumberOfHistogramBins 3"),
        ({"NumberOfFixedHistogramBins": 2}, "NumberOfFixedHistogramBins 2"),
        ({"NumberOfMovingHistogramBins": 3}, "NumberOfMovingHistogramBins 3"),
        ({"Metric0NumberOfMovingHistogramBins": 3}, "Metric0NumberOfMovingHistogramBins 3"),
    ],
)
def test_fewer_bins_than_a_spline_needs_are_refused(keys, key):
    with pytest.raises(ParameterError, match=rf"map.txt.*\({key}\).*at least 4"):
        read(NAMES[0], **keys)


@pytest.mark.parametrize("name", NAMES)
def test_two_bins_are_enough_for_boxes(metric, name):
    keys = {**BOX, "NumberOfHistogramBins": 2}
    found = metric(name, HALVES, HALVES, order=1, **keys).evaluate(shift(0, 0), at_voxels(HALVES))
    assert found.value == pytest.approx(-math.log(2) if name == NAMES[0] else -2)


@pytest.mark.parametrize("key", ["FixedKernelBSplineOrder", "MovingKernelBSplineOrder"])
@pytest.mark.parametrize("order", [-1, 4])
def test_kernels_of_other_orders_are_refused(key, order):
    with pytest.raises(ParameterError, match=key):
        read(NAMES[1], **{key: order})


@pytest.mark.parametrize("key", ["UseJacobianPreconditioning", "FiniteDifferenceDerivative"])
def test_what_only_elastix_has_is_refused_with_the_way_to_it(key):
    with pytest.raises(ParameterError, match=rf'map.txt.*\({key} "true"\).*--engine elastix'):
        read(NAMES[0], **{key: True})
    assert read(NAMES[0], **{key: False})


@pytest.mark.parametrize("name", NAMES)
def test_the_true_shift_scores_best(metric, image, name):
    grid = Grid.of((14, 14, 14), (2.0, 2.0, 2.0))
    fixed, moving = image(grid), image(grid, 2.0)
    given = metric(name, fixed, moving.with_data(5 - moving.data**2), NumberOfHistogramBins=12)
    inner = (grid.points() > 3).all(dim=1) & (grid.points() < 22).all(dim=1)
    samples = Samples(grid.points()[inner], fixed.scalar.reshape(-1)[inner].double())
    values = [given.evaluate(shift(x, 0, 0), samples, gradient=False).value for x in (-2, 0, 1, 2, 3, 4)]
    assert min(values) == values[3]
