"""Points through a transform, both ways, and what elastix's outputpoints.txt says of them."""

import os
from collections.abc import Sequence
from math import floor
from typing import Any

import numpy as np
import torch
from torch import Tensor

from impactreg.components.transforms.exchange import as_transform, last_map, opened
from impactreg.components.transforms.inverse import InversePoints, inverse_points
from impactreg.components.transforms.transform import Combination
from impactreg.errors import TransformError
from impactreg.images import Grid, PointSet, read_points
from impactreg.parameters import ParameterMap


def transform_points(transform: Any, points: Any, *, inverse: bool = False) -> Any:
    """World points (mm, LPS) of the fixed image mapped to the moving image, or with `inverse` back again.

    `transform` is whatever `transformix` takes, also without a grid. `points` are a tensor or array [N, 2 or 3], a
    `PointSet`, or a point file of world points; the answer is the same kind of thing (for a file a `PointSet`). Raises
    `TransformError` where points have no inverse, naming the first of them, and `PointsError` for what are no points.
    """
    combination = open_transform(transform)[0]
    given = read_points(points) if isinstance(points, str | os.PathLike) else points
    rows = given.points if isinstance(given, PointSet) else PointSet(torch.as_tensor(np.asarray(given))).points
    check_points(combination, rows.shape[1])
    if inverse:
        result = inverse_points(combination, rows)
        if not bool(result.found.all()):
            raise TransformError(without_inverse(result))
        moved = result.points
    else:
        moved = combination(rows)
    if isinstance(given, PointSet):
        return PointSet(moved)
    return moved if isinstance(given, Tensor) else moved.numpy()


def open_transform(transform: Any) -> tuple[Combination, ParameterMap]:
    """Whatever `transformix` takes as a transform, with the map that holds its grid and resampler, or an empty one."""
    transform = opened(transform)
    return as_transform(transform), last_map(transform) or ParameterMap.from_dict({}, "this transform")


def check_points(transform: Combination, dimension: int) -> None:
    """Raises `TransformError` for points of another dimension than the transform's."""
    if dimension != transform.dimension:
        raise TransformError(
            f"the points are {dimension}D, but the transform is {transform.dimension}D; give points of "
            f"{transform.dimension} coordinates"
        )


def without_inverse(found: InversePoints) -> str:
    """Which points have no inverse, by how much they are missed, and which lie in folds."""
    bad = (~found.found).nonzero()[:, 0].tolist()
    shown = ", ".join(map(str, bad[:10])) + (" ..." if len(bad) > 10 else "")
    folds, worst = int(found.folded.sum()), float(found.residuals.max())
    return (
        f"{len(bad)} of {len(found.points)} points have no sure inverse (numbers {shown}, from 0): the transform "
        f"misses them by up to {worst:.3g} mm, and folds at {folds} of them"
    )


def point_lines(given: PointSet, result: PointSet, fixed: Grid, moving: Grid | None = None) -> str:
    """The lines of elastix's outputpoints.txt: indices of the nearest voxels, coordinates with six decimals."""
    indices = [_nearest(fixed, given), _nearest(fixed, result)]
    moving_indices = None if moving is None else _nearest(moving, result)
    lines = []
    for k, (point, image) in enumerate(zip(given.points.tolist(), result.points.tolist(), strict=True)):
        cells = [
            ("InputIndex", indices[0][k]),
            ("InputPoint", point),
            ("OutputIndexFixed", indices[1][k]),
            ("OutputPoint", image),
            ("Deformation", [after - before for before, after in zip(point, image, strict=True)]),
        ]
        if moving_indices is not None:
            cells.append(("OutputIndexMoving", moving_indices[k]))
        lines.append(f"Point\t{k}" + "".join(f"\t; {name} = [ {_spaced(values)}]" for name, values in cells) + "\n")
    return "".join(lines)


def _spaced(values: Sequence[float]) -> str:
    return "".join(f"{value} " if isinstance(value, int) else f"{value:.6f} " for value in values)


def _nearest(grid: Grid, points: PointSet) -> list[list[int]]:
    return [[floor(i + 0.5) for i in row] for row in grid.world_to_index(points.points).tolist()]
