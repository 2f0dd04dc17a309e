"""The keys that real elastix reads, so that those of a stage which it runs are checked like those of the loop.

They stand in `elastix_keys.txt`: a line for each kind of component, for each component, and for the run.
"""

from collections.abc import Mapping
from functools import cache
from importlib.resources import files

from impactreg.parameters import ParameterMap, RunSettings, keys_of, unknown_keys
from impactreg.parameters.settings import Unknown

DEFAULTS = {
    "Registration": "MultiResolutionRegistration",
    "FixedImagePyramid": "FixedSmoothingImagePyramid",
    "MovingImagePyramid": "MovingSmoothingImagePyramid",
    "Interpolator": "BSplineInterpolator",
    "ResampleInterpolator": "FinalBSplineInterpolator",
    "Resampler": "DefaultResampler",
}
"""The components that elastix takes where a parameter map names none."""
KINDS = (*DEFAULTS, "Metric", "ImageSampler", "Optimizer", "Transform")


def unknown(parameter_map: ParameterMap) -> list[Unknown]:
    """The keys that none of elastix's components named in a map reads, with the nearest spelling of one that is read.

    Those that this program reads itself, before and after elastix, count as read.
    """
    return unknown_keys(parameter_map, known_to(parameter_map) | keys_of(RunSettings))


def known_to(parameter_map: ParameterMap) -> set[str]:
    """The keys that elastix reads with the components that a map names; `<i>` and `<level>` stand for numbers."""
    known = set(_table()["run"])
    for kind in KINDS:
        named = parameter_map.get(kind) or (DEFAULTS.get(kind, ""),)
        known.update(*(keys_of_component(kind, name) for name in named))
    return known


def keys_of_component(kind: str, name: str) -> set[str]:
    """The keys that elastix reads for one component, those of its kind included."""
    table = _table()
    return {*table.get(kind, ()), *table.get(f"{kind} {name}", ())}


@cache
def _table() -> Mapping[str, tuple[str, ...]]:
    text = files("impactreg.registration").joinpath("elastix_keys.txt").read_text(encoding="utf-8")
    lines = (line.split(": ") for line in text.splitlines() if not line.startswith("#"))
    return {title: tuple(keys.split()) for title, keys in lines}
