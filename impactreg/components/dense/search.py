"""Search: which displacements a coarse registration tries, in cells of a grid that is as even in mm as voxels allow."""

from dataclasses import dataclass
from math import ceil, prod
from typing import Self, TypeVar

import torch
from jaxtyping import Float
from torch import Tensor

Number = TypeVar("Number", int, float)


@dataclass(frozen=True)
class Search:
    """Cells of some voxels and a window of displacements of whole cells; tuples are in tensor order and always z, y, x.

    `cell` counts the voxels of a cell, `half_width` how many cells a displacement goes each way, and `stretch` is the
    length of a cell along an axis by that of a cell along the finest one. In 2D there is one plane, and no way along z.
    """

    dimension: int
    cell: tuple[int, int, int]
    half_width: tuple[int, int, int]
    stretch: tuple[float, float, float] = (1.0, 1.0, 1.0)

    @classmethod
    def of(cls, spacing: tuple[float, ...], grid_spacing: int, half_width: int) -> Self:
        """The search whose cells have `grid_spacing` voxels along the finest axis (`spacing` in mm; x, y, z).

        Along the other axes cells are as long in mm as whole voxels allow, and the displacements go as far in mm. Equal
        spacings give `grid_spacing` and `half_width` along each axis (`itk::Impact::IsotropicVoxelCounts`).
        """
        sides = spacing[::-1]
        finest = min(sides)
        cells = [max(1, int(grid_spacing * finest / side + 0.5)) for side in sides]
        lengths = [cell * side / (grid_spacing * finest) for cell, side in zip(cells, sides, strict=True)]
        # Spacings are often rounded: a length that is one but for that must not add a displacement.
        halves = [max(1, ceil(half_width / length - 1e-6)) for length in lengths]
        flat = 3 - len(sides)
        return cls(
            len(sides),
            _three(flat, 1, cells),
            _three(flat, 0, halves),
            _three(flat, 1.0, [round(v, 6) for v in lengths]),
        )

    @property
    def count(self) -> int:
        """How many displacements there are."""
        return prod(2 * half + 1 for half in self.half_width)

    @property
    def factors(self) -> tuple[int, ...]:
        """The voxels of a cell along each axis of the image, in tensor order."""
        return self.cell[3 - self.dimension :]

    def in_3d(self, shape: tuple[int, ...]) -> tuple[int, int, int]:
        """A shape in tensor order with the one plane that a 2D image is."""
        return _three(3 - len(shape), 1, list(shape))

    def shifts(self, device: "torch.device | str" = "cpu") -> Float[Tensor, "shift zyx"]:
        """All displacements in cells, z first; x is the fastest."""
        axes = [torch.arange(-half, half + 1.0, device=device) for half in self.half_width]
        return torch.cartesian_prod(*axes)


def _three(missing: int, filling: Number, values: list[Number]) -> tuple[Number, Number, Number]:
    z, y, x = [filling] * missing + values
    return z, y, x
