"""Tells how far landmarks are from where they belong (target registration error, millimetres), before and after.

    python tools/demo_tre.py FIXED_POINTS MOVING_POINTS TRANSFORMED_POINTS

The first two are elastix point files whose k-th lines are the same place; the third is the `outputpoints.txt` that
transformix writes for the fixed points.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


def main(fixed: Path, moving: Path, transformed: Path) -> None:
    """Print one line for before, one for after."""
    truth = read_points(moving)
    print(f"{'TRE (mm)':<24}{'mean':>8}{'median':>8}{'95 %':>8}")
    for label, points in (
        ("before registration", read_points(fixed)),
        ("after registration", read_output(transformed)),
    ):
        if points.shape != truth.shape:
            raise SystemExit(f"{moving} has {len(truth)} points, {label} there are {len(points)}")
        distances = np.linalg.norm(points - truth, axis=1)
        print(f"{label:<24}{distances.mean():8.2f}{np.median(distances):8.2f}{np.quantile(distances, 0.95):8.2f}")


def read_points(path: Path) -> Array:
    """Read an elastix point file: `point`, the count, one point a line."""
    return np.loadtxt(path, skiprows=2, ndmin=2)


def read_output(path: Path) -> Array:
    """Read the OutputPoint of each line of transformix's `outputpoints.txt`."""
    found = re.findall(r"OutputPoint = \[([^\]]*)\]", path.read_text(encoding="utf-8"))
    return np.array([line.split() for line in found], dtype=float)


if __name__ == "__main__":
    if len(sys.argv) != 4:
        raise SystemExit("usage: python tools/demo_tre.py FIXED_POINTS MOVING_POINTS TRANSFORMED_POINTS")
    main(*map(Path, sys.argv[1:]))
