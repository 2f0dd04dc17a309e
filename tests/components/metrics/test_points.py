"""Corresponding points and displacement magnitudes: known distances, exact gradients, masks, missing points."""

import pytest
import torch

from impactreg.components.metrics import metric as metrics
from impactreg.components.samplers import Samples
from impactreg.components.transforms.linear import TranslationTransform
from impactreg.components.transforms.transform import Combination
from impactreg.errors import PointsError, RegistrationError
from impactreg.images import Mask

CORRESPONDING = "CorrespondingPointsEuclideanDistanceMetric"
MAGNITUDE = "DisplacementMagnitudePenalty"
NO_SAMPLES = Samples(torch.zeros(0, 3).double(), torch.zeros(0).double())


def shift(*by):
    return Combination(TranslationTransform(torch.tensor(by, dtype=torch.float64), torch.zeros(len(by)).double()))


@pytest.fixture
def points(samples):
    """Points of the fixed image and, a little elsewhere, of the moving one."""
    moved = torch.rand(samples.points.shape, generator=torch.Generator().manual_seed(4), dtype=torch.float64) * 3
    return {"fixed_points": samples.points, "moving_points": samples.points + moved}


@pytest.fixture
def half(pair):
    """A mask of the moving image's lower half along x."""
    grid = pair[1].grid
    return Mask(grid.points()[:, 0].reshape(grid.shape) < 12, grid)


def test_points_a_known_vector_apart_are_its_length_apart(metric, pair, points):
    apart = points["fixed_points"] + torch.tensor([3.0, 0, -4]).double()
    made = metric(CORRESPONDING, *pair, changes={**points, "moving_points": apart})
    found = made.evaluate(shift(0, 0, 0), NO_SAMPLES)
    assert found.value == pytest.approx(5)
    assert found.gradient.tolist() == pytest.approx([-0.6, 0, 0.8])


def test_points_that_meet_have_neither_distance_nor_gradient(metric, pair, points):
    made = metric(CORRESPONDING, *pair, changes={**points, "moving_points": points["fixed_points"] + 1.0})
    found = made.evaluate(shift(1, 1, 1), NO_SAMPLES)
    assert found.value == pytest.approx(0, abs=1e-14)
    exact = metric(CORRESPONDING, *pair, changes={**points, "moving_points": points["fixed_points"]})
    assert exact.evaluate(shift(0, 0, 0), NO_SAMPLES).gradient.tolist() == [0, 0, 0]


@pytest.mark.parametrize("kind", ["translation", "euler", "affine", "spline"])
def test_the_gradient_of_the_distance_is_that_of_the_value(metric, pair, points, transforms, assert_slopes, kind):
    assert_slopes(metric(CORRESPONDING, *pair, changes=points), transforms[kind], NO_SAMPLES, rtol=1e-6)


def test_points_that_leave_the_moving_mask_do_not_count(metric, pair, points, half):
    by = shift(1, -2, 0.5)
    kept = half.contains(by(points["fixed_points"]))
    found = metric(CORRESPONDING, *pair, changes={**points, "moving_mask": half}).evaluate(by, NO_SAMPLES)
    few = {name: each[kept] for name, each in points.items()}
    expected = metric(CORRESPONDING, *pair, changes=few).evaluate(by, NO_SAMPLES)
    assert 0 < int(kept.sum()) < len(kept)
    assert found.value == pytest.approx(expected.value)
    torch.testing.assert_close(found.gradient, expected.gradient)


def test_points_beyond_the_moving_image_count_where_there_is_no_mask(metric, pair, points):
    found = metric(CORRESPONDING, *pair, changes=points).evaluate(shift(1000, 0, 0), NO_SAMPLES)
    assert found.value == pytest.approx(1000, abs=5)


def test_no_point_in_the_moving_mask_is_an_error(metric, pair, points, half):
    made = metric(CORRESPONDING, *pair, changes={**points, "moving_mask": half})
    with pytest.raises(RegistrationError, match=r"^none of the 70 fixed points maps into the moving mask: "):
        made.evaluate(shift(1000, 0, 0), NO_SAMPLES)


def test_distances_need_no_samples_and_no_fixed_values(metric, pair, points):
    made = metric(CORRESPONDING, *pair, changes=points)
    assert not made.uses_samples
    assert made.evaluate(shift(0, 0, 0), NO_SAMPLES, gradient=False).gradient is None


