"""How images become features: TorchScript models, their contract, their files, and the feature maps of an image."""

from impactreg.models.catalogue import ModelCard, cards, locate
from impactreg.models.export import ExportReport, export
from impactreg.models.extractor import Extractor
from impactreg.models.features import extract, sampling_grid, statistics
from impactreg.models.mind import MIND

__all__ = [
    "MIND",
    "ExportReport",
    "Extractor",
    "ModelCard",
    "cards",
    "export",
    "extract",
    "locate",
    "sampling_grid",
    "statistics",
]
