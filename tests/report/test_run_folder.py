from __future__ import annotations

import math
from pathlib import Path

import pytest

from impactreg.errors import OutputError
from impactreg.report.run_folder import RunFolder, table_of


def test_a_finished_run_is_read_back(finished: Path) -> None:
    run = RunFolder.read(finished)
    (stage,) = run.stages
    assert [len(table["2:Metric"]) for table in stage.levels] == [12, 12]
    assert stage.caption == "stage 0: BSplineTransform by Impact"
    assert stage.stop_reasons == ("Maximum number of iterations has been reached.",) * 2
    assert run.result_file == finished / "result.0.nii.gz"
    assert run.seconds


def test_images_are_found_where_the_command_line_says(finished: Path, pair: Path) -> None:
    assert RunFolder.read(finished).located("-f") == pair / "fixed.nii.gz"


def test_relative_images_are_found_from_where_the_command_was_called(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "work" / "a" / "out"
    out.mkdir(parents=True)
    (out / "TransformParameters.0.txt").write_text('(Transform "EulerTransform")\n', encoding="utf-8")
    (out / "elastix.log").write_text(
        "impactreg 0.1.0\ncommand line: impactreg -f images/f.nii -m m.nii -out a/out\n\n", encoding="utf-8"
    )
    image = tmp_path / "work" / "images" / "f.nii"
    image.parent.mkdir()
    image.touch()
    monkeypatch.chdir(tmp_path)
    assert RunFolder.read(out).located("-f") == image
    assert RunFolder.read(out).located("-m") is None


def test_a_table_gets_its_columns_and_what_is_missing_is_no_number() -> None:
    table = table_of(["1:ItNr\t2:Metric\tTime[ms]", "0\t1.5\t3.0", "1\t", ""])
    assert table["2:Metric"][0] == 1.5
    assert math.isnan(table["2:Metric"][1])
    assert math.isnan(table["Time[ms]"][1])
    assert table_of([]) == {}


def test_a_folder_without_a_transform_is_refused(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="give the output folder"):
        RunFolder.read(tmp_path)


def test_places_that_cannot_be_looked_into_hold_nothing(tmp_path: Path) -> None:
    (tmp_path / "TransformParameters.0.txt").write_text('(Transform "EulerTransform")\n', encoding="utf-8")
    long = "x" * 5000
    (tmp_path / "elastix.log").write_text(
        f"impactreg 0.1.0\ncommand line: impactreg -f {long} -m a\0b --models {long}\n\n", encoding="utf-8"
    )
    run = RunFolder.read(tmp_path)
    assert run.located("-f") is None
    assert run.located("-m") is None
    assert run.model_folders() == ()
