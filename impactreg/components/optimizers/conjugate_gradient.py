"""Conjugate gradients: directions of the gradient and of the direction before, in six ways of mixing the two."""

from collections.abc import Callable, Mapping
from sys import float_info
from typing import Literal

from pydantic import Field
from torch import Tensor

from impactreg.components.optimizers.searching import Directions, Place, SearchingOptimizer, SearchSettings
from impactreg.components.transforms.transform import Parameters
from impactreg.images.sums import dot

LASTING = 10
"""How many line searches in a row may leave the value as it is."""


class ConjugateGradientSettings(SearchSettings):
    """The keys of `ConjugateGradient`."""

    conjugate_gradient_type: Literal[
        "SteepestDescent", "FletcherReeves", "PolakRibiere", "DaiYuan", "HestenesStiefel", "DaiYuanHestenesStiefel"
    ] = Field("DaiYuanHestenesStiefel", description="How much of the direction before goes into the next one (beta).")
    value_tolerance: float = Field(
        1e-5,
        ge=0,
        description="It stops where eleven line searches in a row have changed the value by a smaller share than this.",
    )


class ConjugateGradient(SearchingOptimizer, name="ConjugateGradient"):
    """Nonlinear conjugate gradients with More and Thuente's line search (`itk::GenericConjugateGradientOptimizer`).

    A direction is minus the gradient plus beta times the direction before, with the beta of
    `ConjugateGradientType`. Each line search first tries the step that the one before has ended with.
    """

    Settings = ConjugateGradientSettings
    settings: ConjugateGradientSettings

    def _directions(self) -> Directions:
        return _Conjugate(BETAS[self.settings.conjugate_gradient_type], self.settings.value_tolerance)


Beta = Callable[[Parameters, Parameters, Parameters], float]
"""From the gradient before, the gradient and the direction before to beta; infinite where it is not defined."""


def steepest_descent(before: Parameters, gradient: Parameters, direction: Parameters) -> float:
    """Always 0."""
    del before, gradient, direction
    return 0.0


def fletcher_reeves(before: Parameters, gradient: Parameters, direction: Parameters) -> float:
    """g'g / g0'g0 (Fletcher and Reeves, 1964), with g0 the gradient before."""
    del direction
    return _ratio(dot(gradient, gradient), dot(before, before))


def polak_ribiere(before: Parameters, gradient: Parameters, direction: Parameters) -> float:
    """g'(g - g0) / g0'g0 (Polak and Ribiere, 1969)."""
    del direction
    return _ratio(dot(gradient, gradient - before), dot(before, before))


def dai_yuan(before: Parameters, gradient: Parameters, direction: Parameters) -> float:
    """g'g / d'(g - g0) (Dai and Yuan, 1999), with d the direction before."""
    return _ratio(dot(gradient, gradient), dot(direction, gradient - before))


def hestenes_stiefel(before: Parameters, gradient: Parameters, direction: Parameters) -> float:
    """g'(g - g0) / d'(g - g0) (Hestenes and Stiefel, 1952)."""
    return _ratio(dot(gradient, gradient - before), dot(direction, gradient - before))


def dai_yuan_hestenes_stiefel(before: Parameters, gradient: Parameters, direction: Parameters) -> float:
    """The less of the two, but not less than 0 (Dai and Yuan, 2001)."""
    return max(0.0, min(dai_yuan(before, gradient, direction), hestenes_stiefel(before, gradient, direction)))


BETAS: Mapping[str, Beta] = {
    "SteepestDescent": steepest_descent,
    "FletcherReeves": fletcher_reeves,
    "PolakRibiere": polak_ribiere,
    "DaiYuan": dai_yuan,
    "HestenesStiefel": hestenes_stiefel,
    "DaiYuanHestenesStiefel": dai_yuan_hestenes_stiefel,
}


class _Conjugate:
    """The direction before, the gradient where it began, and how long the value has been the same."""

    def __init__(self, beta: Beta, tolerance: float) -> None:
        self._beta = beta
        self._tolerance = tolerance
        self._before: tuple[Parameters, Parameters] | None = None
        self._last_step: float | None = None
        self._same = 0

    def next(self, place: Place) -> Parameters | str:
        """Minus the gradient plus beta times the direction before."""
        direction = -place.gradient
        if self._before is not None:
            gradient, last = self._before
            beta = self._beta(gradient, place.gradient, last)
            if beta == float("inf"):
                return "The beta factor became infinite"
            direction = direction + beta * last
        self._before = (place.gradient, direction)
        return direction

    def found(self, before: Place, after: Place, step: float) -> None:
        """Remembers the step for the next line search."""
        del before, after
        self._last_step = step

    def first_step(self, asked: float) -> float:
        """What the line search before has ended with."""
        return asked if self._last_step is None else self._last_step

    def stagnates(self, before: Place, after: Place, step: float) -> str:
        """A value that has stayed as it was for long."""
        del step
        size = abs(after.value) + abs(before.value) + 1e-20
        self._same = self._same + 1 if 2 * abs(after.value - before.value) <= self._tolerance * size else 0
        return "Almost no decrease in function value anymore" if self._same > LASTING else ""


def _ratio(upper: Tensor, lower: Tensor) -> float:
    return float(upper / lower) if lower > float_info.epsilon else float("inf")
