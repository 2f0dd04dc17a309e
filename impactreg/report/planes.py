"""Where pictures are taken: axial, coronal and sagittal slices of the fixed image's grid, as radiologists see them."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import permutations

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812
from jaxtyping import Bool, Float
from torch import Tensor

from impactreg.images.grid import Grid
from impactreg.images.image import Image

Indices = Float[Tensor, "slice row column dim"]
Stack = Float[Tensor, "slice row column"]
SLICES = 24
LETTERS = (("R", "L"), ("A", "P"), ("I", "S"))
"""What lies at the lower and at the upper end of the world's axes (LPS)."""
_VIEWS = {"Axial": ((0, 1), (1, 1), 2), "Coronal": ((0, 1), (2, -1), 1), "Sagittal": ((1, 1), (2, -1), 0)}
"""The world's axis, and its sense, that runs to the right and down, and the axis through the slices."""
THROUGH = {name: through for name, (_, _, through) in _VIEWS.items()}
"""The world's axis through the slices."""


@dataclass(frozen=True)
class Plane:
    """Parallel slices of a grid: the index axis to the right, down and (3D) through, and which of them run backwards.

    `slices` are indices along the axis through them; `edges` names left, right, top and bottom. `grid` is as the
    transform sees it, and `place` as it lies in the patient, which differ with `(UseDirectionCosines "false")`.
    """

    name: str
    grid: Grid
    axes: tuple[int, ...]
    backwards: tuple[bool, ...]
    slices: tuple[int, ...]
    edges: tuple[str, str, str, str]
    place: Grid

    def size(self, limit: int) -> tuple[int, int]:
        """Columns and rows of square pixels that cover a slice, neither more than `limit`."""
        extent = [self.grid.size[a] * self.grid.spacing[a] for a in self.axes[:2]]
        pixel = max(max(extent) / limit, min(self.grid.spacing[a] for a in self.axes[:2]))
        columns, rows = (min(limit, max(1, round(length / pixel))) for length in extent)
        return columns, rows

    def indices(self, columns: int, rows: int) -> Indices:
        """The continuous index (x, y, z) of the centre of every pixel of slices that are so large."""
        steps = [self._steps(0, columns), self._steps(1, rows)]
        if len(self.axes) > 2:
            steps.append(torch.tensor(self.slices, dtype=torch.float64))
        found = torch.empty(len(self.slices), rows, columns, self.grid.dimension, dtype=torch.float64)
        shapes = ((1, 1, -1), (1, -1, 1), (-1, 1, 1))
        for axis, step, shape in zip(self.axes, steps, shapes, strict=False):
            found[..., axis] = step.reshape(shape)
        return found

    def points(self, columns: int, rows: int) -> Indices:
        """World points (mm) of the pixels."""
        index = self.indices(columns, rows)
        return self.grid.index_to_world(index.reshape(-1, self.grid.dimension)).reshape(index.shape)

    def direction(self, number: int) -> Float[Tensor, " dim"]:
        """The unit vector (world) to the right (0) or down (1)."""
        column = torch.tensor(np.array(self.grid.direction)[:, self.axes[number]])
        return -column if self.backwards[number] else column

    def positions(self) -> list[float]:
        """Where the slices lie (mm): the world coordinate of their centres along the axis nearest to their normal."""
        if len(self.axes) < 3:
            return [0.0] * len(self.slices)
        middle = (torch.tensor(self.grid.size, dtype=torch.float64) - 1) / 2
        index = middle.repeat(len(self.slices), 1)
        index[:, self.axes[2]] = torch.tensor(self.slices, dtype=torch.float64)
        world = THROUGH[self.name]
        return [round(float(v), 1) for v in self.place.index_to_world(index)[:, world]]

    def _steps(self, number: int, count: int) -> Float[Tensor, " pixels"]:
        voxels = self.grid.size[self.axes[number]]
        steps = (torch.arange(count, dtype=torch.float64) + 0.5) * (voxels / count) - 0.5
        return steps.flip(0) if self.backwards[number] else steps


def planes_of(grid: Grid, image: Image | None = None, place: Grid | None = None) -> tuple[Plane, ...]:
    """The planes of a grid; in 3D those nearest to the anatomical ones, with slices where `image` shows something.

    `place` is the grid as it lies in the patient, where the transform sees it elsewhere.
    """
    place = place or grid
    if grid.dimension == 2:
        return (Plane("Image", grid, (0, 1), (False, False), (0,), ("", "", "", ""), place),)
    direction = np.array(place.direction)
    order = max(permutations(range(3)), key=lambda p: sum(abs(direction[w, p[w]]) for w in range(3)))
    return tuple(_plane(name, grid, place, order, image) for name in _VIEWS)


