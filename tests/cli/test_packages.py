"""`impactreg models pack`, `install` and `convert`: what they print, write and refuse."""

from pathlib import Path

import pytest

from impactreg.cli import main
from impactreg.models.topology import Topology
from impactreg.parameters import ParameterMap

Capture = pytest.CaptureFixture[str]
TOPOLOGY = Topology(1, 2, (2, 3), ((3, 3),) * 2, ((1, 1), (2, 2)), (1, 1), (1,))


@pytest.fixture
def trained(training, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("IMPACTREG_CACHE", str(tmp_path / "cache"))
    return str(training.write(tmp_path / "results", TOPOLOGY, dataset={"image_orientation": None}))


def test_a_training_is_packed_installed_and_converted(trained: str, tmp_path: Path, capsys: Capture) -> None:
    out = ["-out", str(tmp_path)]
    names = ["--name", "model_seg_t2", "--tag", "r20240915", "--orientation", "RPI"]
    assert main(["models", "pack", trained, *names, *out]) == 0
    package, told = tmp_path / "model_seg_t2-r20240915.zip", capsys.readouterr()
    assert (told.out, told.err) == (f"{package}\n", "")
    assert main(["models", "install", str(package)]) == 0
    installed = tmp_path / "cache" / "packages" / "model_seg_t2-r20240915"
    assert capsys.readouterr().out.startswith(f"{installed}: installed\n  sha256 ")
    assert main(["models", "install", str(package)]) == 0
    assert f"{installed}: is here already" in capsys.readouterr().out
    for source in (installed, package):
        assert main(["models", "convert", str(source), "-out", str(tmp_path / "net.pt")]) == 0
        (tmp_path / "map.txt").write_text(capsys.readouterr().out)
        assert ParameterMap.read(tmp_path / "map.txt").first("ImpactDimension0", "") == "2"


def test_what_is_wrong_with_a_package_is_told(trained: str, tmp_path: Path, capsys: Capture) -> None:
    assert main(["models", "pack", trained, "--name", "model_softseg", "-out", str(tmp_path)]) == 0
    told = capsys.readouterr().err
    assert "softseg is in no vocabulary; it is taken as anatomy" in told
    assert "image_orientation is missing" in told
    (package,) = tmp_path.glob("*.zip")
    for path in (package, trained):
        assert main(["models", "check", str(path)]) == 1
        told_now = capsys.readouterr()
        assert "image_orientation is missing" in told_now.out
        assert "finding" in told_now.err


def test_a_good_package_is_said_to_be_good(training, tmp_path: Path, capsys: Capture) -> None:
    folder = str(training.write(tmp_path / "results", TOPOLOGY))
    assert main(["models", "check", folder]) == 0
    assert "nothing is wrong" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["pack", "{trained}"], 2, "--name"),
        (["pack", "{trained}", "--name", "model_sc", "--tag", "v1"], 1, "rYYYYMMDD"),
        (["pack", "{trained}", "--name", "a/b"], 1, "letters, digits"),
        (["install", "a.zip", "b.zip", "--name", "x"], 2, "install them one after the other"),
        (["install", "nowhere.zip"], 1, "no such file or folder"),
        (["install", "ftp://x/y.zip"], 1, "an address is http"),
        (["convert", "{trained}"], 2, "-out"),
        (["convert", "{trained}", "-out", "{trained}/net.pt", "--orientation", "XYZ"], 1, "three letters"),
    ],
)
def test_mistakes_are_told_in_one_line(
    trained: str, capsys: Capture, arguments: list[str], code: int, said: str
) -> None:
    assert main(["models", *(one.format(trained=trained) for one in arguments)]) == code
    told = capsys.readouterr()
    assert said in told.err
    assert told.err.count("\n") == 1
    assert not told.out


@pytest.mark.parametrize("word", ["pack", "install", "convert"])
def test_each_has_a_help(word: str, capsys: Capture) -> None:
    assert main(["models", word, "--help"]) == 0
    assert f"impactreg models {word}" in capsys.readouterr().out
