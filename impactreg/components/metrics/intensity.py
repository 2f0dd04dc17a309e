"""Metrics between intensities."""

from typing import cast

import torch
from pydantic import Field

from impactreg.components.component import AnySettings
from impactreg.components.metrics.metric import (
    ImageMetric,
    ImageMetricSettings,
    MetricValue,
    Scene,
    extrema,
    in_pieces,
)
from impactreg.components.samplers import Samples
from impactreg.components.transforms.transform import Combination
from impactreg.images import sums


class MeanSquaresSettings(ImageMetricSettings):
    """What `AdvancedMeanSquares` reads."""

    use_normalization: bool = Field(
        False, description="Whether to divide by the squared tenth of the largest difference of the two images."
    )


class AdvancedMeanSquares(ImageMetric, name="AdvancedMeanSquares"):
    """The mean of (moving(T(x)) - fixed(x))^2 over the samples (`itk::AdvancedMeanSquaresImageToImageMetric`)."""

    Settings = MeanSquaresSettings

    def __init__(self, settings: AnySettings, scene: Scene) -> None:
        super().__init__(settings, scene)
        normalised = cast(MeanSquaresSettings, settings).use_normalization
        self._factor = _normalization(scene) if normalised else 1.0

    def evaluate(self, transform: Combination, samples: Samples, *, gradient: bool = True) -> MetricValue:
        """The mean squared difference and its gradient."""
        total = torch.zeros((), dtype=torch.float64, device=samples.points.device)
        slope = samples.points.new_zeros(transform.parameters.numel())
        counted = 0
        for piece in in_pieces(samples):
            mapped = transform.at(piece.points)
            valid = self.valid(mapped.points)
            counted += int(valid.sum())
            moving = self.moving_at(mapped.points)
            difference = torch.where(valid, moving.values[:, 0] - piece.values, 0.0)
            total += sums.dot(difference, difference)
            if gradient:
                slope += mapped.pull_back(moving.pull_back(2 * difference[:, None]))
        self.check(counted, len(samples.points))
        factor = self._factor / counted
        return MetricValue(float(total) * factor, slope * factor if gradient else None)


def _normalization(scene: Scene) -> float:
    fixed_min, fixed_max = extrema(scene.fixed, scene.fixed_mask)
    moving_min, moving_max = extrema(scene.moving, scene.moving_mask)
    largest = float(torch.maximum(fixed_max - moving_min, moving_max - fixed_min))
    return 100.0 / largest**2 if largest > 1e-10 else 1.0
