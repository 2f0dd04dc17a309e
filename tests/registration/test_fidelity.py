"""Deterministic runs follow real elastix iteration by iteration."""

import numpy as np
import pytest

pytestmark = pytest.mark.itk

TRANSFORMS = {
    "TranslationTransform": {},
    "EulerTransform": {},
    "SimilarityTransform": {},
    "AffineTransform": {},
    "BSplineTransform": {"FinalGridSpacingInPhysicalUnits": 9, "SP_a": 1},
}
INITIAL = {
    2: {
        "Transform": "EulerTransform",
        "NumberOfParameters": 3,
        "TransformParameters": [0.1, 1.5, -2.0],
        "CenterOfRotationPoint": [20, 15],
    },
    3: {
        "Transform": "AffineTransform",
        "NumberOfParameters": 12,
        "TransformParameters": [1.05, 0.02, 0, -0.03, 0.97, 0.01, 0, 0.02, 1.01, 1.5, -1.0, 0.7],
        "CenterOfRotationPoint": [20, 8, 20],
    },
}


def follow(runs, metric=1e-4, parameters=1e-3):
    elastix, ours = runs
    assert [len(rows) for rows in ours.metric] == [len(rows) for rows in elastix.metric]
    for level, rows in enumerate(elastix.metric):
        np.testing.assert_allclose(ours.metric[level], rows, rtol=metric)
        np.testing.assert_allclose(ours.gradient[level], elastix.gradient[level], rtol=1e-3, atol=1e-5)
    np.testing.assert_allclose(ours.parameters, elastix.parameters, atol=parameters * np.abs(elastix.parameters).max())


@pytest.mark.parametrize("dimension", [2, 3])
@pytest.mark.parametrize("transform", TRANSFORMS)
def test_gradient_descent_follows_elastix(both, transform, dimension):
    follow(both(dimension, Transform=transform, **TRANSFORMS[transform]))


@pytest.mark.parametrize("transform", TRANSFORMS)
def test_regular_step_gradient_descent_follows_elastix(both, transform):
    step = {**TRANSFORMS[transform], "Optimizer": "RegularStepGradientDescent", "MaximumStepLength": 0.5}
    follow(both(Transform=transform, MinimumStepLength=0.01, **step))


@pytest.mark.parametrize("dimension", [2, 3])
@pytest.mark.parametrize("transform", TRANSFORMS)
def test_oblique_images_follow_elastix(both, transform, dimension):
    follow(both(dimension, angle=-0.2, Transform=transform, **TRANSFORMS[transform]))


@pytest.mark.parametrize(
    "masks", [{"fixed_mask": True}, {"moving_mask": True}, {"fixed_mask": True, "moving_mask": True}]
)
@pytest.mark.parametrize("transform", ["AffineTransform", "BSplineTransform"])
def test_masked_images_follow_elastix(both, transform, masks):
    few = {"RequiredRatioOfValidSamples": 0.005}
    follow(both(Transform=transform, NumberOfResolutions=2, **few, **masks, **TRANSFORMS[transform]))


@pytest.mark.parametrize("angle", [0.0, -0.2])
@pytest.mark.parametrize("pyramid", ["Smoothing", "Recursive", "Shrinking", "Generic"])
@pytest.mark.parametrize("transform", ["EulerTransform", "BSplineTransform"])
def test_two_resolutions_of_every_pyramid_follow_elastix(both, transform, pyramid, angle):
    pyramids = {f"{side}ImagePyramid": f"{side}{pyramid}ImagePyramid" for side in ("Fixed", "Moving")}
    follow(both(angle=angle, Transform=transform, NumberOfResolutions=2, **pyramids, **TRANSFORMS[transform]))


@pytest.mark.parametrize("order", [1, 2])
def test_bsplines_of_other_orders_follow_elastix(both, order):
    follow(
        both(Transform="RecursiveBSplineTransform", BSplineTransformSplineOrder=order, **TRANSFORMS["BSplineTransform"])
    )


@pytest.mark.parametrize(
    "interpolator",
    [{"BSplineInterpolationOrder": 1}, {"BSplineInterpolationOrder": 2}, {"Interpolator": "LinearInterpolator"}],
)
def test_interpolators_follow_elastix(both, interpolator):
    follow(both(Transform="AffineTransform", initial=INITIAL[3], **interpolator))


@pytest.mark.parametrize("how", ["Compose", "Add"])
@pytest.mark.parametrize("dimension", [2, 3])
@pytest.mark.parametrize("transform", TRANSFORMS)
def test_runs_after_an_initial_transform_follow_elastix(both, transform, dimension, how):
    follow(
        both(
            dimension,
            initial=INITIAL[dimension],
            HowToCombineTransforms=how,
            Transform=transform,
            **TRANSFORMS[transform],
        )
    )


@pytest.mark.parametrize("method", ["GeometricalCenter", "CenterOfGravity"])
@pytest.mark.parametrize(
    "transform", ["TranslationTransform", "EulerTransform", "SimilarityTransform", "AffineTransform"]
)
def test_automatic_initialization_follows_elastix(both, transform, method):
    start = {"AutomaticTransformInitialization": True, "AutomaticTransformInitializationMethod": method}
    follow(both(fixed_mask=True, moving_mask=True, Transform=transform, **start))


@pytest.mark.parametrize("method", ["Origins", "GeometryTop"])
def test_the_affine_transform_alone_aligns_origins_and_tops(both, method):
    start = {"AutomaticTransformInitialization": True, "AutomaticTransformInitializationMethod": method}
    follow(both(Transform="AffineTransform", **start))


@pytest.mark.parametrize("transform", ["EulerTransform", "AffineTransform", "BSplineTransform"])
def test_estimated_scales_follow_elastix(both, transform):
    follow(both(Transform=transform, AutomaticScalesEstimation=True, **{"SP_a": 0.02, **TRANSFORMS[transform]}))


def test_grid_samples_follow_elastix(both):
    follow(both(Transform="AffineTransform", ImageSampler="Grid", SampleGridSpacing=[3, 2, 2]))


def test_normalised_mean_squares_follow_elastix(both):
    follow(both(Transform="EulerTransform", UseNormalization=True, SP_a=5))


def test_passive_edges_and_voxel_spacings_follow_elastix(both):
    spline = {
        "FinalGridSpacingInVoxels": [6, 7, 5],
        "PassiveEdgeWidth": 1,
        "GridSpacingSchedule": [1.5, 1.5, 1.0, 1.0, 1.0, 1.0],
    }
    follow(both(Transform="BSplineTransform", SP_a=1, NumberOfResolutions=2, **spline))


def test_elastix_loses_voxels_of_oblique_images_to_rounding(both):
    elastix, ours = both(2, angle=0.3, Transform="TranslationTransform", MaximumNumberOfIterations=1)
    assert abs(ours.metric[0][0] - elastix.metric[0][0]) > 10
