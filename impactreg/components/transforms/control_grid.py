"""Control grids of B-spline transforms: where the control points of each resolution lie around the fixed image."""

from typing import Annotated

import numpy as np
import torch
from pydantic import Field

from impactreg.components.setup import PointMap, Setup
from impactreg.errors import ParameterError
from impactreg.images.grid import Grid
from impactreg.images.image import Image
from impactreg.parameters import Once, PerDimension, Refused, Settings, WholeList


class BSplineSettings(Settings):
    """What the B-spline transforms read."""

    final_grid_spacing_in_voxels: Annotated[tuple[float, ...], PerDimension] = Field(
        (), description="Distance of the control points in the last resolution, in fixed voxels, per dimension."
    )
    final_grid_spacing_in_physical_units: Annotated[tuple[float, ...], PerDimension] = Field(
        (),
        description="Distance of the control points in the last resolution, in millimetres, per dimension; default 8.",
    )
    grid_spacing_schedule: Annotated[tuple[float, ...], WholeList] = Field(
        (),
        description="Factors on the final grid spacing for each resolution, or also dimension; default powers of 2.",
    )
    b_spline_transform_spline_order: Annotated[int, Once] = Field(
        3, ge=1, le=3, alias="BSplineTransformSplineOrder", description="Order of the B-spline, 1 to 3."
    )
    use_cyclic_transform: Annotated[bool, Once] = Field(
        False, description="A grid that is periodic in its last dimension; real elastix only."
    )
    passive_edge_width: int = Field(
        0, ge=0, description="Width of the rim of control points that hardly move, in control points."
    )
    ignored_scales_estimation: Annotated[bool, Once] = Field(
        False,
        alias="AutomaticScalesEstimation",
        description="Without effect, as in elastix: every scale of a B-spline is 1.",
    )

    def check(self) -> None:
        """Refuses what the loop lacks, and spacings that say two things."""
        if self.use_cyclic_transform:
            reason = "it is not in the PyTorch loop; set it to false or use --engine elastix"
            raise Refused("use_cyclic_transform", reason)
        if self.final_grid_spacing_in_voxels and self.final_grid_spacing_in_physical_units:
            raise Refused(
                "final_grid_spacing_in_physical_units",
                "FinalGridSpacingInVoxels and FinalGridSpacingInPhysicalUnits are both given; keep one of them",
            )


def control_grid(settings: BSplineSettings, setup: Setup, level: int) -> Grid:
    """The control points of a resolution, placed around the fixed image (`itk::GridScheduleComputer`).

    With a composed initial transform, around the box that the image's border is mapped to, with spacings stretched
    alike.
    """
    image = setup.fixed.grid
    final = _final_spacing(settings, image)
    origin, spacing = np.array(image.origin), np.array(image.spacing)
    direction = np.array(image.direction)
    if setup.before is not None:
        origin, stretch = _mapped_box(setup.before, setup.fixed)
        spacing, final = spacing * stretch, final * stretch
    steps = final * _schedule(settings, setup.levels, image.dimension)
    if not (steps > 0).all():
        raise ParameterError(f"the grid spacing must be positive, but it is {steps.tolist()} mm (per resolution)")
    size, step = np.array(image.size), steps[level]
    points = np.ceil(size * spacing / step).astype(int) + settings.b_spline_transform_spline_order
    shift = -((points - 1) * step - (size - 1) * spacing) / 2
    return Grid.of(points.tolist(), step, origin + direction @ shift, direction)


def _final_spacing(settings: BSplineSettings, image: Grid) -> "np.ndarray":
    voxels, millimetres = settings.final_grid_spacing_in_voxels, settings.final_grid_spacing_in_physical_units
    final = np.array(voxels) * np.array(image.spacing) if voxels else np.array(millimetres or [8.0] * image.dimension)
    return np.asarray(final)


def _schedule(settings: BSplineSettings, levels: int, dimension: int) -> "np.ndarray":
    given = settings.grid_spacing_schedule
    if not given:
        given = tuple(2.0 ** (levels - 1 - level) for level in range(levels))
    if len(given) == levels:
        return np.repeat(np.array(given)[:, None], dimension, axis=1)
    if len(given) != levels * dimension:
        raise ParameterError(
            f"(GridSpacingSchedule ...) has {len(given)} numbers, but {levels} resolutions in {dimension}D "
            f"need {levels} or {levels * dimension}"
        )
    return np.array(given).reshape(levels, dimension)


def _mapped_box(before: PointMap, fixed: Image) -> tuple["np.ndarray", "np.ndarray"]:
    """Corner (world) and stretch per axis of the box, along the image's axes, around the image's mapped border."""
    image = fixed.grid
    index = image.indices()
    last = torch.tensor(image.size, dtype=torch.float64) - 1
    border = ((index == 0) | (index == last)).any(dim=1)
    mapped = before(image.index_to_world(index[border]).to(fixed.data.device)).cpu().numpy()
    direction = np.array(image.direction)
    along = mapped @ np.linalg.inv(direction).T
    low, high = along.min(axis=0), along.max(axis=0)
    length = np.array(image.spacing) * (np.array(image.size) - 1)
    stretch = np.where(length > 0, (high - low) / np.where(length > 0, length, 1), 1.0)
    return direction @ low, stretch
