"""Normalised correlation, kappa, corresponding points and displacement magnitudes follow real elastix."""

import numpy as np
import pytest
import torch

pytestmark = pytest.mark.itk

TRANSFORMS = {
    "TranslationTransform": {},
    "EulerTransform": {},
    "AffineTransform": {},
    "BSplineTransform": {"FinalGridSpacingInPhysicalUnits": 9},
}
SEVERAL = {"Registration": "MultiMetricMultiResolutionRegistration"}
NCC = {"Metric": "AdvancedNormalizedCorrelation", "SP_a": 20}
KAPPA = {
    "Metric": "AdvancedKappaStatistic",
    "SP_a": 50,
    "FixedImagePyramid": "FixedShrinkingImagePyramid",
    "MovingImagePyramid": "MovingShrinkingImagePyramid",
}
POINTS = {
    **SEVERAL,
    "Metric": ["AdvancedMeanSquares", "CorrespondingPointsEuclideanDistanceMetric"],
    "Metric0Use": False,
}
MOVED = {
    "Transform": "AffineTransform",
    2: [1.03, 0.05, -0.02, 0.97, 1.5, -2.0],
    3: [1.05, 0.02, 0, -0.03, 0.97, 0.01, 0, 0.02, 1.01, 1.5, -1.0, 0.7],
}


def initial(dimension):
    return {
        "Transform": "AffineTransform",
        "NumberOfParameters": len(MOVED[dimension]),
        "TransformParameters": MOVED[dimension],
        "CenterOfRotationPoint": [20, 8, 20][:dimension],
    }


def follow(runs, metric=1e-4, parameters=1e-4):
    elastix, ours = runs
    assert [len(rows) for rows in ours.metric] == [len(rows) for rows in elastix.metric]
    for level, rows in enumerate(elastix.metric):
        # elastix writes six decimals
        np.testing.assert_allclose(ours.metric[level], rows, rtol=metric, atol=6e-7)
        np.testing.assert_allclose(ours.gradient[level], elastix.gradient[level], rtol=1e-4, atol=6e-7)
    np.testing.assert_allclose(ours.parameters, elastix.parameters, atol=parameters * np.abs(elastix.parameters).max())


@pytest.mark.parametrize("dimension", [2, 3])
@pytest.mark.parametrize("transform", TRANSFORMS)
def test_normalised_correlation_follows_elastix(both, transform, dimension):
    follow(both(dimension, Transform=transform, **NCC, **TRANSFORMS[transform]))


@pytest.mark.parametrize("transform", ["AffineTransform", "BSplineTransform"])
def test_normalised_correlation_in_masks_and_two_resolutions_follows_elastix(both, transform):
    masks = {"fixed_mask": True, "moving_mask": True, "RequiredRatioOfValidSamples": 0.005}
    follow(both(Transform=transform, NumberOfResolutions=2, **masks, **NCC, **TRANSFORMS[transform]))


def test_normalised_correlation_of_oblique_images_after_an_initial_transform_follows_elastix(both):
    linear = {"Interpolator": "LinearInterpolator", "AutomaticScalesEstimation": True}
    follow(both(angle=-0.2, Transform="EulerTransform", initial=initial(3), **linear, **NCC))


def test_scaled_moving_derivatives_of_the_correlation_follow_elastix(both):
    follow(both(Transform="BSplineTransform", MovingImageDerivativeScales=[1, 0, 0.5], **NCC))


@pytest.fixture
def of_labels(both, monkeypatch):
    """Runs on images that are 1 in some places and 0 in the others."""
    return labelled(both, monkeypatch, 1)


def labelled(both, monkeypatch, label):
    grey = both.__globals__["pair"]

    def pair(dimension, angle=0.0, **seed):
        return tuple(i.with_data(label * (i.data > 100).float()) for i in grey(dimension, angle, **seed))

    monkeypatch.setitem(both.__globals__, "pair", pair)
    return both


