"""`impactreg evaluate`."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from impactreg.cli import main
from impactreg.images import Image, write_image, write_points
from impactreg.parameters import ParameterMap

Capture = pytest.CaptureFixture[str]
FIXED_POINTS = torch.tensor([[5.0, 6], [7, 8], [9, 4]])


@pytest.fixture
def case(tmp_path: Path) -> Path:
    """A folder with a translation by (2, 3) mm, landmarks that it maps exactly, and labels."""
    keys = {"Transform": "TranslationTransform", "TransformParameters": [2, 3]}
    grid = {"Size": [20, 20], "Spacing": [1, 1], "Origin": [0, 0], "Direction": [1, 0, 0, 1]}
    ParameterMap.from_dict({**keys, **grid}).write(tmp_path / "shift.txt")
    ParameterMap.from_dict({**keys, "TransformParameters": [-2, -3], **grid}).write(tmp_path / "back.txt")
    write_points(FIXED_POINTS, tmp_path / "fixed.csv")
    write_points(FIXED_POINTS + torch.tensor([2.0, 3]), tmp_path / "moving.txt")
    labels = np.zeros((20, 20), np.uint8)
    labels[4:9, 5:11] = 1
    write_image(Image.of(labels), tmp_path / "fixed_labels.nii.gz")
    write_image(Image.of(np.roll(labels, (3, 2), (0, 1))), tmp_path / "moving_labels.nii.gz")
    return tmp_path


def words(case: Path, *names: str) -> list[str]:
    files = {"-tp": "shift.txt", "-fp": "fixed.csv", "-mp": "moving.txt", "-inv": "back.txt"}
    files |= {"-fl": "fixed_labels.nii.gz", "-ml": "moving_labels.nii.gz"}
    return [word for name in names for word in (name, str(case / files[name]))]


def test_a_table_tells_before_and_after(case: Path, capsys: Capture) -> None:
    assert main(["evaluate", *words(case, "-tp", "-fp", "-mp", "-fl", "-ml", "-inv"), "-out", str(case / "out")]) == 0
    told = capsys.readouterr().out
    rows = {tuple(line.split()[:-2])[:2]: line.split() for line in told.splitlines() if line.strip()}
    assert rows["TRE", "mean"][2:] == ["3.606", "0", "mm"]
    assert rows["Dice", "1"][-1] == "1.000"
    assert "\x1b" not in told
    content = json.loads((case / "out" / "evaluation.json").read_text())
    assert content["labels"]["after"]["1"] == {"dice": 1.0, "hd95_mm": 0.0, "asd_mm": 0.0}
    assert content["deformation"]["folding"] == 0
    assert content["inverse_consistency_mm"]["max"] == 0
    assert (case / "out" / "evaluation.csv").read_text().startswith("case,convention,measure")


def test_without_a_transform_the_table_tells_how_things_are(case: Path, capsys: Capture) -> None:
    assert main(["evaluate", *words(case, "-fp", "-mp")]) == 0
    assert "TRE mean" in capsys.readouterr().out


def test_labels_are_chosen(case: Path, capsys: Capture) -> None:
    assert main(["evaluate", *words(case, "-fl", "-ml"), "--labels", "2"]) == 1
    assert capsys.readouterr().err == (
        "impactreg: error: no label of 2 is in both label images: the fixed one has 1, the moving one 1\n"
    )


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ([], "there is nothing to evaluate: give -tp, -fp and -mp, -fl and -ml, or --dataset and --fields"),
        (["--dataset", "a.json"], "--dataset needs --fields"),
        (["--fields", "a"], "go with --dataset"),
        (["--dataset", "a.json", "--fields", "a", "-tp", "b"], "--dataset goes with --fields"),
        (["-fpp", "a"], "there is no flag -fpp; did you mean -fp?"),
    ],
)
def test_a_command_line_that_makes_no_sense_is_one_line(flags: list[str], message: str, capsys: Capture) -> None:
    assert main(["evaluate", *flags]) == 2
    told = capsys.readouterr().err
    assert message in told
    assert told.count("\n") == 1


def test_one_side_of_a_pair_is_told(case: Path, capsys: Capture) -> None:
    assert main(["evaluate", *words(case, "-tp", "-fp")]) == 1
    assert "landmarks come in pairs: give the moving ones (-mp), too" in capsys.readouterr().err


def test_a_task_has_a_row_for_each_case(tmp_path: Path, capsys: Capture) -> None:
    for folder in ("imagesTr", "fields"):
        (tmp_path / folder).mkdir()
    images = [f"./imagesTr/Task_0001_000{k}.nii.gz" for k in (0, 1)]
    for image in images:
        write_image(Image.of(np.zeros((6, 7, 8), np.float32)), tmp_path / image)
    np.savez(tmp_path / "fields" / "disp_0001_0001.npz", np.zeros((8, 7, 6, 3), np.float32))
    content = {"name": "Task", "registration_val": [{"fixed": images[0], "moving": images[1]}]}
    (tmp_path / "Task_dataset.json").write_text(json.dumps(content))
    flags = ["--dataset", str(tmp_path / "Task_dataset.json"), "--fields", str(tmp_path / "fields")]
    assert main(["evaluate", *flags]) == 0
    told = capsys.readouterr().out
    assert "LogJacDetStd" in told
    assert "0001_0000<--0001_0001" in told


def test_names_are_no_markup(tmp_path: Path, capsys: Capture) -> None:
    for folder in ("imagesTr", "fields"):
        (tmp_path / folder).mkdir()
    images = [f"./imagesTr/Task_0001_000{k}.nii.gz" for k in (0, 1)]
    np.savez(tmp_path / "fields" / "disp_0001_0001.npz", np.zeros((8, 7, 6, 3), np.float32))
    methods = [{"name": "[/red] :smile:", "metric": "sdlogj"}]
    pairs = [{"fixed": images[0], "moving": images[1]}]
    content = {"task_name": "Task", "evaluation_methods": methods, "eval_pairs": pairs}
    (tmp_path / "config.json").write_text(json.dumps(content))
    flags = ["--dataset", str(tmp_path / "config.json"), "--fields", str(tmp_path / "fields")]
    assert main(["evaluate", *flags]) == 0
    assert "[/red] :smile:" in capsys.readouterr().out


def test_help_needs_nothing_heavy() -> None:
    code = "import sys; from impactreg.cli import main; main(['evaluate', '--help']); "
    code += "main(['convert-transform', '--help']); "
    code += "sys.exit(len({'torch', 'numpy', 'nibabel', 'itk', 'rich'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, check=False).returncode == 0
