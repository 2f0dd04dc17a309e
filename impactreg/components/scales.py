"""Scales: what each transform parameter is worth in millimetres, so that an optimizer can treat all of them alike.

Scales are squared, as ITK and elastix have them: an optimizer works on sqrt(s) mu. A rotation by 1 rad moves the voxels
of an image by some hundred millimetres and a translation by 1 mm moves them by 1 mm, hence a large scale for the one
and a small one for the other.
"""

import logging

import torch

from impactreg.components.samplers import grid_samples
from impactreg.components.transforms.transform import Combination, Mapped, Parameters
from impactreg.images.image import Image
from impactreg.parameters import Settings

logger = logging.getLogger(__name__)

NUMBER_OF_SAMPLES = 10000


def scales_of(transform: Combination, settings: Settings, fixed: Image) -> Parameters:
    """The squared scales of the current transform, estimated where `AutomaticScalesEstimation` asks for it.

    Otherwise they are the transform's own defaults or its `Scales`. `settings` are those of the current transform;
    `fixed` is the fixed image at full resolution, whose mask plays no part
    (`elx::TransformBase::AutomaticScalesEstimation`).
    """
    asked = getattr(settings, "automatic_scales_estimation", False)
    if not getattr(settings, "estimates_scales", asked):
        return transform.current.default_scales(settings)
    logger.info("Scales are estimated automatically.")
    points = grid_samples(fixed, None, NUMBER_OF_SAMPLES).points
    return estimate_scales(transform.at(points))


def estimate_scales(mapped: Mapped) -> Parameters:
    """The mean over points of each Jacobian column's squared length: mm^2 per squared unit of the parameter.

    A parameter that moves none of the points gets 1: its gradient is 0 as well, and elastix's scale of 0 would make
    that not a number.
    """
    scales = mapped.squared_columns() / len(mapped.points)
    # Columns that are zero but for rounding are some 1e-26 of the others.
    felt = scales > 1e-20 * scales.max()
    return torch.where(felt, scales, torch.ones_like(scales))