@pytest.mark.parametrize("interpolator", ["NearestNeighborInterpolator", "LinearInterpolator"])
@pytest.mark.parametrize("dimension", [2, 3])
@pytest.mark.parametrize("transform", TRANSFORMS)
def test_kappa_follows_elastix(of_labels, transform, dimension, interpolator):
    follow(of_labels(dimension, Transform=transform, Interpolator=interpolator, **KAPPA, **TRANSFORMS[transform]))


@pytest.mark.parametrize("keys", [{"UseComplement": False}, {"UseForegroundValue": False}, {"ForegroundValue": 0}])
def test_kappa_with_other_keys_follows_elastix(of_labels, keys):
    masks = {"fixed_mask": True, "moving_mask": True, "RequiredRatioOfValidSamples": 0.005}
    follow(of_labels(Transform="AffineTransform", NumberOfResolutions=2, **masks, **{**KAPPA, "SP_a": 5, **keys}))


def test_elastix_takes_kappas_steps_of_oblique_images_for_world_vectors(of_labels):
    elastix, ours = of_labels(angle=-0.2, Transform="TranslationTransform", MaximumNumberOfIterations=1, **KAPPA)
    np.testing.assert_allclose(ours.metric, elastix.metric, atol=6e-7)
    np.testing.assert_allclose(ours.gradient, elastix.gradient, rtol=1e-5)
    assert np.abs(ours.parameters - elastix.parameters).max() > 0.01 * np.abs(elastix.parameters).max()


def test_elastix_misses_the_steps_of_labels_that_are_not_the_foreground_value(both, monkeypatch):
    keys = {**KAPPA, "UseForegroundValue": False, "Transform": "TranslationTransform", "MaximumNumberOfIterations": 1}
    elastix, ours = labelled(both, monkeypatch, 3)(**keys)
    np.testing.assert_allclose(ours.metric, elastix.metric, atol=6e-7)
    assert elastix.gradient == [[0.0]]
    assert ours.gradient[0][0] > 0.01


def landmarks(dimension):
    random = torch.Generator().manual_seed(7)
    fixed = (
        torch.rand(9, dimension, generator=random, dtype=torch.float64) * 20 + torch.tensor([10.0, 0, 8])[:dimension]
    )
    return fixed, fixed + torch.rand(9, dimension, generator=random, dtype=torch.float64) * 4 - 1


@pytest.mark.parametrize("dimension", [2, 3])
@pytest.mark.parametrize("transform", TRANSFORMS)
def test_corresponding_points_follow_elastix(both, transform, dimension):
    follow(both(dimension, Transform=transform, points=landmarks(dimension), SP_a=1, **POINTS, **TRANSFORMS[transform]))


def test_corresponding_points_in_masks_and_two_resolutions_follow_elastix(both):
    keys = {**POINTS, "Metric0Use": True, "Metric0Weight": 0.001, "Metric1Weight": 2, "SP_a": 1}
    masks = {"fixed_mask": True, "moving_mask": True, "RequiredRatioOfValidSamples": 0.005}
    spline = {"Transform": "BSplineTransform", **TRANSFORMS["BSplineTransform"]}
    follow(both(points=landmarks(3), NumberOfResolutions=2, initial=initial(3), **masks, **spline, **keys))


@pytest.mark.parametrize("dimension", [2, 3])
@pytest.mark.parametrize("transform", TRANSFORMS)
def test_displacement_magnitudes_follow_elastix(both, transform, dimension):
    keys = {**SEVERAL, "Metric": ["AdvancedNormalizedCorrelation", "DisplacementMagnitudePenalty"]}
    weights = {"Metric0Weight": 1, "Metric1Weight": 0.02, "SP_a": 5}
    follow(both(dimension, Transform=transform, initial=initial(dimension), **keys, **weights, **TRANSFORMS[transform]))


def test_displacement_magnitudes_in_masks_and_two_resolutions_follow_elastix(both):
    masks = {"fixed_mask": True, "moving_mask": True, "RequiredRatioOfValidSamples": 0.005}
    keys = {"Metric": "DisplacementMagnitudePenalty", "Transform": "AffineTransform", "NumberOfResolutions": 2}
    follow(both(initial=initial(3), **masks, **keys, SP_a=0.001))
