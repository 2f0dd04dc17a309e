"""Limited-memory BFGS: directions from the curvature that the last few steps have shown."""

from collections import deque
from dataclasses import dataclass
from sys import float_info

from pydantic import Field

from impactreg.components.optimizers.optimizer import norm
from impactreg.components.optimizers.searching import Directions, Place, SearchingOptimizer, SearchSettings
from impactreg.components.transforms.transform import Parameters
from impactreg.images.sums import dot


class QuasiNewtonLBFGSSettings(SearchSettings):
    """The keys of `QuasiNewtonLBFGS`."""

    lbfgs_update_accuracy: int = Field(
        5,
        ge=0,
        alias="LBFGSUpdateAccuracy",
        description="How many past steps the directions are made of; 0 for steepest descent.",
    )


class QuasiNewtonLBFGS(SearchingOptimizer, name="QuasiNewtonLBFGS"):
    """Quasi-Newton steps of limited memory with More and Thuente's line search (`itk::QuasiNewtonLBFGSOptimizer`).

    The recursion of two loops is that of Nocedal (Mathematics of Computation 35, 1980). It is for metrics without
    randomness: samplers such as `Full` and `Grid`, or random samples that stay. Where the gradient does not change at
    all over a step, elastix divides by zero; here this ends the resolution like every other invalid curvature.
    """

    Settings = QuasiNewtonLBFGSSettings
    settings: QuasiNewtonLBFGSSettings

    def _directions(self) -> Directions:
        return _Memory(self.settings.lbfgs_update_accuracy)


@dataclass(frozen=True, eq=False)
class _Past:
    """A step, the change of the gradient over it, and the inner product of the two."""

    step: Parameters
    change: Parameters
    curvature: float


class _Memory:
    """The last steps, oldest first."""

    def __init__(self, size: int) -> None:
        self._past: deque[_Past] = deque(maxlen=size)

    def next(self, place: Place) -> Parameters | str:
        """Minus the gradient times the approximate inverse Hessian; of length 1 while there is no past."""
        if not self._past:
            return -place.gradient / norm(place.gradient)
        newest = self._past[-1]
        if not newest.curvature > 0:
            return "The diagonal matrix is invalid"
        direction = -place.gradient
        shares = []
        for past in reversed(self._past):
            shares.append(float(dot(past.step, direction)) / past.curvature)
            direction = direction - shares[-1] * past.change
        direction = direction * (newest.curvature / float(dot(newest.change, newest.change)))
        for past, share in zip(self._past, reversed(shares), strict=True):
            direction = direction + (share - float(dot(past.change, direction)) / past.curvature) * past.step
        return direction

    def found(self, before: Place, after: Place, step: float) -> None:
        """Remembers the step."""
        del step
        moved, change = after.position - before.position, after.gradient - before.gradient
        self._past.append(_Past(moved, change, float(dot(moved, change))))

    def first_step(self, asked: float) -> float:
        """Always what was asked for: the directions have a length that fits."""
        return asked

    def stagnates(self, before: Place, after: Place, step: float) -> str:
        """A step of next to nothing."""
        del before, after
        return "The last step size was (nearly) zero" if step < float_info.epsilon else ""
