from __future__ import annotations

from pathlib import Path

import pytest
import torch

from impactreg.components.transforms.linear import TranslationTransform
from impactreg.components.transforms.transform import Combination
from impactreg.errors import ImageError, PointsError
from impactreg.images import Grid, Image, PointSet, write_points
from impactreg.report.scores import DICE, LANDMARKS, Truth, evaluated

GRID = Grid.of((12, 10, 8))
SHIFT = Combination(TranslationTransform(torch.tensor([2.0, 0, 0]).double(), torch.zeros(3).double()))


def test_landmarks_and_labels_are_told_before_and_after(tmp_path: Path) -> None:
    points = torch.rand(5, 3, dtype=torch.float64) * 5
    for name, moved in (("fixed", points), ("moving", SHIFT(points))):
        write_points(PointSet(moved), tmp_path / f"{name}.txt")
    labels = torch.zeros(8, 10, 12, dtype=torch.uint8)
    labels[2:6, 2:8, 2:6] = 3
    truth = Truth(
        tmp_path / "fixed.txt", tmp_path / "moving.txt", Image(labels[None], GRID), Image(labels.roll(2, 2)[None], GRID)
    )
    found = truth.scores(SHIFT, GRID)
    assert found[LANDMARKS] == pytest.approx((2.0, 0.0), abs=1e-5)
    assert found[DICE] == pytest.approx((0.5, 1.0))


def test_one_of_two_is_refused() -> None:
    with pytest.raises(PointsError, match="give -fp and -mp"):
        Truth(fixed_points="a.txt")
    with pytest.raises(ImageError, match="give -fl and -ml"):
        Truth(moving_labels="a.nii")


def test_an_evaluation_in_the_folder_is_read(tmp_path: Path) -> None:
    (tmp_path / "evaluation.csv").write_text(
        "case,convention,measure,label,before,after,unit\n,,TRE mean,,12.5,1.25,mm\n,,Dice,3,0.1,0.2,\n"
        ",,Dice,mean,0.5,0.9,\n,,SDlogJ,,,0.1,\n",
        encoding="utf-8",
    )
    assert evaluated(tmp_path) == {LANDMARKS: (12.5, 1.25), DICE: (0.5, 0.9)}
    assert evaluated(tmp_path / "none") == {}
