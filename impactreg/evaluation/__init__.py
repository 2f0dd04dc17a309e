"""How good a registration is: landmarks, labels, deformation; and Learn2Reg's figures under their own names."""

from impactreg.evaluation.case import Evaluation, Learn2RegFigures, evaluate
from impactreg.evaluation.dataset import DatasetEvaluation, Figure, evaluate_dataset
from impactreg.evaluation.deformation import Deformation
from impactreg.evaluation.landmarks import Distances
from impactreg.evaluation.overlap import LabelOverlap
from impactreg.evaluation.table import Row, rows_of, write_results

__all__ = [
    "DatasetEvaluation",
    "Deformation",
    "Distances",
    "Evaluation",
    "Figure",
    "LabelOverlap",
    "Learn2RegFigures",
    "Row",
    "evaluate",
    "evaluate_dataset",
    "rows_of",
    "write_results",
]
