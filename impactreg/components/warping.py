"""Images and fields through a transform, piece by piece: warped images, deformation fields and spatial Jacobians."""

from collections.abc import Callable, Iterator, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from impactreg.components.interpolators import Interpolant, held_inside
from impactreg.components.setup import PointMap
from impactreg.components.transforms.local import DifferentiatedLocal
from impactreg.components.transforms.transform import Combination, Points, Transform
from impactreg.images.grid import Grid
from impactreg.images.image import Image

VOXELS_AT_ONCE = 1 << 13
"""Voxels that are worked on together: the control points gathered for a cubic B-spline in 3D then fill 13 MB."""
PLANES_AT_ONCE = 16
"""Planes of voxels between which differences are taken together."""


def warp(
    image: Image, transform: PointMap, grid: Grid, *, order: int = 3, default: float = 0.0, clamped: bool = False
) -> Image:
    """The image at T(x) for every voxel x of `grid`, and `default` where T(x) lies outside the image's buffer.

    `order` is that of the B-spline (0 to 3; 0 is the nearest voxel, for labels). The border is mirrored, or constant
    when `clamped`, as in ITK's linear interpolator. Values are float32 or float64 as the image's, and keep a
    whole-number type with order 0 (`itk::ResampleImageFilter`).
    """
    kept = image.data.dtype if order == 0 or image.data.dtype == torch.float64 else torch.float32
    exact = image.data.dtype in (torch.int32, torch.int64)
    interpolant = Interpolant.of(image.to(dtype=torch.float64) if exact else image, order)

    def values(points: Points) -> Float[Tensor, "points channel"]:
        moved = transform(points)
        inside = interpolant.inside(moved)
        found = interpolant.values(held_inside(image.grid, moved) if clamped else moved)
        return torch.where(inside[:, None], found, default)

    return in_voxels(grid, values, image.channels, kept, image.data.device)


def deformation_field(transform: PointMap, grid: Grid, *, device: "torch.device | str" = "cpu") -> Image:
    """T(x) - x in millimetres along the world axes (LPS) for every voxel x of `grid`: D channels of float32."""
    there = torch.device(device)
    return in_voxels(grid, lambda points: transform(points) - points, grid.dimension, torch.float32, there)


def spatial_jacobian(transform: PointMap, grid: Grid, *, device: "torch.device | str" = "cpu") -> Image:
    """dT/dx for every voxel x of `grid`: D x D channels of float32, row by row (dT_x/dx, dT_x/dy, ...)."""
    size = grid.dimension**2
    return in_voxels(
        grid, lambda points: jacobians(transform, points).reshape(-1, size), size, torch.float32, torch.device(device)
    )


def jacobian_determinant(transform: PointMap, grid: Grid, *, device: "torch.device | str" = "cpu") -> Image:
    """det(dT/dx) for every voxel x of `grid`, one channel of float32: 1 keeps the volume, 0 and less is a fold."""
    return in_voxels(
        grid, lambda points: determinants(jacobians(transform, points))[:, None], 1, torch.float32, torch.device(device)
    )


def jacobians(transform: PointMap, points: Points) -> Float[Tensor, "points dim dim"]:
    """dT/dx at each world point, exact: element [n, i, j] is dT_i/dx_j. Any map but a transform is differentiated."""
    if isinstance(transform, Transform | Combination):
        return transform.local(points).jacobian
    return DifferentiatedLocal(transform, points, "this map").jacobian


def determinants(matrices: Float[Tensor, "points dim dim"]) -> Float[Tensor, " points"]:
    """The determinants of many small matrices, written out since that is many times faster than a factorisation."""
    return _determinant([row.unbind(1) for row in matrices.unbind(1)])


def determinants_by_differences(
    field: Image, dtype: torch.dtype = torch.float64
) -> Iterator[Float[Tensor, "planes *plane"]]:
    """det(1 + du/dx) of displacements u(x) in mm along the world axes (LPS), a channel for each axis: some planes of
    voxels at a time, in their order.

    Differences are central ones between neighbouring voxels and one-sided at the border, as those of
    `itk::DisplacementFieldTransform`; along an axis of one voxel nothing changes.
    """
    last = field.data.shape[1]
    for start in range(0, last, PLANES_AT_ONCE):
        stop = min(start + PLANES_AT_ONCE, last)
        low, high = max(0, start - 1), min(last, stop + 1)
        near = _by_differences(field.data[:, low:high].to(dtype), field.grid)
        yield near[start - low : stop - low]


def in_voxels(
    grid: Grid, values: Callable[[Points], Tensor], channels: int, dtype: torch.dtype, device: torch.device
) -> Image:
    """An image whose voxels are `values` [points, channel] at their world points."""
    data = torch.empty(channels, grid.number_of_voxels, dtype=dtype, device=device)
    for piece, points in pieces(grid, device):
        data[:, piece] = values(points).detach().T.to(dtype)
    return Image(data.reshape(channels, *grid.shape), grid)


def pieces(grid: Grid, device: torch.device) -> Iterator[tuple[slice, Points]]:
    """The voxels of a grid in raster order, some at a time, with their world points."""
    total = grid.number_of_voxels
    for first in range(0, total, VOXELS_AT_ONCE):
        rest = torch.arange(first, min(first + VOXELS_AT_ONCE, total), device=device)
        index = []
        for n in grid.size:
            index.append(rest % n)
            rest = rest // n
        points = grid.index_to_world(torch.stack(index, dim=1).to(torch.float64))
        yield slice(first, first + len(points)), points


def _by_differences(displacements: Float[Tensor, "dim *space"], grid: Grid) -> Float[Tensor, "*space"]:
    n, per_mm = grid.dimension, grid.inverse_matrix.tolist()
    rows = []
    for i, along in enumerate(displacements):
        steps = [_differences(along, n - 1 - axis) for axis in range(n)]
        # d u_i / d world_j: the sum over index axes k of d u_i / d index_k times d index_k / d world_j
        row = [sum((step * per_mm[k][j] for k, step in enumerate(steps)), start=along.new_zeros(())) for j in range(n)]
        row[i] = row[i] + 1
        rows.append(row)
    return _determinant(rows)


def _differences(values: Float[Tensor, "*space"], axis: int) -> Float[Tensor, "*space"]:
    return torch.gradient(values, dim=axis)[0] if values.shape[axis] > 1 else torch.zeros_like(values)


def _determinant(rows: Sequence[Sequence[Tensor]]) -> Tensor:
    """From the elements of matrices, element by element."""
    a, b, *c = rows
    if not c:
        return a[0] * b[1] - a[1] * b[0]
    x, y, z = (a[j] * b[k] - a[k] * b[j] for j, k in ((1, 2), (2, 0), (0, 1)))
    return x * c[0][0] + y * c[0][1] + z * c[0][2]
