"""B-spline transforms: displacements on a grid of control points, refined from resolution to resolution.

T(x) = x + sum over control points of weight(x) coefficient; zero displacement where the spline's support leaves the
grid (`itk::AdvancedBSplineDeformableTransform`; Rueckert et al. 1999, IEEE TMI 18, 712-721).
"""

from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Self, cast

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from impactreg.components import splines
from impactreg.components.component import AnySettings
from impactreg.components.interpolators import Interpolant
from impactreg.components.setup import Setup
from impactreg.components.transforms.control_grid import BSplineSettings, control_grid
from impactreg.components.transforms.last_points import LastPoints
from impactreg.components.transforms.reading import floats, parameters_of
from impactreg.components.transforms.spline_points import BSplineLocal, BSplineMapped
from impactreg.components.transforms.spline_support import Support
from impactreg.components.transforms.transform import Parameters, Points, Transform
from impactreg.errors import TransformError
from impactreg.images.grid import Grid
from impactreg.parameters import ParameterMap


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
    _supports: LastPoints[Support] = field(default_factory=LastPoints, repr=False)

    @property
    def dimension(self) -> int:
        """2 or 3."""
        return self.grid.dimension

    @classmethod
    def begin(cls, settings: AnySettings, setup: Setup) -> Self:
        """No displacement on the grid of the first resolution."""
        given = cast(BSplineSettings, settings)
        grid = control_grid(given, setup, 0)
        return cls(
            torch.zeros(grid.number_of_voxels * grid.dimension, dtype=torch.float64),
            grid,
            given.b_spline_transform_spline_order,
        )

    @classmethod
    def check(cls, settings: AnySettings, setup: Setup) -> None:
        """The control points of every resolution."""
        for level in range(setup.levels):
            control_grid(cast(BSplineSettings, settings), setup, level)

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
        support = self._support(points)
        return BSplineMapped(points + support.values(self._numbers.to(points)), support)

    def local(self, points: Points) -> BSplineLocal:
        """The spatial Jacobian and Hessian there."""
        return BSplineLocal(self._support(points), self._numbers.to(points))

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

    @property
    def _numbers(self) -> Float[Tensor, " numbers"]:
        return self._channels_last.reshape(-1)

    def _support(self, points: Points) -> Support:
        """The control points around each point, found once for the same points: they do not depend on parameters."""
        return self._supports.of(points, (self.grid, self.order), lambda p: Support.of(p, self.grid, self.order))
