"""AdvancedKappaStatistic: overlaps of known sets, steps at their borders, keys."""

import logging

import pytest
import torch

from impactreg.components.metrics.kappa import overlap, steps_of
from impactreg.components.samplers import Samples
from impactreg.components.transforms.linear import TranslationTransform
from impactreg.components.transforms.transform import Combination
from impactreg.errors import ParameterError
from impactreg.images import Image

NAME = "AdvancedKappaStatistic"


def square(first, last, value=1.0, **geometry):
    data = torch.zeros(10, 12)
    data[2:8, first:last] = value
    return Image.of(data, **geometry)


FIXED, MOVING = square(2, 6), square(4, 8)


def shift(*by):
    return Combination(TranslationTransform(torch.tensor(by, dtype=torch.float64), torch.zeros(len(by)).double()))


def at_voxels(image):
    return Samples(image.grid.points(), image.scalar.reshape(-1).double())


@pytest.mark.parametrize(
    ("fixed", "moving", "kappa"),
    [(FIXED, FIXED, 1), (FIXED, MOVING, 0.5), (FIXED, square(7, 10), 0), (FIXED, square(2, 5), 2 * 18 / (24 + 18))],
)
@pytest.mark.parametrize("complement", [True, False])
def test_kappa_is_twice_the_overlap_over_both_areas(metric, fixed, moving, kappa, complement):
    made = metric(NAME, fixed, moving, order=0, UseComplement=complement)
    assert made.evaluate(shift(0, 0), at_voxels(fixed)).value == pytest.approx(1 - kappa if complement else kappa)


def test_the_gradient_of_a_shift_is_that_of_the_steps(metric):
    found = metric(NAME, FIXED, MOVING, order=0).evaluate(shift(0, 0), at_voxels(FIXED))
    # of the fixed columns 2 to 5, columns 3 and 4 have a neighbour more to the right; so does nobody to the left
    overlap_rise, area_rise = 2 * 6, 0
    total, both = 24 + 24, 12
    expected = -2 * overlap_rise / total + 2 * both * area_rise / total**2
    assert found.gradient.tolist() == pytest.approx([expected, 0])


def test_a_step_along_minus_the_gradient_makes_the_overlap_larger(metric):
    made = metric(NAME, FIXED, MOVING, order=0)
    before = made.evaluate(shift(0, 0), at_voxels(FIXED))
    after = made.evaluate(shift(*(-4 * before.gradient)), at_voxels(FIXED))
    assert after.value < before.value


def test_turned_images_have_a_turned_gradient(metric):
    turn = [[0.6, -0.8], [0.8, 0.6]]
    straight, turned = (
        metric(NAME, *(square(*c, spacing=(2.0, 1.0), direction=d) for c in ((2, 6), (4, 8))), order=0).evaluate(
            shift(0, 0), at_voxels(square(2, 6, spacing=(2.0, 1.0), direction=d))
        )
        for d in ([[1, 0], [0, 1]], turn)
    )
    assert turned.value == straight.value
    torch.testing.assert_close(turned.gradient, torch.tensor(turn).double() @ straight.gradient)


@pytest.mark.parametrize("value", [1.0, 3.0])
def test_all_above_zero_may_be_foreground(metric, value):
    fixed, moving = square(2, 6, value), square(4, 8, value)
    made = metric(NAME, fixed, moving, order=0, UseForegroundValue=False)
    expected = metric(NAME, FIXED, MOVING, order=0).evaluate(shift(0, 0), at_voxels(FIXED))
    found = made.evaluate(shift(0, 0), at_voxels(fixed))
    assert found.value == expected.value
    assert torch.equal(found.gradient, expected.gradient)


def test_another_label_may_be_foreground(metric):
    made = metric(NAME, square(2, 6, 3.5), square(4, 8, 3.5), order=0, ForegroundValue=3.5)
    assert made.evaluate(shift(0, 0), at_voxels(square(2, 6, 3.5))).value == pytest.approx(0.5)


def test_values_within_a_thousandth_of_the_label_are_foreground(metric):
    for value, found in ((1.0009, 0.0), (1.0011, 1.0)):
        made = metric(NAME, FIXED, FIXED, order=0)
        samples = Samples(at_voxels(FIXED).points, at_voxels(FIXED).values * value)
        assert made.evaluate(shift(0, 0), samples).value == pytest.approx(found)


@pytest.mark.parametrize(("complement", "value"), [(True, 0.0), (False, 1.0)])
def test_nothing_overlaps_nothing_fully_and_without_gradient(metric, caplog, complement, value):
    with caplog.at_level(logging.WARNING):
        made = metric(NAME, square(0, 0), square(0, 0), order=0, UseComplement=complement)
    found = made.evaluate(shift(0, 0), at_voxels(FIXED.with_data(0 * FIXED.data)))
    assert found.value == value
    assert found.gradient.tolist() == [0, 0]
    assert "no voxel of the fixed image is foreground in resolution 0" in caplog.text


def test_a_fixed_image_with_foreground_is_not_warned_of(metric, caplog):
    with caplog.at_level(logging.WARNING):
        metric(NAME, FIXED, MOVING)
    assert not caplog.text


def test_overlap_has_the_derivative_of_sets_that_grow():
    fixed, moving = torch.tensor([1, 1, 0, 0]).bool(), torch.tensor([1, 0, 1, 0]).bool()
    kappa, derivative = overlap(fixed, moving)
    share = moving.double().requires_grad_()
    smooth = 2 * (share * fixed).sum() / (fixed.sum() + share.sum())
    smooth.backward()
    assert kappa == pytest.approx(float(smooth.detach()))
    torch.testing.assert_close(derivative, share.grad)


def test_steps_are_differences_of_neighbours_and_none_at_the_border():
    foreground = torch.tensor([[0, 0, 1, 1, 1], [0, 0, 0, 1, 0], [0, 1, 1, 1, 1]]).bool()
    steps = steps_of(foreground).reshape(3, 5, 2)
    assert steps[..., 0].tolist() == [[0, 1, 1, 0, 0], [0, 0, 1, 0, 0], [0, 1, 0, 0, 0]]
    assert steps[..., 1].tolist() == [[0] * 5, [0, 1, 0, 0, 0], [0] * 5]


def test_a_foreground_that_is_no_number_is_refused(metric):
    with pytest.raises(ParameterError, match=r"map.txt.*ForegroundValue"):
        metric(NAME, FIXED, MOVING, ForegroundValue="bone")
