"""The objective of one resolution: the weighted sum of the metrics over the samples, as an optimizer sees it."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from pydantic import Field

from impactreg.components.metrics.metric import Metric, MetricValue
from impactreg.components.optimizers.optimizer import Evaluation
from impactreg.components.samplers import Sampler, Samples, grid_samples
from impactreg.components.transforms.transform import Combination, Mapped, Parameters, Points
from impactreg.images.image import Image
from impactreg.images.masks import Mask
from impactreg.parameters import Settings


class WeightSettings(Settings):
    """How much one metric counts among several."""

    weight: float | None = Field(
        None, alias="Metric<i>Weight", description="Weight of the metric; by default 1 over the number of metrics."
    )
    relative_weight: float = Field(
        1.0, alias="Metric<i>RelativeWeight", description="Weight relative to the gradient of the first metric."
    )
    use: bool = Field(True, alias="Metric<i>Use", description="Whether the metric counts; if not, it is only reported.")
    use_relative_weights: bool = Field(False, description="Whether the relative weights count instead of the weights.")


@dataclass(frozen=True)
class Term:
    """One metric with the sampler that it uses and its weight."""

    metric: Metric
    sampler: Sampler
    weights: WeightSettings

    def weight(self, gradient: float, first_gradient: float, of: int) -> float:
        """What the metric among `of` is multiplied by, for the lengths of its gradient and of the first metric's."""
        if not self.weights.use:
            return 0.0
        if not self.weights.use_relative_weights:
            return 1 / of if self.weights.weight is None else self.weights.weight
        ratio = first_gradient / gradient if gradient > 1e-10 else 1.0
        return self.weights.relative_weight * ratio


@dataclass(eq=False)
class ResolutionObjective:
    """The metrics of one resolution over samples that stay until they are drawn anew; see `Objective` for what each
    field is.
    """

    transform: Combination
    terms: Sequence[Term]
    scales: Parameters
    level: int
    fixed: Image
    fixed_mask: Mask | None
    fixed_full: Image
    moving_full: Image
    generator: torch.Generator

    def __post_init__(self) -> None:
        self._samples: dict[int, Samples] = {}
        self.draw_samples()

    @property
    def random_sampling(self) -> bool:
        """Whether some sampler is random."""
        return any(t.sampler.is_random for t in self.terms)

    @property
    def random_sample_region(self) -> bool:
        """Whether some sampler draws from a small random box."""
        return any(t.sampler.has_sample_region for t in self.terms)

    def evaluate(self, parameters: Parameters) -> Evaluation:
        """The weighted sum of the metrics and its gradient, with one column per metric where there are several."""
        values = [self._of(t, parameters, self._samples[id(t.sampler)]) for t in self.terms]
        return self._sum(values, parameters)

    def after_iteration(self, number: int, transform: Combination) -> None:
        """Tells every metric how many iterations there have been and where the transform is now."""
        for term in self.terms:
            term.metric.after_iteration(number, transform)

    def draw_samples(self) -> None:
        """New samples from every sampler; those that are not random give what they gave before."""
        self._samples = {id(s): s.draw(values=self._needs_values(s)) for s in self._samplers()}

    def exact_gradient(self, parameters: Parameters, number_of_samples: int) -> Parameters:
        """The gradient over about so many samples on a regular grid."""
        samples = grid_samples(self.fixed, self.fixed_mask, number_of_samples, full=self.fixed_full.grid)
        return self._sum([self._of(t, parameters, samples) for t in self.terms], parameters).gradient

    def approximate_gradient(self, parameters: Parameters) -> Parameters:
        """The gradient over fresh random samples of the whole image."""
        fresh = {id(s): s.without_sample_region().draw(values=self._needs_values(s)) for s in self._samplers()}
        return self._sum([self._of(t, parameters, fresh[id(t.sampler)]) for t in self.terms], parameters).gradient

    def mapped(self, points: Points, parameters: Parameters) -> Mapped:
        """The transform with these parameters at some fixed world points."""
        return self.transform.with_parameters(parameters).at(points)

    def _samplers(self) -> list[Sampler]:
        return list({id(t.sampler): t.sampler for t in self.terms}.values())

    def _needs_values(self, sampler: Sampler) -> bool:
        return any(t.sampler is sampler and t.metric.needs_fixed_values for t in self.terms)

    def _of(self, term: Term, parameters: Parameters, samples: Samples) -> MetricValue:
        return term.metric.evaluate(self.transform.with_parameters(parameters), samples)

    def _sum(self, values: Sequence[MetricValue], parameters: Parameters) -> Evaluation:
        gradients = [_gradient(v, parameters) for v in values]
        lengths = [float(torch.linalg.vector_norm(g / self.scales.sqrt())) for g in gradients]
        weights = [t.weight(length, lengths[0], len(values)) for t, length in zip(self.terms, lengths, strict=True)]
        total = sum(w * v.value for w, v in zip(weights, values, strict=True))
        gradient = sum((w * g for w, g in zip(weights, gradients, strict=True)), torch.zeros_like(parameters))
        return Evaluation(total, gradient, _columns(values, lengths))


def _gradient(value: MetricValue, parameters: Parameters) -> Parameters:
    if value.gradient is None:
        return torch.zeros_like(parameters)
    return value.gradient.to(parameters)


def _columns(values: Sequence[MetricValue], lengths: Sequence[float]) -> dict[str, float]:
    if len(values) == 1:
        return {}
    digits = len(str(len(values)))
    columns = {}
    for i, (value, length) in enumerate(zip(values, lengths, strict=True)):
        columns[f"2:Metric{i:0{digits}d}"] = value.value
        columns[f"4:||Gradient{i:0{digits}d}||"] = length
    return columns
