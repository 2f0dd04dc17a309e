"""Parzen windows: ranges that hold intensities, bins that share them out, joint histograms."""

import pytest
import torch

from impactreg.components.metrics.parzen_windows import Bins, Range, Window, bins_under, gathered, joint_histogram
from impactreg.errors import RegistrationError
from impactreg.images import Image, Mask

SPAN = Range(10.0, 20.0, 9.0, 21.0)
MIDDLE = torch.linspace(10.1, 19.9, 200).double()


def spline(order, x):
    """The centred B-spline: a box, folded with itself `order` times, by the recursion of Cox and de Boor."""
    if order == 0:
        return ((x >= -0.5) & (x < 0.5)).double()
    half = (order + 1) / 2
    return ((half + x) * spline(order - 1, x + 0.5) + (half - x) * spline(order - 1, x - 0.5)) / order


def test_a_range_is_that_of_the_voxels_inside_the_mask():
    image = Image.of(torch.arange(10.0).repeat(3, 1))
    mask = Mask(image.scalar < 5, image.grid)
    assert Range.of(image, mask, 0.5) == Range(0, 4, -2, 6)
    assert Range.of(image, None, 0) == Range(0, 9, 0, 9)


def test_a_mask_between_the_voxels_is_an_error():
    image = Image.of(torch.arange(10.0).repeat(3, 1), (4.0, 4.0))
    thin = torch.zeros(3, 12, dtype=torch.bool)
    thin[1, 2] = True
    mask = Mask.of(Image.of(thin.float()), name="fixed mask")
    with pytest.raises(RegistrationError, match="fixed mask: no voxel of the 10 x 3 image"):
        Range.of(image, mask, 0.01)


def test_clipped_values_stay_between_the_bounds():
    assert SPAN.clipped(torch.tensor([-5.0, 9.5, 15, 20.5, 99])).tolist() == [9, 9.5, 15, 20.5, 21]


def test_bent_values_approach_the_bounds_smoothly():
    values = torch.tensor([-50, 9.2, 10, 15, 20, 20.7, 80]).double()
    bent, slope = SPAN.bent(values)
    assert bent[2:5].tolist() == [10, 15, 20]
    assert slope[2:5].tolist() == [1, 1, 1]
    assert bent[[0, 6]].tolist() == pytest.approx([9, 21])
    assert bent[5] == pytest.approx(20 + 1 - 0.496585, abs=1e-6)  # 1 - exp(-0.7)
    near = (SPAN.bent(values + 1e-6)[0] - SPAN.bent(values - 1e-6)[0]) / 2e-6
    torch.testing.assert_close(slope[[0, 1, 3, 5, 6]], near[[0, 1, 3, 5, 6]], rtol=1e-6, atol=1e-9)


def test_without_room_values_are_cut():
    bent, slope = Range(10.0, 20.0, 10.0, 20.0).bent(torch.tensor([4.0, 12, 31]).double())
    assert bent.tolist() == [10, 12, 20]
    assert slope.tolist() == [0, 1, 0]


@pytest.mark.parametrize("order", [0, 1, 2, 3])
def test_shares_are_b_splines_around_the_place_of_a_value(order):
    bins = Bins.of(SPAN, 16, order)
    start, shares = bins.window(MIDDLE)
    away = start[:, None] + torch.arange(shares.shape[1]) - (MIDDLE / bins.size - bins.first)[:, None]
    torch.testing.assert_close(shares, spline(order, -away), rtol=0, atol=1e-12)
    torch.testing.assert_close(shares.sum(dim=1), torch.ones(200).double())


@pytest.mark.parametrize("order", [1, 2, 3])
def test_slopes_are_the_derivatives_of_the_shares(order):
    bins = Bins.of(SPAN, 16, order)
    (start, shares), slopes = bins.sloped(MIDDLE)
    above, below = bins.window(MIDDLE + 1e-7), bins.window(MIDDLE - 1e-7)
    same = (above.start == start) & (below.start == start)
    assert same.sum() > 190
    torch.testing.assert_close(slopes[same], ((above.shares - below.shares) / 2e-7)[same], rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(shares, bins.window(MIDDLE).shares)


def test_order_0_has_the_slopes_of_order_1():
    bins = Bins.of(SPAN, 16, 0)
    window, slopes = bins.sloped(MIDDLE)
    first, expected = Bins.of(SPAN, 16, 1).sloped(MIDDLE)
    torch.testing.assert_close(slopes, expected)
    assert torch.equal(window.start, first.start)
    both = torch.zeros(200, 16).double().scatter_(1, window.start[:, None] + torch.arange(2), window.shares)
    assert torch.equal(both.argmax(dim=1), bins.window(MIDDLE).start)
    assert torch.equal(both.sum(dim=1), torch.ones(200).double())


@pytest.mark.parametrize("order", [0, 1, 2, 3])
@pytest.mark.parametrize("number", [4, 5, 32])
@pytest.mark.parametrize("span", [SPAN, Range(7, 7, 7, 7), Range(-1e15, 1e15, -1e15, 1e15), Range(0, 1e-12, 0, 1e-12)])
def test_no_value_of_the_range_leaves_the_bins(order, number, span):
    values = torch.tensor([span.lower, span.minimum, (span.lower + span.upper) / 2, span.upper]).double()
    bins = Bins.of(span, number, order, rim_of=77)
    for window in (bins.window(values), bins.sloped(values)[0]):
        assert window.start.min() >= 0
        assert window.start.max() + window.shares.shape[1] <= number
        assert window.shares.min() > -1e-12


def test_the_fewest_bins_hold_one_whole_spline():
    assert [Bins.least(order) for order in range(4)] == [2, 2, 4, 4]


def test_a_joint_histogram_sums_products_of_shares():
    fixed = Window(torch.tensor([0, 2, 0]), torch.tensor([[1.0, 0.5], [0.25, 1], [0, 2]]))
    moving = Window(torch.tensor([1, 0, 1]), torch.tensor([[1.0, 3], [2, 4], [0.5, 0]]))
    under = bins_under(fixed, moving, 3)
    found = joint_histogram(under, fixed.shares, moving.shares, (4, 3))
    assert found.tolist() == [[0, 1, 3], [0, 0.5 + 1, 1.5], [0.5, 1, 0], [2, 4, 0]]
    table = torch.arange(12.0).reshape(4, 3)
    sums = gathered(table, under, fixed.shares, moving.shares)
    assert sums.tolist() == [1 + 6 + 0.5 * (4 + 15), 0.25 * (12 + 28) + 18 + 40, 2 * 0.5 * 4]
    assert float(sums.sum()) == float((table * found).sum())
