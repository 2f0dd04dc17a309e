"""Registrations: the ways to register that come with the package, and the one that a parameter map names."""

from impactreg.components.component import available
from impactreg.errors import ParameterError
from impactreg.parameters import ParameterMap
from impactreg.registration import coarse, elastix_keys, fine, multi_resolution
from impactreg.registration.registration import Registration

ROOMS = (coarse, fine, multi_resolution)
"""The modules with registrations, whose names are known because they are imported."""


def registration_of(parameter_map: ParameterMap) -> Registration:
    """The registration that a parameter map names, made from it; raises `ParameterError`."""
    missing = missing_components(parameter_map)
    if len(missing) > 1:
        raise ParameterError(f"{parameter_map.name}: the PyTorch loop has no {', '.join(missing)}")
    name = parameter_map.first("Registration", elastix_keys.DEFAULTS["Registration"])
    return Registration.named(name, parameter_map.where("Registration"))(parameter_map)


def missing_components(parameter_map: ParameterMap) -> list[str]:
    """The components that a parameter map names and that are not among ours, each as `Metric "PCAMetric"`."""
    rooms = {kind: kind.removeprefix("Fixed").removeprefix("Moving") for kind in elastix_keys.KINDS}
    named = [(kind, name) for kind in rooms for name in dict.fromkeys(parameter_map.get(kind, ()))]
    return [f'{kind} "{name}"' for kind, name in named if name not in available(rooms[kind])]
