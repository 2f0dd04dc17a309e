"""evaluate(): how good one registration is, before and after, from landmarks, labels and the transform itself."""

import logging
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from impactreg.components.labels import warp_labels
from impactreg.components.transforms.displacement_files import VoxelField, voxel_field
from impactreg.components.transforms.exchange import as_transform, opened
from impactreg.components.transforms.transform import Combination
from impactreg.errors import ImageError, PointsError, TransformError
from impactreg.evaluation import learn2reg
from impactreg.evaluation.deformation import Deformation, deformation, inverse_consistency
from impactreg.evaluation.frame import Frame
from impactreg.evaluation.landmarks import Distances, check_pairs, registration_errors
from impactreg.evaluation.overlap import LabelOverlap, common_labels, label_overlaps
from impactreg.images import Grid, Image, Mask, PointSet, as_image, read_points

logger = logging.getLogger(__name__)
_AS_THEY_STAND = (
    'The transform was made with (UseDirectionCosines "false"): landmarks are taken as transformix takes them, as '
    "places in images whose axes are those of the world"
)


@dataclass(frozen=True, eq=False)
class Learn2RegFigures:
    """One case's figures as Learn2Reg's evaluation program has them: `sdlogj` (`LogJacDetStd`), `tre` (mm), and by
    label `dice` and `hd95` (voxels); empty for what was not given.
    """

    sdlogj: float
    tre: tuple[float, ...]
    dice: dict[int, float]
    hd95: dict[int, float]


@dataclass(frozen=True, eq=False)
class Evaluation:
    """What is known of a registration; None or empty is what was not given.

    `errors` are registration errors of landmarks (mm) after the transform and `errors_before` without it; `overlaps`
    and `overlaps_before` likewise, a member for each label. `inverse_consistency` is the distance (mm) by which the
    inverse misses the voxels that the transform moved.
    """

    errors_before: Distances | None = None
    errors: Distances | None = None
    overlaps_before: tuple[LabelOverlap, ...] = ()
    overlaps: tuple[LabelOverlap, ...] = ()
    deformation: Deformation | None = None
    inverse_consistency: Distances | None = None
    learn2reg: Learn2RegFigures | None = None


def evaluate(
    transform: Any = None,
    *,
    fixed: Any = None,
    moving: Any = None,
    fixed_points: Any = None,
    moving_points: Any = None,
    fixed_labels: Any = None,
    moving_labels: Any = None,
    fixed_mask: Any = None,
    inverse: Any = None,
    labels: Sequence[int] | None = None,
    learn2reg_figures: bool = False,
    device: str | torch.device = "cpu",
) -> Evaluation:
    """Evaluates a transform, or without one how things are before.

    `transform` and `inverse` are whatever `as_transform` takes; the first maps fixed to moving points, the second back.
    Landmarks are point files or `PointSet`s of which point k is the same in both; files of voxel indices need the
    images. Moving labels are warped to the fixed ones so that no new labels come up (see `warp_labels`); `labels`
    chooses some. Jacobian determinants are looked at in the voxels of the fixed image, or in `fixed_mask`; that grid
    may also come from the fixed labels or a TransformParameters file. `learn2reg_figures` adds Learn2Reg's own.

    A transform made with `(UseDirectionCosines "false")` is evaluated as transformix applies it, before and after:
    images lie along the world's axes, and world points of landmarks are taken as they stand.

    Raises `ImpactregError` in one line for what is missing or does not fit.
    """
    labelled = _Labels.of(fixed_labels, moving_labels, labels)
    transform, inverse = opened(transform), opened(inverse)
    frame, inverse_frame = Frame.of(transform), Frame.of(inverse)
    frame.check_same(inverse_frame)
    case = _Case(
        None if transform is None else as_transform(transform),
        None if inverse is None else as_transform(inverse),
        labelled,
        _grid(fixed, labelled.fixed if labelled else None, frame, "fixed"),
        _grid(moving, labelled.moving if labelled else None, inverse_frame, "moving"),
        torch.device(device),
    )
    if fixed_points is not None and frame.turns(case.fixed, case.moving):
        logger.warning("%s", _AS_THEY_STAND)
    case = case.seen(frame)
    points = case.points(fixed_points, moving_points)
    mask = None if fixed_mask is None else frame.seen(case.mask(fixed_mask))
    if points is None and case.labels is None and case.transform is None:
        raise TransformError("there is nothing to evaluate: give a transform, landmarks of both images, or labels")
    return Evaluation(
        None if points is None else registration_errors(*points),
        None if points is None or case.transform is None else registration_errors(*points, case.transform),
        case.overlaps(None),
        () if case.transform is None else case.overlaps(case.transform),
        case.deformation(mask),
        case.consistency(mask),
        case.learn2reg(points) if learn2reg_figures else None,
    )


