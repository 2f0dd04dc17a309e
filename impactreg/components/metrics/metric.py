"""Metric: a number that says how well two images match under a transform, and its gradient to the transform's
parameters.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Annotated, ClassVar

import torch
from jaxtyping import Bool, Float
from pydantic import Field
from torch import Tensor

from impactreg.components.component import AnySettings, Component
from impactreg.components.interpolators import Interpolant, Interpolated, Interpolator, inside_buffer
from impactreg.components.samplers import Samples
from impactreg.components.transforms.transform import Combination, Transform
from impactreg.errors import RegistrationError
from impactreg.images.image import Image
from impactreg.images.masks import Mask
from impactreg.parameters import ParameterMap, Settings, WholeList

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
    moving_image_derivative_scales: Annotated[tuple[float, ...], WholeList] = Field(
        (),
        alias="MovingImageDerivativeScales",
        description="What the gradient of the moving image is multiplied by along x, y, z; 1 where nothing is said.",
    )
    scale_gradient_with_respect_to_moving_image_orientation: bool = Field(
        False,
        alias="ScaleGradientWithRespectToMovingImageOrientation",
        description="Whether those scales are along the axes of the moving image instead of the world's.",
    )


@dataclass(frozen=True)
class Scene:
    """What a metric compares in one resolution.

    Images and masks are those of the resolution (smoothed, eroded); `parameter_map` and `label` (such as `Metric0`) are
    for metrics whose keys depend on more than the resolution; `model_folders` are searched for feature extractors;
    `fixed_points` and `moving_points` are corresponding world points (mm, float64), where they were given.
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
    fixed_points: Float[Tensor, "fixed_points dim"] | None = None
    moving_points: Float[Tensor, "moving_points dim"] | None = None


@dataclass(frozen=True)
class MetricValue:
    """A metric's value and its gradient to the parameters (None where it was not asked for); `columns` are further
    numbers for the table of iterations.
    """

    value: float
    gradient: Float[Tensor, " parameters"] | None
    columns: Mapping[str, float] = field(default_factory=dict)


class Metric(Component, kind="Metric"):
    """A metric, made anew for each resolution."""

    needs_fixed_values: ClassVar[bool] = True
    uses_samples: ClassVar[bool] = True

    def __init__(self, settings: AnySettings, scene: Scene) -> None:
        self.settings = settings
        self.scene = scene

    def evaluate(self, transform: Combination, samples: Samples, *, gradient: bool = True) -> MetricValue:
        """The value at the samples under a transform, and its gradient to the transform's parameters.

        Raises `RegistrationError` when too few samples map inside the moving image.
        """
        raise NotImplementedError

    @classmethod
    def check_choice(cls, parameter_map: ParameterMap, label: str, transform: type[Transform]) -> None:
        """Raises `ParameterError` where the metric with this label cannot do what a parameter map asks: with the
        transform that it chooses, or for lack of a file that it names.
        """
        del parameter_map, label, transform

    def after_iteration(self, number: int, transform: Combination) -> None:
        """Told after every iteration how many there have been and where the transform is now."""


class ImageMetric(Metric):
    """A metric that compares the moving image, at the transformed points, with the fixed image."""

    Settings = ImageMetricSettings
    settings: ImageMetricSettings

    @cached_property
    def moving(self) -> Interpolant:
        """The moving image in float64, between its voxels."""
        return self.scene.interpolator.of(self.scene.moving.to(dtype=torch.float64))

    def moving_at(self, points: Float[Tensor, "points dim"]) -> Interpolated:
        """The moving image at world points, whose gradient is scaled by `MovingImageDerivativeScales`."""
        found = self.moving.at(points)
        if self.gradient_scales is None:
            return found
        return replace(found, to_world=self.gradient_scales @ found.to_world)

    @cached_property
    def gradient_scales(self) -> Float[Tensor, "dim dim"] | None:
        """What gradients of the moving image are multiplied by; None where they are taken as they are."""
        given, moving = self.settings.moving_image_derivative_scales, self.scene.moving
        if not given:
            return None
        scales = (given + (1.0,) * moving.dimension)[: moving.dimension]
        axes = torch.eye(moving.dimension, dtype=torch.float64)
        if self.settings.scale_gradient_with_respect_to_moving_image_orientation:
            axes = torch.tensor(moving.grid.direction, dtype=torch.float64)
        return (axes * torch.tensor(scales, dtype=torch.float64) @ axes.T).to(moving.data.device)

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
                'from a better alignment by -t0 or (AutomaticTransformInitialization "true"), where little overlaps '
                'with (AutomaticTransformInitializationMethod "Search"), or check the masks'
            )


class TransformMetric(ImageMetric):
    """A metric of where samples go, whatever the intensities there; abstract.

    Samples count where they are mapped into the moving mask, even beyond the moving image.
    """

    needs_fixed_values = False

    def valid(self, points: Float[Tensor, "points dim"]) -> Bool[Tensor, " points"]:
        """Which moving points lie in the mask of the moving image."""
        return in_mask(self.scene.moving_mask, points)


def in_mask(mask: Mask | None, points: Float[Tensor, "points dim"]) -> Bool[Tensor, " points"]:
    """Which world points lie in a mask; all do where there is none."""
    return torch.ones_like(points[:, 0], dtype=torch.bool) if mask is None else mask.contains(points)


def extrema(image: Image, mask: Mask | None) -> tuple[Float[Tensor, ""], Float[Tensor, ""]]:
    """The lowest and the highest value of an image, in its own precision, among the voxels whose centres a mask holds.

    Raises `RegistrationError` where no voxel is inside the mask.
    """
    values = image.scalar.reshape(-1)
    if mask is not None:
        same = mask.grid == image.grid
        values = values[mask.inside.reshape(-1) if same else mask.contains(image.grid.points(values.device))]
        if not len(values):
            size = " x ".join(map(str, image.grid.size))
            raise RegistrationError(
                f"{mask.name}: no voxel of the {size} image of a resolution is inside: enlarge the mask, or take "
                "pyramids that shrink less"
            )
    return values.amin(), values.amax()


def in_pieces(samples: Samples) -> Iterator[Samples]:
    """The samples in pieces of `POINTS_AT_ONCE`."""
    for first in range(0, len(samples.points), POINTS_AT_ONCE):
        piece = slice(first, first + POINTS_AT_ONCE)
        yield Samples(samples.points[piece], samples.values[piece])
