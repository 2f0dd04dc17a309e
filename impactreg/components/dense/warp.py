"""Feature maps at displaced points, with their slopes: the fast linear interpolation of the fine stage.

The map is kept channels-last with a rim of zeros, so that the corners around a point are 2^D rows of a table. Values
are sums of rows weighted by the usual products, and slopes are the same sums with the weights' derivatives:
`embedding_bag` computes each in one pass, several times faster than `grid_sample` and its automatic derivative.
"""

from dataclasses import dataclass, field
from functools import cached_property
from itertools import product

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn import functional

from impactreg.images.image import Image

POINTS_AT_ONCE = {"cpu": 1 << 14}
"""Points worked on together on a kind of device; on a CPU so few that intermediate results stay in its cache."""
EDGE = 1e-3
"""Voxels by which a point may lie beyond the outermost voxel centres and still be inside: what rounding does."""
MOST_POINTS = 1 << 22
"""Points worked on together on other devices."""


@dataclass(frozen=True, eq=False)
class Sampled:
    """Values [points, channel] of a map at some points, their slopes along the index axes x, y, z (per voxel), and
    which points lie between the outermost voxel centres.
    """

    values: Float[Tensor, "points channel"]
    slopes: tuple[Float[Tensor, "points channel"], ...]
    inside: Bool[Tensor, " points"]


@dataclass(frozen=True, eq=False)
class FeatureMap:
    """A feature map as a table of rows, interpolated linearly, and 0 beyond its voxels."""

    table: Float[Tensor, "rows channel"]
    size: tuple[int, ...]
    strides: tuple[int, ...] = field(init=False)

    def __post_init__(self) -> None:
        strides = [1]
        for n in self.size[:-1]:
            strides.append(strides[-1] * (n + 2))
        object.__setattr__(self, "strides", tuple(strides))

    @classmethod
    def of(cls, features: Image) -> "FeatureMap":
        """The table of an image of features."""
        data = features.data
        padded = data.new_zeros(*(n + 2 for n in data.shape[1:]), data.shape[0])
        padded[tuple(slice(1, -1) for _ in data.shape[1:])] = data.movedim(0, -1)
        return cls(padded.reshape(-1, data.shape[0]), features.grid.size)

    @property
    def channels(self) -> int:
        """How many channels there are."""
        return int(self.table.shape[1])

    def of_channels(self, chosen: Int[Tensor, " chosen"]) -> "FeatureMap":
        """The map of some channels alone."""
        return FeatureMap(self.table.index_select(1, chosen), self.size)

    def at(self, index: Float[Tensor, "dim points"], *, slopes: bool = True) -> Sampled:
        """The map at continuous indices (x, y, z) of its voxels."""
        cell = index.floor()
        # Outside, points are held in the rim: between two zeros, or at its end, where slopes do not count.
        for line, n in zip(cell, self.size, strict=True):
            line.clamp_(-1, n - 1)
        within = (index - cell).clamp_(0, 1)
        near = (index > cell - 1e-6) & (index < cell + 1 + 1e-6)
        if self.channels == 1:
            value, along = _interpolated(self._corner_values(cell), within)
            steep = tuple((each * counted)[:, None] for each, counted in zip(along, near, strict=True))
            return Sampled(value[:, None], steep if slopes else (), self._inside(index))
        rows, pairs = self._rows(cell), [torch.stack([1 - t, t]) for t in within]
        values = self._sum(rows, _products(pairs))
        steep = tuple(self._sum(rows, _slope_products(pairs, k, near[k])) for k in range(len(pairs))) if slopes else ()
        return Sampled(values, steep, self._inside(index))

    def _inside(self, index: Tensor) -> Tensor:
        return ((index >= -EDGE) & (index <= self._last.to(index) + EDGE)).all(dim=0)

    @cached_property
    def _last(self) -> Float[Tensor, "dim one"]:
        return torch.tensor([[n - 1.0] for n in self.size], device=self.table.device)

    @cached_property
    def _corners(self) -> Int[Tensor, " corners"]:
        """Row offsets of the corners of a cell, x fastest."""
        return torch.tensor(self._offsets, dtype=self._integer, device=self.table.device)

    @property
    def _offsets(self) -> list[int]:
        ends = product((0, 1), repeat=len(self.size))
        return [sum(s * o for s, o in zip(self.strides, reversed(at), strict=True)) for at in ends]

    @property
    def _integer(self) -> torch.dtype:
        return torch.int32 if self.table.shape[0] < 1 << 31 else torch.int64

    def _rows(self, cell: Tensor) -> Int[Tensor, "points corners"]:
        return self._first_rows(cell)[:, None] + self._corners

    def _first_rows(self, cell: Tensor) -> Int[Tensor, " points"]:
        # float32 counts exactly to 2^24 only
        steps = (cell + 1).to(self._integer)
        first = steps[0]
        for line, stride in zip(steps[1:], self.strides[1:], strict=True):
            first = first + line * stride
        return first

    def _corner_values(self, cell: Tensor) -> list[Float[Tensor, " points"]]:
        """The single channel at each corner, x fastest."""
        first, line = self._first_rows(cell), self.table[:, 0]
        return [line.narrow(0, offset, len(line) - offset).index_select(0, first) for offset in self._offsets]

    def _sum(self, rows: Tensor, weights: Tensor) -> Tensor:
        return functional.embedding_bag(rows, self.table, per_sample_weights=weights, mode="sum")


def _interpolated(corners: list[Tensor], within: Tensor) -> tuple[Tensor, list[Tensor]]:
    """The value between corners (x fastest) and its slopes along x, y, z."""
    slopes: list[list[Tensor]] = []
    for t in within:
        low, high = corners[::2], corners[1::2]
        steep = [b - a for a, b in zip(low, high, strict=True)]
        corners = [torch.addcmul(a, s, t) for a, s in zip(low, steep, strict=True)]
        slopes = [[torch.lerp(a, b, t) for a, b in zip(each[::2], each[1::2], strict=True)] for each in slopes]
        slopes.append(steep)
    return corners[0], [each[0] for each in slopes]


def _products(pairs: list[Tensor]) -> Float[Tensor, "points corners"]:
    """The weight of each corner, x fastest, from those of both ends of each axis [2, points]."""
    weights = pairs[-1]
    for pair in reversed(pairs[:-1]):
        weights = (weights[:, None] * pair[None]).reshape(-1, pair.shape[1])
    return weights.T.contiguous()


def _slope_products(pairs: list[Tensor], axis: int, near: Tensor) -> Float[Tensor, "points corners"]:
    """The derivatives of the weights along an axis, 0 for points that are held in the rim."""
    counted = near.to(pairs[axis])
    ends = torch.stack([-counted, counted])
    return _products([ends if k == axis else pair for k, pair in enumerate(pairs)])


def at_once(device: torch.device) -> int:
    """How many points are worked on together on a device."""
    return POINTS_AT_ONCE.get(device.type, MOST_POINTS)
