"""Mutual information follows real elastix iteration by iteration, wherever the derivative of elastix is right."""

import numpy as np
import pytest

pytestmark = pytest.mark.itk

METRICS = ["AdvancedMattesMutualInformation", "NormalizedMutualInformation"]
GRID = {"Transform": "BSplineTransform", "FinalGridSpacingInPhysicalUnits": 9}
TRANSFORMS = {
    "TranslationTransform": {"SP_a": 50},
    "EulerTransform": {"SP_a": 0.5},
    "SimilarityTransform": {"SP_a": 0.5},
    "AffineTransform": {"SP_a": 0.5},
    "BSplineTransform": {**GRID, "SP_a": 3e3},
}
SPLINE = TRANSFORMS["BSplineTransform"]
IDENTITY = {
    ("AffineTransform", 2): [1, 0, 0, 1, 0, 0],
    ("AffineTransform", 3): [1, 0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0],
    ("SimilarityTransform", 2): [1, 0, 0, 0],
    ("SimilarityTransform", 3): [0, 0, 0, 0, 0, 0, 1],
}
INITIAL = {
    "Transform": "AffineTransform",
    "NumberOfParameters": 12,
    "TransformParameters": [1.05, 0.02, 0, -0.03, 0.97, 0.01, 0, 0.02, 1.01, 1.5, -1.0, 0.7],
    "CenterOfRotationPoint": [20, 8, 20],
}
PRINTED = 6e-7
"""IterationInfo has six decimals."""


def follow(runs, begin=0):
    """Both runs have the same metric, gradient and displacement of the parameters from where they begin."""
    elastix, ours = runs
    assert [len(rows) for rows in ours.metric] == [len(rows) for rows in elastix.metric]
    for level, rows in enumerate(elastix.metric):
        np.testing.assert_allclose(ours.metric[level], rows, rtol=1e-6, atol=PRINTED)
        np.testing.assert_allclose(ours.gradient[level], elastix.gradient[level], rtol=1e-6, atol=PRINTED)
    moved = elastix.parameters - begin
    assert np.abs(moved).max() > 1e-4
    np.testing.assert_allclose(ours.parameters - begin, moved, rtol=0, atol=1e-6 * np.abs(moved).max())


@pytest.mark.parametrize("dimension", [2, 3])
@pytest.mark.parametrize("transform", TRANSFORMS)
@pytest.mark.parametrize("metric", METRICS)
def test_gradient_descent_follows_elastix(both, metric, transform, dimension):
    begin = IDENTITY.get((transform, dimension), 0)
    follow(both(dimension, Metric=metric, **{"Transform": transform, **TRANSFORMS[transform]}), begin)


@pytest.mark.parametrize("fixed", [1, 2, 3])
@pytest.mark.parametrize("metric", METRICS)
def test_fixed_kernels_of_every_order_follow_elastix(both, metric, fixed):
    follow(both(2, Metric=metric, FixedKernelBSplineOrder=fixed, **SPLINE))


@pytest.mark.parametrize("metric", METRICS)
def test_two_masked_resolutions_follow_elastix(both, metric):
    few = {"RequiredRatioOfValidSamples": 0.005, "NumberOfResolutions": 2, "NumberOfHistogramBins": [16, 24]}
    follow(both(Metric=metric, fixed_mask=True, moving_mask=True, **{**SPLINE, **few, "SP_a": 100}))


@pytest.mark.parametrize("how", ["Compose", "Add"])
@pytest.mark.parametrize("metric", METRICS)
def test_oblique_images_after_an_initial_transform_follow_elastix(both, metric, how):
    follow(both(angle=-0.2, initial=INITIAL, HowToCombineTransforms=how, Metric=metric, **SPLINE))


@pytest.mark.parametrize(
    "keys",
    [
        {"FixedLimitRangeRatio": 0.0, "MovingLimitRangeRatio": 0.0, "FixedKernelBSplineOrder": 1},
        {"FixedLimitRangeRatio": 0.1, "MovingLimitRangeRatio": 0.001},
        {"NumberOfFixedHistogramBins": 16, "NumberOfMovingHistogramBins": 24},
        {"UseFastAndLowMemoryVersion": False},
        {"Interpolator": "LinearInterpolator"},
        {"ImageSampler": "Grid", "SampleGridSpacing": [2, 3]},
        {"Optimizer": "RegularStepGradientDescent", "MaximumStepLength": 0.5, "MinimumStepLength": 0.01},
        {"MovingImageDerivativeScales": [1, 0.5]},
    ],
    ids=lambda keys: next(iter(keys)),
)
@pytest.mark.parametrize("metric", METRICS)
def test_settings_follow_elastix(both, metric, keys):
    follow(both(2, Metric=metric, **{**SPLINE, **keys}))


def test_gradients_scaled_along_the_axes_of_the_moving_image_follow_elastix(both):
    scales = {"MovingImageDerivativeScales": [1, 0.5, 0], "ScaleGradientWithRespectToMovingImageOrientation": True}
    follow(both(angle=-0.2, Metric=METRICS[0], **SPLINE, **scales))


@pytest.mark.parametrize("order", [1, 2])
@pytest.mark.parametrize("metric", METRICS)
def test_values_of_lower_moving_kernels_are_those_of_elastix(both, metric, order):
    once = {"MaximumNumberOfIterations": 1, "MovingKernelBSplineOrder": order}
    elastix, ours = both(2, Metric=metric, **SPLINE, **once)
    np.testing.assert_allclose(ours.metric, elastix.metric, rtol=1e-6, atol=PRINTED)


@pytest.mark.parametrize("metric", METRICS)
def test_elastix_climbs_with_a_moving_kernel_of_order_1_where_we_descend(both, metric):
    kernel = {"MovingKernelBSplineOrder": 1, "MaximumNumberOfIterations": 1}
    elastix, ours = both(2, Metric=metric, **SPLINE, **kernel)
    np.testing.assert_allclose(ours.parameters, -elastix.parameters, rtol=0, atol=1e-6 * np.abs(ours.parameters).max())
    elastix, ours = both(2, Metric=metric, **{**SPLINE, "SP_a": 300}, MovingKernelBSplineOrder=1)
    assert ours.metric[0][1] < ours.metric[0][0]
    assert elastix.metric[0][1] > elastix.metric[0][0]


def test_elastix_strays_with_a_moving_kernel_of_order_2_where_we_descend(both):
    elastix, ours = both(2, Metric=METRICS[0], **{**SPLINE, "SP_a": 300}, MovingKernelBSplineOrder=2)
    assert elastix.gradient[0][0] > 5 * ours.gradient[0][0]
    assert ours.metric[0][2] < ours.metric[0][1] < ours.metric[0][0]
