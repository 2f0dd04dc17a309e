"""`impactreg report`: the flags; the page itself is tested where it is made."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from impactreg.cli import main

Capture = pytest.CaptureFixture[str]


def test_help_imports_nothing_heavy_and_fits_a_screen() -> None:
    code = (
        "import sys\nfrom impactreg.cli import main\n"
        "main(['report', '--help'])\n"
        "assert not {'torch', 'numpy', 'jinja2', 'PIL', 'itk'} & set(sys.modules)\n"
    )
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
    assert "impactreg report result -f fixed.nii.gz -m moving.nii.gz" in ended.stdout
    assert len(ended.stdout.splitlines()) <= 40


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "DIR"),
        (["out", "-fp", "a.txt"], "-fp and -mp go together"),
        (["out", "-ml", "a.nii"], "-fl and -ml go together"),
        (["out", "-fixed", "a.nii"], "there is no flag -fixed"),
        (["out", "-threads", "0"], "a number above 0 is needed"),
    ],
)
def test_flags_that_make_no_sense_are_told(arguments: list[str], said: str, capsys: Capture) -> None:
    assert main(["report", *arguments]) == 2
    assert said in capsys.readouterr().err


def test_a_folder_without_a_registration_is_told_in_one_line(tmp_path: Path, capsys: Capture) -> None:
    pytest.importorskip("jinja2", reason="the extra `report` is not installed")
    assert main(["report", str(tmp_path)]) == 1
    assert capsys.readouterr().err.count("\n") == 1


def test_a_finished_registration_gets_its_page(
    pair: tuple[str, str], write_map: Callable[..., Path], tmp_path: Path, capsys: Capture
) -> None:
    pytest.importorskip("jinja2", reason="the extra `report` is not installed")
    out = tmp_path / "out"
    flags = ["-f", pair[0], "-m", pair[1], "-p", str(write_map()), "-out", str(out), "--engine", "torch"]
    assert main([*flags, "-loglevel", "info"]) == 0
    assert main(["report", str(out), "-loglevel", "warning"]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == str(out / "report.html")
    page = (out / "report.html").read_text(encoding="utf-8")
    assert "moving.nii.gz" in page
    assert "There are no pictures" not in page
