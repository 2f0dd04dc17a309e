"""Distances between whole feature maps as PyTorch differentiates them: with respect to fixed and to moving features."""

from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from impactreg.components.metrics.distances import DISTANCES, JOINT_DISTANCES

POINTS_AT_ONCE = {"cpu": 1 << 14}
"""Points compared together on a kind of device; on a CPU so few that intermediate results stay in its cache."""
MOST_POINTS = 1 << 20
"""Points compared together on other devices."""

Map = Float[Tensor, "channel points"]


def feature_distance(name: str, fixed: Map, moving: Map) -> Float[Tensor, ""]:
    """The distance `name` (`ImpactDistance`) between features of the same points, differentiable in both.

    Computed in single precision at least, by the closed forms of `distances`: exact, and finite everywhere. Those give
    the derivative to the moving features; as distances are symmetric, the two exchanged give that to the fixed ones.
    """
    common = torch.promote_types(torch.promote_types(fixed.dtype, moving.dtype), torch.float32)
    apply: Callable[[str, Tensor, Tensor], Tensor] = _FeatureDistance.apply
    return apply(name, fixed.to(common), moving.to(common))


class _FeatureDistance(torch.autograd.Function):
    """Derivatives are computed beside the value, since they come with it; second ones only where they are asked for."""

    @staticmethod
    def forward(context: Any, name: str, fixed: Tensor, moving: Tensor) -> Tensor:
        _, *wanted = context.needs_input_grad
        to_fixed, to_moving = (
            torch.empty_like(each) if asked else None for each, asked in zip((fixed, moving), wanted, strict=True)
        )
        values = []
        for part in _parts(name, fixed):
            share = fixed[:, part].shape[1] / fixed.shape[1]
            f, m = _rows(name, fixed[:, part]), _rows(name, moving[:, part])
            value, slope = DISTANCES[name](f, m)
            values.append(value * share)
            if to_moving is not None:
                torch.mul(slope.T, share, out=to_moving[:, part])
            if to_fixed is not None:
                torch.mul(DISTANCES[name](m, f)[1].T, share, out=to_fixed[:, part])
        context.name = name
        context.save_for_backward(fixed, moving, to_fixed, to_moving)
        return torch.stack(values).sum()

    @staticmethod
    def backward(context: Any, arriving: Tensor) -> tuple[Tensor | None, ...]:
        fixed, moving, *slopes = context.saved_tensors
        if torch.is_grad_enabled():
            # Autograd goes through the closed forms once more; what the value came with would count as constant.
            pairs = (moving, fixed), (fixed, moving)
            slopes = [
                s if s is None else DISTANCES[context.name](a.T, b.T)[1].T
                for s, (a, b) in zip(slopes, pairs, strict=True)
            ]
        return None, *(None if slope is None else slope * arriving for slope in slopes)


def _parts(name: str, features: Map) -> list[slice]:
    points = features.shape[1]
    at_once = points if name in JOINT_DISTANCES else POINTS_AT_ONCE.get(features.device.type, MOST_POINTS)
    return [slice(first, first + at_once) for first in range(0, points, at_once)]


def _rows(name: str, features: Map) -> Float[Tensor, "points channel"]:
    """One row a point. Norms of rows are several times faster where a row lies in one place, sums over points not."""
    return features.T if name in JOINT_DISTANCES else features.T.contiguous()
