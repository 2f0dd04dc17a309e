"""How an image is cut into overlapping tiles, and how the layers of these tiles are blended into one map."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil, inf

import torch
from jaxtyping import Float
from torch import Tensor

from impactreg.models.geometry import Layer


@dataclass(frozen=True)
class Cut:
    """One axis of `size` voxels in tiles of `tile` voxels at `starts`.

    Tiles overlap by half. Their starts are multiples of `alignment`, the common stride of a model's layers, so that
    the samples of all tiles fall on one lattice; where this asks for it the last tile goes up to `alignment` - 1
    voxels past the image.
    """

    size: int
    tile: int
    starts: tuple[int, ...]

    @classmethod
    def of(cls, size: int, tile: int, alignment: int) -> "Cut":
        """As few half-overlapping tiles as cover the axis; one tile where the image is no larger than a tile."""
        if tile >= size:
            return cls(size, tile, (0,))
        step = max(alignment, tile // 2 // alignment * alignment)
        last = ceil((size - tile) / alignment) * alignment
        return cls(size, tile, (*range(0, last, step), last))

    def take(self, values: Tensor, axis: int, start: int) -> Tensor:
        """The tile at `start` of a tensor along one of its axes; past the image its last voxel is repeated."""
        inside = min(self.tile, self.size - start)
        tile = values.narrow(axis, start, inside)
        if inside == self.tile:
            return tile
        sizes = [self.tile - inside if other == axis else -1 for other in range(tile.ndim)]
        return torch.cat([tile, tile.narrow(axis, inside - 1, 1).expand(*sizes)], axis)

    def samples(self, stride: float, offset: float, per_tile: int) -> int:
        """How many samples a layer of the whole axis has, when a tile has `per_tile` of them.

        They are what the tiles hold; if the last tile goes past the image, as many as one pass over the image would
        give.
        """
        held = round(self.starts[-1] / stride) + per_tile
        if self.starts[-1] + self.tile <= self.size:
            return held
        window = offset if offset == (stride - 1) / 2 else 0.0
        return min(held, max(1, int((self.size - 1 - offset - window) // stride) + 1))

    def weights(
        self, stride: float, offset: float, per_tile: int, reach: float
    ) -> dict[int, Float[Tensor, " samples"]]:
        """For each start the weights of that tile's samples; those of one place on the axis add up to 1.

        A tile counts for nothing where its samples see its border (within `reach` voxels of it), fully in its middle,
        and follows a raised cosine between. So the blend equals one pass over the image where the field of view is no
        larger than the overlap, and has no seams elsewhere.
        """
        margin = reach if reach < self.tile / 4 else self.tile / 8
        position = offset + stride * torch.arange(per_tile, dtype=torch.float64)
        raw = {start: self._window(start, position, margin) for start in self.starts}
        total = torch.zeros(round(self.starts[-1] / stride) + per_tile, dtype=torch.float64)
        for start, weight in raw.items():
            total.narrow(0, round(start / stride), per_tile).add_(weight)
        return {start: w / total.narrow(0, round(start / stride), per_tile) for start, w in raw.items()}

    def _window(self, start: int, position: Tensor, margin: float) -> Tensor:
        far = torch.full_like(position, inf)
        left = position + 0.5 if start > 0 else far
        right = self.tile - 0.5 - position if start < self.starts[-1] else far
        ramp = max(self.tile / 2 - 2 * margin, 1.0)
        rise = ((torch.minimum(left, right) - margin) / ramp).clamp(0, 1)
        # Next to nothing instead of nothing: a place that no tile sees well still gets a value.
        return (0.5 - 0.5 * torch.cos(torch.pi * rise)).clamp(min=1e-9)


class Mosaic:
    """The map [channel, frame, *space] of one layer, filled tile by tile; it needs no memory besides the map itself."""

    def __init__(self, cuts: Sequence[Cut], layer: Layer, per_tile: Sequence[int], frames: int) -> None:
        self._axes = list(zip(cuts, layer.stride, layer.offset, per_tile, layer.reach, strict=True))
        self._size = [cut.samples(stride, offset, count) for cut, stride, offset, count, _ in self._axes]
        self._weights = [cut.weights(stride, offset, count, reach) for cut, stride, offset, count, reach in self._axes]
        self._channels, self._frames = layer.channels, frames
        self._single = frames == 1 and all(len(cut.starts) == 1 for cut in cuts)
        self._map: Tensor | None = None

    def add(self, frame: int, starts: tuple[int, ...], values: Float[Tensor, "channel *space"]) -> None:
        """Takes the samples of the tile at `starts`; each tile comes once."""
        if self._single:
            self._map = self._kept(values, starts)[:, None]
            return
        if self._map is None:
            self._map = values.new_zeros(self._channels, self._frames, *self._size)
        weighted = self._kept(values, starts)
        target = self._map[:, frame]
        for axis, start in enumerate(starts, start=1):
            cut, stride = self._axes[axis - 1][:2]
            target = target.narrow(axis, round(start / stride), weighted.shape[axis])
            if len(cut.starts) > 1:
                weight = self._weights[axis - 1][start][: weighted.shape[axis]].to(weighted)
                weighted = weighted * weight.reshape(-1, *[1] * (weighted.ndim - 1 - axis))
        target += weighted

    @property
    def map(self) -> Float[Tensor, "channel frame *space"]:
        """The map, after the last tile."""
        if self._map is None:
            raise ValueError("a mosaic without tiles has no map")
        return self._map

    def _kept(self, values: Tensor, starts: tuple[int, ...]) -> Tensor:
        for axis, start in enumerate(starts, start=1):
            stride = self._axes[axis - 1][1]
            inside = self._size[axis - 1] - round(start / stride)
            values = values.narrow(axis, 0, min(values.shape[axis], inside))
        return values
