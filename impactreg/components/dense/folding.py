"""Folding: how much a displacement field tears space, by the determinants of its Jacobian."""

from dataclasses import dataclass
from math import sqrt

import torch

from impactreg.components.warping import determinants_by_differences
from impactreg.images.image import Image


@dataclass(frozen=True)
class Folding:
    """The share of voxels where the Jacobian determinant is not positive, and the standard deviation of the logarithm
    of the determinant over all others (SDlogJ).
    """

    fraction: float
    sd_log_jacobian: float

    def __str__(self) -> str:
        return f"{100 * self.fraction:.4g} % of the voxels are folded, SDlogJ {self.sd_log_jacobian:.4f}"


def folding(field: Image) -> Folding:
    """How far a field folds: displacements in mm along the world axes (LPS), a channel for each axis, x first.

    The Jacobian is that of x + field(x) (`determinants_by_differences`, in single precision).
    """
    folded = kept = 0
    total = squares = 0.0
    for determinant in determinants_by_differences(field, torch.float32):
        logs = determinant[determinant > 0].double().log()
        folded += determinant.numel() - logs.numel()
        kept += logs.numel()
        total += float(logs.sum())
        squares += float(logs.square().sum())
    mean = total / max(kept, 1)
    return Folding(folded / max(folded + kept, 1), sqrt(max(0.0, squares / max(kept, 1) - mean**2)))
