"""What a dense stage starts from: an earlier transform as a linear map after a displacement of fixed points.

Every initial transform T0 is written as L(x + u0(x)): L is the linear map nearest to it over the fixed image, and u0
what is left, in millimetres along the axes of the fixed image. The stage looks for T(x) = L(x + u(x)). So the unknown
u is small, does not depend on how patients were positioned, and is compared with itself by the regularization.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from impactreg.components.interpolators import Interpolant, held_inside
from impactreg.components.setup import PointMap
from impactreg.components.transforms.transform import Combination, Points
from impactreg.components.warping import deformation_field
from impactreg.images.grid import Grid
from impactreg.images.image import Image

NOTHING = 1e-4
"""Millimetres: a displacement that is shorter everywhere is none."""


@dataclass(frozen=True, eq=False)
class Start:
    """L(x) = matrix x + offset (mm, LPS), and the displacement u0 [dim, *space] on the fixed grid, None where it is 0.

    The components of u0 are along the axes of the fixed image, x first.
    """

    matrix: Float[Tensor, "dim dim"]
    offset: Float[Tensor, " dim"]
    displacement: Float[Tensor, "dim *space"] | None = None

    @classmethod
    def of(cls, initial: PointMap | None, fixed: Grid, device: "torch.device | str" = "cpu") -> "Start":
        """The parts of an initial transform, evaluated once at every fixed voxel unless it is linear."""
        d = fixed.dimension
        if initial is None:
            return cls(torch.eye(d, dtype=torch.float64), torch.zeros(d, dtype=torch.float64))
        if _is_linear(initial):
            return cls(*_linear_map(initial, fixed, device))
        field = deformation_field(initial, fixed, device=device)
        matrix, offset = _nearest_linear_map(field)
        rest = _rest(field, matrix, offset)
        return cls(matrix, offset, None if float(rest.abs().max()) < NOTHING else rest)

    def linear(self, points: Points) -> Points:
        """L at some points."""
        return points @ self.matrix.T.to(points) + self.offset.to(points)

    def field(self, displacement: Float[Tensor, "dim *space"], fixed: Grid) -> Image:
        """T(x) - x in millimetres along the world axes (float32), for T(x) = L(x + displacement)."""
        flat = displacement.reshape(fixed.dimension, -1).T.double()
        points = fixed.points(displacement.device)
        moved = self.linear(points + flat @ _direction(fixed).T.to(flat))
        return Image((moved - points).T.to(torch.float32).reshape(fixed.dimension, *fixed.shape), fixed)


def inverse_field(start: Start, inverse: Float[Tensor, "dim *space"], fixed: Grid, moving: Grid) -> Image:
    """The inverse of T(x) = L(x + u(x)) on the moving grid: x - y in mm along the world axes (float32), from the
    displacement of the inverse of x + u(x) on the fixed grid, whose border goes on beyond it.

    It does not know the displacement of a start that is not linear.
    """
    points = moving.points(inverse.device)
    before = torch.linalg.solve(start.matrix.to(points), (points - start.offset.to(points)).T).T
    shift = Interpolant.of(Image(inverse, fixed), 1).values(held_inside(fixed, before)).double()
    moved = before + shift @ _direction(fixed).T.to(shift)
    return Image((moved - points).T.to(torch.float32).reshape(inverse.shape[0], *moving.shape), moving)


def _is_linear(initial: PointMap) -> bool:
    return isinstance(initial, Combination) and all(each.current.linear for each in initial.chain())


def _linear_map(initial: PointMap, fixed: Grid, device: "torch.device | str") -> tuple[Tensor, Tensor]:
    """From the centre of the image and as many points around it as there are axes."""
    centre = torch.tensor([fixed.centre], dtype=torch.float64)
    size = max(n * s for n, s in zip(fixed.size, fixed.spacing, strict=True))
    around = centre + torch.eye(fixed.dimension, dtype=torch.float64) * size
    mapped = initial(torch.cat([centre, around]).to(device)).cpu()
    matrix = ((mapped[1:] - mapped[0]) / size).T
    return matrix, mapped[0] - matrix @ centre[0]


def _nearest_linear_map(field: Image) -> tuple[Tensor, Tensor]:
    """In the sense of least squares over all voxels."""
    points = field.grid.points(field.data.device)
    moved = points + field.data.reshape(field.dimension, -1).T.double()
    middle, mean = points.mean(dim=0), moved.mean(dim=0)
    around = points - middle
    normal = around.T @ around
    normal = normal + torch.eye(len(normal)).to(normal) * 1e-9 * normal.diagonal().max()
    # a flat image says nothing about its normal; there the map is the identity
    matrix: Tensor = torch.linalg.solve(normal, around.T @ (moved - mean - around)).T + torch.eye(len(normal)).to(
        normal
    )
    return matrix.cpu(), (mean - matrix @ middle).cpu()


def _rest(field: Image, matrix: Tensor, offset: Tensor) -> Float[Tensor, "dim *space"]:
    points = field.grid.points(field.data.device)
    moved = points + field.data.reshape(field.dimension, -1).T.double()
    before = torch.linalg.solve(matrix.to(moved), (moved - offset.to(moved)).T).T
    along: Tensor = (before - points) @ torch.linalg.inv(_direction(field.grid)).T.to(moved)
    return along.T.to(torch.float32).reshape(field.data.shape)


def _direction(grid: Grid) -> Float[Tensor, "dim dim"]:
    return torch.tensor(grid.direction, dtype=torch.float64)
