"""Optimizers that search along one direction after another: what QuasiNewtonLBFGS and ConjugateGradient share.

They live on the scaled parameters sqrt(s) mu, whose gradient is g / sqrt(s). All samples stay the same during a line
search; with `NewSamplesEveryIteration`, new ones are drawn before each new direction, which is legal and seldom wise.
"""

import logging
from abc import abstractmethod
from collections.abc import Generator, Mapping
from dataclasses import dataclass
from typing import Annotated, Protocol

from pydantic import Field

from impactreg.components.optimizers.line_search import Point, Rules, Trial, search
from impactreg.components.optimizers.optimizer import (
    OUT_OF_ITERATIONS,
    IterationSettings,
    Objective,
    Optimizer,
    Step,
    finite,
    norm,
)
from impactreg.components.transforms.transform import Parameters
from impactreg.errors import RegistrationError
from impactreg.images import sums
from impactreg.parameters import Once, Refused

logger = logging.getLogger(__name__)


class SearchSettings(IterationSettings):
    """The keys that all optimizers with a line search read."""

    maximum_number_of_iterations: int = Field(
        100, ge=0, description="How many directions a resolution searches at most; 1 is taken for none, as in elastix."
    )
    generate_line_search_iterations: Annotated[bool, Once] = Field(
        False, description="Whether the start and each step of a line search count as iterations of their own."
    )
    maximum_number_of_line_search_iterations: int = Field(
        20, ge=1, description="How many steps a line search tries at most."
    )
    step_length: float = Field(1.0, gt=0, description="The first step that a line search tries, in directions.")
    line_search_value_tolerance: float = Field(
        1e-4,
        ge=0,
        description="A step a along a direction of slope m < 0 is good where the value falls by this times -m a or "
        "more (the first Wolfe condition).",
    )
    line_search_gradient_tolerance: float = Field(
        0.9,
        ge=0,
        description="A step along a direction of slope m is good where the slope has come down to this times m or less "
        "(the second Wolfe condition).",
    )
    gradient_magnitude_tolerance: float = Field(
        1e-6,
        ge=0,
        description="It stops where the gradient is shorter than this times the length of the parameters (or 1).",
    )
    stop_if_wolfe_not_satisfied: bool = Field(
        True, description="Whether it stops where a line search finds no step that satisfies the Wolfe conditions."
    )

    def check(self) -> None:
        """The first Wolfe condition must be the weaker one."""
        if self.line_search_gradient_tolerance < self.line_search_value_tolerance:
            least = f"at least LineSearchValueTolerance, {self.line_search_value_tolerance:g}, is needed"
            raise Refused("line_search_gradient_tolerance", least)


@dataclass(frozen=True, eq=False)
class Place:
    """Scaled parameters with the value and the scaled gradient there, and the evaluation's own columns."""

    position: Parameters
    value: float
    gradient: Parameters
    columns: Mapping[str, float]


class Directions(Protocol):
    """How the directions of one resolution follow from each other."""

    def next(self, place: Place) -> Parameters | str:
        """The direction to search from a place, or the reason to stop."""

    def found(self, before: Place, after: Place, step: float) -> None:
        """Takes note of where a line search has led; both places were seen with the same samples."""

    def first_step(self, asked: float) -> float:
        """The step that a line search tries first."""

    def stagnates(self, before: Place, after: Place, step: float) -> str:
        """The reason to stop after a line search, "" for none; `after` may have been seen with new samples."""


class SearchingOptimizer(Optimizer):
    """Searches along directions until a Wolfe condition fails or hardly anything changes; abstract.

    An error of the metric within a line search is logged and ends the resolution, as in elastix, which takes it for a
    step that was too large.
    """

    settings: SearchSettings

    def steps(self, objective: Objective, start: Parameters) -> Generator[Step, None, str]:
        """As `Optimizer.steps`; with `GenerateLineSearchIterations`, line searches have steps of their own.

        The parameters of these are those where the line search began.
        """
        return (yield from _Walk(self.settings, objective, self._directions()).steps(start))

    @abstractmethod
    def _directions(self) -> Directions:
        """New directions, without a past."""


