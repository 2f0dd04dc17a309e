"""From the parameters on a control grid to displacements at nodes, both ways: a field as it is, or a flow."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import torch
from jaxtyping import Float
from torch import Tensor

from impactreg.components.dense.expansion import ControlGrid, Expansion, smoothed
from impactreg.components.dense.velocity import flow

Field = Float[Tensor, "dim *space"]


@dataclass(frozen=True, eq=False)
class Moved:
    """Displacements at the nodes, forwards and, for a flow, backwards, and how gradients to both are pulled back."""

    forward: Field
    backward: Field | None
    pull_back: Callable[[Field, Field | None], Field]


@dataclass(frozen=True)
class Displacement:
    """The smoothed control points themselves."""

    control: ControlGrid
    passes: int

    @property
    def nodes(self) -> ControlGrid:
        """Where the displacements are: the control points."""
        return self.control

    def of(self, parameters: Field) -> Moved:
        """The displacements of some parameters."""
        return Moved(smoothed(parameters, self.passes), None, lambda gradient, _: smoothed(gradient, self.passes))


@dataclass(frozen=True, eq=False)
class Flow:
    """The flow of the smoothed control points as a stationary velocity field, and its inverse.

    `unit` (z, y, x) is the length of a fixed voxel in the unit of the parameters; without `both_ways` the inverse is
    left out.
    """

    control: ControlGrid
    passes: int
    squarings: int
    unit: tuple[float, ...]
    like: Tensor
    both_ways: bool = False

    @property
    def nodes(self) -> ControlGrid:
        """Where the displacements are: cells of the control points, half as large between splines."""
        control = self.control
        if control.interpolation != "BSpline":
            return control
        size = tuple(max(1, int(2 * n / step)) for n, step in zip(control.voxels, control.step, strict=True))
        step = tuple(n / c for n, c in zip(control.voxels, size, strict=True))
        return ControlGrid(size, step, control.voxels, "Linear")

    def of(self, parameters: Field) -> Moved:
        """The displacements of some parameters."""
        velocity = self._velocity(parameters).requires_grad_(True)
        with torch.enable_grad():
            forward = self._flow(velocity)
            backward = self._flow(-velocity) if self.both_ways else None

        def pull_back(to_forward: Tensor, to_backward: Tensor | None) -> Tensor:
            if backward is None or to_backward is None:
                (gradient,) = torch.autograd.grad(forward, velocity, to_forward)
            else:
                (gradient,) = torch.autograd.grad([forward, backward], velocity, [to_forward, to_backward])
            return smoothed(self._to_nodes.adjoint(gradient), self.passes)

        return Moved(forward.detach(), None if backward is None else backward.detach(), pull_back)

    def _velocity(self, parameters: Tensor) -> Tensor:
        return self._to_nodes(smoothed(parameters, self.passes)).detach().clone()

    def _flow(self, velocity: Field) -> Field:
        steps = [step * unit for step, unit in zip(self.nodes.step, self.unit, strict=True)]
        return flow(velocity, steps, self.squarings)

    @cached_property
    def _to_nodes(self) -> Expansion:
        return self.control.expansion_to(self.nodes.positions, self.like)
