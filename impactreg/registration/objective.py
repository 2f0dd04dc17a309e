"""The objective of one resolution: the weighted sum of the metrics over the samples, as an optimizer sees it."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated

import torch
from pydantic import Field

from impactreg.components.metrics.metric import Metric, MetricValue
from impactreg.components.optimizers.optimizer import Evaluation, Row
from impactreg.components.samplers import Sampler, Samples, grid_samples
from impactreg.components.transforms.transform import Combination, Mapped, Parameters, Points
from impactreg.images.image import Image
from impactreg.images.masks import Mask
from impactreg.parameters import Once, Settings
from impactreg.registration.exact_metric import ExactMetric, exact_columns

NO_GRADIENT = 1e-10
"""A gradient of this length counts as none, so that no relative weight is made of it."""


class WeightSettings(Settings):
    """How much one metric counts among several."""

    weight: float | None = Field(
        None, alias="Metric<i>Weight", description="Weight of the metric; by default 1 over the number of metrics."
    )
    relative_weight: float | None = Field(
        None,
        alias="Metric<i>RelativeWeight",
        description="Length of the metric's weighted gradient in units of the first metric's gradient; by default 1 "
        "over the number of metrics.",
    )
    use: bool = Field(True, alias="Metric<i>Use", description="Whether the metric counts; if not, it is only reported.")
    use_relative_weights: Annotated[bool, Once] = Field(
        False, description="Whether the relative weights count instead of the weights."
    )


@dataclass(frozen=True)
class Term:
    """One metric with the sampler that it uses, None where it takes no samples, and its weight."""

    metric: Metric
    sampler: Sampler | None
    weights: WeightSettings

    def weight(self, gradient: float, first_gradient: float, of: int) -> float:
        """What the metric among `of` is multiplied by, for the lengths of its gradient and of the first metric's."""
        given = self.weights
        if not given.use:
            return 0.0
        if not given.use_relative_weights:
            return 1 / of if given.weight is None else given.weight
        if gradient <= NO_GRADIENT:
            return 1.0
        return (1 / of if given.relative_weight is None else given.relative_weight) * first_gradient / gradient


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
    exact: Sequence[ExactMetric] = ()

    def __post_init__(self) -> None:
        self._samples: dict[int, Samples] = {}
        self._weights: list[float] = [1.0] * len(self.terms)
        self.draw_samples()

    @property
    def random_sampling(self) -> bool:
        """Whether some sampler is random."""
        return any(s.is_random for s in self._samplers())

    @property
    def random_sample_region(self) -> bool:
        """Whether some sampler draws from a small random box."""
        return any(s.has_sample_region for s in self._samplers())

    def evaluate(self, parameters: Parameters) -> Evaluation:
        """The weighted sum of the metrics and its gradient, with columns for each metric where there are several."""
        evaluation, self._weights = self._evaluate(parameters, self._samples)
        return evaluation

    def after_iteration(self, number: int, transform: Combination) -> None:
        """Tells every metric how many iterations there have been and where the transform is now."""
        for term in self.terms:
            term.metric.after_iteration(number, transform)

    def exact_columns(self, number: int, transform: Combination) -> Row:
        """The columns of the exact metric after an iteration that led to `transform`, where they are asked for."""
        return exact_columns(self.exact, self._weights, number, transform)

    def draw_samples(self) -> None:
        """New samples from every sampler; those that are not random give what they gave before."""
        self._samples = {id(s): s.draw(values=self._needs_values(s)) for s in self._samplers()}

    def exact_gradient(self, parameters: Parameters, number_of_samples: int) -> Parameters:
        """The gradient over about so many samples on a regular grid, in place of those of each random sampler."""
        regular = {
            id(s): grid_samples(s.image, s.mask, number_of_samples, full=s.full)
            for s in self._samplers()
            if s.is_random
        }
        return self._evaluate(parameters, {**self._samples, **regular})[0].gradient

    def approximate_gradient(self, parameters: Parameters) -> Parameters:
        """The gradient over fresh random samples of the whole image."""
        fresh = {id(s): s.without_sample_region().draw(values=self._needs_values(s)) for s in self._samplers()}
        return self._evaluate(parameters, fresh)[0].gradient

    def mapped(self, points: Points, parameters: Parameters) -> Mapped:
        """The transform with these parameters at some fixed world points."""
        return self.transform.with_parameters(parameters).at(points)

    def _samplers(self) -> list[Sampler]:
        return list({id(t.sampler): t.sampler for t in self.terms if t.sampler is not None}.values())

    def _needs_values(self, sampler: Sampler) -> bool:
        return any(t.sampler is sampler and t.metric.needs_fixed_values for t in self.terms)

    def _evaluate(self, parameters: Parameters, samples: Mapping[int, Samples]) -> tuple[Evaluation, list[float]]:
        """The sum over the terms, and the weight of each."""
        transform = self.transform.with_parameters(parameters)
        none = Samples(parameters.new_zeros(0, transform.dimension), parameters.new_zeros(0))
        terms: list[_Evaluated] = []
        for term in self.terms:
            started = time.perf_counter()
            value = term.metric.evaluate(transform, samples.get(id(term.sampler), none))
            terms.append(_Evaluated.of(value, parameters, 1000 * (time.perf_counter() - started)))
        weights = [t.weight(e.length, terms[0].length, len(terms)) for t, e in zip(self.terms, terms, strict=True)]
        total = sum(w * e.value for w, e in zip(weights, terms, strict=True))
        gradient = sum((w * e.gradient for w, e in zip(weights, terms, strict=True)), torch.zeros_like(parameters))
        return Evaluation(total, gradient, _columns(terms)), weights


@dataclass(frozen=True, eq=False)
class _Evaluated:
    """A metric's value, its gradient with the length of it (both unscaled, as elastix reports them), and its time."""

    value: float
    gradient: Parameters
    length: float
    milliseconds: float
    columns: Mapping[str, float]

    @classmethod
    def of(cls, value: MetricValue, parameters: Parameters, milliseconds: float) -> "_Evaluated":
        gradient = torch.zeros_like(parameters) if value.gradient is None else value.gradient.to(parameters)
        length = float(torch.linalg.vector_norm(gradient))
        return cls(value.value, gradient, length, milliseconds, value.columns)


def _columns(terms: Sequence[_Evaluated]) -> dict[str, float]:
    columns = {name: value for term in terms for name, value in term.columns.items()}
    if len(terms) == 1:
        return columns
    digits = len(str(len(terms)))
    for i, term in enumerate(terms):
        columns[f"2:Metric{i:0{digits}d}"] = term.value
        columns[f"4:||Gradient{i:0{digits}d}||"] = term.length
        columns[f"Time{i:0{digits}d}[ms]"] = term.milliseconds
    return columns
