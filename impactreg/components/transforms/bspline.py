"""B-spline transforms: displacements on a grid of control points, refined from resolution to resolution.

T(x) = x + sum over control points of weight(x) coefficient; zero displacement where the spline's support leaves the
grid (`itk::AdvancedBSplineDeformableTransform`; Rueckert et al. 1999, IEEE TMI 18, 712-721).
"""

import math
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Annotated, Self, cast

import numpy as np
import torch
from jaxtyping import Float, Int
from pydantic import Field
from torch import Tensor

from impactreg.components import splines
from impactreg.components.component import AnySettings
from impactreg.components.interpolators import Interpolant
from impactreg.components.setup import PointMap, Setup
from impactreg.components.transforms.moments import BandedMoment, banded_second_moment
from impactreg.components.transforms.reading import floats, parameters_of
from impactreg.components.transforms.transform import Mapped, Parameters, Points, SecondMoment, Transform
from impactreg.errors import ParameterError, TransformError
from impactreg.images.grid import Grid
from impactreg.images.image import Image
from impactreg.parameters import Once, ParameterMap, PerDimension, Settings, WholeList


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


class BSplineMapped(Mapped):
    """Points under a spline: the weights of the control points around each of them, the same for every dimension."""

    def __init__(
        self,
        points: Points,
        weights: Float[Tensor, "points taps"],
        start: Int[Tensor, "points dim"],
        taps: int,
        shape: tuple[int, ...],
    ) -> None:
        self.points = points
        self._weights = weights
        self._start = start
        self._taps = taps
        self._shape = shape

    def pull_back(self, gradient: Points) -> Parameters:
        """The sum of J' gradient over all points."""
        return torch.cat([self._spread(self._weights * g[:, None]) for g in gradient.unbind(dim=1)])

    def push_forward(self, direction: Parameters) -> Points:
        """J direction at every point."""
        return self._gather(self._weights, direction)

    def gram(self, scales: Parameters) -> Float[Tensor, "points dim dim"]:
        """J diag(1 / scales) J' at every point: diagonal."""
        return torch.diag_embed(self._gather(self._weights.square(), 1 / scales))

    def second_moment(self, scales: Parameters) -> SecondMoment:
        """The second moment of J diag(scales)^-1/2 over all points, kept as a band."""
        per_dimension = (1 / scales.sqrt()).reshape(len(self._shape), -1)
        moments: list[BandedMoment] = []
        for factor in per_dimension:
            if moments and torch.equal(factor, per_dimension[0]):
                moments.append(moments[0])
            else:
                moments.append(banded_second_moment(self._weights * factor[self._index], self._index, self._shape))
        return SecondMoment(
            sum(m.trace for m in moments),
            math.sqrt(sum(m.frobenius**2 for m in moments)),
            torch.diag_embed(torch.stack([m.sandwich for m in moments], dim=1)),
        )

    def squared_columns(self) -> Parameters:
        """The sum over points of the squared derivatives to each parameter."""
        return self._spread(self._weights.square()).repeat(len(self._shape))

    @cached_property
    def _index(self) -> Int[Tensor, "points taps"]:
        return splines.flat_indices(self._start, self._taps, self._shape)

    def _spread(self, values: Float[Tensor, "points taps"]) -> Float[Tensor, " control_points"]:
        total = values.new_zeros(math.prod(self._shape))
        return total.scatter_add_(0, self._index.reshape(-1), values.reshape(-1))

    def _gather(self, weights: Float[Tensor, "points taps"], direction: Parameters) -> Points:
        dimension = len(self._shape)
        channels_last = direction.reshape(dimension, -1).T.reshape(-1)
        found = splines.blocks(channels_last, self._start, self._taps, self._shape)
        return torch.bmm(weights[:, None, :], found)[:, 0]


