"""The world in which a transform maps points: with `(UseDirectionCosines "false")` images lie along its axes there."""

from dataclasses import dataclass, replace
from typing import Any, TypeVar

from impactreg.components.resampling import grid_of
from impactreg.components.setup import PointMap
from impactreg.components.transforms.exchange import last_map
from impactreg.components.transforms.transform import Points
from impactreg.errors import TransformError
from impactreg.images import Grid, Image, Mask
from impactreg.parameters import ParameterMap

Gridded = TypeVar("Gridded", Image, Mask)


@dataclass(frozen=True)
class Frame:
    """What a transform's parameter map (None without one) tells of the images that the transform belongs to.

    With `(UseDirectionCosines "false")` the transform maps points between images whose axes are those of the world.
    """

    parameter_map: ParameterMap | None = None

    @classmethod
    def of(cls, transform: Any) -> "Frame":
        """The frame of whatever `as_transform` takes: of several maps that of the last, as transformix has it."""
        return cls(last_map(transform))

    @property
    def has_directions(self) -> bool:
        """Whether images keep their directions."""
        return self.parameter_map is None or self.parameter_map.first("UseDirectionCosines", "true") != "false"

    @property
    def fixed(self) -> Grid | None:
        """The fixed image's grid, as it lies in the world; None where it is not told."""
        told = self.parameter_map
        return None if told is None or not told.get("Size") else grid_of(told)

    def turns(self, *grids: Grid | None) -> bool:
        """Whether the transform sees any of some images elsewhere than in the world."""
        return any(grid is not None and not grid.same_as(self.grid(grid)) for grid in grids)

    def grid(self, grid: Grid) -> Grid:
        """A grid as the transform sees it."""
        return grid if self.has_directions else grid.without_direction()

    def seen(self, gridded: Gridded) -> Gridded:
        """An image or mask as the transform sees it."""
        return gridded if self.has_directions else replace(gridded, grid=gridded.grid.without_direction())

    def in_world(self, transform: PointMap, fixed: Grid, moving: Grid) -> PointMap:
        """A transform of this frame as a map between the points of two images as they lie in the world."""
        if self.has_directions:
            return transform

        def mapped(points: Points) -> Points:
            here = self.grid(fixed).index_to_world(fixed.world_to_index(points))
            return moving.index_to_world(self.grid(moving).world_to_index(transform(here)))

        return mapped

    def check_same(self, inverse: "Frame") -> None:
        """Raises `TransformError` for an inverse that is known to be of another frame."""
        told = self.parameter_map is not None and inverse.parameter_map is not None
        if told and self.has_directions != inverse.has_directions:
            mine, other = (str(each.has_directions).lower() for each in (self, inverse))
            raise TransformError(
                f'the transform has (UseDirectionCosines "{mine}"), but the inverse "{other}": they are not of one run'
            )
