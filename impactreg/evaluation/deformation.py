"""How a transform deforms space: its Jacobian determinants, where it folds, and how far an inverse leads back."""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from impactreg.components.setup import PointMap
from impactreg.components.transforms.displacement import DeformationFieldTransform
from impactreg.components.transforms.transform import Combination
from impactreg.components.warping import (
    deformation_field,
    determinants_by_differences,
    in_voxels,
    jacobian_determinant,
)
from impactreg.errors import ImageError
from impactreg.evaluation.landmarks import Distances
from impactreg.images.grid import Grid
from impactreg.images.image import Image
from impactreg.images.masks import Mask


@dataclass(frozen=True)
class Deformation:
    """Jacobian determinants det(dT/dx) over voxels.

    `sdlogj` is the standard deviation of their logarithm where they are positive, 0 for a rigid transform; `folding` is
    the fraction of voxels in which they are not; `smallest`, `mean` and `largest` are of all voxels, of which there are
    `voxels`.
    """

    sdlogj: float
    folding: float
    smallest: float
    mean: float
    largest: float
    voxels: int

    @classmethod
    def of(cls, found: Float[Tensor, " voxels"]) -> "Deformation":
        """What is said of determinants; without a positive one `sdlogj` is not a number."""
        values = found.double()
        positive = values[values > 0]
        sdlogj = float(positive.log().std(correction=0)) if len(positive) else float("nan")
        folding = 1 - len(positive) / len(values)
        return cls(sdlogj, folding, float(values.min()), float(values.mean()), float(values.max()), len(values))


def deformation(
    transform: Combination, grid: Grid, mask: Mask | None = None, *, device: "torch.device | str" = "cpu"
) -> Deformation:
    """The Jacobian determinants of a transform in the voxels of a grid, or in those of them inside a mask.

    They are exact, but for displacement fields, which have central differences between the voxels (as
    `itk::DisplacementFieldTransform`). Raises `ImageError` for a mask without a voxel of the grid.
    """
    found = determinant_image(transform, grid, device=device).data.reshape(-1)
    if mask is not None:
        inside = _inside(mask, grid)
        if not bool(inside.any()):
            raise ImageError(f"{mask.name}: it holds no voxel of the fixed image")
        found = found[inside.to(found.device)]
    return Deformation.of(found)


def determinant_image(transform: Combination, grid: Grid, *, device: "torch.device | str" = "cpu") -> Image:
    """det(dT/dx) in every voxel, exact or by central differences where a displacement field is a part of T."""
    if not any(isinstance(each.current, DeformationFieldTransform) for each in transform.chain()):
        return jacobian_determinant(transform, grid, device=device)
    field = deformation_field(transform, grid, device=device)
    return Image(torch.cat([found.to(field.data.dtype) for found in determinants_by_differences(field)])[None], grid)


def inverse_consistency(
    transform: PointMap,
    inverse: PointMap,
    fixed: Grid,
    moving: Grid,
    mask: Mask | None = None,
    *,
    device: "torch.device | str" = "cpu",
) -> Distances:
    """|inverse(T(x)) - x| (mm) for every voxel x of the fixed grid, or of the mask, that T maps into the moving grid.

    Beyond the moving image nothing says what an inverse is. Raises `ImageError` where no voxel is left.
    """
    there = torch.device(device)

    def returned(points: Float[Tensor, "points dim"]) -> Tensor:
        moved = transform(points)
        missed = torch.linalg.vector_norm(inverse(moved) - points, dim=1)
        return torch.where(_reaches(moving, moved), missed, torch.nan)[:, None]

    distances = in_voxels(fixed, returned, 1, torch.float64, there).data.reshape(-1)
    if mask is not None:
        distances = distances[_inside(mask, fixed).to(there)]
    kept = distances[~distances.isnan()]
    if not len(kept):
        raise ImageError("the transform maps no voxel of the fixed image into the moving image: is it the right one?")
    return Distances(kept)


def _reaches(grid: Grid, points: Float[Tensor, "points dim"]) -> Bool[Tensor, " points"]:
    """Which points lie between the outermost voxel centres of a grid."""
    index = grid.world_to_index(points)
    last = torch.tensor(grid.size, dtype=index.dtype, device=index.device) - 1
    return ((index >= 0) & (index <= last)).all(dim=1)


def _inside(mask: Mask, grid: Grid) -> Bool[Tensor, " voxels"]:
    found = in_voxels(grid, lambda points: mask.contains(points)[:, None], 1, torch.bool, mask.inside.device)
    return found.data.reshape(-1).cpu()
