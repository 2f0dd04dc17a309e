"""Adaptive stochastic gradient descent: steps that grow while gradients agree and shrink while they do not.

elastix's usual optimizer (`elx::AdaptiveStochasticGradientDescent`; Klein, Pluim, Staring and Viergever, IJCV 81, 2009,
227-239). Iteration k steps by a(t_k) = a / (A + t_k + 1)^alpha along the gradient g_k, and t_{k+1} = max(0, t_k +
f(-<g_k, g_{k-1}>)) with a sigmoid f. It has no test of convergence: it ends after `MaximumNumberOfIterations`.
"""

import logging
from collections.abc import Generator

from pydantic import Field

from impactreg.components.optimizers.estimation import EstimationSettings, Schedule, estimate
from impactreg.components.optimizers.optimizer import Move, Objective, Optimizer, Step, descend, norm
from impactreg.components.transforms.transform import Parameters
from impactreg.images import sums

logger = logging.getLogger(__name__)


class AdaptiveSettings(EstimationSettings):
    """The keys of `AdaptiveStochasticGradientDescent`."""

    automatic_parameter_estimation: bool = Field(
        True, description="Whether the step sizes are estimated from the images rather than read."
    )
    gain: float = Field(
        400.0, alias="SP_a", ge=0, description="a of the gain a / (A + t + 1)^alpha, where it is not estimated."
    )
    gain_decay: float = Field(
        0.602, alias="SP_alpha", ge=0, description="alpha of the gain a / (A + t + 1)^alpha; 1 where a is estimated."
    )
    use_constant_step: bool = Field(False, description="Whether every step has the size of the gain at time 0.")
    use_adaptive_step_sizes: bool | None = Field(
        None, description="Whether time passes as gradients agree or disagree (by default, yes) rather than evenly."
    )
    use_cruz_acceleration: bool | None = Field(None, description="The old name of UseAdaptiveStepSizes.")
    sigmoid_initial_time: float = Field(0.0, ge=0, description="The time t of the first iteration of a resolution.")
    sigmoid_max: float = Field(
        1.0, gt=0, description="The most that time moves on in an iteration, where it is not estimated."
    )
    sigmoid_min: float = Field(
        -0.8, lt=0, description="The most that time moves back in an iteration, where it is not estimated."
    )
    sigmoid_scale: float = Field(
        1e-8, gt=0, description="The width of the sigmoid, in squared gradients, where it is not estimated."
    )

    @property
    def adapts(self) -> bool:
        """Whether time passes as gradients agree or disagree, by either name of the key."""
        given = (self.use_adaptive_step_sizes, self.use_cruz_acceleration)
        return next((answer for answer in given if answer is not None), True)


class AdaptiveStochasticGradientDescent(Optimizer, name="AdaptiveStochasticGradientDescent"):
    """elastix's gradient descent for random samples, with estimated and adaptive step sizes."""

    Settings = AdaptiveSettings
    settings: AdaptiveSettings

    def steps(self, objective: Objective, start: Parameters) -> Generator[Step, None, str]:
        """As `Optimizer.steps`; the schedule is estimated, and logged in elastix's words, before the first step."""
        asked = self.settings
        schedule = self._schedule(objective, start)
        name = type(self).names[0]
        logger.info("Settings of %s in resolution %d:\n%s", name, objective.level, schedule.lines())
        law = _AdaptiveLaw(asked, schedule, objective.scales, self._adapts(objective))
        return (yield from descend(law, objective, start, asked.maximum_number_of_iterations, asked))

    def _schedule(self, objective: Objective, start: Parameters) -> Schedule:
        asked = self.settings
        if asked.automatic_parameter_estimation:
            return estimate(asked, objective, start)
        sigmoid = asked.sigmoid_max, asked.sigmoid_min, asked.sigmoid_scale
        return Schedule(asked.gain, asked.gain_offset, asked.gain_decay, *sigmoid)

    def _adapts(self, objective: Objective) -> bool:
        asked = self.settings
        measured = (
            asked.automatic_parameter_estimation and asked.samples_gradients and asked.new_samples_every_iteration
        )
        if asked.adapts and measured and objective.random_sample_region:
            logger.warning('UseAdaptiveStepSizes is turned off, because UseRandomSampleRegion is set to "true"')
            return False
        return asked.adapts


class _AdaptiveLaw:
    """The step along the gradient at the present time, and the passing of time."""

    def __init__(self, asked: AdaptiveSettings, schedule: Schedule, scales: Parameters, adapts: bool) -> None:
        self._constant = asked.use_constant_step
        self._time = asked.sigmoid_initial_time
        self._schedule = schedule
        self._scales = scales
        self._roots = scales.sqrt()
        self._adapts = adapts
        self._previous: Parameters | None = None

    def __call__(self, gradient: Parameters) -> Move:
        """The move at the present time; the time is then that of the next iteration."""
        scaled = gradient / self._roots
        size = self._schedule.gain(0.0 if self._constant else self._time)
        columns = {"3a:Time": self._time, "3b:StepSize": size}
        self._time = self._next_time(scaled)
        self._previous = scaled
        return Move(-size * gradient / self._scales, norm(scaled), columns)

    def _next_time(self, scaled: Parameters) -> float:
        if not self._adapts:
            return self._time + (self._schedule.sigmoid_max + self._schedule.sigmoid_min) / 2
        if self._previous is None:
            return self._time
        return max(0.0, self._time + self._schedule.time_step(float(sums.dot(scaled, self._previous))))
