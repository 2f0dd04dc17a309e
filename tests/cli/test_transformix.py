"""`impactreg transformix --inverse`."""

from pathlib import Path

import pytest
import torch

from impactreg.cli import main
from impactreg.images import read_image, read_points
from impactreg.parameters import ParameterMap

Capture = pytest.CaptureFixture[str]


@pytest.fixture
def shift(pair: tuple[str, str], tmp_path: Path) -> Path:
    """A file of a translation by (2, 3) mm from the fixed to the moving image."""
    keys = {
        "Transform": "TranslationTransform",
        "TransformParameters": [2, 3],
        "Size": [20, 20],
        "Spacing": [1, 1],
        "Origin": [0, 0],
        "Direction": [1, 0, 0, 1],
        "ResultImageFormat": "nii.gz",
    }
    ParameterMap.from_dict(keys).write(tmp_path / "shift.txt")
    return tmp_path / "shift.txt"


def test_the_inverse_takes_moving_points_back(pair: tuple[str, str], shift: Path, tmp_path: Path) -> None:
    (tmp_path / "p.csv").write_text("x,y\n5,6\n7,8\n")
    out = tmp_path / "out"
    words = ["-def", str(tmp_path / "p.csv"), "-in", pair[0], "-out", str(out), "--inverse", "--reference", pair[1]]
    assert main(["transformix", "-tp", str(shift), *words]) == 0
    assert torch.allclose(read_points(out / "outputpoints.csv").points, torch.tensor([[3.0, 3.0], [5.0, 5.0]]).double())
    result, fixed = read_image(out / "result.nii.gz"), read_image(pair[0])
    assert torch.allclose(result.data[0, 6, 7].float(), fixed.data[0, 3, 5].floor().float(), atol=1)


def test_the_inverse_needs_the_moving_image(shift: Path, tmp_path: Path, capsys: Capture) -> None:
    assert main(["transformix", "-tp", str(shift), "-def", "all", "-out", str(tmp_path / "out"), "--inverse"]) == 1
    assert "give that image as reference (--reference)" in capsys.readouterr().err


def test_a_displacement_field_needs_no_reference(pair: tuple[str, str], shift: Path, tmp_path: Path) -> None:
    field = tmp_path / "field.nii.gz"
    assert main(["convert-transform", "-tp", str(shift), "-out", str(field)]) == 0
    for name, transform in (("a", shift), ("b", field)):
        words = ["transformix", "-tp", str(transform), "-in", pair[1], "-def", "all", "-out", str(tmp_path / name)]
        assert main(words) == 0
    ours, expected = (read_image(tmp_path / name) for name in ("b/deformationField.mhd", "a/deformationField.nii.gz"))
    assert ours.grid.same_as(expected.grid)
    assert torch.allclose(ours.data, expected.data, atol=1e-5)


def test_a_failure_leaves_no_output_folder(shift: Path, tmp_path: Path) -> None:
    assert main(["transformix", "-tp", str(shift), "-in", "none.nii", "-out", str(tmp_path / "new" / "out")]) == 1
    assert not (tmp_path / "new").exists()
