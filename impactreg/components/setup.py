"""Setup: what every component may look at before a registration starts."""

from collections.abc import Callable
from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

from impactreg.images.image import Image
from impactreg.images.masks import Mask

PointMap = Callable[[Float[Tensor, "points dim"]], Float[Tensor, "points dim"]]


@dataclass(frozen=True)
class Setup:
    """The full-resolution images, their masks, the transform that comes before, and how many resolutions there will be.

    `before` maps fixed world points through everything that was applied earlier; it is None where nothing was, and also
    where the transforms are added instead of composed, since then the new transform sees the fixed image where it is.
    `fixed_points` and `moving_points` are corresponding world points (mm, float64), where they were given.
    """

    fixed: Image
    moving: Image
    fixed_mask: Mask | None = None
    moving_mask: Mask | None = None
    before: PointMap | None = None
    has_initial: bool = False
    levels: int = 1
    fixed_points: Float[Tensor, "fixed_points dim"] | None = None
    moving_points: Float[Tensor, "moving_points dim"] | None = None
