"""The cost of every displacement of a window in every cell of a coarse grid: squared feature differences.

Cells are boxes of voxels over which the features are averaged, and displacements are whole cells. A volume never
exists at once in single precision. It is made plane by plane, each from contiguous slices of the padded moving
features; kept is what a displacement costs beyond the cheapest one of its cell, in half precision, which leaves the
cheapest where it is and ties as they are. A volume that memory has no room for is made anew at each look instead.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import product
from math import prod

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from impactreg.components.dense.search import Search

SMALL = 1 << 28
"""Volumes of up to so many bytes are kept in single precision."""
PLANES_AT_WORK = 9
"""Planes in single precision that are in memory while a volume is made."""

Cells = Float[Tensor, "z y x"]
Features = Float[Tensor, "channel z y x"]


@dataclass(frozen=True, eq=False)
class Side:
    """What one image brings to a comparison: its features in each cell, and the weight of each cell if there is a mask
    (the share of its voxels that lie in it).
    """

    features: Features
    weight: Cells | None = None


@dataclass(frozen=True, eq=False)
class Plane:
    """One plane of cells: what each displacement costs beyond the cheapest [shift, cell], and the cheapest [cell]."""

    excess: Float[Tensor, "shift cell"]
    least: Float[Tensor, " cell"]


class CostVolume:
    """The cost of each of a search's displacements in each cell, averaged over a window of two 3^D box filters.

    The cost in cell x of displacement s is the sum over channels of `channel_weights` times (reference(x) -
    moving(x + s))^2, with the moving features continued by their border, then filtered twice by a box of three cells
    along every axis with zeros outside. Cells with weights count as much as the weights of both sides say, and the
    window is a weighted mean; a displacement without any weight costs as much as the dearest one with some.
    All is divided by `scale`, which should be about the mean cost, so that half precision suits it. `hold` keeps the
    volume in memory; otherwise each look at it computes it again, to the same numbers.

    After M. P. Heinrich et al., "Non-parametric Discrete Registration with Convex Optimisation", WBIR 2014.
    """

    def __init__(
        self,
        reference: Side,
        moving: Side,
        search: Search,
        channel_weights: Float[Tensor, " channel"],
        *,
        scale: float = 1.0,
        hold: bool = True,
    ) -> None:
        self.search = search
        self.scale = scale
        self._reference = reference
        self._window = _Window.of(moving, search)
        self._channel_weights = channel_weights / scale
        self._z, self._y, self._x = reference.features.shape[1:]
        self._frame = _framed(reference.features, search.half_width[2])
        self._hold = hold
        self._held: list[Plane] = []

    @property
    def shape(self) -> tuple[int, int, int]:
        """The cells along z, y, x."""
        return self._z, self._y, self._x

    @property
    def device(self) -> torch.device:
        """Where the features are."""
        return self._frame.device

    def planes(self) -> Iterator[Plane]:
        """The planes of cells in order, with float32 costs that the caller may overwrite."""
        if self._held:
            for plane in self._held:
                yield _copied(plane)
            return
        held: list[Plane] = []
        dtype = number_type(self.search, self.shape)
        for cost in self._costs():
            plane = _beyond_least(cost, dtype)
            if self._hold:
                held.append(plane)
            yield _copied(plane)
        self._held = held

    def _costs(self) -> Iterator[Float[Tensor, "shift cell"]]:
        """The filtered costs of each plane; a filter along z needs the planes two before and two behind."""
        band = self._filters[0].tolist()
        waiting: dict[int, tuple[Tensor, Tensor | None]] = {}
        for z in range(self._z):
            found = self._filtered_plane(z)
            for there in range(max(0, z - 2), min(self._z, z + 3)):
                if band[there][z]:
                    waiting[there] = _added(waiting.get(there), found, band[there][z])
            if z >= 2:
                yield _weighted_mean(*waiting.pop(z - 2))
        for there in sorted(waiting):
            yield _weighted_mean(*waiting.pop(there))

    def _filtered_plane(self, z: int) -> tuple[Tensor, Tensor | None]:
        """The costs [shift, cell] of one plane, filtered along y and x, and their weights where there are masks."""
        costs = self._plane(z)
        weights = self._weights(z)
        if weights is not None:
            costs *= weights
        return self._in_plane(costs), None if weights is None else self._in_plane(weights)

    def _plane(self, z: int) -> Float[Tensor, "shift y width"]:
        """The costs of one plane before filtering, in rows as wide as the padded moving features."""
        hz, hy, hx = self.search.half_width
        here = self._frame[:, z]
        differences = here.new_empty(2 * hx + 1, *here.shape)
        weights = self._channel_weights.expand(2 * hx + 1, 1, -1)
        costs = here.new_empty(2 * hz + 1, 2 * hy + 1, 2 * hx + 1, here.shape[1])
        for dz in range(2 * hz + 1):
            for dy in range(2 * hy + 1):
                torch.sub(self._window.seen(self._window.flat, z + dz, dy), here, out=differences)
                # Squared before they are summed: equal features cost exactly nothing.
                torch.bmm(weights, differences.square_(), out=costs[dz, dy][:, None])
        return costs.reshape(self.search.count, self._y, self._window.width)

    def _weights(self, z: int) -> Float[Tensor, "shift y width"] | None:
        """The weights of one plane: of the reference, times those of the moving cells that a shift leads to."""
        hz, hy, hx = self.search.half_width
        own = self._reference.weight
        here = None if own is None else _framed(own[None], hx)[0, z]
        moving = self._window.flat_weights
        if moving is not None:
            ways = product(range(2 * hz + 1), range(2 * hy + 1))
            weights = torch.cat([self._window.seen(moving, z + dz, dy)[:, 0] for dz, dy in ways])
            weights = weights if here is None else weights * here
        elif here is not None:
            weights = here.expand(self.search.count, -1)
        else:
            return None
        return weights.reshape(self.search.count, self._y, self._window.width)

    def _in_plane(self, values: Float[Tensor, "shift y width"]) -> Float[Tensor, "shift cell"]:
        _, along_y, along_x = self._filters
        rows = functional.pad(along_x, (0, 0, 0, self._window.width - self._x))
        return torch.matmul(along_y, values @ rows).reshape(self.search.count, -1)

    @cached_property
    def _filters(self) -> tuple[Tensor, Tensor, Tensor]:
        """Two box filters of three cells along z, y and x, as matrices; a 2D image has no z to filter along."""
        z = torch.eye(1) if self.search.dimension == 2 else _twice_boxed(self._z)
        like = self._frame
        filters = z, _twice_boxed(self._y), _twice_boxed(self._x)
        return tuple(each.to(like) for each in filters)  # type: ignore[return-value]


def number_type(search: Search, shape: tuple[int, ...]) -> torch.dtype:
    """How a volume over cells of `shape` is kept: the same on every machine, since it changes results a little."""
    return torch.float32 if search.count * prod(shape) * 4 <= SMALL else torch.float16


def memory_needed(search: Search, shape: tuple[int, ...], channels: int) -> tuple[int, int]:
    """Bytes that a volume over cells of `shape` needs: while it is made, and when it is held besides."""
    padded = prod(n + 2 * h for n, h in zip(search.in_3d(shape), search.half_width, strict=True))
    planes = PLANES_AT_WORK * search.count * prod(search.in_3d(shape)[1:]) * 4
    volume = search.count * prod(shape) * number_type(search, shape).itemsize
    return planes + 3 * channels * padded * 4, volume


@dataclass(frozen=True, eq=False)
class _Window:
    """Moving features, padded and with every plane flat, so that each shift is a slice of the same memory."""

    flat: Float[Tensor, "channel plane cell"]
    flat_weights: Float[Tensor, "one plane cell"] | None
    width: int
    sides: tuple[int, int]
    number_of_cells: int

    @classmethod
    def of(cls, moving: Side, search: Search) -> "_Window":
        padding = [pad for half in reversed(search.half_width) for pad in (half, half)]
        padded = functional.pad(moving.features[None], padding, mode="replicate")[0]
        _, hy, hx = search.half_width
        weights = None
        if moving.weight is not None:
            weights = _flattened(functional.pad(moving.weight, padding)[None], 2 * hx)
        width = padded.shape[3]
        cells = moving.features.shape[2] * width
        return cls(_flattened(padded, 2 * hx), weights, width, (2 * hy + 1, 2 * hx + 1), cells)

    def seen(self, flat: Float[Tensor, "channel plane cells"], plane: int, dy: int) -> Tensor:
        """What the shifts along x see [shift, channel, cell] of features or weights, for one shift along z and y."""
        start = flat.storage_offset() + plane * flat.stride(1) + dy * self.width
        size = (self.sides[1], flat.shape[0], self.number_of_cells)
        return flat.as_strided(size, (1, flat.stride(0), 1), start)


def _flattened(padded: Float[Tensor, "channel z y x"], tail: int) -> Float[Tensor, "channel z cell"]:
    """Planes as rows, with some cells behind, into which the last shifts reach."""
    return functional.pad(padded.flatten(2), (0, tail)).contiguous()


def _framed(features: Features, half_width: int) -> Float[Tensor, "channel z cell"]:
    """Features in rows as wide as the padded ones are."""
    return functional.pad(features, (0, 2 * half_width)).flatten(2)


def _beyond_least(cost: Float[Tensor, "shift cell"], dtype: torch.dtype) -> Plane:
    least = cost.amin(0)
    return Plane(cost.sub_(least).to(dtype), least)


def _copied(plane: Plane) -> Plane:
    return Plane(plane.excess.to(torch.float32, copy=True), plane.least)


def _added(
    sums: tuple[Tensor, Tensor | None] | None, found: tuple[Tensor, Tensor | None], factor: float
) -> tuple[Tensor, Tensor | None]:
    values, weights = found
    if sums is None:
        return values * factor, None if weights is None else weights * factor
    sums[0].add_(values, alpha=factor)
    if sums[1] is not None and weights is not None:
        sums[1].add_(weights, alpha=factor)
    return sums


def _weighted_mean(
    cost: Float[Tensor, "shift cell"], weight: Float[Tensor, "shift cell"] | None
) -> Float[Tensor, "shift cell"]:
    """A window without weight costs as much as the dearest of its cell, so that it attracts nothing."""
    if weight is None:
        return cost
    known = weight > 0
    cost = torch.where(known, cost / weight, -torch.inf)
    dearest = cost.amax(0).clamp_(min=0)
    return torch.where(known, cost, dearest)


def _twice_boxed(cells: int) -> Float[Tensor, "cells cells"]:
    """The mean over three cells, zeros outside counted, applied twice, as a matrix."""
    places = torch.arange(cells)
    once = ((places[:, None] - places).abs() <= 1).float() / 3
    return once @ once
