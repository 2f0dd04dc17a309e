"""Metrics between intensities."""

from typing import cast

import torch
from pydantic import Field

from impactreg.components.component import AnySettings
from impactreg.components.metrics.metric import ImageMetric, ImageMetricSettings, MetricValue, Scene, in_pieces
from impactreg.components.samplers import Samples
from impactreg.components.transforms.transform import Combination
from impactreg.images.image import Image
from impactreg.images.masks import Mask


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
        self._moving = scene.interpolator.of(scene.moving.to(dtype=torch.float64))
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
            moving = self._moving.at(mapped.points)
            difference = torch.where(valid, moving.values[:, 0] - piece.values, 0.0)
            total += difference @ difference
            if gradient:
                slope += mapped.pull_back(moving.pull_back(2 * difference[:, None]))
        self.check(counted, len(samples.points))
        factor = self._factor / counted
        return MetricValue(float(total) * factor, slope * factor if gradient else None)


def _normalization(scene: Scene) -> float:
    (fixed_min, fixed_max), (moving_min, moving_max) = (
        _extrema(scene.fixed, scene.fixed_mask),
        _extrema(scene.moving, scene.moving_mask),
    )
    largest = max(fixed_max - moving_min, moving_max - fixed_min)
    return 100.0 / largest**2 if largest > 1e-10 else 1.0


def _extrema(image: Image, mask: Mask | None) -> tuple[float, float]:
    values = image.scalar.reshape(-1)
    if mask is not None:
        values = values[mask.contains(image.grid.points(values.device))]
    return float(values.min()), float(values.max())
