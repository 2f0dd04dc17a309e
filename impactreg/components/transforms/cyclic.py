"""Cyclic B-splines: a grid of control points that closes on itself along the last axis, as a heartbeat does."""

from dataclasses import dataclass, replace
from functools import cached_property
from typing import Self

import torch

from impactreg.components.transforms.bspline import BSplineTransform
from impactreg.components.transforms.evaluated import EvaluatedTransform
from impactreg.components.transforms.transform import Parameters, Points
from impactreg.images.grid import Grid
from impactreg.parameters import ParameterMap


@dataclass(frozen=True, eq=False)
class CyclicBSplineTransform(EvaluatedTransform):
    """`BSplineTransform` with `(UseCyclicTransform "true")`: periodic along the last axis, which itself never moves.

    `spline` has the grid and coefficients as they are written; those of the last dimension have no effect
    (`itk::CyclicBSplineDeformableTransform`).
    """

    spline: BSplineTransform

    @property
    def dimension(self) -> int:
        """2 or 3."""
        return self.spline.dimension

    @property
    def parameters(self) -> Parameters:  # type: ignore[override]
        """The coefficients, as those of a B-spline."""
        return self.spline.parameters

    def with_parameters(self, parameters: Parameters) -> Self:
        """Other coefficients on the same grid."""
        return replace(self, spline=self.spline.with_parameters(parameters))

    def __call__(self, points: Points) -> Points:
        """The transformed points."""
        grid, order = self.spline.grid, self.spline.order
        index = grid.world_to_index(points)
        turned = torch.cat([index[:, :-1], torch.remainder(index[:, -1:], grid.size[-1]) + order], dim=1)
        wrapped = self._unrolled.grid.index_to_world(turned)
        return points + self._unrolled(wrapped) - wrapped

    def written(self) -> dict[str, list[str | int | float]]:
        """As a B-spline, and that it is cyclic."""
        return {**self.spline.written(), "Transform": ["BSplineTransform"], "UseCyclicTransform": ["true"]}

    @classmethod
    def read(cls, parameter_map: ParameterMap) -> Self:
        """The transform in a TransformParameters file."""
        return cls(BSplineTransform.read(parameter_map.without("UseCyclicTransform")))

    @cached_property
    def _unrolled(self) -> BSplineTransform:
        """A B-spline over one turn and the control points that are under the spline at its two ends."""
        grid, order = self.spline.grid, self.spline.order
        coefficients = self.parameters.reshape(self.dimension, *grid.shape).clone()
        coefficients[-1] = 0
        unrolled = torch.cat([coefficients[:, -order:], coefficients, coefficients[:, :order]], dim=1)
        first = torch.zeros(1, self.dimension, dtype=torch.float64)
        first[0, -1] = -order
        origin = grid.index_to_world(first)[0].tolist()
        size = (*grid.size[:-1], grid.size[-1] + 2 * order)
        return BSplineTransform(unrolled.reshape(-1), Grid.of(size, grid.spacing, origin, grid.direction), order)
