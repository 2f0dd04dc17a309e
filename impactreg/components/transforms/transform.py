"""Transform: a function from fixed to moving world points that has parameters, and what its derivative to them can do.

No Jacobian is ever built whole: a transform is evaluated at points once, and the `Mapped` that comes out pulls
gradients back to the parameters and pushes parameter directions forward to the points.
"""

from abc import abstractmethod
from dataclasses import dataclass, field, replace
from typing import ClassVar, Self

import torch
from jaxtyping import Float
from torch import Tensor

from impactreg.components.component import AnySettings, Component
from impactreg.components.setup import Setup
from impactreg.components.transforms.last_points import LastPoints
from impactreg.components.transforms.local import AddedLocal, ComposedLocal, DifferentiatedLocal, Local
from impactreg.parameters import ParameterMap

Points = Float[Tensor, "points dim"]
Parameters = Float[Tensor, " parameters"]


@dataclass(frozen=True, eq=False)
class SecondMoment:
    """C, the mean of J'J over points, as far as step sizes need it (Klein et al. 2009, IJCV 81, 227-239).

    `trace` is Tr C, `frobenius` the Frobenius norm of C, and `sandwich` [points, dim, dim] holds J C J' at every point.
    """

    trace: float
    frobenius: float
    sandwich: Float[Tensor, "points dim dim"]


class Mapped:
    """Points T(x), with the Jacobian J = dT/dparameters at each x as a set of operations."""

    points: Points

    def pull_back(self, gradient: Points) -> Parameters:
        """The sum of J' gradient over all points."""
        raise NotImplementedError

    def push_forward(self, direction: Parameters) -> Points:
        """J direction at every point."""
        raise NotImplementedError

    def gram(self, scales: Parameters) -> Float[Tensor, "points dim dim"]:
        """J diag(1 / scales) J' at every point."""
        raise NotImplementedError

    def second_moment(self, scales: Parameters) -> SecondMoment:
        """The second moment of J diag(scales)^-1/2 over all points."""
        raise NotImplementedError

    def squared_columns(self) -> Parameters:
        """The sum over points and dimensions of the squared derivatives to each parameter."""
        raise NotImplementedError


class Transform(Component, kind="Transform"):
    """A transform: immutable; the optimizer makes a new one for every set of parameters."""

    linear: ClassVar[bool] = False
    parameters: Parameters

    @property
    @abstractmethod
    def dimension(self) -> int:
        """2 or 3."""

    @classmethod
    @abstractmethod
    def begin(cls, settings: AnySettings, setup: Setup) -> Self:
        """The transform that a registration starts from, placed as the parameter file asks."""

    @classmethod
    def check(cls, settings: AnySettings, setup: Setup) -> None:
        """Raises an `ImpactregError` where a registration with these settings could not begin; quick."""
        cls.begin(settings, setup)

    def at_level(self, level: int, settings: AnySettings, setup: Setup) -> Self:
        """The same transform in the form that a resolution asks for (B-splines refine their grid)."""
        del level, settings, setup
        return self

    @abstractmethod
    def with_parameters(self, parameters: Parameters) -> Self:
        """The same kind of transform, elsewhere."""

    @abstractmethod
    def at(self, points: Points) -> Mapped:
        """The transformed points with the Jacobian there."""

    def __call__(self, points: Points) -> Points:
        """The transformed points."""
        return self.at(points).points

    def local(self, points: Points) -> Local:
        """The spatial Jacobian and Hessian at points; where a kind of transform does not say them, the Jacobian alone,
        by automatic differentiation.
        """
        return DifferentiatedLocal(self, points, f"a {type(self).__name__}")

    def default_scales(self, settings: AnySettings) -> Parameters:
        """What the optimizer divides squared parameters by when nothing is estimated (elastix's `Scales`)."""
        del settings
        return torch.ones_like(self.parameters)

    @abstractmethod
    def written(self) -> dict[str, list[str | int | float]]:
        """The keys of a TransformParameters file that belong to this kind of transform alone, with its parameters."""

    @classmethod
    @abstractmethod
    def read(cls, parameter_map: ParameterMap) -> Self:
        """The transform in a TransformParameters file; raises `TransformError` where it is incomplete."""


@dataclass(frozen=True, eq=False)
class Combination:
    """The transform under optimisation on top of the one before it (`itk::AdvancedCombinationTransform`).

    Composed: T(x) = current(initial(x)); added: T(x) = current(x) + initial(x) - x. The parameters are those of
    `current`.
    """

    current: Transform
    initial: "Transform | Combination | None" = None
    compose: bool = True
    _before: LastPoints[Points] = field(default_factory=LastPoints, repr=False)

    @property
    def dimension(self) -> int:
        """2 or 3."""
        return self.current.dimension

    @property
    def parameters(self) -> Parameters:
        """Those of the current transform."""
        return self.current.parameters

    def with_parameters(self, parameters: Parameters) -> "Combination":
        """Other parameters for the current transform."""
        return replace(self, current=self.current.with_parameters(parameters))

    def at(self, points: Points) -> Mapped:
        """The transformed points with the Jacobian of the current transform there."""
        if self.initial is None:
            return self.current.at(points)
        before = self._moved_before(points)
        if self.compose:
            return self.current.at(before)
        mapped = self.current.at(points)
        mapped.points = mapped.points + before - points
        return mapped

    def __call__(self, points: Points) -> Points:
        """The transformed points."""
        if self.initial is None:
            return self.current(points)
        before = self._moved_before(points)
        return self.current(before) if self.compose else self.current(points) + before - points

    def local(self, points: Points) -> Local:
        """The spatial Jacobian and Hessian of the whole, with derivatives to the parameters of the current
        transform.
        """
        if self.initial is None:
            return self.current.local(points)
        if self.compose:
            return ComposedLocal(self.current.local(self._moved_before(points)), self.initial.local(points))
        return AddedLocal(self.current.local(points), self.initial.local(points))

    def _moved_before(self, points: Points) -> Points:
        """What the transform before makes of the points, found once for the same points: it does not change."""
        if self.initial is None:
            return points
        return self._before.of(points, self.initial, self.initial)

    def to(self, device: "torch.device | str") -> "Combination":
        """The same transforms with their parameters on a device; those of linear ones, being few, stay on the CPU."""
        current = self.current
        if not current.linear or str(device) == "cpu":
            current = current.with_parameters(current.parameters.to(device))
        before = self.initial
        return replace(self, current=current, initial=before.to(device) if isinstance(before, Combination) else before)

    def chain(self) -> "list[Combination]":
        """Every combination from the first that is applied to this one."""
        before = self.initial
        if before is None:
            return [self]
        return [*(before.chain() if isinstance(before, Combination) else [Combination(before)]), self]
