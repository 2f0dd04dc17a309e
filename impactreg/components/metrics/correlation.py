"""AdvancedNormalizedCorrelation: how linearly the moving intensities depend on the fixed ones."""

import logging
import math
from typing import cast

import torch
from pydantic import Field

from impactreg.components.component import AnySettings
from impactreg.components.metrics.collective import CollectiveMetric, Values
from impactreg.components.metrics.metric import ImageMetricSettings, Scene
from impactreg.images import sums

logger = logging.getLogger(__name__)

SMALLEST_DEVIATION = 1e-14


class NormalizedCorrelationSettings(ImageMetricSettings):
    """What `AdvancedNormalizedCorrelation` reads."""

    subtract_mean: bool = Field(True, description="Without effect, as in elastix since 5.1: means are subtracted.")


class AdvancedNormalizedCorrelation(CollectiveMetric, name="AdvancedNormalizedCorrelation"):
    """Minus the correlation of the fixed and the moving values over the samples, from -1 to 1
    (`itk::AdvancedNormalizedCorrelationImageToImageMetric`).
    """

    Settings = NormalizedCorrelationSettings

    def __init__(self, settings: AnySettings, scene: Scene) -> None:
        super().__init__(settings, scene)
        if not cast(NormalizedCorrelationSettings, settings).subtract_mean:
            where = scene.parameter_map.where("SubtractMean")
            logger.warning('%s: (SubtractMean "false") has no effect, as in elastix since 5.1', where)

    def compare(self, fixed: Values, moving: Values) -> tuple[float, Values]:
        """Minus the correlation."""
        return negative_correlation(fixed, moving)


def negative_correlation(fixed: Values, moving: Values) -> tuple[float, Values]:
    """Minus the correlation of some values, and its derivative to the moving ones; 0 where either are all the same."""
    f, m = fixed - sums.mean(fixed), moving - sums.mean(moving)
    sff, smm, sfm = (float(sums.dot(a, b)) for a, b in ((f, f), (m, m), (f, m)))
    deviation = math.sqrt(sff * smm)
    if deviation <= SMALLEST_DEVIATION:
        return 0.0, torch.zeros_like(moving)
    return -sfm / deviation, (m * (sfm / smm) - f) / deviation
