"""Bending energy: known parabolas, finite differences, masks, transforms that do not bend."""

import pytest
import torch

from impactreg.components.metrics.metric import MetricValue
from impactreg.components.samplers import Samples
from impactreg.components.transforms.bspline import BSplineTransform
from impactreg.components.transforms.displacement import DeformationFieldTransform
from impactreg.components.transforms.transform import Combination
from impactreg.errors import RegistrationError, TransformError
from impactreg.images import Grid, Image, Mask

NAME = "TransformBendingEnergyPenalty"
CONTROL = Grid.of((6, 6, 6), (9, 9, 9), (-13, -11, -12))


@pytest.fixture
def penalty(metric, pair):
    return lambda **changes: metric(NAME, *pair, changes=changes)


def parabola(grid, bend):
    """x + bend x^2 along every axis of the world."""
    points = grid.points()
    return Combination(BSplineTransform((bend * points.square()).T.reshape(-1), grid))


@pytest.mark.parametrize("bend", [0.03, -0.2])
def test_a_parabola_has_the_square_of_its_second_derivative(penalty, samples, bend):
    value = penalty().evaluate(parabola(CONTROL, bend), samples)
    assert value.value == pytest.approx(3 * 4 * bend**2)


def test_mixed_derivatives_count_twice(penalty, samples):
    x, y, _ = CONTROL.points().T
    bent = BSplineTransform(torch.cat([0.1 * x * y, 0 * x, 0 * x]), CONTROL)
    assert penalty().evaluate(Combination(bent), samples).value == pytest.approx(2 * 0.1**2)


@pytest.mark.parametrize("order", [1, 2, 3])
def test_the_gradient_is_that_of_finite_differences(penalty, samples, transforms, assert_slopes, order):
    spline = transforms["spline"].current
    bent = BSplineTransform(spline.parameters, spline.grid, order)
    assert_slopes(penalty(), Combination(bent), samples, rtol=1e-6)
    for compose in (True, False):
        chain = Combination(bent, Combination(transforms["affine"].current, transforms["spline"]), compose)
        assert_slopes(penalty(), chain, samples, rtol=1e-6)
    assert_slopes(penalty(), Combination(transforms["affine"].current, Combination(bent)), samples, rtol=1e-6)


@pytest.mark.parametrize("name", ["translation", "euler", "affine"])
def test_matrices_do_not_bend(penalty, samples, transforms, name):
    found = penalty().evaluate(transforms[name], samples)
    assert found.value == 0
    assert torch.equal(found.gradient, torch.zeros_like(transforms[name].parameters))


def test_only_samples_that_map_into_the_moving_mask_count(penalty, pair, samples, transforms):
    inside = torch.zeros(pair[1].grid.shape, dtype=torch.bool)
    inside[:, :, :7] = True
    mask = Mask(inside, pair[1].grid)
    keep = mask.contains(transforms["spline"](samples.points))
    assert 0 < keep.sum() < len(keep)
    masked = penalty(moving_mask=mask).evaluate(transforms["spline"], samples)
    few = penalty().evaluate(transforms["spline"], Samples(samples.points[keep], samples.values[keep]))
    assert masked.value == pytest.approx(few.value)
    torch.testing.assert_close(masked.gradient, few.gradient)


def test_samples_far_outside_the_moving_image_count(penalty, samples, transforms):
    far = Combination(transforms["spline"].current, None)
    shifted = Samples(samples.points - 300, samples.values)
    assert penalty().evaluate(far, shifted).value == 0


def test_too_few_samples_in_the_mask_are_told(penalty, pair, samples, transforms):
    inside = torch.zeros(pair[1].grid.shape, dtype=torch.bool)
    inside[0, 0, 0] = True
    with pytest.raises(RegistrationError, match="Too many samples map outside moving image buffer: 0 / 70"):
        penalty(moving_mask=Mask(inside, pair[1].grid)).evaluate(transforms["spline"], samples)


def test_a_value_alone_comes_without_gradient(penalty, samples, transforms):
    found = penalty().evaluate(transforms["spline"], samples, gradient=False)
    assert found == MetricValue(found.value, None)
    assert found.value > 0


def test_very_many_samples_are_the_mean_of_their_pieces(penalty, transforms):
    points = torch.rand(20000, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64) * 14 + 3
    whole = penalty().evaluate(transforms["spline"], Samples(points, points[:, 0]))
    halves = [penalty().evaluate(transforms["spline"], Samples(p, p[:, 0])) for p in points.split(10000)]
    assert whole.value == pytest.approx(sum(h.value for h in halves) / 2)
    torch.testing.assert_close(whole.gradient, (halves[0].gradient + halves[1].gradient) / 2)


def test_a_spline_on_top_of_a_deformation_field_is_refused(penalty, pair, samples, transforms):
    grid = pair[0].grid
    field = DeformationFieldTransform(Image(torch.zeros(3, *grid.shape), grid))
    with pytest.raises(TransformError, match="are not known"):
        penalty().evaluate(Combination(transforms["spline"].current, field), samples)
