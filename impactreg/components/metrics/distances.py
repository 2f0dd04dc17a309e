"""Distances between the features of sampled points, each with its exact derivative to the moving features.

A distance is a function of fixed and moving features [points, channel] that returns its value, a mean over the points,
and the derivative [points, channel]. Its name is what `ImpactDistance` says. The formulas are those of the IMPACT
metric of elastix (Boussot et al. 2025, arXiv:2503.24121); the derivatives of its Cosine and L1Cosine are wrong there
and exact here. Zero vectors have cosine 0 and derivative 0; points where fixed and moving features are both empty have
Dice 1 and derivative 0.
"""

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

from impactreg.images import sums

Features = Float[Tensor, "points channel"]
Distance = Callable[[Features, Features], tuple[Tensor, Features]]

DISTANCES: dict[str, Distance] = {}
RELATIVE_DISTANCES = frozenset({"L1", "L2"})
"""Distances that a registration divides by their first value in each resolution, since they depend on the features'
unit.
"""
JOINT_DISTANCES = frozenset({"NCC"})
"""Distances of all points together; the others are means of what each point gives alone."""

L1_COSINE_DECAY = 0.1
"""How fast L1Cosine falls with the difference of two features."""
ROUNDING = 32
"""Deviations from a mean up to so many units in the last place are what rounding makes of a constant."""


def distance(name: str) -> Callable[[Distance], Distance]:
    """Makes a function known as `(ImpactDistance "name")`."""

    def register(function: Distance) -> Distance:
        DISTANCES[name] = function
        return function

    return register


@distance("L1")
def l1(fixed: Features, moving: Features) -> tuple[Tensor, Features]:
    """Mean of |m - f| over points and channels."""
    difference = moving - fixed
    return sums.mean(difference.abs()), difference.sign() / difference.numel()


@distance("L2")
def l2(fixed: Features, moving: Features) -> tuple[Tensor, Features]:
    """Mean of (m - f)^2 over points and channels."""
    difference = moving - fixed
    return sums.mean(difference.square()), difference * (2 / difference.numel())


@distance("Cosine")
def cosine(fixed: Features, moving: Features) -> tuple[Tensor, Features]:
    """Minus the mean over points of f.m / (|f| |m|)."""
    similarity, derivative = cosines(fixed, moving)
    return -sums.mean(similarity), derivative / -len(fixed)


@distance("L1Cosine")
def l1_cosine(fixed: Features, moving: Features) -> tuple[Tensor, Features]:
    """Minus the mean over points and channels of f.m / (|f| |m|) exp(-0.1 |f - m|)."""
    similarity, slope = cosines(fixed, moving)
    difference = moving - fixed
    decay = torch.exp(-L1_COSINE_DECAY * difference.abs())
    value = -sums.mean(similarity[:, None] * decay)
    derivative = (
        slope * decay.sum(dim=1, keepdim=True) - L1_COSINE_DECAY * difference.sign() * decay * similarity[:, None]
    )
    return value, derivative / -difference.numel()


@distance("DotProduct")
def dot_product(fixed: Features, moving: Features) -> tuple[Tensor, Features]:
    """Minus the mean over points of f.m."""
    return -sums.total(fixed * moving) / len(fixed), fixed / -len(fixed)


@distance("Dice")
def dice(fixed: Features, moving: Features) -> tuple[Tensor, Features]:
    """Minus the mean over points of 2 f.m / sum(f + m), which is 1 where that sum is 0."""
    overlap = (fixed * moving).sum(dim=1, keepdim=True)
    total = (fixed + moving).sum(dim=1, keepdim=True)
    empty = total == 0
    divisor = total.masked_fill(empty, 1.0)
    value = (2 * overlap / divisor).masked_fill(empty, 1.0)
    derivative = (2 * (fixed * divisor - overlap) / divisor.square()).masked_fill(empty, 0.0)
    return -sums.mean(value), derivative / -len(fixed)


@distance("NCC")
def ncc(fixed: Features, moving: Features) -> tuple[Tensor, Features]:
    """Minus the mean over channels of the correlation over the points; a constant channel correlates by 0."""
    f, m = fixed - fixed.mean(dim=0), moving - moving.mean(dim=0)
    norm_f, norm_m = (
        divisor(v.square().sum(dim=0).sqrt(), whole.square().sum(dim=0).sqrt())
        for v, whole in ((f, fixed), (m, moving))
    )
    f, m = f / norm_f, m / norm_m
    correlation = (f * m).sum(dim=0)
    constant = (norm_f == torch.inf) | (norm_m == torch.inf)
    derivative = ((f - correlation * m) / norm_m).masked_fill(constant, 0.0)
    return -correlation.mean(), derivative / -fixed.shape[1]


def cosines(fixed: Features, moving: Features) -> tuple[Float[Tensor, " points"], Features]:
    """Cosine of each pair of vectors and its derivative to the moving one, both 0 where a vector is 0."""
    norm_f, norm_m = (divisor(torch.linalg.vector_norm(v, dim=1, keepdim=True)) for v in (fixed, moving))
    f, m = fixed / norm_f, moving / norm_m
    similarity = (f * m).sum(dim=1, keepdim=True)
    return similarity[:, 0], (f - similarity * m) / norm_m


def divisor(norm: Tensor, before: "Tensor | float" = 0.0) -> Tensor:
    """Norms with infinity for 0, so that a division by them gives 0.

    `before` are the norms before a mean was taken away: what is left of a constant then is rounding, and counts as 0.
    """
    return norm.masked_fill(norm <= ROUNDING * torch.finfo(norm.dtype).eps * before, torch.inf)
