"""`impactreg features`."""

from pathlib import Path

import pytest
import torch

from impactreg.cli import main
from impactreg.images import read_image

Capture = pytest.CaptureFixture[str]
MODEL = ["-model", "MIND/R1D1_2D.pt"]


@pytest.fixture(autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("IMPACTREG_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))


def test_features_are_written_on_the_grid_of_the_image(pair: tuple[str, str], tmp_path: Path, capsys: Capture) -> None:
    out = tmp_path / "mind.nii.gz"
    assert main(["features", "-in", pair[0], *MODEL, "-out", str(out)]) == 0
    found, image = read_image(out), read_image(pair[0])
    assert found.channels == 4
    assert found.grid.same_as(image.grid)
    assert f"{out}: Image(20 x 20 voxels" in capsys.readouterr().out


def test_the_flags_reach_the_engine(pair: tuple[str, str], tmp_path: Path) -> None:
    words = ["-layers", "1", "-patch", "8", "9", "-overlap", "0.5", "-voxel", "2", "-memory", "0.5", "-threads", "1"]
    out = tmp_path / "labels.nii"
    assert main(["features", "-in", pair[0], *MODEL, "-out", str(out), *words, "-labels", "-grid", "image"]) == 0
    found = read_image(out)
    assert found.grid.same_as(read_image(pair[0]).grid)
    assert found.data.dtype == torch.uint8
    small = tmp_path / "components.nii"
    assert main(["features", "-in", pair[0], *MODEL, "-out", str(small), "-voxel", "2", "2", "-pca", "2"]) == 0
    assert (read_image(small).channels, read_image(small).grid.size) == (2, (10, 10))


@pytest.mark.parametrize(
    ("words", "message", "code"),
    [
        (["-model", "MIND/R9.pt"], "MIND/R9.pt: there is no such model file", 1),
        ([*MODEL, "-layers", "01"], "the model returns 1 layer; 2 are asked for", 1),
        ([*MODEL, "-patch", "99999"], "a patch of 99999 x 99999 voxels is more than a model can take", 1),
        ([*MODEL, "-axis", "t"], "invalid choice: 't'", 2),
        ([*MODEL, "-overlaps", "3"], "there is no flag -overlaps; did you mean -overlap?", 2),
        ([*MODEL, "-threads", "0"], "-threads: a number above 0 is needed", 2),
        ([], "the following arguments are required: -model", 2),
    ],
)
def test_mistakes_are_told_in_one_line(
    pair: tuple[str, str], tmp_path: Path, capsys: Capture, words: list[str], message: str, code: int
) -> None:
    assert main(["features", "-in", pair[0], "-out", str(tmp_path / "a.nii"), *words]) == code
    told = capsys.readouterr().err
    assert message in told
    assert told.count("\n") == 1
    assert not (tmp_path / "a.nii").exists()


def test_an_axis_without_effect_is_told(pair: tuple[str, str], tmp_path: Path, capsys: Capture) -> None:
    assert main(["features", "-in", pair[0], *MODEL, "-out", str(tmp_path / "a.nii"), "-axis", "z"]) == 0
    assert "axis z has no effect" in "".join(capsys.readouterr())


def test_an_output_of_another_kind_is_refused(pair: tuple[str, str], tmp_path: Path, capsys: Capture) -> None:
    assert main(["features", "-in", pair[0], *MODEL, "-out", str(tmp_path / "a.txt")]) == 1
    assert '".txt" files cannot be written: use one of nii' in capsys.readouterr().err
