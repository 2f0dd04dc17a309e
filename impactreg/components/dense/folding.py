"""Folding: how much a displacement field tears space, by the determinants of its Jacobian."""

from dataclasses import dataclass
from math import sqrt

import torch
from jaxtyping import Float
from torch import Tensor

from impactreg.images.image import Image

PLANES_AT_ONCE = 16


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

    The Jacobian is that of x + field(x) by central differences over neighbouring voxels, one-sided at the border.
    """
    folded = kept = 0
    total = squares = 0.0
    for determinant in _determinants(field):
        logs = determinant[determinant > 0].double().log()
        folded += determinant.numel() - logs.numel()
        kept += logs.numel()
        total += float(logs.sum())
        squares += float(logs.square().sum())
    mean = total / max(kept, 1)
    return Folding(folded / max(folded + kept, 1), sqrt(max(0.0, squares / max(kept, 1) - mean**2)))


def _determinants(field: Image) -> "list[Float[Tensor, '*space']]":
    """Some planes at a time, with a plane around them for the differences."""
    last = field.data.shape[1]
    found = []
    for start in range(0, last, PLANES_AT_ONCE):
        stop = min(start + PLANES_AT_ONCE, last)
        low, high = max(0, start - 1), min(last, stop + 1)
        part = _determinant(field.data[:, low:high], field)
        found.append(part[start - low : part.shape[0] - (high - stop)])
    return found


def _determinant(data: Float[Tensor, "dim *space"], field: Image) -> Float[Tensor, "*space"]:
    n = field.dimension
    steps = [_difference(data, n - axis) for axis in range(n)]
    inverse = torch.from_numpy(field.grid.inverse_matrix).to(data)
    # d field_i / d world_j = sum over index axes k of d field_i / d index_k * d index_k / d world_j
    rows = []
    for i in range(n):
        row = [sum((steps[k][i] * inverse[k, j] for k in range(n)), start=torch.zeros_like(data[0])) for j in range(n)]
        row[i] = row[i] + 1
        rows.append(row)
    if n == 2:
        return rows[0][0] * rows[1][1] - rows[0][1] * rows[1][0]
    return sum(
        (
            rows[0][j] * (rows[1][(j + 1) % 3] * rows[2][(j + 2) % 3] - rows[1][(j + 2) % 3] * rows[2][(j + 1) % 3])
            for j in range(3)
        ),
        start=torch.zeros_like(data[0]),
    )


def _difference(data: Float[Tensor, "dim *space"], axis: int) -> Float[Tensor, "dim *space"]:
    """Differences by index along one axis; none along an axis of one voxel."""
    if data.shape[axis] == 1:
        return torch.zeros_like(data)
    (along,) = torch.gradient(data, dim=axis)
    return along
