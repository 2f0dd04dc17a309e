"""The second moment of B-spline weights over sample points, kept as the band of control points that share a sample."""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from impactreg.components.splines import raster_strides


@dataclass(frozen=True)
class BandedMoment:
    """As `SecondMoment`, for the one row of weights that each point has: `sandwich` holds one number a point."""

    trace: float
    frobenius: float
    sandwich: Float[Tensor, " points"]


def banded_second_moment(
    weights: Float[Tensor, "points taps"], index: Int[Tensor, "points taps"], shape: tuple[int, ...]
) -> BandedMoment:
    """K = mean of w w' over points, where row w holds `weights` at the control points `index` of a grid of `shape` (z,
    y, x).

    Two control points meet in K only within one support, so that K is stored by their offset: [control points, (2 order
    + 1)^D]. The `sandwich` of the result holds w K w' for each point.
    """
    dimension = len(shape)
    taps = round(weights.shape[1] ** (1 / dimension))
    columns = _offset_columns(taps, dimension, weights.device)
    width = (2 * taps - 1) ** dimension
    band = torch.zeros(math.prod(shape) * width, dtype=weights.dtype, device=weights.device)
    for a in range(weights.shape[1]):
        position = index[:, a, None] * width + columns[a]
        band.index_add_(0, position.reshape(-1), (weights[:, a, None] * weights).reshape(-1))
    band /= len(weights)
    diagonal = band.view(-1, width)[:, (width - 1) // 2]
    sandwich = torch.zeros(len(weights), dtype=weights.dtype, device=weights.device)
    for a in range(weights.shape[1]):
        row = band[index[:, a, None] * width + columns[a]]
        sandwich += weights[:, a] * (row * weights).sum(dim=1)
    return BandedMoment(float(diagonal.sum()), float(torch.linalg.vector_norm(band)), sandwich)


def _offset_columns(taps: int, dimension: int, device: torch.device) -> Int[Tensor, "taps taps"]:
    """For two taps of one support, the column of the band that holds their offset."""
    strides = raster_strides((taps,) * dimension)
    tap = torch.arange(taps**dimension, device=device)
    columns = torch.zeros(len(tap), len(tap), dtype=torch.long, device=device)
    for axis, stride in enumerate(strides):
        along = tap // stride % taps
        columns += (along[None, :] - along[:, None] + taps - 1) * (2 * taps - 1) ** axis
    return columns