@pytest.mark.parametrize(
    ("missing", "told"),
    [
        (["fixed_points"], r"give them by -fp \(fixed_points=\)$"),
        (["moving_points"], r"give them by -mp \(moving_points=\)$"),
        (["fixed_points", "moving_points"], r"give them by -fp \(fixed_points=\) and -mp \(moving_points=\)$"),
    ],
)
def test_missing_points_are_an_error_that_names_their_flags(metric, pair, points, missing, told):
    with pytest.raises(PointsError, match=rf'^map.txt: \(Metric "{CORRESPONDING}"\).*{told}'):
        metric(CORRESPONDING, *pair, changes={**points, **dict.fromkeys(missing)})
    with pytest.raises(PointsError, match=told):
        metric(CORRESPONDING, *pair, changes={**points, **dict.fromkeys(missing, points["fixed_points"][:0])})


def test_points_that_do_not_correspond_are_an_error(metric, pair, points):
    with pytest.raises(PointsError, match=r"70 fixed points .-fp.* and 69 moving points .-mp.* do not correspond"):
        metric(CORRESPONDING, *pair, changes={**points, "moving_points": points["moving_points"][1:]})


def test_points_of_another_dimension_are_an_error(metric, pair, points):
    with pytest.raises(PointsError, match=r"-fp .* have 2 coordinates, but the images are 3D"):
        metric(CORRESPONDING, *pair, changes={name: each[:, :2] for name, each in points.items()})


def test_a_translation_is_penalised_by_the_square_of_its_length(metric, pair, samples):
    found = metric(MAGNITUDE, *pair).evaluate(shift(1, -2, 3), samples)
    assert found.value == pytest.approx(14)
    assert found.gradient.tolist() == pytest.approx([2, -4, 6])


def test_the_identity_is_not_penalised(metric, pair, samples):
    found = metric(MAGNITUDE, *pair).evaluate(shift(0, 0, 0), samples)
    assert found.value == 0
    assert found.gradient.tolist() == [0, 0, 0]


@pytest.mark.parametrize("kind", ["translation", "euler", "affine", "spline"])
def test_the_gradient_of_the_penalty_is_that_of_the_value(metric, pair, samples, transforms, assert_slopes, kind):
    assert_slopes(metric(MAGNITUDE, *pair), transforms[kind], samples, rtol=1e-6)


@pytest.mark.parametrize("compose", [True, False])
def test_the_displacement_is_that_of_the_whole_transform(metric, pair, samples, transforms, assert_slopes, compose):
    whole = Combination(transforms["spline"].current, transforms["affine"], compose)
    made = metric(MAGNITUDE, *pair)
    expected = (whole(samples.points) - samples.points).square().sum(dim=1).mean()
    assert made.evaluate(whole, samples, gradient=False).value == pytest.approx(float(expected))
    assert_slopes(made, whole, samples, rtol=1e-6)


def test_penalised_points_in_pieces_give_the_same(metric, pair, samples, transforms, monkeypatch):
    made = metric(MAGNITUDE, *pair)
    whole = made.evaluate(transforms["spline"], samples)
    monkeypatch.setattr(metrics, "POINTS_AT_ONCE", 9)
    pieces = made.evaluate(transforms["spline"], samples)
    assert pieces.value == pytest.approx(whole.value)
    torch.testing.assert_close(pieces.gradient, whole.gradient)


def test_penalised_points_may_leave_the_moving_image_but_not_its_mask(metric, pair, samples, half):
    far = metric(MAGNITUDE, *pair).evaluate(shift(100, 0, 0), samples)
    assert far.value == pytest.approx(1e4)
    by = shift(1, -2, 0.5)
    kept = half.contains(by(samples.points))
    found = metric(MAGNITUDE, *pair, changes={"moving_mask": half}).evaluate(by, samples)
    assert found.value == pytest.approx(5.25)
    with pytest.raises(RegistrationError, match=rf": {int(kept.sum())} / 70 are inside"):
        metric(MAGNITUDE, *pair, changes={"moving_mask": half}, RequiredRatioOfValidSamples=0.9).evaluate(by, samples)
