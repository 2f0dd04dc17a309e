"""The inverse of a transform as a deformation field on the moving grid, with how far it is off, and its files."""

import logging
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from jaxtyping import Bool
from torch import Tensor

from impactreg.components.transforms.displacement import DeformationFieldTransform
from impactreg.components.transforms.files import TransformWriter
from impactreg.components.transforms.inverse import AnyTransform, inverse_points, linear_inverse
from impactreg.components.transforms.linear import AffineTransform
from impactreg.components.transforms.transform import Combination, Points
from impactreg.components.warping import (
    VOXELS_AT_ONCE,
    deformation_field,
    determinants,
    jacobian_determinant,
    jacobians,
)
from impactreg.images.grid import Grid
from impactreg.images.image import Image

FIELD_TOLERANCE = 1e-3
"""Millimetres by which a voxel's inverse may miss: less than what interpolation between voxels costs."""
NEAR_FOLD = 0.5
"""Voxels of a smaller Jacobian determinant are looked at closely for folds between them."""

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Residual:
    """How far T(inverse(y)) is from y over many points: the largest and the mean distance (mm) where there is an
    inverse.

    `points` counts them all, `without` those that have no inverse, and `folded` those to which the transform maps
    several places.
    """

    largest: float
    mean: float
    points: int
    without: int = 0
    folded: int = 0

    @classmethod
    def of(cls, distances: Tensor, missing: Bool[Tensor, " points"], folded: Bool[Tensor, " points"]) -> "Residual":
        """The statistics of distances (mm), told by point which are missing and which lie in folds."""
        kept = distances[~missing & ~folded]
        largest, mean = (float(kept.max()), float(kept.mean())) if len(kept) else (0.0, 0.0)
        return cls(largest, mean, len(distances), int((missing & ~folded).sum()), int(folded.sum()))

    def __str__(self) -> str:
        text = f"{self.mean:.3g} mm in the mean, {self.largest:.3g} mm at most"
        if self.without:
            text += f"; {self.without} of {self.points} points have no inverse"
        if self.folded:
            text += f"; {self.folded} of {self.points} points lie where the transform folds and is not invertible"
        return text


@dataclass(frozen=True, eq=False)
class Inverse:
    """An inverse transform, from moving to fixed points, and how far it is off.

    `residual` is that in the voxels of the moving grid, and `between` that at the centres between them, where the
    field is interpolated; both are 0 for the exact inverse of a linear transform.
    """

    transform: DeformationFieldTransform | AffineTransform
    residual: Residual
    between: Residual

    def __str__(self) -> str:
        if isinstance(self.transform, AffineTransform):
            return "exact"
        between = f"{self.between.mean:.3g} mm in the mean, {self.between.largest:.3g} mm at most"
        return f"T(inverse(y)) - y is {self.residual}; between voxels {between}"


def inverse_on(transform: AnyTransform, grid: Grid, *, tolerance: float = FIELD_TOLERANCE) -> Inverse:
    """The inverse for points of a grid, usually the moving image's: exact for a linear transform, else a field."""
    exact = linear_inverse(transform)
    if exact is None:
        return inverse_field(transform, grid, tolerance=tolerance)
    none = Residual(0.0, 0.0, grid.number_of_voxels)
    return Inverse(exact, none, none)


def inverse_field(transform: AnyTransform, grid: Grid, *, tolerance: float = FIELD_TOLERANCE) -> Inverse:
    """The inverse x(y) - y (mm, float32) in every voxel y of a grid, each with |T(x) - y| within `tolerance` (mm).

    A voxel without an inverse gets the nearest point that was found. A voxel lies in a fold where T maps a place of
    negative Jacobian determinant to it: then, and only then, T maps several places to it.
    """
    collected: list[tuple[Tensor, Tensor, Tensor]] = []

    def inverted(points: Points) -> Points:
        result = inverse_points(transform, points, tolerance=tolerance)
        found = (result.residuals.cpu(), result.residuals.cpu() > tolerance, result.folded.cpu())
        collected.append(found)
        return result.points

    field = deformation_field(inverted, grid, device=_device_of(transform)).to(device="cpu")
    distances, missing, folded = (torch.cat(parts) for parts in zip(*collected, strict=True))
    folded = folded | _folds(transform, field)
    inverse = DeformationFieldTransform(field)
    bad = (missing | folded).reshape(grid.shape)
    return Inverse(inverse, Residual.of(distances, missing, folded), _between(transform, inverse, bad))