class _Walk:
    """One resolution of a searching optimizer."""

    def __init__(self, asked: SearchSettings, objective: Objective, directions: Directions) -> None:
        self.asked = asked
        self.objective = objective
        self.directions = directions
        self.roots = objective.scales.sqrt()
        self.rules = Rules(
            asked.line_search_value_tolerance,
            asked.line_search_gradient_tolerance,
            asked.maximum_number_of_line_search_iterations,
        )
        self.iterations = self.searches = 0

    def steps(self, start: Parameters) -> Generator[Step, None, str]:
        """All directions, one after the other."""
        redraws = self.asked.redraws(self.objective)
        here = self._place(start * self.roots)
        reason = self._converged(here)
        while not reason:
            direction = self.directions.next(here)
            if isinstance(direction, str):
                return direction
            try:
                there, trial = yield from self._search(here, direction)
            except RegistrationError as error:
                logger.error("%s. The error is ignored and convergence is assumed.", error)
                return "Error in LineSearch"
            self.directions.found(here, there, trial.at.step)
            yield self._step(there, there, trial, norm(direction), "Main")
            if redraws:
                self.objective.draw_samples()
                there = self._place(there.position)
            reason = self.directions.stagnates(here, there, trial.at.step) or self._converged(there, trial)
            here = there
            self.searches += 1
        return reason

    def _search(self, here: Place, direction: Parameters) -> Generator[Step, None, tuple[Place, Trial]]:
        """A line search, with steps of its own where they are asked for: where it has led, and its last trial."""
        seen = here

        def along(step: float) -> tuple[float, float]:
            nonlocal seen
            seen = self._place(here.position + step * direction)
            return seen.value, float(sums.dot(seen.gradient, direction))

        first = self.directions.first_step(self.asked.step_length)
        start = Point(0.0, here.value, float(sums.dot(here.gradient, direction)))
        trial = Trial(0, start)
        for count, found in enumerate(search(along, start, first, self.rules)):
            trial = found
            if self.asked.generate_line_search_iterations:
                yield self._step(here, seen, trial, norm(direction), "LineOptimizing" if count else "start")
        return seen, trial

    def _place(self, position: Parameters) -> Place:
        evaluation = finite(self.objective.evaluate(position / self.roots), self.objective.level, self.searches)
        return Place(position, evaluation.value, evaluation.gradient / self.roots, evaluation.columns)

    def _step(self, at: Place, seen: Place, trial: Trial, length: float, phase: str) -> Step:
        """A row of the table about the place that was `seen` last, while the optimizer stands `at` another."""
        columns = {
            **seen.columns,
            "1a:SrchDirNr": self.searches,
            "1b:LineItNr": "start" if phase == "start" else trial.number,
            "3:StepLength": trial.at.step,
            "4b:||SearchDir||": length,
            "4c:DirGradient": trial.at.slope,
            "5:Phase": "Main" if phase == "Main" else "LineOptimizing",
            "6a:Wolfe1": str(trial.decreases).lower(),
            "6b:Wolfe2": str(trial.flattens).lower(),
            "7:LinSrchStopCondition": trial.end if phase == "Main" else "---",
        }
        self.iterations += 1
        parameters = at.position / self.roots
        number = self.iterations - 1
        return Step(number, parameters, seen.value, norm(seen.gradient), columns, "4a:||Gradient||")

    def _converged(self, here: Place, last: Trial | None = None) -> str:
        """The reason to stop at a place, "" for none; `last` is the result of the line search that led there."""
        if self.searches + 1 >= self.asked.maximum_number_of_iterations:
            return OUT_OF_ITERATIONS
        if norm(here.gradient) / max(1.0, norm(here.position)) <= self.asked.gradient_magnitude_tolerance:
            return "The gradient magnitude has (nearly) vanished"
        if last and self.asked.stop_if_wolfe_not_satisfied and not (last.decreases and last.flattens):
            return "Wolfe conditions are not satisfied"
        return ""
