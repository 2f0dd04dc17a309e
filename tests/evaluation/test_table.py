"""Evaluations as rows, CSV and JSON."""

import csv
import json
from pathlib import Path

import pytest
import torch

from impactreg.errors import OutputError
from impactreg.evaluation import Deformation, Distances, Evaluation, LabelOverlap, Learn2RegFigures, rows_of
from impactreg.evaluation.table import content_of, text_of, write_results

NAN, INF = float("nan"), float("inf")
WHOLE = Evaluation(
    errors_before=Distances(torch.tensor([4.0, 6.0])),
    errors=Distances(torch.tensor([1.0, 2.0])),
    overlaps_before=(LabelOverlap(1, 0.5, 3.0, 1.0), LabelOverlap(2, 0.0, INF, INF)),
    overlaps=(LabelOverlap(1, 0.75, 2.0, 0.5), LabelOverlap(2, 0.25, 1.0, 0.5)),
    deformation=Deformation(0.1, 0.0, 0.5, 1.0, 2.0, 99),
    inverse_consistency=Distances(torch.zeros(3)),
    learn2reg=Learn2RegFigures(0.05, (1.0, 2.0), {1: 0.7, 2: NAN}, {1: 1.0, 2: NAN}),
)


def test_every_figure_is_a_row() -> None:
    rows = {(row.convention, row.measure, row.label): (row.before, row.after, row.unit) for row in rows_of(WHOLE)}
    assert len(rows) == len(rows_of(WHOLE))
    assert rows["", "TRE mean", ""] == (5.0, 1.5, "mm")
    assert rows["", "TRE30", ""] == pytest.approx((5.4, 1.7, "mm"))
    assert rows["", "Dice", "1"] == (0.5, 0.75, "")
    assert rows["", "Dice", "mean"] == (0.25, 0.5, "")
    assert rows["", "HD95", "2"] == (INF, 1.0, "mm")
    assert rows["", "folding", ""] == (None, 0.0, "")
    assert rows["", "inverse consistency max", ""] == (None, 0.0, "mm")
    assert rows["Learn2Reg", "TRE", ""] == (None, 1.5, "mm")
    assert rows["Learn2Reg", "DSC", "mean"] == (None, 0.7, "")
    assert rows["Learn2Reg", "HD95", "1"] == (None, 1.0, "voxels")


def test_csv_holds_the_rows_in_full() -> None:
    read = list(csv.DictReader(text_of(rows_of(WHOLE)).splitlines()))
    assert read[0] == {
        "case": "",
        "convention": "",
        "measure": "TRE mean",
        "label": "",
        "before": "5.0",
        "after": "1.5",
        "unit": "mm",
    }
    assert next(row["before"] for row in read if row["measure"] == "folding") == ""


def test_json_holds_what_was_measured_and_no_more() -> None:
    content = json.loads(json.dumps(content_of(WHOLE), allow_nan=False))
    assert content["tre_mm"]["after"]["landmarks"] == [1.0, 2.0]
    assert content["labels"]["before"]["2"]["hd95_mm"] is None
    assert content["deformation"]["voxels"] == 99
    assert content["inverse_consistency_mm"]["max"] == 0
    assert content["learn2reg"]["dice"] == {"1": 0.7, "2": None}
    assert content_of(Evaluation()) == {}


def test_both_files_appear_or_neither(tmp_path: Path) -> None:
    paths = write_results(WHOLE, tmp_path / "new" / "folder")
    assert [path.name for path in paths] == ["evaluation.csv", "evaluation.json"]
    assert sorted(each.name for each in (tmp_path / "new" / "folder").iterdir()) == [path.name for path in paths]
    (tmp_path / "other" / "evaluation.json").mkdir(parents=True)
    with pytest.raises(OutputError, match="this is a folder"):
        write_results(WHOLE, tmp_path / "other")
    assert [each.name for each in (tmp_path / "other").iterdir()] == ["evaluation.json"]


def test_a_file_is_no_folder(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match="the output folder cannot be made: it is a file"):
        write_results(WHOLE, tmp_path / "file")
