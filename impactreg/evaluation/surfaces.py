"""The surface of a region of voxels, as pieces between 2^D voxel centres with their areas, and distances between two.

The pieces are those of marching cubes (Lorensen and Cline 1987, Computer Graphics 21, 163-169) in the form in which
DeepMind's surface-distance counts them (Nikolov et al. 2021, JMIR 23, e26151), so that its figures are met.
"""

from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise, product

import numpy as np
import numpy.typing as npt

from impactreg.evaluation.nearest import Places, nearest_distances

Numbers = npt.NDArray[np.float64]
Region = npt.NDArray[np.bool_]
Corner = tuple[int, ...]
Spacing = tuple[float, ...]


@dataclass(frozen=True, eq=False)
class SurfaceDistances:
    """The distance (mm) from every piece of each of two surfaces to the other one, ascending, with its area (mm^2; in
    2D its length, mm).

    A surface of nothing has no pieces, and the distances to it are infinite.
    """

    fixed: Numbers
    fixed_areas: Numbers
    warped: Numbers
    warped_areas: Numbers

    @classmethod
    def between(cls, fixed: Region, warped: Region, spacing: Spacing) -> "SurfaceDistances":
        """The distances between the surfaces of two regions on the same voxels; `spacing` (mm) in the order of axes."""
        (here, here_areas), (there, there_areas) = (surface(each, spacing) for each in (fixed, warped))
        to_warped, to_fixed = nearest_distances(here, there, spacing), nearest_distances(there, here, spacing)
        return cls(*_sorted(to_warped, here_areas), *_sorted(to_fixed, there_areas))

    def percentile(self, percent: float) -> float:
        """The distance within which `percent` of a surface's area lies, of both surfaces the larger (HD95 for 95)."""
        return max(_percentile(self.fixed, self.fixed_areas, percent), self._of_warped(percent))

    def mean(self) -> float:
        """The mean distance over the area of both surfaces; not a number where both are of nothing."""
        distances, areas = np.r_[self.fixed, self.warped], np.r_[self.fixed_areas, self.warped_areas]
        return float((distances * areas).sum() / areas.sum()) if len(areas) else float("nan")

    def _of_warped(self, percent: float) -> float:
        return _percentile(self.warped, self.warped_areas, percent)


def surface(region: Region, spacing: Spacing) -> tuple[Places, Numbers]:
    """The places [pieces, D] and areas of the pieces of a region's surface; place 0 is half a voxel before voxel 0."""
    if not region.any():
        return np.zeros((0, region.ndim), np.int64), np.zeros(0)
    first, box = _cropped(region)
    codes = _codes(box)
    on_surface = (codes != 0) & (codes != 2 ** (2**region.ndim) - 1)
    return np.argwhere(on_surface) + first, _areas(spacing)[codes[on_surface]]


def _cropped(region: Region) -> tuple[Places, Region]:
    """The smallest box that holds a region, and its first index."""
    ends = []
    for axis in range(region.ndim):
        others = tuple(a for a in range(region.ndim) if a != axis)
        there = np.flatnonzero(region.any(axis=others))
        ends.append((int(there[0]), int(there[-1]) + 1))
    return np.array([low for low, _ in ends]), region[tuple(slice(*each) for each in ends)]


def _codes(region: Region) -> npt.NDArray[np.uint8]:
    """Which of the 2^D voxels around each corner of voxels are inside, as bits in the order of `_corners`."""
    padded = np.pad(region, 1).astype(np.uint8)
    codes = np.zeros([n + 1 for n in region.shape], np.uint8)
    for bit, corner in enumerate(_corners(region.ndim)):
        codes |= padded[tuple(slice(c, c + n) for c, n in zip(corner, codes.shape, strict=True))] << bit
    return codes


def _corners(dimension: int) -> list[Corner]:
    return list(product((0, 1), repeat=dimension))


@lru_cache(maxsize=16)
def _areas(spacing: Spacing) -> Numbers:
    """The area of the surface between 2^D voxels, for every choice of those inside."""
    corners = _corners(len(spacing))
    scale = np.prod(spacing) / np.array(spacing)
    areas = np.zeros(2 ** len(corners))
    for code in range(len(areas)):
        inside = {corner for bit, corner in enumerate(corners) if code >> bit & 1}
        fewer = inside if 2 * len(inside) <= len(corners) else set(corners) - inside
        areas[code] = sum(np.linalg.norm(each * scale) for part in _parts(fewer) for each in _normals(part))
    return areas


def _parts(corners: set[Corner]) -> list[list[Corner]]:
    """The corners in groups that are connected by edges."""
    waiting, parts = set(corners), []
    while waiting:
        part = [waiting.pop()]
        for corner in part:
            near = [other for other in waiting if _axis(corner, other) is not None]
            part += near
            waiting -= set(near)
        parts.append(part)
    return parts


def _normals(part: list[Corner]) -> list[Numbers]:
    """The surface around connected corners of a unit cube, as normals of the length of their area (signs left out)."""
    n = len(part[0])
    axes = np.eye(n)
    diagonal = np.ones(n)
    edges = [axis for pair in product(part, repeat=2) if (axis := _axis(*pair)) is not None and pair[0] < pair[1]]
    if len(part) == 1:
        return [diagonal / 2 ** (2 * n - 3)]
    if len(part) == 2:
        return [(diagonal - axes[edges[0]]) / (n - 1)]
    if len(part) == 3:
        return [axes[({0, 1, 2} - set(edges)).pop()] / 2, diagonal * 3 / 8]
    if len(edges) == 4:
        return [axes[({0, 1, 2} - set(edges)).pop()]]
    ends = [_axis(*pair) for pair in pairwise(_path(part))]
    if len(ends) != 3:
        return [diagonal * 3 / 4]
    return [(diagonal - axes[ends[0]]) / 4, (diagonal - axes[ends[2]]) / 4, diagonal / 2]


def _path(part: list[Corner]) -> list[Corner]:
    """Four corners in the order of a path along edges; fewer where three of them surround the fourth."""
    degree = {corner: sum(_axis(corner, other) is not None for other in part) for corner in part}
    path = [next(corner for corner in part if degree[corner] == 1)]
    while len(path) < len(part):
        after = [each for each in part if each not in path and _axis(path[-1], each) is not None]
        if len(after) != 1:
            break
        path += after
    return path


def _axis(one: Corner, other: Corner) -> int | None:
    """The axis of the edge between two corners; None where there is none."""
    differing = [axis for axis, (a, b) in enumerate(zip(one, other, strict=True)) if a != b]
    return differing[0] if len(differing) == 1 else None


def _sorted(distances: Numbers, areas: Numbers) -> tuple[Numbers, Numbers]:
    order = np.lexsort((areas, distances))
    return distances[order], areas[order]


def _percentile(distances: Numbers, areas: Numbers, percent: float) -> float:
    if not len(distances):
        return float("inf")
    share = np.cumsum(areas) / areas.sum()
    return float(distances[min(int(np.searchsorted(share, percent / 100)), len(distances) - 1)])
