"""Medical image registration with deep features, driven by elastix parameter files."""

import logging
from importlib import import_module
from typing import TYPE_CHECKING, Any

from impactreg.errors import (
    ImageError,
    ImpactregError,
    MissingExtra,
    ModelError,
    OutputError,
    ParameterError,
    PointsError,
    RegistrationError,
    TransformError,
)

if TYPE_CHECKING:
    from impactreg.images import Image
    from impactreg.parameters import ParameterMap
    from impactreg.registration.pipeline import register
    from impactreg.registration.results import Result
    from impactreg.registration.transformix import transformix

__version__ = "0.1.0"

logging.getLogger(__name__).addHandler(logging.NullHandler())

_LAZY = {
    "Image": "impactreg.images",
    "ParameterMap": "impactreg.parameters",
    "Result": "impactreg.registration.results",
    "register": "impactreg.registration.pipeline",
    "transformix": "impactreg.registration.transformix",
}

__all__ = [
    "Image",
    "ImageError",
    "ImpactregError",
    "MissingExtra",
    "ModelError",
    "OutputError",
    "ParameterError",
    "ParameterMap",
    "PointsError",
    "RegistrationError",
    "Result",
    "TransformError",
    "register",
    "transformix",
]


def __getattr__(name: str) -> Any:
    # PyTorch takes seconds to import: it waits until something needs it.
    if name in _LAZY:
        return getattr(import_module(_LAZY[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