@dataclass(frozen=True, eq=False)
class _Labels:
    """Label images and those of their labels that count."""

    fixed: Image
    moving: Image
    chosen: tuple[int, ...]

    @classmethod
    def of(cls, fixed: Any, moving: Any, wanted: Sequence[int] | None) -> "_Labels | None":
        if fixed is None and moving is None:
            return None
        if fixed is None or moving is None:
            missing = "fixed labels (-fl)" if fixed is None else "moving labels (-ml)"
            raise ImageError(f"labels are compared between both images: give the {missing}, too")
        images = as_image(fixed, name="fixed labels"), as_image(moving, name="moving labels")
        return cls(*images, common_labels(*images, wanted))


@dataclass(frozen=True, eq=False)
class _Case:
    """One registration with what there is to measure it."""

    transform: Combination | None
    inverse: Combination | None
    labels: _Labels | None
    fixed: Grid | None
    moving: Grid | None
    device: torch.device

    def __post_init__(self) -> None:
        for grid, what in ((self.fixed, "fixed image"), (self.moving, "moving image")):
            if grid is not None and self.transform is not None and grid.dimension != self.transform.dimension:
                raise TransformError(f"the transform is {self.transform.dimension}D, but the {what} {grid.dimension}D")
        if self.transform is not None and self.inverse is not None:
            n, other = self.transform.dimension, self.inverse.dimension
            if n != other:
                raise TransformError(f"the transform is {n}D, but the inverse {other}D")
        for labels, grid, what in self._labelled():
            if grid is not None and not labels.grid.same_as(grid):
                raise ImageError(
                    f"{what} labels: they are on another grid ({labels.grid.size}) than the {what} image ({grid.size}):"
                    " resample them onto it"
                )

    def seen(self, frame: Frame) -> "_Case":
        """The case as its transform sees it."""
        labels, grids = self.labels, (self.fixed, self.moving)
        if labels is not None:
            labels = replace(labels, fixed=frame.seen(labels.fixed), moving=frame.seen(labels.moving))
        fixed, moving = (None if grid is None else frame.grid(grid) for grid in grids)
        return replace(self, labels=labels, fixed=fixed, moving=moving)

    def _labelled(self) -> list[tuple[Image, Grid | None, str]]:
        if self.labels is None:
            return []
        return [(self.labels.fixed, self.fixed, "fixed"), (self.labels.moving, self.moving, "moving")]

    def points(self, fixed: Any, moving: Any) -> tuple[PointSet, PointSet] | None:
        if fixed is None and moving is None:
            return None
        if fixed is None or moving is None:
            missing = "fixed ones (-fp)" if fixed is None else "moving ones (-mp)"
            raise PointsError(f"landmarks come in pairs: give the {missing}, too")
        dimension = None if self.transform is None else self.transform.dimension
        found = _points(fixed, self.fixed, dimension), _points(moving, self.moving, dimension)
        check_pairs(*found)
        return found

    def mask(self, given: Any) -> Mask:
        found = Mask.of(as_image(given, name="fixed mask"), name="fixed mask")
        if self.transform is not None and found.grid.dimension != self.transform.dimension:
            raise ImageError(
                f"fixed mask: it is {found.grid.dimension}D, but the transform is {self.transform.dimension}D"
            )
        return found

    def overlaps(self, transform: Combination | None) -> tuple[LabelOverlap, ...]:
        if self.labels is None:
            return ()
        fixed, moving = self.labels.fixed, self.labels.moving
        if transform is not None or not moving.grid.same_as(fixed.grid):
            moving = warp_labels(moving.to(device=self.device), transform or _unmoved, fixed.grid)
        return label_overlaps(fixed, moving, self.labels.chosen)

    def deformation(self, mask: Mask | None) -> Deformation | None:
        if self.transform is None:
            return None
        if self.fixed is None:
            logger.warning("Jacobian determinants are left out: give the fixed image (-f), in whose voxels they are")
            return None
        return deformation(self.transform, self.fixed, mask, device=self.device)

    def consistency(self, mask: Mask | None) -> Distances | None:
        if self.inverse is None:
            return None
        if self.transform is None:
            raise TransformError("an inverse (-inv) is compared with its transform: give that (-tp), too")
        if self.fixed is None or self.moving is None:
            raise TransformError("inverse consistency needs the grids of both images: give -f and -m")
        return inverse_consistency(self.transform, self.inverse, self.fixed, self.moving, mask, device=self.device)

    def learn2reg(self, points: tuple[PointSet, PointSet] | None) -> Learn2RegFigures:
        if self.transform is None or self.fixed is None or self.moving is None:
            raise TransformError("Learn2Reg's figures need a transform (-tp) and both images (-f and -m)")
        field = voxel_field(self.transform, self.fixed, self.moving)
        if min(field.shape[:3]) <= 2 * learn2reg.BORDER:
            raise ImageError(f"Learn2Reg's figures need images of more than {2 * learn2reg.BORDER} voxels a side")
        errors: tuple[float, ...] = ()
        if points is not None:
            fixed, moving = (
                grid.world_to_index(each.points).numpy()
                for grid, each in zip((self.fixed, self.moving), points, strict=True)
            )
            errors = tuple(learn2reg.tre(field, fixed, moving, self.moving.spacing).tolist())
        dice, hd95 = self._learn2reg_overlaps(field)
        return Learn2RegFigures(learn2reg.sdlogj(field), errors, dice, hd95)

    def _learn2reg_overlaps(self, field: VoxelField) -> tuple[dict[int, float], dict[int, float]]:
        if self.labels is None:
            return {}, {}
        fixed, moving = (
            np.asarray(each.scalar.cpu().numpy().transpose()) for each in (self.labels.fixed, self.labels.moving)
        )
        chosen = self.labels.chosen
        found = learn2reg.overlaps(fixed, moving, learn2reg.warped_labels(moving, field), chosen)
        dice, hd95 = (dict(zip(chosen, values, strict=True)) for values in found)
        return dice, hd95


def _unmoved(points: torch.Tensor) -> torch.Tensor:
    return points


def _points(given: Any, grid: Grid | None, dimension: int | None) -> PointSet:
    if isinstance(given, str | os.PathLike):
        return read_points(given, grid=grid, dimension=dimension)
    found = given if isinstance(given, PointSet) else PointSet(torch.as_tensor(np.asarray(given)))
    if dimension not in (None, found.dimension):
        raise PointsError(f"the points are {found.dimension}D, but the transform is {dimension}D")
    return found


def _grid(image: Any, labels: Image | None, frame: Frame, what: str) -> Grid | None:
    """The grid of an image, else that of its labels, else the one that the map of a transform from there tells."""
    if isinstance(image, Grid):
        return image
    if image is not None or labels is not None:
        return as_image(labels if image is None else image, name=f"{what} image").grid
    return frame.fixed
