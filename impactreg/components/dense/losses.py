"""Distances between fixed and warped features with a weight for each point, and their exact derivatives.

The formulas are those of `metrics.distances`. There values are means over all points; here each point has its own
value, so that points count by a weight, and so that a lattice can be worked on in pieces: `POINTWISE`. `JOINT` ones
need all points together.
"""

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

from impactreg.components.metrics.distances import L1_COSINE_DECAY, Features, cosines, divisor

Weights = Float[Tensor, " points"]
Pointwise = Callable[[Features, Features], tuple[Weights, Features]]
Joint = Callable[[Features, Features, Weights], tuple[Tensor, Features]]


def l1(fixed: Features, moving: Features) -> tuple[Weights, Features]:
    """Mean over channels of |m - f|."""
    difference = moving - fixed
    return difference.abs().mean(dim=1), difference.sign_().div_(difference.shape[1])


def l2(fixed: Features, moving: Features) -> tuple[Weights, Features]:
    """Mean over channels of (m - f)^2."""
    difference = moving - fixed
    return difference.square().mean(dim=1), difference.mul_(2 / difference.shape[1])


def cosine(fixed: Features, moving: Features) -> tuple[Weights, Features]:
    """Minus f.m / (|f| |m|)."""
    similarity, slope = cosines(fixed, moving)
    return -similarity, -slope


def l1_cosine(fixed: Features, moving: Features) -> tuple[Weights, Features]:
    """Minus the mean over channels of f.m / (|f| |m|) exp(-0.1 |f - m|)."""
    similarity, slope = cosines(fixed, moving)
    difference = moving - fixed
    decay = torch.exp(-L1_COSINE_DECAY * difference.abs())
    change = slope * decay.sum(dim=1, keepdim=True)
    change -= L1_COSINE_DECAY * difference.sign() * decay * similarity[:, None]
    return -similarity * decay.mean(dim=1), change / -difference.shape[1]


def dot_product(fixed: Features, moving: Features) -> tuple[Weights, Features]:
    """Minus f.m."""
    return -(fixed * moving).sum(dim=1), -fixed


def dice(fixed: Features, moving: Features) -> tuple[Weights, Features]:
    """Minus 2 f.m / sum(f + m), which is 1 where that sum is 0."""
    overlap = (fixed * moving).sum(dim=1, keepdim=True)
    total = (fixed + moving).sum(dim=1, keepdim=True)
    empty = total == 0
    divisor = total.masked_fill(empty, 1.0)
    value = (2 * overlap / divisor).masked_fill(empty, 1.0)
    slope = (2 * (fixed * divisor - overlap) / divisor.square()).masked_fill(empty, 0.0)
    return -value[:, 0], -slope


def ncc(fixed: Features, moving: Features, weights: Weights) -> tuple[Tensor, Features]:
    """Minus the mean over channels of the weighted correlation over the points; a constant channel correlates by 0."""
    w = (weights / weights.sum())[:, None]
    f, m = fixed - (w * fixed).sum(dim=0), moving - (w * moving).sum(dim=0)
    norm_f, norm_m = (
        divisor((w * v.square()).sum(dim=0).sqrt(), (w * whole.square()).sum(dim=0).sqrt())
        for v, whole in ((f, fixed), (m, moving))
    )
    f, m = f / norm_f, m / norm_m
    correlation = (w * f * m).sum(dim=0)
    constant = (norm_f == torch.inf) | (norm_m == torch.inf)
    slope = (w * (f - correlation * m) / norm_m).masked_fill(constant, 0.0)
    return -correlation.mean(), slope / -fixed.shape[1]


POINTWISE: dict[str, Pointwise] = {
    "L1": l1,
    "L2": l2,
    "Cosine": cosine,
    "L1Cosine": l1_cosine,
    "DotProduct": dot_product,
    "Dice": dice,
}
"""Distances that each point has for itself, by their names in `ImpactDistance`."""
JOINT: dict[str, Joint] = {"NCC": ncc}
"""Distances of all points together."""


def size_of(name: str, features: Features) -> float:
    """What a distance is divided by so that it does not depend on the unit and the spread of the features: their
    variance for L2, their mean deviation for L1, their mean square for DotProduct, 1 for the others.
    """
    if name == "DotProduct":
        size = features.square().sum(dim=1).mean()
    elif name == "L2":
        size = (features - features.mean(dim=0)).square().mean()
    elif name == "L1":
        size = (features - features.mean(dim=0)).abs().mean()
    else:
        return 1.0
    return float(size) or 1.0
