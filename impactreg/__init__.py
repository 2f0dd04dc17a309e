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
    from impactreg.components.metrics.loss import ImpactLoss
    from impactreg.components.transforms.exchange import (
        as_transform,
        from_matrix,
        to_itk_transform,
        to_matrix,
        to_sitk_transform,
    )
    from impactreg.evaluation import evaluate, evaluate_dataset
    from impactreg.images import Image
    from impactreg.models.inference import features
    from impactreg.parameters import ParameterMap
    from impactreg.registration.pipeline import register
    from impactreg.registration.point_transform import transform_points
    from impactreg.registration.results import Result
    from impactreg.registration.transformix import transformix
    from impactreg.report import write_report

__version__ = "0.1.0"

logging.getLogger(__name__).addHandler(logging.NullHandler())

_LAZY = {
    "Image": "impactreg.images",
    "ImpactLoss": "impactreg.components.metrics.loss",
    "ParameterMap": "impactreg.parameters",
    "Result": "impactreg.registration.results",
    "as_transform": "impactreg.components.transforms.exchange",
    "evaluate": "impactreg.evaluation",
    "evaluate_dataset": "impactreg.evaluation",
    "features": "impactreg.models.inference",
    "from_matrix": "impactreg.components.transforms.exchange",
    "register": "impactreg.registration.pipeline",
    "to_itk_transform": "impactreg.components.transforms.exchange",
    "to_matrix": "impactreg.components.transforms.exchange",
    "to_sitk_transform": "impactreg.components.transforms.exchange",
    "transform_points": "impactreg.registration.point_transform",
    "transformix": "impactreg.registration.transformix",
    "write_report": "impactreg.report",
}

__all__ = [
    "Image",
    "ImageError",
    "ImpactLoss",
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
    "as_transform",
    "evaluate",
    "evaluate_dataset",
    "features",
    "from_matrix",
    "register",
    "to_itk_transform",
    "to_matrix",
    "to_sitk_transform",
    "transform_points",
    "transformix",
    "write_report",
]


def __getattr__(name: str) -> Any:
    # PyTorch takes seconds to import: it waits until something needs it.
    if name in _LAZY:
        return getattr(import_module(_LAZY[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
