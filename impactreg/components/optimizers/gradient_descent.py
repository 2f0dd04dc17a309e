"""Gradient descent with decaying steps, with regular steps, and with Adam's steps."""

import logging
from collections.abc import Generator

import torch
from pydantic import Field

from impactreg.components.optimizers.optimizer import (
    IterationSettings,
    Law,
    Move,
    Objective,
    Optimizer,
    SamplingSettings,
    Step,
    descend,
    norm,
)
from impactreg.components.transforms.transform import Parameters
from impactreg.images import sums

logger = logging.getLogger(__name__)


def decaying_gain(a: float, A: float, alpha: float, time: float) -> float:
    """The gain a / (A + time + 1)^alpha of Robbins and Monro, in elastix's form."""
    return float(a / (A + time + 1) ** alpha)


class StandardGradientDescentSettings(SamplingSettings):
    """The keys of `StandardGradientDescent`."""

    gain: float = Field(400.0, alias="SP_a", ge=0, description="a of the gain a / (A + k + 1)^alpha of iteration k.")
    gain_offset: float = Field(
        50.0, alias="SP_A", ge=0, description="A of the gain a / (A + k + 1)^alpha, in iterations."
    )
    gain_decay: float = Field(0.602, alias="SP_alpha", ge=0, description="alpha of the gain a / (A + k + 1)^alpha.")


class StandardGradientDescent(Optimizer, name="StandardGradientDescent"):
    """Steps of a / (A + k + 1)^alpha times the gradient (`elx::StandardGradientDescent`)."""

    Settings = StandardGradientDescentSettings
    settings: StandardGradientDescentSettings

    def steps(self, objective: Objective, start: Parameters) -> Generator[Step, None, str]:
        """As `Optimizer.steps`; it stops at the last iteration only."""
        asked = self.settings
        law = self._law(objective.scales)
        return (yield from descend(law, objective, start, asked.maximum_number_of_iterations, asked))

    def _law(self, scales: Parameters) -> Law:
        time = -1

        def law(gradient: Parameters) -> Move:
            nonlocal time
            time += 1
            size = decaying_gain(self.settings.gain, self.settings.gain_offset, self.settings.gain_decay, time)
            return Move(-size * gradient / scales, norm(gradient / scales.sqrt()), {"3:StepSize": size})

        return law


class RegularStepGradientDescentSettings(IterationSettings):
    """The keys of `RegularStepGradientDescent`."""

    new_samples_every_iteration: bool = Field(
        False,
        description="Read for compatibility: this optimizer needs the same samples in all iterations and keeps them.",
    )
    minimum_gradient_magnitude: float = Field(
        1e-8, ge=0, description="It stops where the gradient divided by the scales is shorter than this."
    )
    maximum_step_length: float | None = Field(
        None, gt=0, description="The first step's length in scaled parameters; by default 16 / 2^resolution."
    )
    minimum_step_length: float | None = Field(
        None, ge=0, description="It stops where steps get shorter than this; by default 0.5 / 2^resolution."
    )
    relaxation_factor: float = Field(
        0.5, ge=0, lt=1, description="What the step length is multiplied by where the gradient turns back."
    )


class RegularStepGradientDescent(Optimizer, name="RegularStepGradientDescent"):
    """Steps of a given length, shortened whenever the gradient turns by more than a right angle.

    The rules are those of `itk::RegularStepGradientDescentBaseOptimizer`, which divides the gradient by the squared
    scales, takes the length of that, and reports the length of the gradient as it is.
    """

    Settings = RegularStepGradientDescentSettings
    settings: RegularStepGradientDescentSettings

    def steps(self, objective: Objective, start: Parameters) -> Generator[Step, None, str]:
        """As `Optimizer.steps`; it stops also where the gradient vanishes or steps get too short."""
        if self.settings.new_samples_every_iteration:
            logger.warning("NewSamplesEveryIteration has no effect on RegularStepGradientDescent")
        law = self._law(objective.scales, objective.level)
        return (yield from descend(law, objective, start, self.settings.maximum_number_of_iterations))

    def _law(self, scales: Parameters, level: int) -> Law:
        asked = self.settings
        length = 16 / 2**level if asked.maximum_step_length is None else asked.maximum_step_length
        shortest = 0.5 / 2**level if asked.minimum_step_length is None else asked.minimum_step_length
        previous = torch.zeros_like(scales)

        def law(gradient: Parameters) -> Move | str:
            nonlocal length, previous
            direction = gradient / scales
            magnitude = norm(direction)
            if magnitude < asked.minimum_gradient_magnitude:
                return "Minimum gradient magnitude has been reached"
            if float(sums.dot(direction, previous)) < 0:
                length *= asked.relaxation_factor
            if length < shortest:
                return "Minimum step size has been reached"
            previous = direction
            # A tolerance of 0 lets a vanished gradient through, which has no direction.
            change = -length / magnitude * direction if magnitude else torch.zeros_like(direction)
            return Move(change, norm(gradient), {"3:StepSize": length})

        return law


class AdamSettings(SamplingSettings):
    """The keys of `Adam`."""

    adam_learning_rate: float = Field(
        0.1,
        gt=0,
        description="How far a scaled parameter moves in an iteration at most, about: millimetres for B-splines.",
    )
    adam_beta1: float = Field(0.9, alias="AdamBeta1", ge=0, lt=1, description="The decay of the mean gradient.")
    adam_beta2: float = Field(
        0.999, alias="AdamBeta2", ge=0, lt=1, description="The decay of the mean squared gradient."
    )
    adam_epsilon: float = Field(1e-8, ge=0, description="What is added to the root of the mean squared gradient.")


class Adam(Optimizer, name="Adam"):
    """Adaptive moments on the scaled parameters (Kingma and Ba, ICLR 2015; `torch.optim.Adam`); not in elastix."""

    Settings = AdamSettings
    settings: AdamSettings

    def steps(self, objective: Objective, start: Parameters) -> Generator[Step, None, str]:
        """As `Optimizer.steps`; it stops at the last iteration only, and its step size is the learning rate."""
        asked = self.settings
        law = self._law(objective.scales)
        return (yield from descend(law, objective, start, asked.maximum_number_of_iterations, asked))

    def _law(self, scales: Parameters) -> Law:
        asked = self.settings
        mean, square = torch.zeros_like(scales), torch.zeros_like(scales)
        time = 0

        def law(gradient: Parameters) -> Move:
            nonlocal mean, square, time
            time += 1
            scaled = gradient / scales.sqrt()
            mean = asked.adam_beta1 * mean + (1 - asked.adam_beta1) * scaled
            square = asked.adam_beta2 * square + (1 - asked.adam_beta2) * scaled.square()
            root = (square / (1 - asked.adam_beta2**time)).sqrt() + asked.adam_epsilon
            change = -asked.adam_learning_rate * mean / (1 - asked.adam_beta1**time) / root
            return Move(change / scales.sqrt(), norm(scaled), {"3:StepSize": asked.adam_learning_rate})

        return law