@dataclass(frozen=True, eq=False)
class BSplineTransform(Transform, name=("BSplineTransform", "RecursiveBSplineTransform")):
    """Displacements (mm) from coefficients: all of x first, x fastest, then y, then z
    (`elx::AdvancedBSplineTransform`).

    Where the spline order is not 3, elastix refines the grid by evaluating the coefficients as a cubic spline, which
    changes the transform between resolutions; here the spline's own order is used.
    """

    Settings = BSplineSettings

    parameters: Parameters
    grid: Grid
    order: int = 3

    @property
    def dimension(self) -> int:
        """2 or 3."""
        return self.grid.dimension

    @classmethod
    def begin(cls, settings: AnySettings, setup: Setup) -> Self:
        """No displacement on the grid of the first resolution."""
        given = cast(BSplineSettings, settings)
        if given.use_cyclic_transform:
            raise ParameterError(
                '(UseCyclicTransform "true") is not in the PyTorch loop; set it to "false" or use --engine elastix'
            )
        grid = control_grid(given, setup, 0)
        return cls(
            torch.zeros(grid.number_of_voxels * grid.dimension, dtype=torch.float64),
            grid,
            given.b_spline_transform_spline_order,
        )

    def at_level(self, level: int, settings: AnySettings, setup: Setup) -> Self:
        """The same displacements on the grid of a resolution (`itk::UpsampleBSplineParametersFilter`)."""
        wanted = control_grid(cast(BSplineSettings, settings), setup, level)
        if wanted == self.grid:
            return self
        old = Interpolant(self._channels_last, self.grid, self.order)
        points = wanted.points(self.parameters.device)
        values = torch.where(old.inside(points)[:, None], old.values(points), 0.0)
        refined = splines.coefficients(values.reshape(*wanted.shape, self.dimension), self.order)
        return replace(self, parameters=refined.movedim(-1, 0).reshape(-1), grid=wanted)

    def with_parameters(self, parameters: Parameters) -> Self:
        """Other coefficients on the same grid."""
        return replace(self, parameters=parameters)

    def at(self, points: Points) -> BSplineMapped:
        """The transformed points with the Jacobian there."""
        start, weights = self._support(points)
        coefficients = self._channels_last.to(points).reshape(-1)
        found = splines.blocks(coefficients, start, self.order + 1, self.grid.shape)
        moved = torch.bmm(weights[:, None, :], found)[:, 0]
        return BSplineMapped(points + moved, weights, start, self.order + 1, self.grid.shape)

    def default_scales(self, settings: AnySettings) -> Parameters:
        """1, and 10,000 for the `PassiveEdgeWidth` outermost control points."""
        width = cast(BSplineSettings, settings).passive_edge_width
        scales = torch.full(self.grid.shape, 1.0 if width == 0 else 10000.0, dtype=torch.float64)
        if width:
            scales[tuple(slice(width, max(n - width, width)) for n in self.grid.shape)] = 1.0
        return scales.reshape(-1).repeat(self.dimension)

    def written(self) -> dict[str, list[str | int | float]]:
        """The grid, the order and the coefficients."""
        return {
            "NumberOfParameters": [self.parameters.numel()],
            "TransformParameters": self.parameters.tolist(),
            "GridSize": list(self.grid.size),
            "GridIndex": [0] * self.dimension,
            "GridSpacing": list(self.grid.spacing),
            "GridOrigin": list(self.grid.origin),
            "GridDirection": np.array(self.grid.direction).T.reshape(-1).tolist(),
            "BSplineTransformSplineOrder": [self.order],
            "UseCyclicTransform": ["false"],
        }

    @classmethod
    def read(cls, parameter_map: ParameterMap) -> Self:
        """The transform in a TransformParameters file."""
        if (parameter_map.get("UseCyclicTransform") or ("false",))[0] == "true":
            raise TransformError(
                f"{parameter_map.where('UseCyclicTransform')}: cyclic B-splines need elastix's own transformix"
            )
        size = [int(n) for n in floats(parameter_map, "GridSize")]
        n = len(size)
        plain = {
            "GridSpacing": np.ones(n),
            "GridOrigin": np.zeros(n),
            "GridDirection": np.eye(n).reshape(-1),
            "GridIndex": np.zeros(n),
        }
        spacing, origin, columns, first = (
            parameter_map.numbers(key) if parameter_map.get(key) else default for key, default in plain.items()
        )
        direction = np.asarray(columns).reshape(n, n).T
        shifted = np.asarray(origin) + direction @ (np.asarray(spacing) * np.asarray(first))
        order = parameter_map.first("BSplineTransformSplineOrder", "3")
        if order not in ("1", "2", "3"):
            where = parameter_map.where("BSplineTransformSplineOrder")
            raise TransformError(f"{where}: (BSplineTransformSplineOrder {order}): 1, 2 or 3 is needed")
        if min(size) <= int(order):
            where = parameter_map.where("GridSize")
            raise TransformError(f"{where}: order {order} needs more than {order} control points per axis, not {size}")
        return cls(
            parameters_of(parameter_map, int(np.prod(size)) * n), Grid.of(size, spacing, shifted, direction), int(order)
        )

    @cached_property
    def _channels_last(self) -> Float[Tensor, "*space dim"]:
        return self.parameters.reshape(self.dimension, *self.grid.shape).movedim(0, -1).contiguous()

    @cached_property
    def _limits(self) -> tuple[Tensor, Tensor]:
        """Continuous grid indices from which on, and before which, the whole support lies on the grid."""
        first = (self.order - 1) / 2
        size = torch.tensor(self.grid.size, dtype=torch.float64)
        return torch.full_like(size, first), size - 1 - first

    def _support(self, points: Points) -> tuple[Int[Tensor, "points dim"], Float[Tensor, "points taps"]]:
        """First control point (x, y, z) and weights of the support of each point; weights are zero where it leaves the
        grid.
        """
        index = self.grid.world_to_index(points)
        first, last = (limit.to(points) for limit in self._limits)
        inside = ((index >= first) & (index < last)).all(dim=1)
        # not clamped: at a limit a clamp would halve the derivative to the point
        held = torch.where(inside[:, None], index, first)
        start, weights = splines.weights(self.order, held)
        start = torch.minimum(start, (last - first - 1).clamp(min=0))
        product = splines.tensor_product(list(weights.unbind(dim=1)))
        return start.long(), product * inside[:, None]


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
    if voxels and millimetres:
        raise ParameterError(
            "FinalGridSpacingInVoxels and FinalGridSpacingInPhysicalUnits are both given; keep one of them"
        )
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