def _plane(name: str, grid: Grid, place: Grid, order: Sequence[int], image: Image | None) -> Plane:
    (right, right_sense), (down, down_sense), through = _VIEWS[name]
    axes = (order[right], order[down], order[through])
    signs = [np.array(place.direction)[w, order[w]] for w in (right, down, through)]
    backwards = (bool(signs[0] * right_sense < 0), bool(signs[1] * down_sense < 0), bool(signs[2] < 0))
    slices = _chosen(grid.size[axes[2]], None if image is None else _activity(image, axes[2]))
    top, bottom = LETTERS[down][::down_sense]
    left, last = LETTERS[right][::right_sense]
    shown = slices[::-1] if backwards[2] else slices
    return Plane(name, grid, axes, backwards, shown, (left, last, top, bottom), place)


def _activity(image: Image, axis: int) -> Float[Tensor, " slices"]:
    """How much the values differ within each slice of a scalar image."""
    data = image.data[0].movedim(2 - axis, 0)
    step = max(1, min(data.shape[1:]) // 64)
    return data[:, ::step, ::step].flatten(1).double().std(dim=1)


def _chosen(count: int, activity: Float[Tensor, " slices"] | None) -> tuple[int, ...]:
    """Evenly spread slices from the first to the last in which there is something to see."""
    first, last = 0, count - 1
    if activity is not None and float(activity.max()) > 0:
        busy = (activity > 0.1 * activity.max()).nonzero()[:, 0]
        first, last = int(busy[0]), int(busy[-1])
    return tuple(sorted({round(v) for v in np.linspace(first, last, min(SLICES, last - first + 1))}))


def sampled(
    image: Image, points: Float[Tensor, "*pixels dim"]
) -> tuple[Float[Tensor, "channel *pixels"], Bool[Tensor, "*pixels"]]:
    """Linearly interpolated values at world points, and whether each lies in the image; outside is the border's value.

    Single precision and all points at once: for pictures, where that is exact enough.
    """
    dimension = image.dimension
    index = image.grid.world_to_index(points.reshape(-1, dimension))
    size = torch.tensor(image.grid.size, dtype=torch.float64)
    inside = ((index >= -0.5) & (index <= size - 0.5)).all(dim=1)
    where = ((2 * index + 1) / size - 1).float().reshape(1, *[1] * (dimension - 1), -1, dimension)
    values = F.grid_sample(image.data.float()[None], where, padding_mode="border", align_corners=False)
    return values.reshape(image.channels, *points.shape[:-1]), inside.reshape(points.shape[:-1])


def slices_of(image: Image, plane: Plane, limit: int, background: float) -> Stack:
    """A scalar image in all slices of a plane, none larger than `limit` pixels; `background` is what lies outside.

    Where pixels are larger than voxels they are means, not samples.
    """
    columns, rows = plane.size(limit)
    if image.grid.same_as(plane.grid):
        stack = _voxels(image, plane)
    else:
        fine = [max(n, plane.grid.size[a]) for n, a in zip((columns, rows), plane.axes, strict=False)]
        stack = torch.cat([_resampled(image, replace(plane, slices=(n,)), fine, background) for n in plane.slices])
    if tuple(stack.shape[1:]) == (rows, columns):
        return stack
    return F.interpolate(stack[:, None], (rows, columns), mode="bilinear", antialias=True, align_corners=False)[:, 0]


def _voxels(image: Image, plane: Plane) -> Stack:
    """The slices of an image on the plane's own grid, voxel by voxel."""
    last = image.dimension - 1
    right, down, *through = (last - axis for axis in plane.axes)
    data = image.data[0].permute(*through, down, right)
    stack = data[torch.tensor(plane.slices)] if through else data[None]
    return stack.flip([axis for axis, turned in zip((2, 1), plane.backwards, strict=False) if turned]).float()


def _resampled(image: Image, plane: Plane, size: Sequence[int], background: float) -> Stack:
    values, inside = sampled(image, plane.points(size[0], size[1]))
    return torch.where(inside, values[0], background)
