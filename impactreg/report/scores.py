"""Landmarks and labels in numbers, before and after; and what an evaluation has already left in the folder."""

import csv
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

from impactreg.components.labels import warp_labels
from impactreg.components.resampling import Output
from impactreg.components.transforms.transform import Combination, Points
from impactreg.errors import ImageError, PointsError
from impactreg.evaluation.landmarks import registration_errors
from impactreg.evaluation.overlap import LabelOverlap, common_labels, label_overlaps
from impactreg.images import Grid, as_image, read_points
from impactreg.report.verdict import Check, Number

LANDMARKS, DICE = "Landmark error, mm", "Dice"
EVALUATION = "evaluation.csv"
_MEASURES = {("TRE mean", ""): LANDMARKS, ("Dice", "mean"): DICE}
"""Which rows of an evaluation, by measure and label, are shown, and by what name."""


@dataclass(frozen=True)
class Truth:
    """What is known of the anatomy: files of corresponding landmarks, and label images of both; None is not given.

    Raises `PointsError` or `ImageError` where only one of two is given.
    """

    fixed_points: Any = None
    moving_points: Any = None
    fixed_labels: Any = None
    moving_labels: Any = None

    def __post_init__(self) -> None:
        if (self.fixed_points is None) != (self.moving_points is None):
            raise PointsError("landmarks of both images are needed: give -fp and -mp")
        if (self.fixed_labels is None) != (self.moving_labels is None):
            raise ImageError("labels of both images are needed: give -fl and -ml")

    def scores(self, transform: Combination, output: Output, moving: Grid | None = None) -> dict[str, Number]:
        """Mean distance of landmarks (mm) and mean Dice, each before and after, in the world that the transform sees.

        `moving` is the moving image's grid there, which files of voxel indices need.
        """
        found: dict[str, Number] = {}
        if self.fixed_points is not None:
            fixed = read_points(self.fixed_points, grid=output.working_grid)
            pair = fixed, read_points(self.moving_points, grid=moving, dimension=transform.dimension)
            found[LANDMARKS] = (registration_errors(*pair).mean, registration_errors(*pair, transform).mean)
        if self.fixed_labels is not None:
            found[DICE] = self._dice(transform, output)
        return found

    def _dice(self, transform: Combination, output: Output) -> tuple[float, float]:
        given = (self.fixed_labels, "fixed labels"), (self.moving_labels, "moving labels")
        fixed, moving = (output.seen(as_image(each, name=name)) for each, name in given)
        for image, (_, name) in zip((fixed, moving), given, strict=True):
            if image.dimension != transform.dimension:
                raise ImageError(f"{name}: they are {image.dimension}D, but the transform is {transform.dimension}D")
        chosen = common_labels(fixed, moving)
        before, after = (warp_labels(moving, each, fixed.grid) for each in (_unmoved, transform))
        return _mean(label_overlaps(fixed, before, chosen)), _mean(label_overlaps(fixed, after, chosen))


def checks(numbers: Mapping[str, Number]) -> Iterator[Check]:
    """Whether landmarks and labels lie nearer to each other than before, as far as both is known."""
    for name, what, unit in ((LANDMARKS, "Landmarks lie {} closely together", " mm"), (DICE, "Labels overlap {}", "")):
        pair = numbers.get(name)
        if not isinstance(pair, tuple) or not all(map(math.isfinite, pair)):
            continue
        before, after = pair
        good = after < before if name == LANDMARKS else after > before
        told = f"{before:.3g}{unit} to {after:.3g}{unit}"
        yield Check(good, f"{what.format('more' if good else 'not more')} than before: {told}.")


def evaluated(directory: Path) -> dict[str, Number]:
    """The means that `impactreg evaluate -out` has written into a folder; empty where it has not."""
    try:
        with (directory / EVALUATION).open(encoding="utf-8", newline="") as file:
            return dict(_rows(csv.DictReader(file)))
    except (OSError, UnicodeDecodeError, csv.Error):
        return {}


def _rows(rows: "csv.DictReader[str]") -> Iterator[tuple[str, Number]]:
    for row in rows:
        name = _MEASURES.get((row.get("measure") or "", row.get("label") or ""))
        before, after = (_number(row.get(key)) for key in ("before", "after"))
        if name and not row.get("case") and after is not None:
            yield name, after if before is None else (before, after)


def _number(text: str | None) -> float | None:
    try:
        return float(text or "")
    except ValueError:
        return None


def _unmoved(points: Points) -> Points:
    return points


def _mean(overlaps: Sequence[LabelOverlap]) -> float:
    values = [each.dice for each in overlaps if math.isfinite(each.dice)]
    return fmean(values) if values else math.nan
