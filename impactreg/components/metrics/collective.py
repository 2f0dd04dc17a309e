"""Metrics whose derivative at one sample depends on all samples: first every value, then every derivative."""

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from impactreg.components.metrics.metric import ImageMetric, MetricValue, in_pieces
from impactreg.components.samplers import Samples
from impactreg.components.transforms.transform import Combination, Mapped, Parameters, Points

Values = Float[Tensor, " points"]


@dataclass(frozen=True)
class _Values:
    """Some of the samples under the transform: which count, and the moving values there."""

    valid: Bool[Tensor, " points"]
    moving: Values


@dataclass(frozen=True)
class _Slopes(_Values):
    """The same with the slopes of the moving image, ready to be pulled back."""

    slopes: Points
    points: Points
    mapped: Mapped | None

    def pull_back(self, transform: Combination, derivative: Values) -> Parameters:
        """The gradient to the parameters, from the derivative to the moving values."""
        mapped = transform.at(self.points) if self.mapped is None else self.mapped
        return mapped.pull_back(derivative[:, None] * self.slopes)


class CollectiveMetric(ImageMetric):
    """A function of the fixed and the moving values of all samples that count; abstract.

    No sample is interpolated twice. The transform of a single piece of samples is evaluated once; that of several, once
    more for the gradient, to bound the memory.
    """

    @abstractmethod
    def compare(self, fixed: Values, moving: Values) -> tuple[float, Values]:
        """The value, and its derivative to each moving value, of the samples that count."""

    def values(self, points: Points) -> Values:
        """What is compared of the moving image at world points."""
        return self.moving.values(points)[:, 0]

    def values_and_slopes(self, points: Points) -> tuple[Values, Points]:
        """The same, and its gradient in world space."""
        found = self.moving_at(points)
        return found.values[:, 0], found.pull_back(torch.ones_like(found.values))

    def evaluate(self, transform: Combination, samples: Samples, *, gradient: bool = True) -> MetricValue:
        """The value of all samples that map inside the moving image, and its gradient."""
        parts = list(in_pieces(samples))
        if not gradient:
            return MetricValue(self._compare(samples, [self._values(transform, p) for p in parts])[0], None)
        pieces = [self._slopes(transform, p, keep=len(parts) == 1) for p in parts]
        value, derivative = self._compare(samples, pieces)
        slope = samples.points.new_zeros(transform.parameters.numel())
        for piece, part in zip(pieces, derivative.split([len(p) for p in parts]), strict=True):
            slope += piece.pull_back(transform, part)
        return MetricValue(value, slope)

    def _values(self, transform: Combination, samples: Samples) -> _Values:
        points = transform(samples.points)
        return _Values(self.valid(points), self.values(points))

    def _slopes(self, transform: Combination, samples: Samples, *, keep: bool) -> _Slopes:
        mapped = transform.at(samples.points)
        values, slopes = self.values_and_slopes(mapped.points)
        return _Slopes(self.valid(mapped.points), values, slopes, samples.points, mapped if keep else None)

    def _compare(self, samples: Samples, pieces: Sequence[_Values]) -> tuple[float, Values]:
        """The value, and its derivative to every moving value, 0 for samples that do not count."""
        valid, moving = (torch.cat([getattr(p, name) for p in pieces]) for name in ("valid", "moving"))
        counted = int(valid.sum())
        self.check(counted, len(samples))
        if counted == len(samples):
            return self.compare(samples.values, moving)
        value, derivative = self.compare(samples.values[valid], moving[valid])
        return value, torch.zeros_like(moving).masked_scatter(valid, derivative)
