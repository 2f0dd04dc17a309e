import pytest

from impactreg.errors import ParameterError
from impactreg.parameters import ParameterMap, RunSettings, keys_of, unknown_keys


def test_the_defaults_are_those_of_elastix() -> None:
    run = RunSettings.read(ParameterMap.from_dict({}))
    assert (run.registration, run.transform, run.metric) == ("MultiResolutionRegistration", "", ())
    assert (run.number_of_resolutions, run.random_seed, run.how_to_combine_transforms) == (3, 121212, "Compose")
    assert (run.result_image_format, run.result_image_pixel_type, run.default_pixel_value) == ("mhd", "short", 0.0)
    assert (run.write_result_image, run.write_iteration_info, run.use_direction_cosines) == (True, True, True)
    assert (run.erode_mask, run.erode_fixed_mask) == (True, None)


def test_a_default_map_chooses_its_components() -> None:
    run = RunSettings.read(ParameterMap.default("bspline"))
    assert run.metric == ("AdvancedMattesMutualInformation", "TransformBendingEnergyPenalty")
    assert run.interpolator == ("LinearInterpolator",)
    assert run.write_iteration_info is False


def test_settings_of_a_resolution_follow_it() -> None:
    parameters = ParameterMap.from_dict({"ErodeMask": [False, True], "ErodeFixedMask1": True})
    assert [RunSettings.read(parameters, level=level).erode_mask for level in range(3)] == [False, True, False]
    assert RunSettings.read(parameters, label="Metric1").erode_numbered_fixed_mask is True
    assert RunSettings.read(parameters, label="Metric0").erode_numbered_fixed_mask is None


def test_a_pixel_value_may_be_no_number() -> None:
    run = RunSettings.read(ParameterMap.from_dict({"DefaultPixelValue": "-Infinity"}))
    assert run.default_pixel_value == float("-inf")


def test_harmless_keys_are_known() -> None:
    keys = (
        "UseMultiThreadingForMetrics", "ShowProgressPercentage", "PrintErrorMessages", "ErodeMovingMask0",
        "ITKTransformOutputFileNameExtension", "WriteITKCompositeTransform", "FinalBSplineInterpolationOrder",
    )  # fmt: skip
    assert unknown_keys(ParameterMap.from_dict(dict.fromkeys(keys, 1)), keys_of(RunSettings)) == []


@pytest.mark.parametrize(
    ("key", "value"), [("NumberOfResolutions", 0), ("HowToCombineTransforms", "Sum"), ("WriteResultImage", "True")]
)
def test_a_wrong_value_is_refused(key: str, value: object) -> None:
    with pytest.raises(ParameterError, match=key):
        RunSettings.read(ParameterMap.from_dict({key: value}))
