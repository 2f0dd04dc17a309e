"""Optimizer: what it sees of a registration, the steps that it takes, and the loop that every descent shares.

An optimizer works on the scaled parameters sqrt(s) mu, where s are the transform's scales. Here the parameters stay as
they are, and a step along the scaled gradient g / sqrt(s) is taken as mu - a g / s, which is the same
(`itk::ScaledSingleValuedCostFunction`).
"""

import logging
from abc import abstractmethod
from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass, field
from math import isfinite
from typing import Protocol, runtime_checkable

import torch
from pydantic import Field
from torch import Tensor

from impactreg.components.component import Component
from impactreg.components.transforms.transform import Mapped, Parameters, Points
from impactreg.errors import RegistrationError
from impactreg.images.image import Image
from impactreg.images.masks import Mask
from impactreg.parameters import Settings

OUT_OF_ITERATIONS = "Maximum number of iterations has been reached"
STOPPED = "The callback has stopped the registration"

Cell = float | str
"""What a column of elastix's tables holds: a number, or a word such as a stop reason."""

Row = dict[str, Cell]
"""An iteration by elastix's column names."""

logger = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class Evaluation:
    """The metric at some parameters: value, gradient to the unscaled parameters, columns for the iteration table."""

    value: float
    gradient: Parameters
    columns: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class Step:
    """One iteration: a row of elastix's IterationInfo file, and where it led.

    `value`, `gradient_norm` and `columns` (the step size and the evaluation's own) are those at the start of the step;
    `parameters` are those at its end. `gradient_column` is elastix's name for the column of the gradient's length.
    """

    iteration: int
    parameters: Parameters
    value: float
    gradient_norm: float
    columns: Mapping[str, Cell]
    gradient_column: str = "4:||Gradient||"

    @property
    def row(self) -> Row:
        """The iteration in elastix's columns, without its number and its time."""
        return {"2:Metric": self.value, **self.columns, self.gradient_column: self.gradient_norm}


@dataclass(frozen=True, eq=False)
class Move:
    """What a law of descent makes of a gradient: the change of the parameters, the norm to report, and its columns."""

    change: Parameters
    gradient_norm: float
    columns: Mapping[str, float]


Law = Callable[[Parameters], Move | str]
"""From the gradient to a move, or to the reason to stop; it may have a memory, so it serves one resolution."""


@runtime_checkable
class Objective(Protocol):
    """What an optimizer sees of one resolution of a registration."""

    @property
    def scales(self) -> Parameters:
        """The squared scale of each parameter."""

    @property
    def level(self) -> int:
        """The index of the resolution, 0 for the coarsest."""

    @property
    def fixed(self) -> Image:
        """The fixed image of this resolution."""

    @property
    def fixed_mask(self) -> Mask | None:
        """The fixed mask of this resolution, eroded where that is asked for."""

    @property
    def fixed_full(self) -> Image:
        """The fixed image at full resolution."""

    @property
    def moving_full(self) -> Image:
        """The moving image at full resolution."""

    @property
    def generator(self) -> torch.Generator:
        """Where all random numbers of the registration come from."""

    @property
    def random_sampling(self) -> bool:
        """Whether some sampler is random."""

    @property
    def random_sample_region(self) -> bool:
        """Whether some sampler draws from a small random box (`UseRandomSampleRegion`)."""

    def evaluate(self, parameters: Parameters) -> Evaluation:
        """The metric on the current samples; raises `RegistrationError` where too many miss the moving image."""

    def draw_samples(self) -> None:
        """Makes every random sampler draw anew; the others keep their samples."""

    def exact_gradient(self, parameters: Parameters, number_of_samples: int) -> Parameters:
        """The gradient with about so many samples on a grid in place of the random ones."""

    def approximate_gradient(self, parameters: Parameters) -> Parameters:
        """The gradient with fresh random samples of the whole image, whatever `UseRandomSampleRegion` says."""

    def mapped(self, points: Points, parameters: Parameters) -> Mapped:
        """The transform with these parameters at some fixed world points."""


class Optimizer(Component, kind="Optimizer"):
    """A way to find the parameters with the least metric value; made anew for every resolution."""

    settings: Settings

    def __init__(self, settings: Settings) -> None:
        self.settings = settings

    @abstractmethod
    def steps(self, objective: Objective, start: Parameters) -> Generator[Step, None, str]:
        """Yields a `Step` per iteration from the `start` on, and returns the reason to stop in elastix's words.

        Closing the generator ends the run early. Raises `RegistrationError` where the metric has no finite value.
        """


class IterationSettings(Settings):
    """What every optimizer reads."""

    maximum_number_of_iterations: int = Field(500, ge=0, description="How many iterations a resolution has at most.")
    new_samples_every_iteration: bool = Field(
        False, description="Whether random samplers draw new samples after every iteration."
    )

    def redraws(self, objective: Objective) -> bool:
        """Whether new samples are to be drawn; warns where they are asked for and no sampler is random."""
        if self.new_samples_every_iteration and not objective.random_sampling:
            logger.warning("NewSamplesEveryIteration has no effect: no ImageSampler of this file is a random one")
        return self.new_samples_every_iteration and objective.random_sampling


class SamplingSettings(IterationSettings):
    """What every optimizer reads that tries again with new samples."""

    maximum_number_of_sampling_attempts: int = Field(
        0, ge=0, description="How often new samples are drawn in an iteration whose samples miss the moving image."
    )


def descend(
    law: Law, objective: Objective, start: Parameters, iterations: int, sampling: SamplingSettings | None = None
) -> Generator[Step, None, str]:
    """The loop of `itk::GradientDescentOptimizer2`: evaluate, move, report.

    With `sampling`, new samples are drawn between two iterations, and for another try where the metric raises
    `RegistrationError`, as its settings say; without, the samples stay.
    """
    parameters = start
    redraws = sampling is not None and sampling.redraws(objective)
    for iteration in range(iterations):
        if iteration and redraws:
            objective.draw_samples()
        evaluation = _evaluate(objective, parameters, sampling.maximum_number_of_sampling_attempts if sampling else 0)
        move = law(finite(evaluation, objective.level, iteration).gradient)
        if isinstance(move, str):
            return move
        parameters = parameters + move.change
        columns = {**evaluation.columns, **move.columns}
        yield Step(iteration, parameters, evaluation.value, move.gradient_norm, columns)
    return OUT_OF_ITERATIONS


def norm(gradient: Tensor) -> float:
    """The Euclidean length of a gradient."""
    return float(torch.linalg.vector_norm(gradient))


def finite(evaluation: Evaluation, level: int, iteration: int) -> Evaluation:
    """The evaluation as it is; raises `RegistrationError` where its value or its gradient is not a finite number."""
    if not isfinite(evaluation.value) or not bool(torch.isfinite(evaluation.gradient).all()):
        raise RegistrationError(
            f"resolution {level}, iteration {iteration}: the metric is {evaluation.value:g} and its gradient has "
            f"length {norm(evaluation.gradient):g}; take smaller steps, or look for not-a-number values in the images"
        )
    return evaluation


def _evaluate(objective: Objective, parameters: Parameters, attempts: int) -> Evaluation:
    for attempt in range(attempts):
        try:
            return objective.evaluate(parameters)
        except RegistrationError as error:
            logger.warning("%s; new samples are drawn (attempt %d of %d)", error, attempt + 1, attempts)
            objective.draw_samples()
    return objective.evaluate(parameters)
