"""Label images through a transform: every voxel gets a label that is there, chosen by linear interpolation."""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from impactreg.components.interpolators import inside_buffer
from impactreg.components.setup import PointMap
from impactreg.components.splines import raster_strides
from impactreg.components.warping import in_voxels
from impactreg.errors import ImageError
from impactreg.images.files import check_finite
from impactreg.images.grid import Grid
from impactreg.images.image import Image

TIE = 1e-9
"""Shares of a voxel that differ by no more than this are equal."""


def warp_labels(image: Image, transform: PointMap, grid: Grid, *, default: int = 0) -> Image:
    """The labels at T(x) for every voxel x of `grid`, in the number type of `image`; `default` outside its buffer.

    Each label is interpolated linearly as an image of zeros and ones, constant beyond the outermost voxel centres, and
    the largest wins; of equals, that of the lowest number. So there are never new labels, whatever their numbers, and
    borders are smoother than the nearest voxel makes them. Only the 2^D labels around a point are looked at. Raises
    `ImageError` for images of several channels and for values that are not finite.
    """
    if image.channels != 1:
        raise ImageError(f"labels have one value a voxel, but this image has {image.channels}")
    labels = check_finite(image, "labels").scalar.reshape(-1)

    def values(points: Float[Tensor, "points dim"]) -> Tensor:
        moved = transform(points)
        corners, weights = _corners(image.grid, moved)
        winners = _winners(labels[corners], weights)
        return torch.where(inside_buffer(image.grid, moved), winners, default)[:, None]

    return in_voxels(grid, values, 1, labels.dtype, labels.device)


def _corners(
    grid: Grid, points: Float[Tensor, "points dim"]
) -> tuple[Int[Tensor, "points corners"], Float[Tensor, "points corners"]]:
    """The raster indices of the 2^D voxels around each point, and their weights."""
    index = grid.world_to_index(points)
    last = torch.tensor(grid.size, dtype=index.dtype, device=index.device) - 1
    held = torch.minimum(index.clamp(min=0), last)
    low = torch.minimum(held.floor(), (last - 1).clamp(min=0))
    part = held - low
    places = low.new_zeros(len(points), 1)
    weights = low.new_ones(len(points), 1)
    for axis, stride in enumerate(raster_strides(grid.shape)):
        # an axis of one voxel has no next one
        step = stride if grid.size[axis] > 1 else 0
        first = low[:, axis, None] * stride
        places = torch.cat([places + first, places + first + step], dim=1)
        along = part[:, axis, None]
        weights = torch.cat([weights * (1 - along), weights * along], dim=1)
    return places.long(), weights


def _winners(found: Tensor, weights: Float[Tensor, "points corners"]) -> Tensor:
    """Of the labels [points, corners] around each point, that with the largest sum of weights."""
    shares = torch.stack(
        [torch.where(found == each[:, None], weights, 0.0).sum(dim=1) for each in found.unbind(dim=1)], dim=1
    )
    equal = shares >= shares.amax(dim=1, keepdim=True) - TIE
    highest = found.amax(dim=1, keepdim=True)
    return torch.where(equal, found, highest).amin(dim=1)
