"""Grid: where an image's voxels lie in the world, as one immutable value."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from impactreg.errors import ImageError

Numbers = tuple[float, ...]


@dataclass(frozen=True)
class Grid:
    """The geometry of a regular image grid, with ITK's meaning of every word (`itk::ImageBase`).

    `size` counts voxels and `spacing` is in millimetres, both in x, y, z order; `origin` is the world position (LPS
    millimetres) of the centre of voxel (0, 0, 0); the columns of `direction` are the world directions of the index
    axes. World = origin + direction diag(spacing) index. Raises `ImageError` where these do not fit together.
    """

    size: tuple[int, ...]
    spacing: Numbers
    origin: Numbers
    direction: tuple[Numbers, ...]

    def __post_init__(self) -> None:
        dimension = len(self.size)
        if not (len(self.spacing) == len(self.origin) == len(self.direction) == dimension):
            raise ImageError(f"a grid of size {self.size} needs {dimension} spacings, origins and direction rows")
        if min(self.size, default=0) < 1 or not all(s > 0 and np.isfinite(s) for s in self.spacing):
            raise ImageError(f"sizes and spacings must be positive, but they are {self.size} and {self.spacing}")
        if not np.isfinite(self.origin).all() or not np.isfinite(self.direction).all():
            raise ImageError(f"origin {self.origin} and direction {self.direction} must be finite numbers")
        if abs(np.linalg.det(np.array(self.direction))) < 1e-6:
            raise ImageError(f"the direction cosines {self.direction} are singular")

    @classmethod
    def of(
        cls,
        size: "tuple[int, ...] | list[int]",
        spacing: "Numbers | list[float] | np.ndarray | None" = None,
        origin: "Numbers | list[float] | np.ndarray | None" = None,
        direction: "tuple[Numbers, ...] | list[list[float]] | np.ndarray | None" = None,
    ) -> "Grid":
        """A grid from anything that looks like numbers; what is missing is 1 mm, the world's origin and its axes."""
        n = len(size)
        rows = np.eye(n) if direction is None else np.asarray(direction, dtype=float).reshape(n, n)
        return cls(
            tuple(int(s) for s in size),
            tuple(float(s) for s in (np.ones(n) if spacing is None else spacing)),
            tuple(float(o) for o in (np.zeros(n) if origin is None else origin)),
            tuple(tuple(float(v) for v in row) for row in rows),
        )

    @property
    def dimension(self) -> int:
        """2 or 3."""
        return len(self.size)

    @property
    def shape(self) -> tuple[int, ...]:
        """The size in tensor order: z, y, x."""
        return self.size[::-1]

    @cached_property
    def matrix(self) -> "np.ndarray":
        """Direction times spacing [D, D]: one index step along each axis, in millimetres."""
        return np.asarray(np.array(self.direction) * np.array(self.spacing))

    @cached_property
    def inverse_matrix(self) -> "np.ndarray":
        """The inverse of `matrix` [D, D]: index steps per millimetre along the world axes."""
        return np.asarray(np.linalg.inv(self.matrix))

    @property
    def centre(self) -> Numbers:
        """World position of the geometric centre, index (size - 1) / 2."""
        middle = (np.array(self.size) - 1) / 2
        return tuple(float(v) for v in np.array(self.origin) + self.matrix @ middle)

    @property
    def number_of_voxels(self) -> int:
        """How many voxels the grid has."""
        return int(np.prod(self.size))

    def index_to_world(self, index: Float[Tensor, "points dim"]) -> Float[Tensor, "points dim"]:
        """World positions (mm) of continuous indices (x, y, z)."""
        return index @ self._tensor(self.matrix.T, index) + self._tensor(np.array(self.origin), index)

    def world_to_index(self, points: Float[Tensor, "points dim"]) -> Float[Tensor, "points dim"]:
        """Continuous indices (x, y, z) of world positions (mm)."""
        return (points - self._tensor(np.array(self.origin), points)) @ self._tensor(self.inverse_matrix.T, points)

    def indices(self, device: "torch.device | str" = "cpu") -> Float[Tensor, "voxels dim"]:
        """The index (x, y, z) of every voxel as float64, in raster order: x fastest."""
        axes = [torch.arange(n, dtype=torch.float64, device=device) for n in self.shape]
        mesh = torch.meshgrid(*axes, indexing="ij")
        return torch.stack([m.reshape(-1) for m in reversed(mesh)], dim=1)

    def points(self, device: "torch.device | str" = "cpu") -> Float[Tensor, "voxels dim"]:
        """The world position (mm) of every voxel as float64, in raster order: x fastest."""
        return self.index_to_world(self.indices(device))

    def corners(self) -> Float[Tensor, "corners dim"]:
        """World positions of the 2^D outermost voxel centres."""
        ends = [torch.tensor([0.0, n - 1.0], dtype=torch.float64) for n in self.size]
        return self.index_to_world(torch.cartesian_prod(*ends).reshape(-1, self.dimension))

    def same_as(self, other: "Grid", tolerance: float = 1e-4) -> bool:
        """Whether both grids have the same voxels, to a fraction `tolerance` of a voxel."""
        if self.size != other.size:
            return False
        step = min(self.spacing)
        origins = np.abs(np.array(self.origin) - np.array(other.origin)).max()
        drift = (np.abs(self.matrix - other.matrix) * np.array(self.size)).max()
        return bool(origins <= tolerance * step and drift <= tolerance * step)

    def without_direction(self) -> "Grid":
        """The same grid with the world's axes: what elastix does with `(UseDirectionCosines "false")`."""
        return Grid.of(self.size, self.spacing, self.origin)

    @staticmethod
    def _tensor(values: "np.ndarray", like: Tensor) -> Tensor:
        return torch.as_tensor(np.ascontiguousarray(values), dtype=like.dtype, device=like.device)
