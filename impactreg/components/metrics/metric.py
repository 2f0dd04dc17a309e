"""Metric: a number that says how well two images match under a transform, and its gradient to the transform's
parameters.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from jaxtyping import Bool, Float
from pydantic import Field
from torch import Tensor

from impactreg.components.component import AnySettings, Component
from impactreg.components.interpolators import Interpolator, inside_buffer
from impactreg.components.samplers import Samples
from impactreg.components.transforms.transform import Combination
from impactreg.errors import RegistrationError
from impactreg.images.image import Image
from impactreg.images.masks import Mask
from impactreg.parameters import ParameterMap, Settings

POINTS_AT_ONCE = 1 << 16
"""Samples that are worked on together: enough to keep a processor busy, few enough to bound the memory."""


class ImageMetricSettings(Settings):
    """What every metric between images reads."""

    check_number_of_samples: bool = Field(
        True,
        alias="CheckNumberOfSamples",
        description="Whether to stop when too few samples map inside the moving image.",
    )
    required_ratio_of_valid_samples: float = Field(
        0.25,
        ge=0,
        le=1,
        alias="RequiredRatioOfValidSamples",
        description="Share of the samples that must map inside the moving image and its mask.",
    )


@dataclass(frozen=True)
class Scene:
    """What a metric compares in one resolution.

    Images and masks are those of the resolution (smoothed, eroded); `parameter_map` and `label` (such as `Metric0`) are
    for metrics whose keys depend on more than the resolution; `model_folders` are searched for feature extractors.
    """

    fixed: Image
    moving: Image
    interpolator: Interpolator
    generator: torch.Generator
    parameter_map: ParameterMap
    fixed_mask: Mask | None = None
    moving_mask: Mask | None = None
    level: int = 0
    label: str = "Metric0"
    model_folders: Sequence[Path] = field(default=())


@dataclass(frozen=True)
class MetricValue:
    """A metric's value and its gradient to the parameters (None where it was not asked for)."""

    value: float
    gradient: Float[Tensor, " parameters"] | None


class Metric(Component, kind="Metric"):
    """A metric, made anew for each resolution."""

    Settings = ImageMetricSettings
    needs_fixed_values: bool = True

    def __init__(self, settings: AnySettings, scene: Scene) -> None:
        self.settings = settings
        self.scene = scene

    def evaluate(self, transform: Combination, samples: Samples, *, gradient: bool = True) -> MetricValue:
        """The value at the samples under a transform, and its gradient to the transform's parameters.

        Raises `RegistrationError` when too few samples map inside the moving image.
        """
        raise NotImplementedError

    def after_iteration(self, number: int, transform: Combination) -> None:
        """Told after every iteration how many there have been and where the transform is now."""


class ImageMetric(Metric):
    """A metric that compares the moving image, at the transformed points, with the fixed image."""

    settings: ImageMetricSettings

    def valid(self, points: Float[Tensor, "points dim"]) -> Bool[Tensor, " points"]:
        """Which moving points lie in the buffer of the moving image and in its mask."""
        inside = inside_buffer(self.scene.moving.grid, points)
        mask = self.scene.moving_mask
        return inside if mask is None else inside & mask.contains(points)

    def check(self, counted: int, drawn: int) -> None:
        """Raises `RegistrationError` when too few samples were counted."""
        settings = self.settings
        too_few = counted < settings.required_ratio_of_valid_samples * drawn
        if counted == 0 or (settings.check_number_of_samples and too_few):
            raise RegistrationError(
                f"Too many samples map outside moving image buffer: {counted} / {drawn} are inside; start "
                'from a better alignment by -t0 or (AutomaticTransformInitialization "true"), or check the masks'
            )


def in_pieces(samples: Samples) -> Iterator[Samples]:
    """The samples in pieces of `POINTS_AT_ONCE`."""
    for first in range(0, len(samples.points), POINTS_AT_ONCE):
        piece = slice(first, first + POINTS_AT_ONCE)
        yield Samples(samples.points[piece], samples.values[piece])
