"""Learn2Reg's figures in Learn2Reg's conventions, which differ from ours: names here are theirs.

Stated by its public evaluation program (https://github.com/MDL-UzL/L2R, `evaluation/`; Hering et al. 2023, IEEE TMI 42,
697-712): everything is computed on arrays [x, y, z] in voxels. SDlogJ is the standard deviation of log(det J + 3),
clipped, two voxels from the border on, so that folds hardly count; `num_foldings` comes after that clip and is always
0. TRE takes the field at the landmarks by cubic splines, and 0 beyond the outermost voxel centres; only the moving
image's spacing turns it into millimetres. HD95 is in voxels. `30` is the 0.7 quantile of the cases' means for SDlogJ
and TRE, and the 0.3 quantile for Dice and HD95.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from impactreg.components import warping
from impactreg.components.interpolators import Interpolant
from impactreg.components.transforms.displacement_files import VoxelField
from impactreg.evaluation.overlap import overlap_of
from impactreg.images.grid import Grid
from impactreg.images.image import Image

Numbers = npt.NDArray[np.float64]
Voxels = npt.NDArray[Any]

BORDER = 2
"""Voxels at each side that SDlogJ leaves out."""
SHIFT, LOWEST, HIGHEST = 3.0, 1e-9, 1e9
"""What is added to determinants before the logarithm, and what the sum is clipped to."""
LAYERS_AT_ONCE = 16
LOWER_IS_BETTER = ("sdlogj", "tre")
"""Metrics whose `30` is the 0.7 quantile."""


def sdlogj(field: VoxelField, mask: Voxels | None = None) -> float:
    """`LogJacDetStd` of a field [x, y, z, 3]; with a mask [x, y, z] over the voxels in which it is 1."""
    logarithms = np.log(np.clip(determinants(field) + SHIFT, LOWEST, HIGHEST))
    inner = (slice(BORDER, -BORDER),) * 3
    chosen = logarithms if mask is None else logarithms[np.asarray(mask[inner] == 1)]
    return float(chosen.std()) if chosen.size else float("nan")


def determinants(field: VoxelField) -> Numbers:
    """The Jacobian determinants, by central differences in voxels, of all voxels but those near the border."""
    return np.concatenate(list(_determinants(field)))


def folding(field: VoxelField) -> float:
    """The fraction of voxels whose determinant is not positive: what `num_foldings` means to tell."""
    found = determinants(field)
    return float((found <= 0).mean()) if found.size else float("nan")


def tre(field: VoxelField, fixed: Numbers, moving: Numbers, moving_spacing: Sequence[float]) -> Numbers:
    """The registration error (mm) of each landmark; landmarks [points, 3] are voxel positions x, y, z."""
    moved = fixed + _at(field, fixed)
    return np.asarray(np.linalg.norm((moved - moving) * np.array(moving_spacing), axis=1))


def warped_labels(moving: Voxels, field: VoxelField) -> Voxels:
    """The moving labels [x, y, z] at the nearest voxel, 0 beyond the outermost voxel centres."""
    warped = np.zeros(field.shape[:3], moving.dtype)
    last = np.array(moving.shape) - 1
    for first in range(0, len(field), LAYERS_AT_ONCE):
        layers = slice(first, min(first + LAYERS_AT_ONCE, len(field)))
        index = np.indices(field[layers].shape[:3]).transpose(1, 2, 3, 0).astype(np.float64)
        index[..., 0] += first
        there = index + field[layers]
        inside = ((there >= 0) & (there <= last)).all(axis=-1)
        nearest = np.floor(there[inside] + 0.5).astype(np.int64)
        warped[layers][inside] = moving[tuple(nearest.T)]
    return warped


def overlaps(fixed: Voxels, moving: Voxels, warped: Voxels, labels: Sequence[int]) -> tuple[list[float], list[float]]:
    """Dice and HD95 (voxels) of each label; not numbers for a label that the fixed or the moving image lacks."""
    missing = float("nan")
    dice, hd95 = [], []
    for label in labels:
        there = bool((fixed == label).any()) and bool((moving == label).any())
        found = overlap_of(fixed, warped, label, (1.0, 1.0, 1.0)) if there else None
        dice.append(found.dice if found else missing)
        hd95.append(found.hd95 if found else missing)
    return dice, hd95


def mean(values: "Sequence[float] | Numbers") -> float:
    """The mean of what is a number; not a number where nothing is."""
    kept = [value for value in values if not np.isnan(value)]
    return float(np.mean(kept)) if kept else float("nan")


def aggregate(means: Sequence[float], metric: str) -> dict[str, float]:
    """`mean`, `std` and `30` of the cases' means."""
    share = 0.7 if metric in LOWER_IS_BETTER else 0.3
    values = np.array(means)
    # a surface of nothing is infinitely far, and differences of infinities are no numbers
    with np.errstate(invalid="ignore"):
        return {"mean": float(values.mean()), "std": float(values.std()), "30": float(np.quantile(values, share))}


def _determinants(field: VoxelField) -> Iterator[Numbers]:
    inner = slice(BORDER, -BORDER)
    for first in range(BORDER, len(field) - BORDER, LAYERS_AT_ONCE):
        last = min(first + LAYERS_AT_ONCE, len(field) - BORDER)
        layers = field[first - 1 : last + 1].astype(np.float64)
        # axis by axis: half the difference of both neighbours
        along = [(np.roll(layers, -1, axis) - np.roll(layers, 1, axis))[1:-1, inner, inner] / 2 for axis in range(3)]
        matrices = torch.from_numpy(np.stack(along, axis=-1) + np.eye(3))
        yield warping.determinants(matrices.reshape(-1, 3, 3)).reshape(matrices.shape[:-2]).numpy()


def _at(field: VoxelField, points: Numbers) -> Numbers:
    """The field at voxel positions, by cubic splines; 0 beyond the outermost voxel centres."""
    data = torch.from_numpy(np.array(field, dtype=np.float64)).permute(3, 2, 1, 0).contiguous()
    size = tuple(int(n) for n in field.shape[:3])
    there = torch.from_numpy(np.array(points, dtype=np.float64))
    found = Interpolant.of(Image(data, Grid.of(size)), 3).values(there).numpy()
    inside = np.all((points >= 0) & (points <= np.array(size) - 1), axis=1, keepdims=True)
    return np.where(inside, found, 0.0)
