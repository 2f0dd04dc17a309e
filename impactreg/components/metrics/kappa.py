"""AdvancedKappaStatistic: the overlap of a structure in both images."""

import logging
from functools import cached_property
from typing import Annotated, cast

import torch
from jaxtyping import Bool, Float, Int8
from pydantic import Field
from torch import Tensor

from impactreg.components.component import AnySettings
from impactreg.components.metrics.collective import CollectiveMetric, Values
from impactreg.components.metrics.metric import ImageMetricSettings, Scene
from impactreg.components.splines import raster_strides
from impactreg.components.transforms.transform import Points
from impactreg.images import quick
from impactreg.images.image import Image
from impactreg.parameters import Once

logger = logging.getLogger(__name__)

TOLERANCE = 1e-3
"""How far a value may be from `ForegroundValue`, or must be above 0, to be foreground."""


class KappaStatisticSettings(ImageMetricSettings):
    """What `AdvancedKappaStatistic` reads."""

    use_complement: Annotated[bool, Once] = Field(
        True, description="Whether the metric is 1 - kappa, so that a smaller value is a larger overlap; else kappa."
    )
    use_foreground_value: Annotated[bool, Once] = Field(
        True, description="Whether the structure has the value ForegroundValue; else it is all that is above 0."
    )
    foreground_value: Annotated[float, Once] = Field(1.0, description="The value of the structure in both images.")


class AdvancedKappaStatistic(CollectiveMetric, name="AdvancedKappaStatistic"):
    """1 - kappa, where kappa = 2 |F and M| / (|F| + |M|) over the samples, also known as the Dice overlap, F and M
    being the foreground of the fixed and the moving image (`itk::AdvancedKappaStatisticImageToImageMetric`).

    The foreground has no gradient. In its place stand the steps between a voxel's two neighbours along each axis of the
    moving image, into (1) or out of (-1) the foreground, whatever the voxel size, at the nearest voxel. Samples of two
    images without foreground have kappa 1 and gradient 0.

    Deviates from elastix where that is wrong: the steps are turned into world space by the direction cosines; with
    `(UseForegroundValue "false")` they are those of all that is above 0; without any foreground the value is not that
    of the iteration before.
    """

    Settings = KappaStatisticSettings

    def __init__(self, settings: AnySettings, scene: Scene) -> None:
        super().__init__(settings, scene)
        self._keys = cast(KappaStatisticSettings, settings)
        if not bool(self._foreground(scene.fixed.scalar).any()):
            logger.warning(
                "AdvancedKappaStatistic: no voxel of the fixed image is foreground in resolution %d, so that the "
                "metric has no effect there; check (ForegroundValue %g), and take image pyramids that do not smooth",
                scene.level,
                self._keys.foreground_value,
            )

    def compare(self, fixed: Values, moving: Values) -> tuple[float, Values]:
        """1 - kappa or kappa."""
        kappa, derivative = overlap(self._foreground(fixed), self._foreground(moving))
        return (1 - kappa, -derivative) if self._keys.use_complement else (kappa, derivative)

    def values_and_slopes(self, points: Points) -> tuple[Values, Points]:
        """The values of the moving image at world points, and the steps at the nearest voxel."""
        steps = _at_nearest(self._steps, self.scene.moving, points)
        return self.values(points), steps.to(torch.float64) @ self._to_world

    @cached_property
    def _steps(self) -> Int8[Tensor, "voxels dim"]:
        return steps_of(self._foreground(self.scene.moving.scalar))

    @cached_property
    def _to_world(self) -> Float[Tensor, "dim dim"]:
        """What steps along the image axes (as rows) are multiplied by to be gradients in world space."""
        direction = torch.tensor(self.scene.moving.grid.direction, dtype=torch.float64, device=self._steps.device)
        return direction.T if self.gradient_scales is None else direction.T @ self.gradient_scales

    def _foreground(self, values: Float[Tensor, "..."]) -> Bool[Tensor, "..."]:
        if self._keys.use_foreground_value:
            return (values.to(torch.float64) - self._keys.foreground_value).abs() < TOLERANCE
        return values > TOLERANCE


def overlap(fixed: Bool[Tensor, " points"], moving: Bool[Tensor, " points"]) -> tuple[float, Values]:
    """Kappa, and its derivative to each moving value as if that were 0 or 1; 1 and 0 where nothing is foreground."""
    both, total = int((fixed & moving).sum()), int(fixed.sum() + moving.sum())
    if total == 0:
        return 1.0, fixed.to(torch.float64)
    kappa = 2 * both / total
    return kappa, (2 * fixed.to(torch.float64) - kappa) / total


def steps_of(foreground: Bool[Tensor, "*space"]) -> Int8[Tensor, "voxels dim"]:
    """Next neighbour minus previous one along x, y, z of each voxel, x fastest; 0 at the border of the image."""
    signed = foreground.to(torch.int8)
    steps = signed.new_zeros(*foreground.shape, foreground.ndim)
    for axis in range(foreground.ndim):
        length = foreground.shape[axis]
        if length > 2:
            rise = signed.narrow(axis, 2, length - 2) - signed.narrow(axis, 0, length - 2)
            steps[..., foreground.ndim - 1 - axis].narrow(axis, 1, length - 2).copy_(rise)
    return steps.reshape(-1, foreground.ndim)


def _at_nearest(values: Int8[Tensor, "voxels dim"], image: Image, points: Points) -> Int8[Tensor, "points dim"]:
    """The rows of an image's voxels that are nearest to world points; ties go to the higher index."""
    index = quick.floor(image.grid.world_to_index(points) + 0.5)
    last = torch.tensor(image.grid.size, dtype=index.dtype, device=index.device) - 1
    voxel = torch.minimum(index.clamp(min=0), last).long()
    strides = torch.tensor(raster_strides(image.grid.shape), device=voxel.device)
    return values[(voxel * strides).sum(dim=1)]
