"""What a model makes of the fixed image around samples; kept for the whole image where samples lie on its voxels.

The fixed image does not change during a resolution. Random samples on voxels come back again and again, so that from
some iteration on it has cost less to have shown the model all of the image once, in tiles that patches share. That is
done as soon as as much was spent on samples: at most twice of what would have been best, whatever is still to come.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from itertools import product

import torch
from jaxtyping import Float, Int
from torch import Tensor

from impactreg.components.metrics.patch_models import PatchModel
from impactreg.components.metrics.tiles import SAME_PLACE, Tiles
from impactreg.images.grid import Grid
from impactreg.images.masks import Mask

BLOCK = 64
"""Voxels along each axis of the parts in which an image is shown to a model."""
MOST_NUMBERS = 1 << 26
"""Features, of all voxels together, that are kept: a quarter of a gigabyte."""

Made = Callable[[PatchModel, Tiles], list[Tensor]]


class FixedFeatures:
    """The features of one model; `made` computes those of some tiles in the order of the samples."""

    def __init__(self, model: PatchModel, grid: Grid, mask: Mask | None, made: Made) -> None:
        self._model = model
        self._grid = grid
        self._mask = mask
        self._made = made
        self._kept: _Kept | None = None
        self._spent = 0
        self._price: float | None = None

    def at(
        self, points: Float[Tensor, "points dim"], turns: Float[Tensor, "points 3 3"] | None
    ) -> list[Float[Tensor, "points channel"]]:
        """Of each selected layer the features in the middle of the patches around some points."""
        voxels = None if turns is not None or not self._model.shares else _voxels(self._grid, points)
        if voxels is not None:
            if self._kept is None and self._spent > 0 and self._spent >= self._cost(points):
                self._kept = self._whole(points)
            found = None if self._kept is None else self._kept.at(voxels)
            if found is not None:
                return found
        tiles, _ = self._model.tiles(points, turns)
        self._spent += tiles.voxels
        return self._made(self._model, tiles)

    def _cost(self, like: Tensor) -> float:
        """How many voxels the model is shown for the whole image; infinite where that is too much to keep."""
        if self._price is None:
            if self._grid.number_of_voxels * sum(self._model.channels) > MOST_NUMBERS:
                self._price = math.inf
            else:
                some = self._grid.index_to_world(next(_blocks(self._grid, like)))
                tiles, _ = self._model.tiles(some, None)
                self._price = tiles.voxels / len(some) * self._grid.number_of_voxels
        return self._price

    def _whole(self, like: Tensor) -> "_Kept":
        places, rows = [], []
        for index in _blocks(self._grid, like):
            points = self._grid.index_to_world(index)
            held = None if self._mask is None else self._mask.contains(points)
            if held is not None:
                points, index = points[held], index[held]
            if len(points):
                tiles, _ = self._model.tiles(points, None)
                rows.append(self._made(self._model, tiles))
                places.append(_raster(self._grid, index.long()))
        known = torch.full((self._grid.number_of_voxels,), -1, dtype=torch.long, device=like.device)
        if places:
            where = torch.cat(places)
            known[where] = torch.arange(len(where), device=like.device)
        return _Kept(self._grid, known, [torch.cat(layer) for layer in zip(*rows, strict=True)])


class _Kept:
    """The features of many voxels: `rows` says where those of each voxel are, -1 being nowhere."""

    def __init__(self, grid: Grid, rows: Int[Tensor, " voxels"], features: Sequence[Tensor]) -> None:
        self._grid = grid
        self._rows = rows
        self._features = features

    def at(self, voxels: Int[Tensor, "points dim"]) -> list[Tensor] | None:
        """The features of voxels (x, y, z), if those of all are known."""
        rows = self._rows[_raster(self._grid, voxels)]
        return None if bool((rows < 0).any()) else [layer[rows] for layer in self._features]


def _voxels(grid: Grid, points: Float[Tensor, "points dim"]) -> Int[Tensor, "points dim"] | None:
    """The voxels that some points are the centres of; None where one is not."""
    index = grid.world_to_index(points)
    nearest = index.round()
    size = torch.tensor(grid.size, dtype=index.dtype, device=index.device)
    there = ((index - nearest).abs() < SAME_PLACE) & (nearest >= 0) & (nearest < size)
    return nearest.long() if bool(there.all()) else None


def _raster(grid: Grid, voxels: Int[Tensor, "points dim"]) -> Int[Tensor, " points"]:
    strides = torch.tensor(grid.size, device=voxels.device).cumprod(0).roll(1)
    strides[0] = 1
    return (voxels * strides).sum(dim=1)


def _blocks(grid: Grid, like: Tensor) -> Iterator[Float[Tensor, "voxels dim"]]:
    """The indices of all voxels, block by block, the blocks as even as can be."""
    counts = [-(-n // BLOCK) for n in grid.size]
    bounds = [[n * k // count for k in range(count + 1)] for n, count in zip(grid.size, counts, strict=True)]
    for block in product(*(range(count) for count in counts)):
        ends = [(bound[k], bound[k + 1]) for bound, k in zip(bounds, block, strict=True)]
        axes = [torch.arange(*pair, dtype=like.dtype, device=like.device) for pair in reversed(ends)]
        yield torch.stack([m.reshape(-1) for m in reversed(torch.meshgrid(*axes, indexing="ij"))], dim=1)
