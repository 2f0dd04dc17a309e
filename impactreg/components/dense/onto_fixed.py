"""On the fixed grid: the moving image as an earlier transform shows it, and fields on top of that transform."""

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from impactreg.components.interpolators import Interpolant, held_inside
from impactreg.components.setup import PointMap
from impactreg.components.warping import in_voxels, pieces
from impactreg.images.grid import Grid
from impactreg.images.image import Image
from impactreg.images.masks import Mask


def seen_from(image: Image, grid: Grid, transform: PointMap | None = None) -> Image:
    """The image at T(x) for every voxel x of a grid: linear interpolation, continued by its border.

    A value for what lies outside would be an edge that features describe. No transform is the identity.
    """
    if transform is None and image.grid.same_as(grid):
        return image
    interpolant = Interpolant.of(image, 1)

    def values(points: Float[Tensor, "points dim"]) -> Tensor:
        moved = points if transform is None else transform(points)
        return interpolant.values(held_inside(image.grid, moved))

    return in_voxels(grid, values, image.channels, torch.float32, image.data.device)


def mask_seen_from(mask: Mask | None, grid: Grid, transform: PointMap | None = None) -> Bool[Tensor, "*space"] | None:
    """Which voxels x of a grid have T(x) in the mask; None without a mask."""
    if mask is None:
        return None
    if transform is None and mask.grid.same_as(grid):
        return mask.inside

    def inside(points: Float[Tensor, "points dim"]) -> Tensor:
        return mask.contains(points if transform is None else transform(points))[:, None]

    return in_voxels(grid, inside, 1, torch.bool, mask.inside.device).scalar


def field_on_top(displacement: Float[Tensor, "dim *space"], grid: Grid, transform: PointMap | None = None) -> Image:
    """T(x + u(x)) - x in mm along the world axes (LPS, x first), for displacements u in voxels of `grid`, z first."""
    n = grid.dimension
    world = torch.from_numpy(grid.matrix).to(displacement)
    moved = torch.tensordot(world, displacement.flip(0), dims=1)
    if transform is None:
        return Image(moved.float(), grid)
    flat = moved.reshape(n, -1)
    total = torch.empty(n, grid.number_of_voxels, dtype=torch.float32, device=flat.device)
    for piece, points in pieces(grid, flat.device):
        total[:, piece] = (transform(points + flat[:, piece].T) - points).T
    return Image(total.reshape(n, *grid.shape), grid)
