"""Learn2Reg's figures, against its published formulas stated once more with SciPy."""

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter, map_coordinates

from impactreg.evaluation import learn2reg

SHAPE = (22, 18, 25)


@pytest.fixture(params=[6.0, 40.0], ids=["smooth", "folded"])
def field(request: pytest.FixtureRequest, rng: np.random.Generator) -> np.ndarray:
    """A field [x, y, z, 3] in voxels."""
    return np.stack([gaussian_filter(rng.normal(size=SHAPE), 1.5) for _ in range(3)], axis=-1) * request.param


@pytest.fixture
def labels(rng: np.random.Generator) -> np.ndarray:
    """Labels 0 to 3 [x, y, z]."""
    return np.digitize(gaussian_filter(rng.normal(size=SHAPE), 3), [-0.03, 0, 0.03]).astype(np.uint8)


def published_determinants(field: np.ndarray) -> np.ndarray:
    """Central differences in voxels, two voxels from the border on."""
    rows = [np.stack(np.gradient(field[..., k]), axis=-1) for k in range(3)]
    return np.linalg.det(np.stack(rows, axis=-2) + np.eye(3))[2:-2, 2:-2, 2:-2]


def test_sdlogj_is_the_published_one(field: np.ndarray, rng: np.random.Generator) -> None:
    logarithms = np.log((published_determinants(field) + 3).clip(0.000000001, 1000000000))
    assert learn2reg.sdlogj(field) == pytest.approx(logarithms.std(), abs=1e-9)
    mask = (rng.random(SHAPE) > 0.4).astype(np.uint8)
    inside = mask[2:-2, 2:-2, 2:-2] == 1
    assert learn2reg.sdlogj(field, mask) == pytest.approx(logarithms[inside].std(), abs=1e-9)
    assert learn2reg.folding(field) == pytest.approx((published_determinants(field) <= 0).mean())


def test_tre_takes_the_field_by_cubic_splines_and_the_spacing_of_the_moving_image(
    field: np.ndarray, rng: np.random.Generator
) -> None:
    fixed = rng.uniform(0, 1, (40, 3)) * (np.array(SHAPE) - 1)
    fixed[:2] = [[-0.3, 5, 5], [21, 17, 24]]
    moving = fixed + rng.normal(size=fixed.shape)
    moved = fixed + np.stack([map_coordinates(field[..., k], fixed.T) for k in range(3)], axis=1)
    expected = np.linalg.norm((moved - moving) * np.array([1.5, 2.0, 0.7]), axis=1)
    assert np.allclose(learn2reg.tre(field, fixed, moving, (1.5, 2.0, 0.7)), expected, rtol=0, atol=1e-6)


def test_labels_are_warped_to_the_nearest_voxel_and_end_at_the_outermost_centres(
    field: np.ndarray, labels: np.ndarray
) -> None:
    expected = map_coordinates(labels, np.indices(SHAPE) + field.transpose(3, 0, 1, 2), order=0)
    assert np.array_equal(learn2reg.warped_labels(labels, field), expected)


def test_dice_is_of_labels_that_both_images_have(field: np.ndarray, labels: np.ndarray) -> None:
    moving = np.roll(np.where(labels == 3, 0, labels), 2, axis=1)
    warped = learn2reg.warped_labels(moving, field)
    dice, hd95 = learn2reg.overlaps(labels, moving, warped, (1, 2, 3))
    for label in (1, 2):
        one, other = labels == label, warped == label
        assert dice[label - 1] == 2 * (one & other).sum() / (one.sum() + other.sum())
    assert np.isnan([dice[2], hd95[2]]).all()
    assert learn2reg.mean(dice) == pytest.approx(np.nanmean(dice))


def test_hd95_is_in_voxels() -> None:
    fixed = np.zeros((20, 20, 20), np.uint8)
    fixed[5:10, 5:10, 5:10] = 1
    moved = np.roll(fixed, 3, axis=2)
    assert learn2reg.overlaps(fixed, moved, moved, (1,))[1] == [3.0]


def test_thirty_is_the_worse_end_of_each_metric() -> None:
    means = [1.0, 2.0, 4.0, 8.0]
    assert learn2reg.aggregate(means, "tre") == {"mean": 3.75, "std": np.std(means), "30": np.quantile(means, 0.7)}
    assert learn2reg.aggregate(means, "dice")["30"] == np.quantile(means, 0.3)
    assert learn2reg.aggregate([1.0, np.inf], "hd95")["mean"] == np.inf