def write_inverse(
    transform: AnyTransform, moving: Grid, writer: TransformWriter, folder: Path, name: str
) -> tuple[Path, Inverse]:
    """Writes `InverseTransformParameters.<name>.txt` and, unless the transform is linear, the field beside it.

    The file's grid is the moving image's, so that transformix warps what lies in fixed space onto the moving image.
    `writer` is that of the transform. The residual is logged, as a warning where points have no inverse. Raises
    `OutputError`.
    """
    plain = replace(writer, output=replace(writer.output, grid=moving), initial="NoInitialTransform", extension="")
    found = inverse_on(transform, plain.output.working_grid)
    path, _ = plain.write(Combination(found.transform), folder, name, stem="InverseTransformParameters")
    bad = found.residual.without + found.residual.folded
    logger.log(logging.WARNING if bad else logging.INFO, "The inverse transform is saved in %s: %s", path, found)
    return path, found


def _between(transform: AnyTransform, inverse: DeformationFieldTransform, bad: Bool[Tensor, "*space"]) -> Residual:
    """The residual at the centres between voxels, but for those beside a voxel without an inverse."""
    grid = inverse.field.grid
    if min(grid.size) < 2:
        return Residual(0.0, 0.0, 0)
    half = torch.full((1, grid.dimension), 0.5, dtype=torch.float64)
    origin = grid.index_to_world(half)[0].tolist()
    cells = Grid.of([n - 1 for n in grid.size], grid.spacing, origin, grid.direction)
    off = deformation_field(lambda points: transform(inverse(points)), cells, device=_device_of(transform))
    distances: Tensor = torch.linalg.vector_norm(off.data.cpu().double().flatten(1), dim=0)
    touched = bad.clone()
    for axis in range(bad.ndim):
        n = touched.shape[axis]
        touched = touched.narrow(axis, 0, n - 1) | touched.narrow(axis, 1, n - 1)
    missing = touched.reshape(-1)
    return Residual.of(distances, missing, torch.zeros_like(missing))


def _folds(transform: AnyTransform, field: Image) -> Bool[Tensor, " voxels"]:
    """Which voxels a fold is mapped to, looked for voxel by voxel in all that the field reaches, and closely where the
    transform comes near to folding.
    """
    grid, device = field.grid, _device_of(transform)
    box = _reached(field)
    near = (jacobian_determinant(transform, box, device=device).scalar < NEAR_FOLD).nonzero().flip(1).double()
    steps = torch.tensor([-0.375, -0.125, 0.125, 0.375], dtype=torch.float64, device=device)
    offsets = torch.cartesian_prod(*[steps] * grid.dimension).reshape(-1, grid.dimension)
    marked = torch.zeros(grid.shape, dtype=torch.bool)
    for voxels in near.split(max(VOXELS_AT_ONCE // len(offsets), 1)) if len(near) else ():
        points = box.index_to_world((voxels[:, None, :] + offsets).reshape(-1, grid.dimension))
        folded = determinants(jacobians(transform, points)) <= 0
        hit = torch.round(grid.world_to_index(transform(points))[folded]).long().cpu()
        inside = ((hit >= 0) & (hit < torch.tensor(grid.size))).all(dim=1)
        marked[tuple(hit[inside].flip(1).unbind(dim=1))] = True
    return marked.reshape(-1)


def _reached(field: Image) -> Grid:
    """A grid of the same voxels that holds all points to which the field goes."""
    grid = field.grid
    by_index = torch.as_tensor(grid.inverse_matrix, dtype=field.data.dtype) @ field.data.flatten(1)
    low, high = by_index.amin(dim=1).double().floor() - 1, by_index.amax(dim=1).double().ceil() + 1
    size = (high - low).long() + torch.tensor(grid.size)
    return Grid.of(size.tolist(), grid.spacing, grid.index_to_world(low[None])[0].tolist(), grid.direction)


def _device_of(transform: AnyTransform) -> torch.device:
    """Where the parameters of a chain are; those of linear members may lie on the CPU all the same."""
    chain = transform.chain() if isinstance(transform, Combination) else [Combination(transform)]
    devices = [each.current.parameters.device for each in chain]
    return next((device for device in devices if device.type != "cpu"), torch.device("cpu"))
