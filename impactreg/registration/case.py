"""Case: what is registered, and what a run tells about itself while it goes on and when it ends."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

import torch
from jaxtyping import Float
from torch import Tensor

from impactreg.components.optimizers.optimizer import Cell, Row
from impactreg.components.transforms.transform import Combination
from impactreg.images.image import Image
from impactreg.images.masks import Mask

Gridded = TypeVar("Gridded", Image, Mask)


@dataclass(frozen=True)
class Further:
    """The images and masks of a registration of several, beyond the first ones: those of `-f1`, `-m1` and so on.

    `fixed_points` and `moving_points` are corresponding world points (mm), where they were given (`-fp`, `-mp`);
    `indexed` tells of each whether they were given as voxels of the first image.
    """

    fixed: tuple[Image, ...] = ()
    moving: tuple[Image, ...] = ()
    fixed_masks: tuple[Mask, ...] = ()
    moving_masks: tuple[Mask, ...] = ()
    fixed_points: Float[Tensor, "fixed_points dim"] | None = None
    moving_points: Float[Tensor, "moving_points dim"] | None = None
    indexed: tuple[bool, ...] = (False, False)


@dataclass(frozen=True)
class Case:
    """Two images, float32 on one device, with their masks, and how to run: seed (None: the map's `RandomSeed`), model
    folders.

    `keeps_device` tells that the caller chose the device, whatever `ImpactGPU` says in a resolution.
    Further images are those of the second metric and so on; everything but these metrics sees the first ones alone.
    """

    fixed: Image
    moving: Image
    fixed_mask: Mask | None = None
    moving_mask: Mask | None = None
    seed: int | None = None
    model_folders: tuple[Path, ...] = ()
    fixed_name: str = "fixed image"
    moving_name: str = "moving image"
    keeps_device: bool = False
    further: Further = Further()

    @property
    def device(self) -> torch.device:
        """Where the images are."""
        return self.fixed.data.device

    @property
    def fixed_images(self) -> tuple[Image, ...]:
        """All fixed images."""
        return (self.fixed, *self.further.fixed)

    @property
    def moving_images(self) -> tuple[Image, ...]:
        """All moving images."""
        return (self.moving, *self.further.moving)

    @property
    def fixed_masks(self) -> tuple[Mask, ...]:
        """All fixed masks; there may be fewer than images."""
        return (*([self.fixed_mask] if self.fixed_mask else []), *self.further.fixed_masks)

    @property
    def moving_masks(self) -> tuple[Mask, ...]:
        """All moving masks; there may be fewer than images."""
        return (*([self.moving_mask] if self.moving_mask else []), *self.further.moving_masks)

    def to(self, device: torch.device) -> "Case":
        """The same case with all images, masks and points on another device."""
        further, points = self.further, (self.further.fixed_points, self.further.moving_points)
        fixed_points, moving_points = (None if each is None else each.to(device) for each in points)
        return replace(
            self,
            fixed=self.fixed.to(device=device),
            moving=self.moving.to(device=device),
            fixed_mask=self.fixed_mask and self.fixed_mask.to(device),
            moving_mask=self.moving_mask and self.moving_mask.to(device),
            further=Further(
                tuple(each.to(device=device) for each in further.fixed),
                tuple(each.to(device=device) for each in further.moving),
                tuple(each.to(device) for each in further.fixed_masks),
                tuple(each.to(device) for each in further.moving_masks),
                fixed_points,
                moving_points,
                further.indexed,
            ),
        )

    def without_direction(self) -> "Case":
        """The case as `(UseDirectionCosines "false")` sees it: every grid along the world's axes."""
        grids, indexed = (self.fixed.grid, self.moving.grid), self.further.indexed
        points = self.further.fixed_points, self.further.moving_points
        fixed_points, moving_points = (
            grid.without_direction().index_to_world(grid.world_to_index(each)) if each is not None and voxels else each
            for each, grid, voxels in zip(points, grids, indexed, strict=True)
        )
        further = replace(
            self.further,
            fixed_points=fixed_points,
            moving_points=moving_points,
            fixed=tuple(map(_straight, self.further.fixed)),
            moving=tuple(map(_straight, self.further.moving)),
            fixed_masks=tuple(map(_straight, self.further.fixed_masks)),
            moving_masks=tuple(map(_straight, self.further.moving_masks)),
        )
        return replace(
            self,
            fixed=_straight(self.fixed),
            moving=_straight(self.moving),
            fixed_mask=self.fixed_mask and _straight(self.fixed_mask),
            moving_mask=self.moving_mask and _straight(self.moving_mask),
            further=further,
        )


@dataclass(frozen=True)
class Iteration:
    """One iteration as it happens: stage, level (of `levels`) and number (of at most `of`), all from 0, with elastix's
    columns.
    """

    stage: int
    level: int
    levels: int
    number: int
    of: int
    columns: Mapping[str, Cell]


Watch = Callable[[Iteration], object]
"""Called after every iteration; the run stops early when it returns True."""


@dataclass(frozen=True, eq=False)
class StageResult:
    """What a stage found: the transform on top of the initial one, a table of iterations and a stop reason for each
    resolution; and the inverse of the whole transform, where that comes with it.
    """

    transform: Combination
    iterations: tuple[tuple[Row, ...], ...]
    stop_reasons: tuple[str, ...]
    inverse: Combination | None = None


def _straight(gridded: Gridded) -> Gridded:
    return replace(gridded, grid=gridded.grid.without_direction())
