"""Masks: the part of space that takes part in a registration, with elastix's meaning of inside, box and erosion."""

from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from impactreg.errors import ImageError
from impactreg.images.grid import Grid
from impactreg.images.image import Image

Index = tuple[int, ...]


@dataclass(frozen=True, eq=False)
class Mask:
    """The voxels of `grid` that are inside [z, y, x]; a mask may have another grid than the image it goes with.

    Points are tested in world space, by their nearest voxel (`itk::ImageMaskSpatialObject`). `name` says in messages
    which mask it is. Raises `ImageError` when nothing is inside.
    """

    inside: Bool[Tensor, "*space"]
    grid: Grid
    name: str = "mask"

    def __post_init__(self) -> None:
        if tuple(self.inside.shape) != self.grid.shape:
            raise ImageError(
                f"{self.name}: voxels of shape {tuple(self.inside.shape)} do not fit a grid of shape {self.grid.shape}"
            )
        if not bool(self.inside.any()):
            raise ImageError(f"{self.name}: the mask is empty: no voxel differs from 0")

    @classmethod
    def of(cls, image: Image, *, name: str = "mask", on: Grid | None = None) -> "Mask":
        """The mask of all voxels that are not 0; fractions are cut off first, as elastix does when it reads a mask.

        With `on`, the grid of the image that the mask goes with, another dimension or no common voxel is an
        `ImageError`.
        """
        if image.channels != 1:
            raise ImageError(f"{name}: a mask has one value a voxel, but this image has {image.channels}")
        values = image.scalar
        mask = cls((values.abs() >= 1) if values.is_floating_point() else values != 0, image.grid, name)
        if on is not None:
            mask._check_overlap(on)
        return mask

    def to(self, device: "torch.device | str") -> "Mask":
        """The same mask on another device."""
        return replace(self, inside=self.inside.to(device))

    def contains(self, points: Float[Tensor, "points dim"]) -> Bool[Tensor, "points"]:
        """Which world points (mm) have an inside voxel as their nearest; ties go to the higher index."""
        index = torch.floor(self.grid.world_to_index(points) + 0.5)
        size = torch.tensor(self.grid.size, dtype=index.dtype, device=index.device)
        known = ((index >= 0) & (index < size)).all(dim=1)
        voxels = torch.where(known[:, None], index, torch.zeros_like(index)).long()
        return known & self.inside[tuple(voxels.flip(1).T)]

    def bounding_box(self, grid: Grid) -> tuple[Index, Index]:
        """First and last index (x, y, z) of the part of `grid` that a sampler visits for this mask.

        elastix's rule (`itk::ImageSamplerBase::CropInputImageRegion`): the world-aligned box around the inside
        voxels, taken to the indices of `grid`, rounded outwards and cut to the grid. Raises `ImageError` where
        nothing is left.
        """
        lower, upper = self.world_box
        corners = torch.cartesian_prod(*torch.stack([lower, upper], dim=1)).reshape(-1, grid.dimension)
        index = grid.world_to_index(corners)
        first = torch.floor(index.amin(dim=0)).clamp(min=0).long().tolist()
        last = torch.ceil(index.amax(dim=0)).long().tolist()
        last = [min(int(b), n - 1) for b, n in zip(last, grid.size, strict=True)]
        if any(a > b for a, b in zip(first, last, strict=True)):
            raise ImageError(f"{self.name}: the mask lies entirely outside the image")
        return tuple(int(a) for a in first), tuple(last)

    @property
    def world_box(self) -> tuple[Float[Tensor, " dim"], Float[Tensor, " dim"]]:
        """Lowest and highest world coordinates (mm) of the inside voxels, their half-voxel borders included."""
        spans = []
        for axis in range(self.grid.dimension):
            others = [d for d in range(self.grid.dimension) if d != self.grid.dimension - 1 - axis]
            held = torch.nonzero(self.inside.any(dim=others) if others else self.inside).flatten()
            spans.append(torch.tensor([float(held[0]) - 0.5, float(held[-1]) + 0.5], dtype=torch.float64))
        world = self.grid.index_to_world(torch.cartesian_prod(*spans).reshape(-1, self.grid.dimension))
        return world.amin(dim=0), world.amax(dim=0)

    def eroded(self, factors: tuple[float, ...], *, moving: bool) -> "Mask":
        """The mask that elastix uses at a resolution with these pyramid factors (x, y, z) when `ErodeMask` is true.

        `itk::ErodeMaskImageFilter`: parabolic erosion of scale r^2 / 2 + 1 along each axis in turn, with r = factor +
        1 (fixed) or 2 factor + 1 (moving). Its results are whole numbers after each axis, so an inside voxel stays
        exactly when no background voxel is within r voxels of it along every axis: a box. The border of the grid is
        not background. Raises `ImageError` when nothing is left.
        """
        radii = [(2 * factor if moving else factor) + 1 for factor in factors]
        inside = self.inside
        for axis, radius in enumerate(radii):
            inside = _eroded_along(inside, inside.ndim - 1 - axis, _reach(radius))
        if not bool(inside.any()):
            reach = " x ".join(str(_reach(radius)) for radius in radii)
            raise ImageError(
                f'{self.name}: erosion by {reach} voxels leaves no mask: enlarge it, or set (ErodeMask "false")'
            )
        return replace(self, inside=inside)

    def _check_overlap(self, grid: Grid) -> None:
        if self.grid.dimension != grid.dimension:
            raise ImageError(
                f"{self.name}: the mask has {self.grid.dimension} dimensions, but the image has {grid.dimension}"
            )
        voxels = torch.nonzero(self.inside).flip(1).to(torch.float64)
        index = grid.world_to_index(self.grid.index_to_world(voxels))
        size = torch.tensor(grid.size, dtype=torch.float64, device=index.device)
        within = ((index >= -0.5) & (index < size - 0.5)).all(dim=1).any()
        # a voxel of a coarse mask may hold image voxels while its centre lies outside the image
        if not bool(within) and not bool(self.contains(grid.points(self.inside.device)).any()):
            raise ImageError(
                f"{self.name}: the mask and the image have no voxel in common: check their origins and directions"
            )


def _reach(radius: float) -> int:
    # the largest whole distance d with d^2 / (r^2 + 2) < 1; r for whole numbers
    return int(np.ceil(np.sqrt(radius * radius + 2))) - 1


def _eroded_along(inside: Bool[Tensor, "*space"], axis: int, reach: int) -> Bool[Tensor, "*space"]:
    length = inside.shape[axis]
    result = inside.clone()
    for step in range(1, min(reach, length - 1) + 1):
        result.narrow(axis, step, length - step).logical_and_(inside.narrow(axis, 0, length - step))
        result.narrow(axis, 0, length - step).logical_and_(inside.narrow(axis, step, length - step))
    return result
