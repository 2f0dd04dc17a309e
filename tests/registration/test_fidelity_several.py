"""Several metrics, images and masks follow real elastix."""

import numpy as np
import pytest

pytestmark = pytest.mark.itk

TWO = {
    "Registration": "MultiMetricMultiResolutionRegistration",
    "Metric": ["AdvancedMeanSquares", "AdvancedMeanSquares"],
    "Transform": "AffineTransform",
    "Metric1Weight": 0.2,
}
EACH = {
    **TWO,
    "ImageSampler": ["Full", "Full"],
    "Interpolator": ["BSplineInterpolator", "LinearInterpolator"],
    "FixedImagePyramid": ["FixedSmoothingImagePyramid", "FixedRecursiveImagePyramid"],
    "MovingImagePyramid": ["MovingSmoothingImagePyramid", "MovingShrinkingImagePyramid"],
    "NumberOfResolutions": 2,
}


def follow(runs):
    elastix, ours = runs
    for rows, theirs in zip(ours.metric, elastix.metric, strict=True):
        np.testing.assert_allclose(rows, theirs, rtol=1e-6, atol=6e-7)
    for rows, theirs in zip(ours.gradient, elastix.gradient, strict=True):
        np.testing.assert_allclose(rows, theirs, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(ours.parameters, elastix.parameters, atol=1e-6 * np.abs(elastix.parameters).max())


@pytest.mark.parametrize("weights", [{}, {"Metric0Use": False}, {"UseRelativeWeights": True}])
def test_two_metrics_of_one_pair_follow_elastix(both, weights):
    follow(both(Metric0UseNormalization=True, **TWO, **weights))


def test_relative_weights_of_two_metrics_follow_elastix(both):
    relative = {"UseRelativeWeights": True, "Metric1RelativeWeight": [0.1, 3]}
    follow(both(2, NumberOfResolutions=2, Metric0UseNormalization=True, **TWO, **relative))


@pytest.mark.parametrize("dimension", [2, 3])
def test_two_pairs_with_pyramids_and_interpolators_of_their_own_follow_elastix(both, dimension):
    follow(both(dimension, images=2, **EACH))


@pytest.mark.parametrize("masks", [{"fixed_mask": 2}, {"fixed_mask": 2, "moving_mask": 1}, {"moving_mask": 2}])
@pytest.mark.parametrize("erode", [{}, {"ErodeFixedMask1": False, "ErodeMovingMask0": False}])
def test_masks_of_each_metric_follow_elastix(both, masks, erode):
    follow(both(images=2, RequiredRatioOfValidSamples=0.001, **masks, **erode, **EACH))


def test_one_mask_of_one_image_with_two_pyramids_follows_elastix(both):
    follow(both(fixed_mask=1, moving_mask=1, RequiredRatioOfValidSamples=0.001, **EACH))


@pytest.mark.parametrize("angle", [0.0, -0.2])
@pytest.mark.parametrize("metric", ["AdvancedMeanSquares", "AdvancedNormalizedCorrelation"])
def test_nearest_neighbours_with_central_differences_follow_elastix(both, metric, angle):
    steps = {"AdvancedMeanSquares": 0.05, "AdvancedNormalizedCorrelation": 20}
    follow(
        both(
            angle=angle,
            Transform="EulerTransform",
            Interpolator="NearestNeighborInterpolator",
            Metric=metric,
            SP_a=steps[metric],
        )
    )
