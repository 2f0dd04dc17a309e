"""What was asked: parameter files, and the typed settings that are read from them."""

from impactreg.parameters.complaints import Refused
from impactreg.parameters.impact_settings import ImpactSettings, LayerSettings, ModelSettings
from impactreg.parameters.parameter_map import ParameterMap
from impactreg.parameters.reading import ImageDimension, LevelSuffix, Once, PerDimension, PerLevel, WholeList
from impactreg.parameters.run_settings import RunSettings
from impactreg.parameters.settings import Settings, Unknown, describe, keys_of, unknown_keys

__all__ = [
    "ImageDimension",
    "ImpactSettings",
    "LayerSettings",
    "LevelSuffix",
    "ModelSettings",
    "Once",
    "ParameterMap",
    "PerDimension",
    "PerLevel",
    "Refused",
    "RunSettings",
    "Settings",
    "Unknown",
    "WholeList",
    "describe",
    "keys_of",
    "unknown_keys",
]
