"""Rigidity images: how rigid each voxel is to stay, and what that makes of each control point of a B-spline."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F  # noqa: N812
from jaxtyping import Float
from torch import Tensor

from impactreg.components.transforms.bspline import BSplineTransform
from impactreg.components.transforms.reading import existing_file
from impactreg.errors import ImageError, ParameterError, TransformError
from impactreg.images.files import check_finite, read_image
from impactreg.images.image import Image
from impactreg.parameters import ParameterMap

LEAST_MULTIPLIER = 0.1
"""elastix takes no smaller `DilationRadiusMultiplier`."""


def read_rigidity_image(parameter_map: ParameterMap, label: str, key: str, like: Image) -> Image | None:
    """The image that a key (or the key with the metric's label in front) names, if it is there: as float64 on the
    device of `like`.

    Relative paths are those of the working folder, else beside the parameter file. Raises `ParameterError` where there
    is no such file and `ImageError` where it is no image of numbers in the dimension of `like`.
    """
    file = rigidity_file(parameter_map, label, key)
    if file is None:
        return None
    image = check_finite(read_image(file, name="rigidity image"), f"{file}: rigidity image")
    if image.channels != 1 or image.dimension != like.dimension:
        raise ImageError(
            f"{file}: a rigidity image in {like.dimension}D with one value a voxel is needed, but it is "
            f"{image.dimension}D with {image.channels}"
        )
    if parameter_map.first("UseDirectionCosines", "true") == "false":
        image = Image(image.data, image.grid.without_direction())
    return image.to(device=like.data.device, dtype=torch.float64)


def rigidity_file(parameter_map: ParameterMap, label: str, key: str) -> Path | None:
    """The file that a key (or the key with the metric's label in front) names; None where neither is there.

    Raises `ParameterError` where there is no such file.
    """
    used = label + key if parameter_map.get(label + key) else key
    if not parameter_map.get(used):
        return None
    try:
        return existing_file(parameter_map, used)
    except TransformError as error:
        raise ParameterError(str(error)) from error


@dataclass(frozen=True)
class RigidityImages:
    """The rigidity of the fixed and of the moving image, where they are given, made wider by `dilation` control grid
    spacings; None leaves them as they are.
    """

    fixed: Image | None
    moving: Image | None
    dilation: float | None

    def widened(self, spacing: Sequence[float]) -> "RigidityImages":
        """Dilated along every axis for control points so many millimetres apart.

        elastix takes that number of millimetres as a number of voxels of the rigidity image, and so does this.
        """
        if self.dilation is None:
            return self
        radii = [int(max(self.dilation, LEAST_MULTIPLIER) * step) for step in spacing]
        return RigidityImages(_dilated(self.fixed, radii), _dilated(self.moving, radii), None)

    def coefficients(self, transform: BSplineTransform) -> Float[Tensor, " control_points"]:
        """The rigidity of each control point: that of the nearest fixed voxel, or of the moving voxel nearest to where
        the B-spline takes it, whichever is more; 0 outside the images, and 1 everywhere without images.
        """
        points = transform.grid.points(transform.parameters.device)
        found = []
        if self.fixed is not None:
            found.append(_nearest(self.fixed, points))
        if self.moving is not None:
            found.append(_nearest(self.moving, transform(points)))
        if not found:
            return torch.ones_like(points[:, 0])
        return torch.stack(found).amax(dim=0)


def _nearest(image: Image, points: Float[Tensor, "points dim"]) -> Float[Tensor, " points"]:
    index = torch.floor(image.grid.world_to_index(points) + 0.5)
    size = torch.tensor(image.grid.size, dtype=index.dtype, device=index.device)
    inside = ((index >= 0) & (index < size)).all(dim=1)
    voxels = torch.where(inside[:, None], index, 0.0).long()
    return torch.where(inside, image.scalar[tuple(voxels.flip(1).T)], 0.0)


def _dilated(image: Image | None, radii: Sequence[int]) -> Image | None:
    """The largest value within so many voxels along each axis (x, y, z) in turn."""
    if image is None:
        return None
    values = image.scalar
    for axis, radius in enumerate(radii):
        lines = values.movedim(-1 - axis, -1)
        held = min(radius, lines.shape[-1] - 1)
        pooled = F.max_pool1d(lines.reshape(1, -1, lines.shape[-1]), 2 * held + 1, stride=1, padding=held)
        values = pooled.reshape(lines.shape).movedim(-1, -1 - axis)
    return image.with_data(values[None].contiguous())
