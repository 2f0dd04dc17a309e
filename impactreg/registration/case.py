"""Case: what is registered, and what a run tells about itself while it goes on and when it ends."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from impactreg.components.transforms.transform import Combination
from impactreg.images.image import Image
from impactreg.images.masks import Mask


@dataclass(frozen=True)
class Case:
    """Two images, float32 on one device, with their masks, and how to run: seed (None: the map's `RandomSeed`), model
    folders.
    """

    fixed: Image
    moving: Image
    fixed_mask: Mask | None = None
    moving_mask: Mask | None = None
    seed: int | None = None
    model_folders: tuple[Path, ...] = ()
    fixed_name: str = "fixed image"
    moving_name: str = "moving image"

    @property
    def device(self) -> torch.device:
        """Where the images are."""
        return self.fixed.data.device

    def without_direction(self) -> "Case":
        """The case as `(UseDirectionCosines "false")` sees it: every grid along the world's axes."""
        fixed, moving = (Image(i.data, i.grid.without_direction()) for i in (self.fixed, self.moving))
        masks = (m and replace(m, grid=m.grid.without_direction()) for m in (self.fixed_mask, self.moving_mask))
        fixed_mask, moving_mask = masks
        return replace(self, fixed=fixed, moving=moving, fixed_mask=fixed_mask, moving_mask=moving_mask)


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
    columns: Mapping[str, float]


Watch = Callable[[Iteration], object]
"""Called after every iteration; the run stops early when it returns True."""


@dataclass(frozen=True, eq=False)
class StageResult:
    """What a stage found: the transform on top of the initial one, a table of iterations and a stop reason for each
    resolution.
    """

    transform: Combination
    iterations: tuple[tuple[dict[str, float], ...], ...]
    stop_reasons: tuple[str, ...]
