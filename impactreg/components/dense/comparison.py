"""One compared layer on its lattice: its distance under a displacement, and the derivatives to the displacements.

A lattice point with displacement u is looked up at base + turn u in the voxels of the moving feature map, which stays
on its own grid: `base` holds the initial transform, and `turn` turns displacements into steps of moving voxels.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from impactreg.components.dense.losses import JOINT, POINTWISE
from impactreg.components.dense.warp import FeatureMap, Sampled, at_once

Vectors = Float[Tensor, "dim points"]
Curvature = Float[Tensor, "dim dim points"]
Joined = Callable[[Tensor, Tensor], tuple[Tensor, Tensor, Tensor]]
"""From moving features [points, channel] and weights to the value, its derivative, and its curvature [points]."""

SMOOTHED = 0.1
"""Differences below this share of the mean one count as that large where L1 is approximated by a quadratic form."""


@dataclass(frozen=True, eq=False)
class Compared:
    """A distance, its derivative to the displacements, and a positive approximation of its second derivative."""

    value: Float[Tensor, ""]
    gradient: Vectors
    curvature: Curvature | None = None


@dataclass(frozen=True)
class MovingMask:
    """A mask in the voxels of the moving feature map: the voxel of the mask is turn index + shift, rounded.

    All is on the device of the map, `turn` and `shift` in its number type.
    """

    inside: Bool[Tensor, "*space"]
    turn: Float[Tensor, "dim dim"]
    shift: Float[Tensor, "dim one"]

    def contains(self, index: Vectors) -> Bool[Tensor, " points"]:
        """Which points of the moving feature map lie in the mask."""
        voxel = torch.addmm(self.shift, self.turn, index).add_(0.5).floor_().long()
        known = ((voxel >= 0) & (voxel <= self._last)).all(dim=0)
        held = torch.minimum(voxel.clamp_(min=0), self._last)
        return known & self.inside[tuple(held.flip(0))]

    @cached_property
    def _last(self) -> Int[Tensor, "dim one"]:
        return torch.tensor([[n - 1] for n in reversed(self.inside.shape)], device=self.inside.device)


@dataclass(frozen=True, eq=False)
class Comparison:
    """Fixed features [points, channel] of the lattice, compared with a moving map by a distance.

    `points` chooses those of the lattice that count (None: all). `weight` is the layer's, over what the distance is
    divided by. With `outside_counts`, points outside the moving map have features 0, as in ITKIMPACT; else they do not
    count. `joined` is the distance where it is none of those in `ImpactDistance`.
    """

    distance: str
    weight: float
    fixed: Float[Tensor, "points channel"]
    moving: FeatureMap
    base: Vectors
    turn: Float[Tensor, "dim dim"]
    points: Tensor | None = None
    mask: MovingMask | None = None
    outside_counts: bool = False
    joined: Joined | None = None
    subset: int = 0
    generator: torch.Generator | None = None

    def at(self, displacements: Float[Tensor, "dim *space"], *, curved: bool = False) -> Compared:
        """The distance under displacements at all lattice points; `curved` asks for the curvature too.

        Its value is not a number where no point counts.
        """
        everywhere = displacements.reshape(displacements.shape[0], -1)
        moved = everywhere if self.points is None else everywhere.index_select(1, self.points)
        here = self._of_some_channels()
        found = here._pointwise(moved, curved) if here._own else here._jointly(moved, curved)
        if self.points is None:
            return found
        count = everywhere.shape[1]
        curvature = None if found.curvature is None else _spread(found.curvature, self.points, count)
        return Compared(found.value, _spread(found.gradient, self.points, count), curvature)

    @property
    def _own(self) -> bool:
        return self.joined is None and self.distance in POINTWISE

    def _of_some_channels(self) -> "Comparison":
        """A random choice of channels, anew each time, where that is asked for (`ImpactSubsetFeatures`)."""
        if not 0 < self.subset < self.moving.channels:
            return self
        chosen = torch.randperm(self.moving.channels, generator=self.generator)[: self.subset]
        chosen = chosen.to(self.fixed.device)
        return replace(self, fixed=self.fixed.index_select(1, chosen), moving=self.moving.of_channels(chosen), subset=0)

    def _pointwise(self, moved: Vectors, curved: bool) -> Compared:
        total = counted = moved.new_zeros(())
        gradient, curvature = torch.empty_like(moved), self._curvature_like(moved, curved)
        for piece in self._pieces(moved):
            index = self._index(moved, piece)
            sampled = self.moving.at(index)
            weights = self._weights(index, sampled)
            fixed = self.fixed[piece]
            bends = _bends(self.distance, fixed, sampled.values) if curved else None
            values, slope = POINTWISE[self.distance](fixed, sampled.values)
            total = total + (values * weights).sum()
            counted = counted + weights.sum()
            gradient[:, piece] = self._pull_back(sampled, slope) * weights
            if curvature is not None and bends is not None:
                curvature[:, :, piece] = self._curved(sampled, bends) * weights
        share = self.weight / counted
        return Compared(total * share, gradient.mul_(share), None if curvature is None else curvature.mul_(share))

    def _jointly(self, moved: Vectors, curved: bool) -> Compared:
        """The values of all points first; then the slopes, which are found again where there are many channels."""
        values, weights = torch.empty_like(self.fixed), torch.empty_like(moved[0])
        keeps, kept = self.moving.channels == 1, {}
        for piece in self._pieces(moved):
            index = self._index(moved, piece)
            sampled = self.moving.at(index, slopes=keeps)
            values[piece], weights[piece] = sampled.values, self._weights(index, sampled)
            if keeps:
                kept[piece.start] = sampled
        value, slope, bends = self._joint(values, weights)
        gradient, curvature = torch.empty_like(moved), self._curvature_like(moved, curved)
        for piece in self._pieces(moved):
            sampled = kept.pop(piece.start) if keeps else self.moving.at(self._index(moved, piece))
            gradient[:, piece] = self._pull_back(sampled, slope[piece]) * self.weight
            if curvature is not None:
                curvature[:, :, piece] = self._curved(sampled, bends[piece]) * self.weight
        return Compared(value * self.weight, gradient, curvature)

    def _joint(self, values: Tensor, weights: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        if self.joined is not None:
            return self.joined(values, weights)
        value, slope = JOINT[self.distance](self.fixed, values, weights)
        share = (weights / weights.sum())[:, None]
        spread = (share * (values - (share * values).sum(dim=0)).square()).sum(dim=0)
        return value, slope, share / (values.shape[1] * spread.clamp(min=torch.finfo(spread.dtype).tiny))

    def _pieces(self, moved: Vectors) -> Iterator[slice]:
        step = at_once(moved.device)
        return (slice(first, first + step) for first in range(0, moved.shape[1], step))

    def _index(self, moved: Vectors, piece: slice) -> Float[Tensor, "dim piece"]:
        return torch.addmm(self.base[:, piece], self.turn, moved[:, piece])

    def _weights(self, index: Vectors, sampled: Sampled) -> Float[Tensor, " points"]:
        counted = torch.ones_like(sampled.inside) if self.outside_counts else sampled.inside
        if self.mask is not None:
            counted = counted & self.mask.contains(index)
        return counted.to(index)

    def _pull_back(self, sampled: Sampled, slope: Tensor) -> Vectors:
        """From the derivative to the features to that to the displacements."""
        return self.turn.T @ torch.stack([(steep * slope).sum(dim=1) for steep in sampled.slopes])

    def _curved(self, sampled: Sampled, bends: Tensor) -> Curvature:
        """The sum over channels of bends times the products of the slopes, in displacements."""
        steep = sampled.slopes
        d, bent = len(steep), [each * bends for each in steep]
        products = {(i, j): (bent[i] * steep[j]).sum(dim=1) for i in range(d) for j in range(i, d)}
        rows = [torch.stack([products[min(i, j), max(i, j)] for j in range(d)]) for i in range(d)]
        return torch.einsum("ki,klp,lj->ijp", self.turn, torch.stack(rows), self.turn)

    def _curvature_like(self, moved: Vectors, curved: bool) -> Tensor | None:
        d, n = moved.shape
        return moved.new_empty(d, d, n) if curved else None


def _spread(values: Tensor, points: Tensor, count: int) -> Tensor:
    """Values at some of `count` lattice points, with 0 at all others."""
    whole = values.new_zeros(*values.shape[:-1], count)
    return whole.index_copy_(-1, points, values)


def _bends(distance: str, fixed: Tensor, moving: Tensor) -> Float[Tensor, "points channel"]:
    """How strongly a distance curves with each moving feature, about: positive, and exact for L2."""
    if distance == "L1":
        size = (moving - fixed).abs()
        return size.clamp_(min=SMOOTHED * size.mean()).reciprocal_().div_(fixed.shape[1])
    if distance == "Cosine":
        square = moving.square().sum(dim=1, keepdim=True)
        return square.masked_fill(square == 0, torch.inf).reciprocal().expand_as(fixed)
    return torch.full_like(fixed[:, :1], 2 / fixed.shape[1]).expand_as(fixed)
