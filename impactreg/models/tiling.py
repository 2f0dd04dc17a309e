"""How an image is cut into overlapping tiles, and how the layers of these tiles are blended into one map."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil, inf, prod

import torch
from jaxtyping import Float
from torch import Tensor

from impactreg.images.storage import Storage
from impactreg.models.blending import Window, raised_cosine
from impactreg.models.geometry import Layer

NEGLIGIBLE = 1e-7
"""A tile's share of a place that is left out: below the precision of the map."""


@dataclass(frozen=True)
class Cut:
    """One axis of `size` voxels in tiles of `tile` voxels at `starts`.

    Tiles share `overlap` voxels, half a tile where it is None. Their starts are multiples of `alignment`, the common
    stride of a model's layers, so that the samples of all tiles fall on one lattice. Where this asks for it the last
    tile goes up to `alignment` - 1 voxels past the image if `continued`, else it is so much shorter.
    """

    size: int
    tile: int
    starts: tuple[int, ...]
    overlap: int | None = None
    continued: bool = True

    @classmethod
    def of(cls, size: int, tile: int, alignment: int, overlap: int | None = None) -> "Cut":
        """As few overlapping tiles as cover the axis; one tile where the image is no larger than a tile."""
        if tile >= size:
            return cls(size, tile, (0,))
        wanted = tile // 2 if overlap is None else tile - overlap
        step = max(alignment, wanted // alignment * alignment)
        last = ceil((size - tile) / alignment) * alignment
        return cls(size, tile, (*range(0, last, step), last), None if overlap is None else tile - step)

    @property
    def overhanging(self) -> bool:
        """Whether the last of several tiles would go past the image."""
        return self.tile < self.size < self.starts[-1] + self.tile

    def margin(self, reach: float) -> float:
        """In how many voxels from a cut a tile counts for nothing: where it sees the cut, if others cover it there.

        If not, tiles that overlap by half count for nothing in an eighth of their length, others count everywhere.
        """
        shared = self.tile / 2 if self.overlap is None else self.overlap
        beyond = self.tile / 8 if self.overlap is None else 0.0
        return reach if reach < shared / 2 else beyond

    def take(self, values: Tensor, axis: int, start: int) -> Tensor:
        """The tile at `start` of a tensor along one of its axes; past the image its last voxel is repeated."""
        inside = min(self.tile, self.size - start)
        tile = values.narrow(axis, start, inside)
        if inside == self.tile or not self.continued:
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
        self, stride: float, offset: float, per_tile: int, reach: float, window: Window = raised_cosine
    ) -> dict[int, Float[Tensor, " samples"]]:
        """For each start the weights of that tile's samples; those of one place on the axis add up to 1.

        A tile counts for nothing where its samples see its border (within `reach` voxels of it) and otherwise as much
        as the window says. So the blend equals one pass over the image where the field of view is no
        larger than the overlap, and has no seams elsewhere.
        """
        position = offset + stride * torch.arange(per_tile, dtype=torch.float64)
        margin = self.margin(reach)
        raw = {s: window(position, self._distance(s, position), self.tile, margin) for s in self.starts}
        total = torch.zeros(round(self.starts[-1] / stride) + per_tile, dtype=torch.float64)
        for start, weight in raw.items():
            total.narrow(0, round(start / stride), per_tile).add_(weight)
        return {start: w / total.narrow(0, round(start / stride), per_tile) for start, w in raw.items()}

    def _distance(self, start: int, position: Tensor) -> Tensor:
        """To the nearest of the tile's ends that are no ends of the image."""
        far = torch.full_like(position, inf)
        left = position + 0.5 if start > 0 else far
        right = self.tile - 0.5 - position if start < self.starts[-1] else far
        return torch.minimum(left, right)


class Mosaic:
    """The map [channel, frame, *space] of one layer, filled tile by tile; it needs no memory besides the map itself.

    The map lies in `storage`; without it where the layers lie. In memory its frames are the places along `frame_axis`
    of space, as in the image whose slices they are.
    """

    def __init__(
        self,
        cuts: Sequence[Cut],
        layer: Layer,
        per_tile: Sequence[int],
        frames: int,
        *,
        window: Window = raised_cosine,
        storage: Storage | None = None,
        frame_axis: int = 0,
    ) -> None:
        self._axes = list(zip(cuts, layer.stride, layer.offset, per_tile, layer.reach, strict=True))
        self._size = [cut.samples(stride, offset, count) for cut, stride, offset, count, _ in self._axes]
        self._pieces = [
            _pieces(cut.weights(stride, offset, count, reach, window), stride)
            for cut, stride, offset, count, reach in self._axes
        ]
        self._channels, self._frames, self._frame_axis, self._storage = layer.channels, frames, frame_axis, storage
        self._single = frames == 1 and all(len(cut.starts) == 1 for cut in cuts)
        self._map: Tensor | None = None

    def add(self, frame: int, starts: tuple[int, ...], values: Float[Tensor, "channel *space"]) -> None:
        """Takes the samples of the tile at `starts`; each tile comes once."""
        if self._single and (self._storage is None or not self._storage.exceeded_by(values.nbytes)):
            self._map = self._kept(values, starts)[:, None]
            return
        if self._map is None:
            self._map = self._zeros(values)
        target = self._map[:, frame]
        values = self._kept(values, starts).to(target.device)
        weight = values.new_ones(())
        for axis, start in enumerate(starts, start=1):
            first, place, share = self._pieces[axis - 1][start]
            count = min(len(share), values.shape[axis] - first)
            values = values.narrow(axis, first, count)
            target = target.narrow(axis, place + first, count)
            weight = weight[..., None] * share[:count].to(values)
        target.addcmul_(values, weight)

    @property
    def map(self) -> Float[Tensor, "channel frame *space"]:
        """The map, after the last tile."""
        if self._map is None:
            raise ValueError("a mosaic without tiles has no map")
        return self._map

    def _zeros(self, values: Tensor) -> Tensor:
        before, after = self._size[: self._frame_axis], self._size[self._frame_axis :]
        shape = (self._channels, *before, self._frames, *after)
        size = prod(shape) * values.element_size()
        on_device = self._storage is None or (not self._storage.exceeded_by(size) and _fits_on_device(values, size))
        zeros = values.new_zeros(shape) if on_device or self._storage is None else self._storage.zeros(shape)
        return zeros.movedim(1 + self._frame_axis, 1)

    def _kept(self, values: Tensor, starts: tuple[int, ...]) -> Tensor:
        for axis, start in enumerate(starts, start=1):
            stride = self._axes[axis - 1][1]
            inside = self._size[axis - 1] - round(start / stride)
            values = values.narrow(axis, 0, min(values.shape[axis], inside))
        return values


def _fits_on_device(values: Tensor, size: int) -> bool:
    """Whether a GPU has so many bytes twice; on the CPU it is the storage that counts."""
    return values.is_cuda and 2 * size < torch.cuda.mem_get_info(values.device)[0]


def _pieces(weights: dict[int, Tensor], stride: float) -> dict[int, tuple[int, int, Tensor]]:
    """For each start the first sample that counts, the place of the tile in the map, and the weights from it on."""
    found = {}
    for start, weight in weights.items():
        counting = torch.nonzero(weight > NEGLIGIBLE)
        first, last = int(counting[0]), int(counting[-1])
        found[start] = first, round(start / stride), weight[first : last + 1]
    return found
