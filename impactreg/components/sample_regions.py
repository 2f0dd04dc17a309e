"""Sample regions: the voxels of an image from which samples are taken, and regular grids of them."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from impactreg.components.splines import raster_strides
from impactreg.errors import RegistrationError
from impactreg.images import quick
from impactreg.images.grid import Grid
from impactreg.images.image import Image
from impactreg.images.masks import Mask

Index = tuple[int, ...]
TOLERANCE = 1e-6


@dataclass(frozen=True)
class Region:
    """A box of voxels of a grid: the index of the `first` one and the `size`, both x, y, z (`itk::ImageRegion`)."""

    first: Index
    size: Index

    @classmethod
    def of(cls, grid: Grid) -> "Region":
        """All voxels of a grid."""
        return cls((0,) * grid.dimension, grid.size)

    @classmethod
    def at_level(cls, full: Grid, level: Grid) -> "Region":
        """The voxels of a pyramid `level` with centres between the first and the last voxel centre of the `full` image.

        Along the world's axes rounding errors can cost the last voxel of an axis, as in elastix, whose order of
        operations is kept (`itk::MultiResolutionImageRegistrationMethod2::PreparePyramids`). Of oblique images elastix
        loses voxels as the rounding of its matrix inverse falls; here their indices are whole to a millionth of a
        voxel, and none is lost. The region is cut to the level, where elastix counts one voxel too many if the full
        image is more than half a coarse voxel longer.
        """
        inverse, origin = level.inverse_matrix, level.origin
        corners = [full.matrix * [n - 1 for n in full.size], full.matrix * [0] * full.dimension]
        ends = [(inverse * (c.sum(axis=1) + full.origin - origin)).sum(axis=1) for c in corners]
        oblique = any(sum(v != 0 for v in row) > 1 for row in level.direction)
        tolerance = TOLERANCE if oblique else 0.0
        first = tuple(max(0, math.ceil(i - tolerance)) for i in ends[1])
        last = tuple(min(n - 1, math.floor(i + tolerance)) for i, n in zip(ends[0], level.size, strict=True))
        return cls(first, tuple(max(1, b - a + 1) for a, b in zip(first, last, strict=True)))

    def within(self, mask: Mask | None, grid: Grid) -> "Region":
        """The part of this region of `grid` in the box around a mask; `RegistrationError` where there is none."""
        if mask is None:
            return self
        low, high = mask.bounding_box(grid)
        first = tuple(map(max, self.first, low))
        size = tuple(min(f + n, h + 1) - a for f, n, h, a in zip(self.first, self.size, high, first, strict=True))
        if min(size) < 1:
            raise RegistrationError(
                f"{mask.name}: the bounding box of the mask lies entirely out of the fixed image; "
                "check the mask's origin and spacing"
            )
        return Region(first, size)

    @property
    def last(self) -> Index:
        """The index of the last voxel."""
        return tuple(f + n - 1 for f, n in zip(self.first, self.size, strict=True))

    @property
    def number_of_voxels(self) -> int:
        """How many voxels the region has."""
        return math.prod(self.size)

    def every(self, step: Index) -> Int[Tensor, "voxels dim"]:
        """The indices of the voxels on a grid of `step` voxels (x, y, z) in the middle of the region, x fastest."""
        axes = []
        for first, size, jump in zip(self.first, self.size, step, strict=True):
            count = 1 + (size - 1) // jump
            margin = (size - ((count - 1) * jump + 1)) // 2
            axes.append(torch.arange(count) * jump + first + margin)
        mesh = torch.meshgrid(*reversed(axes), indexing="ij")
        return torch.stack([m.reshape(-1) for m in reversed(mesh)], dim=1)

    def step_for(self, number_of_samples: int) -> Index:
        """The step of a grid of about so many samples, the same along all axes (`itk::ImageGridSampler`)."""
        wanted = (self.number_of_voxels / number_of_samples) ** (1 / len(self.size))
        return (max(1, math.floor(wanted + 0.5)),) * len(self.size)


class MaskLookup:
    """Which continuous indices of an image are inside its buffer and a mask, by the nearest voxel.

    A mask on the grid of the image is looked up by index, any other in world space (`elx::MaskHasSameImageDomain`).
    """

    def __init__(self, mask: Mask, image: Image) -> None:
        self.mask = mask
        self._grid = image.grid
        self._voxels = mask.inside.reshape(-1) if mask.grid.same_as(image.grid, 1e-9) else None
        self._volume = float(mask.inside.sum()) * math.prod(mask.grid.spacing)
        device = image.data.device
        self._sizes = column(image.grid.size).to(device)
        self._strides = torch.tensor([raster_strides(image.grid.shape)], dtype=torch.float64, device=device)

    def contains(self, index: Float[Tensor, "dim points"]) -> Bool[Tensor, " points"]:
        """Whether each continuous index, one row for x, y, z each, is inside both; none may be below voxel 0."""
        nearest = quick.floor(index + 0.5)
        buffer = (nearest < self._sizes).all(dim=0)
        if self._voxels is None:
            return buffer & self.mask.contains(self._grid.index_to_world(index.T))
        voxels = torch.mm(self._strides, torch.minimum(nearest, self._sizes - 1)).long()[0]
        return buffer & self._voxels.index_select(0, voxels)

    def share(self, region: Region, *, least: float) -> float:
        """About how much of a region the mask covers, from `least` to 1."""
        volume = region.number_of_voxels * math.prod(self._grid.spacing)
        return min(1.0, max(least, self._volume / volume))


class LinearCells:
    """Linear interpolation of voxels [z, y, x] between them in float64 (`itk::LinearInterpolateImageFunction`).

    For one channel and no gradient: a few operations on few points, where `Interpolant` needs many.
    """

    def __init__(self, data: Float[Tensor, "*space"]) -> None:
        sizes = column(data.shape[::-1]).to(data.device)
        self._flat = data.reshape(-1)
        self._last = sizes - 1
        self._last_cell = (sizes - 2).clamp(min=0)
        steps = [math.prod(data.shape[axis + 1 :]) for axis in reversed(range(data.ndim))]
        self._steps = torch.tensor([steps], dtype=torch.float64, device=data.device)
        corners = torch.zeros(1, dtype=torch.long)
        for step, n in zip(steps, reversed(data.shape), strict=True):
            corners = torch.cat([corners, corners + (step if n > 1 else 0)])
        self._corners = corners[:, None].to(data.device)

    def values(self, index: Float[Tensor, "dim points"]) -> Float[Tensor, " points"]:
        """The values at continuous indices, one row for x, y, z each; beyond the last voxels those of the border."""
        inside = torch.minimum(index, self._last).clamp_(min=0)
        cell = torch.minimum(quick.floor(inside), self._last_cell)
        fraction = inside - cell
        position = torch.mm(self._steps, cell).long() + self._corners
        values = self._flat.index_select(0, position.reshape(-1)).to(torch.float64).reshape(position.shape)
        for row in reversed(fraction.unbind()):
            half = len(values) // 2
            values = torch.lerp(values[:half], values[half:], row)
        return values[0]


def column(values: Sequence[float]) -> Float[Tensor, "dim 1"]:
    """A number for each axis, as a column beside points that are columns."""
    return torch.tensor(values, dtype=torch.float64)[:, None]
