from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch

from impactreg.components.resampling import Output
from impactreg.components.transforms.files import transform_map
from impactreg.components.transforms.linear import TranslationTransform
from impactreg.components.transforms.transform import Combination
from impactreg.errors import ImageError, PointsError
from impactreg.evaluation import evaluate
from impactreg.images import Grid, Image, PointSet, write_points
from impactreg.parameters import ParameterMap
from impactreg.report.scores import DICE, LANDMARKS, Truth, checks, evaluated

GRID = Grid.of((12, 10, 8))
OUTPUT = Output.of(ParameterMap.from_dict({}), GRID)
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
    found = truth.scores(SHIFT, OUTPUT)
    assert found[LANDMARKS] == pytest.approx((2.0, 0.0), abs=1e-5)
    assert found[DICE] == pytest.approx((0.5, 1.0))


def test_figures_are_those_of_an_evaluation_whatever_the_directions(tmp_path: Path) -> None:
    turn = [[0, -1, 0], [1, 0, 0], [0, 0, 1]]
    fixed, moving = Grid.of((12, 10, 8), direction=turn), Grid.of((12, 10, 8), (2, 1, 1), direction=turn)
    parameters = ParameterMap.from_dict({"UseDirectionCosines": False})
    labels = torch.zeros(8, 10, 12, dtype=torch.uint8)
    labels[2:6, 2:8, 2:6] = 3
    (tmp_path / "fixed.txt").write_text("index\n2\n1 2 3\n4 5 6\n")
    (tmp_path / "moving.txt").write_text("index\n2\n2 2 3\n4 5 7\n")
    given = tmp_path / "fixed.txt", tmp_path / "moving.txt", Image(labels[None], fixed), Image(labels[None], moving)
    output = Output.of(parameters, fixed)
    found = Truth(*given).scores(SHIFT, output, moving.without_direction())
    map_of_shift = transform_map(SHIFT, output, parameters)
    names = ("fixed_points", "moving_points", "fixed_labels", "moving_labels")
    expected = evaluate(map_of_shift, **dict(zip(names, given, strict=True)))
    assert expected.errors_before is not None
    assert expected.errors is not None
    assert found[LANDMARKS] == pytest.approx((expected.errors_before.mean, expected.errors.mean))
    assert found[DICE] == pytest.approx((expected.overlaps_before[0].dice, expected.overlaps[0].dice))


def test_labels_of_another_dimension_are_refused() -> None:
    labels = Image.of(torch.ones(8, 10, dtype=torch.uint8))
    with pytest.raises(ImageError, match="fixed labels: they are 2D, but the transform is 3D"):
        Truth(fixed_labels=labels, moving_labels=labels).scores(SHIFT, OUTPUT)


def test_whether_things_lie_nearer_is_told_in_words() -> None:
    better = list(checks({LANDMARKS: (9.0, 1.25), DICE: (0.5, 0.75), "other": 3.0}))
    assert [each.good for each in better] == [True, True]
    assert better[0].text == "Landmarks lie more closely together than before: 9 mm to 1.25 mm."
    worse = list(checks({LANDMARKS: (9.0, 13.5), DICE: (0.5, 0.5)}))
    assert [each.good for each in worse] == [False, False]
    assert worse[1].text == "Labels overlap not more than before: 0.5 to 0.5."
    assert list(checks({LANDMARKS: 3.0, DICE: (0.5, math.nan)})) == []


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
