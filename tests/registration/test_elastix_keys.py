"""Keys of real elastix, for stages that it runs."""

import pytest

from impactreg.components.component import available
from impactreg.parameters import ParameterMap, RunSettings, keys_of
from impactreg.registration import elastix
from impactreg.registration.elastix_keys import KINDS, keys_of_component, known_to

NOT_HERE = {
    "ExactMetricEveryXIterations",
    "ExactMetricSampleGridSpacing",
    "NewSamplesEveryIteration",
    "SP_c",
    "SP_gamma",
    "Schedule",
    "ShowExactMetricValue",
}
"""Keys of a column that is not made, of the optimizers, of finite differences, and behind the label of a pyramid."""
DEFAULTS = [ParameterMap.default(name) for name in ("translation", "rigid", "affine", "bspline")]


@pytest.mark.parametrize("parameter_map", DEFAULTS, ids=lambda each: each.name)
def test_elastix_reads_every_key_of_its_own_default_maps(parameter_map):
    assert elastix.unknown(parameter_map) == []


@pytest.mark.parametrize(
    ("key", "suggestion"),
    [
        ("NumberOfSpatialSample", "NumberOfSpatialSamples"),
        ("Sampler", ""),
        ("RandomSed", "RandomSeed"),
        ("Metric0Weigth", "Metric0Weight"),
        ("BSplineTransformOrder", "BSplineTransformSplineOrder"),
        ("UseDifferentiableOverlap", ""),
    ],
)
def test_a_misspelt_key_is_told_with_the_spelling_that_is_free(key, suggestion):
    parameter_map = ParameterMap.default("bspline").without("Metric0Weight").replace({key: 1})
    assert [(each.key, each.suggestion) for each in elastix.unknown(parameter_map)] == [(key, suggestion)]


@pytest.mark.parametrize(
    "key",
    [
        "Metric0Weight",
        "Metric1NumberOfHistogramBins",
        "ErodeFixedMask2",
        "FixedImagePyramid0Schedule",
        "UseRelativeWeights",
        "ImageSampler0NumberOfSpatialSamples",
        "OpenCLDeviceID",
        "WriteITKCompositeTransform",
    ],
)
def test_numbered_and_labelled_keys_are_known(key):
    assert elastix.unknown(ParameterMap.default("bspline").replace({key: 1})) == []


def test_the_key_of_a_component_that_is_not_named_is_told():
    parameter_map = ParameterMap.default("affine").replace({"GridSpacingSchedule": 1, "FullSearchSpace0": 1})
    assert [each.key for each in elastix.unknown(parameter_map)] == ["GridSpacingSchedule", "FullSearchSpace0"]
    other = parameter_map.replace({"Transform": "BSplineStackTransform", "Optimizer": "FullSearch"})
    assert not {"GridSpacingSchedule", "FullSearchSpace0"} & {each.key for each in elastix.unknown(other)}


def test_components_that_are_not_named_are_elastix_s_defaults():
    assert {"FinalBSplineInterpolationOrder", "BSplineInterpolationOrder"} <= known_to(ParameterMap.from_dict({}))


@pytest.mark.parametrize("kind", sorted(set(KINDS) - {"Registration"}))
def test_the_loop_reads_what_elastix_reads_of_each_component(kind):
    rooms = available("ImagePyramid" if kind.endswith("Pyramid") else kind)
    side = kind.removesuffix("ImagePyramid") if kind.endswith("Pyramid") else ""
    # what all metrics read of images is nothing to those that compare points or look at the transform alone
    not_here = NOT_HERE | (keys_of_component(kind, "") if kind == "Metric" else set())
    missing = {
        name: lacking
        for name in elastix.COMPONENTS[kind] & rooms.keys()
        if name.startswith(side)
        and (lacking := keys_of_component(kind, name) - keys_of(rooms[name].Settings, RunSettings) - not_here)
        and not name.endswith("StackTransform")
    }
    assert missing == {}
