"""elastix's own default parameter maps for translation, rigid, affine and B-spline registration.

The values are those of `ParameterObject::GetDefaultParameterMap` (elastix 5.3), the order is that of reading.
"""

from impactreg.errors import ParameterError
from impactreg.parameters.casting import number_text, one_of

DEFAULT_MAPS = ("translation", "rigid", "affine", "bspline")


def default_values(name: str, levels: int = 4) -> dict[str, tuple[str, ...]]:
    """Give the keys and values of the default map called `name` for a number of resolutions.

    Raises ParameterError for another name, or for fewer than one resolution.
    """
    if name not in DEFAULT_MAPS:
        raise ParameterError(f'the default parameter map "{name}" does not exist: {one_of(name, DEFAULT_MAPS)}')
    if levels < 1:
        raise ParameterError(f'the default parameter map "{name}": levels={levels}: at least 1 is needed')
    pairs = _COMPONENTS | _OWN[name] | _SETTINGS | {"NumberOfResolutions": str(levels)}
    values = {key: tuple(text.split()) for key, text in pairs.items()}
    if name == "bspline":
        values["FinalGridSpacingInPhysicalUnits"] = ("10.000000",)
        # Each resolution halves the area of a grid cell: the spacing shrinks by the square root of 2.
        values["GridSpacingSchedule"] = tuple(number_text(2.0 ** (level / 2.0)) for level in reversed(range(levels)))
    return values


_COMPONENTS = {
    "Registration": "MultiResolutionRegistration",
    "Transform": "",
    "Metric": "AdvancedMattesMutualInformation",
    "Optimizer": "AdaptiveStochasticGradientDescent",
    "ImageSampler": "RandomCoordinate",
    "Interpolator": "LinearInterpolator",
    "FixedImagePyramid": "FixedSmoothingImagePyramid",
    "MovingImagePyramid": "MovingSmoothingImagePyramid",
    "ResampleInterpolator": "FinalBSplineInterpolator",
    "Resampler": "DefaultResampler",
}

_OWN = {
    "translation": {"Transform": "TranslationTransform", "AutomaticTransformInitialization": "true"},
    "rigid": {"Transform": "EulerTransform", "AutomaticScalesEstimation": "true"},
    "affine": {"Transform": "AffineTransform", "AutomaticScalesEstimation": "true"},
    "bspline": {
        "Registration": "MultiMetricMultiResolutionRegistration",
        "Transform": "BSplineTransform",
        "Metric": "AdvancedMattesMutualInformation TransformBendingEnergyPenalty",
        "Metric0Weight": "1.0",
        "Metric1Weight": "1.0",
    },
}

_SETTINGS = {
    "NumberOfResolutions": "",
    "MaximumNumberOfIterations": "256",
    "NumberOfSpatialSamples": "2048",
    "NewSamplesEveryIteration": "true",
    "CheckNumberOfSamples": "true",
    "MaximumNumberOfSamplingAttempts": "8",
    "AutomaticParameterEstimation": "true",
    "NumberOfSamplesForExactGradient": "4096",
    "FinalBSplineInterpolationOrder": "3",
    "DefaultPixelValue": "0",
    "WriteIterationInfo": "false",
    "WriteResultImage": "true",
    "ResultImageFormat": "nii",
}
