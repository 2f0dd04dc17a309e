"""Tiles: what a model is shown so that every sample gets its features: a patch for each, or tiles that many share."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
import torch.nn.functional as F  # noqa: N812
from jaxtyping import Bool, Float, Int
from torch import Tensor

from impactreg.components.boxes import Boxes
from impactreg.images.grid import Grid
from impactreg.models.patches import View, at

SIDES = (1, 2, 4, 8, 16, 32)
"""How many patches may start along each axis of a tile, in units of the shift after which a model sees the same."""
FEW = 256
"""Patches that are looked at to learn whether they are on lattices at all."""
SAME_PLACE = 1e-4
"""Positions on a lattice, in its steps, that differ by less are one."""
MOST_KINDS = 1 << 62
"""What a whole number can tell apart."""


class Batch(NamedTuple):
    """Some tiles, and the samples whose patches start in them, as places in the order of the tiles."""

    tiles: slice
    samples: slice


@dataclass(frozen=True, eq=False)
class Tiles:
    """Boxes that a model is shown. Without `tile_of`, box n belongs to sample n and `view` says where its features lie.

    With it, the samples are taken in the `order` of their tiles; `starts` is where the patch of each sample starts in
    its tile (tensor order), in that order.
    """

    boxes: Boxes
    view: View
    order: Int[Tensor, " points"] | None = None
    tile_of: Int[Tensor, " points"] | None = None
    starts: Int[Tensor, "points axes"] | None = None
    _batches: dict[int, list[Batch]] = field(default_factory=dict, repr=False)

    @property
    def samples(self) -> int:
        """How many samples there are."""
        return len(self.boxes if self.order is None else self.order)

    @property
    def voxels(self) -> int:
        """How many voxels a model is shown."""
        return len(self.boxes) * self.boxes.points_each

    def only(self, samples: Bool[Tensor, " samples"]) -> "Tiles":
        """The tiles that some of the samples need, for these alone."""
        if bool(samples.all()):
            return self
        if self.order is None or self.tile_of is None or self.starts is None:
            return Tiles(self.boxes.some(samples), self.view)
        kept = samples[self.order]
        tiles, tile_of = torch.unique_consecutive(self.tile_of[kept], return_inverse=True)
        order = (samples.cumsum(dim=0) - 1)[self.order[kept]]
        return Tiles(self.boxes.some(tiles), self.view, order, tile_of, self.starts[kept])

    def batches(self, at_once: int) -> list[Batch]:
        """All tiles in their order, at most so many at a time."""
        if at_once not in self._batches:
            self._batches[at_once] = self._cut(at_once)
        return self._batches[at_once]

    def features(self, batch: Batch, layers: Sequence[Tensor]) -> list[Tensor]:
        """Of each layer [tiles, channel, *space] the features [points, channel] of a batch's samples."""
        if self.tile_of is None or self.starts is None:
            pairs = zip(layers, self.view.centres, strict=True)
            return [at(layer, centre) for layer, centre in pairs]
        tiles, starts = self.tile_of[batch.samples] - batch.tiles.start, self.starts[batch.samples]
        found = []
        for layer, centre, strides in zip(layers, self.view.centres, self.view.strides, strict=True):
            places = [starts[:, axis] // s + c for axis, (s, c) in enumerate(zip(strides, centre, strict=True))]
            found.append(layer[(tiles, slice(None), *places)])
        return found

    def all_of_patch(self, batch: Batch, points: Bool[Tensor, " points"]) -> Bool[Tensor, " samples"]:
        """For each of a batch's samples, whether something holds at all points of its patch."""
        held = points.reshape(-1, *self.boxes.shape)
        everywhere = held.flatten(1).all(dim=1)
        if self.tile_of is None or self.starts is None:
            return everywhere
        tiles, starts = self.tile_of[batch.samples] - batch.tiles.start, self.starts[batch.samples]
        if self.boxes.shape == self.view.shape or bool(everywhere.all()):
            return everywhere[tiles]
        missed = (~held)[:, None].float()
        pool = F.max_pool3d if held.ndim == 4 else F.max_pool2d
        for axis, length in enumerate(self.view.shape):
            window = [length if other == axis else 1 for other in range(held.ndim - 1)]
            missed = pool(missed, window, stride=1)
        return missed[(tiles, 0, *starts.T)] == 0

    def in_sample_order(self, values: Tensor) -> Tensor:
        """Values that come in the order of the tiles, in that of the samples."""
        return values if self.order is None else torch.empty_like(values).index_copy_(0, self.order, values)

    def in_tile_order(self, values: Tensor) -> Tensor:
        """Values of the samples in the order of the tiles."""
        return values if self.order is None else values[self.order]

    def _cut(self, at_once: int) -> list[Batch]:
        firsts = range(0, len(self.boxes), at_once)
        if self.tile_of is None:
            return [Batch(slice(a, a + at_once), slice(a, a + at_once)) for a in firsts]
        bounds = torch.tensor([*firsts, len(self.boxes)], device=self.tile_of.device)
        ends = torch.searchsorted(self.tile_of, bounds).tolist()
        return [Batch(slice(a, a + at_once), slice(*ends[n : n + 2])) for n, a in enumerate(firsts)]


class Lattice(NamedTuple):
    """Where patches lie on lattices of a step that is theirs: `first` is the index of their first point, in steps
    along the axes x, y, z; patches whose indices differ by whole numbers are on one lattice.
    """

    first: Float[Tensor, "points dim"]
    grid: Grid
    steps: tuple[float, ...]

    @classmethod
    def of(cls, patches: Boxes, grid: Grid) -> "Lattice | None":
        """The lattices of patches that have the axes of a grid; None of others."""
        steps = patches.steps_on(grid)
        if steps is None:
            return None
        index = grid.world_to_index(patches.corners)
        return cls(index / torch.tensor(steps, dtype=index.dtype, device=index.device), grid, steps)

    def corners(self, index: Float[Tensor, "points dim"]) -> Float[Tensor, "points dim"]:
        """World points of indices in steps."""
        return self.grid.index_to_world(index * torch.tensor(self.steps, dtype=index.dtype, device=index.device))

    @property
    def shared(self) -> bool:
        """Whether patches share lattices, as far as some of them tell."""
        some = self.first[:FEW]
        shift = some - torch.floor(some + SAME_PLACE)
        return 2 * len(torch.unique((shift / SAME_PLACE).round().long(), dim=0)) <= len(some)


def shared(patches: Boxes, lattice: Lattice, view: View, period: int, side: int) -> Tiles:
    """The tiles in which `side` patches start along each axis, `period` voxels apart, as far as they are needed."""
    whole = torch.floor(lattice.first + SAME_PLACE)
    shift = lattice.first - whole
    # counted from the first patch, so that patches which fill a box fill its tiles
    least = whole.amin(dim=0)
    whole = whole - least
    rest = torch.remainder(whole, period)
    start = whole - torch.remainder(whole - rest, period * side)
    kinds = _kinds([*(shift / SAME_PLACE).round().long().T, *start.long().T])
    order = torch.argsort(kinds, stable=True)
    tile_of = kinds[order]
    first = order[torch.searchsorted(tile_of, torch.arange(int(tile_of[-1]) + 1, device=tile_of.device))]
    corners = lattice.corners((start + shift)[first] + least)
    boxes = Boxes(corners, patches.axes, tuple(n + (side - 1) * period for n in view.shape))
    return Tiles(boxes, view, order, tile_of, (whole - start)[order].flip(1).long())


def candidates(patches: Boxes, lattice: Lattice, view: View, period: int) -> Iterator[tuple[int, Tiles]]:
    """Shared tiles of every size that may pay, with the number of patches along their sides."""
    for side in SIDES:
        tiles = shared(patches, lattice, view, period, side)
        yield side, tiles
        if len(tiles.boxes) == 1 or side ** len(view.shape) * 8 > math.prod(view.shape) * len(patches):
            return


def _kinds(columns: Sequence[Int[Tensor, " points"]]) -> Int[Tensor, " points"]:
    """One number from 0 on for each combination of the columns' values."""
    key, many = torch.zeros_like(columns[0]), 1
    # one look at a device for all columns
    ends = torch.stack([torch.stack(torch.aminmax(column)) for column in columns]).tolist()
    for column, (least, most) in zip(columns, ends, strict=True):
        if least == most:
            continue
        if many * (most - least + 1) > MOST_KINDS:
            _, key = torch.unique(key, return_inverse=True)
            many = len(key)
        key = key * (most - least + 1) + (column - least)
        many *= most - least + 1
    numbers: Tensor = torch.unique(key, return_inverse=True)[1]
    return numbers
