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
    def of(
        cls, initial: PointMap | None, fixed: Grid, device: "torch.device | str" = "cpu", *, apart: bool = True
    ) -> "Start":
        """The parts of an initial transform, evaluated once at every fixed voxel unless it is linear.

        Unless the linear part is set `apart`, L is the identity.
        """
        d = fixed.dimension
        nowhere = torch.eye(d, dtype=torch.float64), torch.zeros(d, dtype=torch.float64)
        if initial is None:
            return cls(*nowhere)
        if apart and _is_linear(initial):
            return cls(*_linear_map(initial, fixed, device))
        field = deformation_field(initial, fixed, device=device)
        matrix, offset = _nearest_linear_map(field) if apart else nowhere
        rest = _rest(field, matrix, offset)
        return cls(matrix, offset, None if float(rest.abs().max()) < NOTHING else rest)

    def linear(self, points: Points) -> Points:
        """L at some points."""
        return points @ self.matrix.T.to(points) + self.offset.to(points)

    def field(self, displacement: Float[Tensor, "dim *space"], fixed: Grid) -> Image:
        """T(x) - x in millimetres along the world axes (float32), for T(x) = L(x + displacement)."""
        turned = torch.tensordot((self.matrix @ _direction(fixed)).to(displacement), displacement, dims=1)
        return Image(_add_linear(turned, fixed, self.matrix - _eye(self.matrix), self.offset).float(), fixed)


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
    """In the sense of least squares over all voxels: on a grid each axis has its own slope."""
    slopes, d = [], field.dimension
    for axis in range(d, 0, -1):
        others = tuple(k for k in range(1, d + 1) if k != axis)
        line = field.data.mean(dim=others, dtype=torch.float64).cpu()
        index = torch.arange(line.shape[1], dtype=torch.float64) - (line.shape[1] - 1) / 2
        # a flat image says nothing about its normal; there the map is the identity
        slopes.append(line @ index / (float(index.square().sum()) or 1.0))
    change = torch.stack(slopes, dim=1) @ torch.tensor(field.grid.inverse_matrix.copy())
    mean = field.data.flatten(1).mean(dim=1, dtype=torch.float64).cpu()
    offset: Tensor = mean - change @ torch.tensor(field.grid.centre, dtype=torch.float64)
    return change + _eye(change), offset


def _rest(field: Image, matrix: Tensor, offset: Tensor) -> Float[Tensor, "dim *space"]:
    """What is left of a field before a linear map, along the axes of its grid."""
    back = torch.linalg.inv(matrix)
    onto = torch.linalg.inv(_direction(field.grid))
    turned = torch.tensordot((onto @ back).to(field.data), field.data, dims=1)
    return _add_linear(turned, field.grid, onto @ (back - _eye(back)), -onto @ back @ offset).float()


def _add_linear(
    values: Float[Tensor, "dim *space"], grid: Grid, matrix: Float[Tensor, "dim dim"], offset: Float[Tensor, " dim"]
) -> Float[Tensor, "dim *space"]:
    """Adds matrix x + offset for every voxel x of a grid in place: the sum of one line for each axis."""
    d = grid.dimension
    steps = matrix @ torch.tensor(grid.matrix.copy())
    first = matrix @ torch.tensor(grid.origin, dtype=torch.float64) + offset
    for axis, n in enumerate(grid.size):
        line = steps[:, axis, None] * torch.arange(n, dtype=torch.float64) + first[:, None] * (axis == 0)
        shape = [d, *[1] * d]
        shape[d - axis] = n
        values += line.to(values).reshape(shape)
    return values


def _eye(like: Tensor) -> Tensor:
    return torch.eye(len(like), dtype=like.dtype)


def _direction(grid: Grid) -> Float[Tensor, "dim dim"]:
    return torch.tensor(grid.direction, dtype=torch.float64)
