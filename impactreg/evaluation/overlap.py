"""How well labels lie on each other: Dice, the 95th percentile of surface distances, and their mean."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from impactreg.errors import ImageError
from impactreg.evaluation.surfaces import SurfaceDistances
from impactreg.images.image import Image

logger = logging.getLogger(__name__)
Voxels = npt.NDArray[np.generic]


@dataclass(frozen=True)
class LabelOverlap:
    """One label in two images on one grid.

    `dice` is the overlap from 0 to 1; `hd95` is the distance (mm) within which 95 % of either surface lies from the
    other, and `asd` the mean distance (mm) between the surfaces. Both are infinite where one image lacks the label, and
    not numbers where neither has it.
    """

    label: int
    dice: float
    hd95: float
    asd: float


def label_overlaps(fixed: Image, other: Image, labels: Sequence[int]) -> tuple[LabelOverlap, ...]:
    """The overlap of each label in two label images on the same grid; raises `ImageError` for other grids."""
    if not fixed.grid.same_as(other.grid):
        raise ImageError(f"labels are compared on one grid, but these are on {fixed.grid.size} and {other.grid.size}")
    spacing = fixed.grid.spacing[::-1]
    voxels = fixed.scalar.cpu().numpy(), other.scalar.cpu().numpy()
    return tuple(overlap_of(*voxels, label, spacing) for label in labels)


def overlap_of(fixed: Voxels, other: Voxels, label: int, spacing: tuple[float, ...]) -> LabelOverlap:
    """The overlap of one label in two arrays; `spacing` (mm) in the order of axes."""
    here, there = fixed == label, other == label
    distances = SurfaceDistances.between(here, there, spacing)
    both = int(here.sum()) + int(there.sum())
    if not both:
        return LabelOverlap(label, float("nan"), float("nan"), float("nan"))
    dice = 2 * int((here & there).sum()) / both
    return LabelOverlap(label, dice, distances.percentile(95), distances.mean())


def common_labels(fixed: Image, moving: Image, wanted: Sequence[int] | None = None) -> tuple[int, ...]:
    """The labels above 0 that both images have, or those of `wanted`; those that one lacks are told in a warning.

    Raises `ImageError` where there is none.
    """
    in_fixed, in_moving = label_values(fixed, "fixed labels"), label_values(moving, "moving labels")
    asked = sorted(in_fixed | in_moving) if wanted is None else list(dict.fromkeys(wanted))
    found = tuple(label for label in asked if label in in_fixed and label in in_moving)
    if not found:
        shown = [_shown(each) for each in (in_fixed, in_moving)]
        what = "label" if wanted is None else f"label of {_shown(set(asked))}"
        raise ImageError(f"no {what} is in both label images: the fixed one has {shown[0]}, the moving one {shown[1]}")
    lost = [label for label in asked if label not in found]
    if lost:
        logger.warning("Labels that only one of the images has, or none, are left out: %s", _shown(set(lost)))
    return found


def label_values(image: Image, name: str) -> set[int]:
    """The labels above 0 in an image; raises `ImageError` for channels, and for values that are no whole numbers."""
    if image.channels != 1:
        raise ImageError(f"{name}: labels have one value a voxel, but this image has {image.channels}")
    values = np.unique(image.scalar.cpu().numpy())
    if not np.isfinite(values).all() or (values != np.floor(values)).any():
        odd = next(float(v) for v in values if not np.isfinite(v) or v != np.floor(v))
        raise ImageError(f"{name}: labels are whole numbers, but a voxel has {odd:g}: is this a label image?")
    return {int(value) for value in values if value > 0}


def _shown(labels: set[int]) -> str:
    if not labels:
        return "none above 0"
    listed = sorted(labels)
    return ", ".join(map(str, listed[:12])) + (f" ... ({len(listed)} in all)" if len(listed) > 12 else "")
