"""Verbs, exit codes, and one line for every mistake."""

import gzip
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from impactreg.cli import VERBS, main
from impactreg.images import Image, read_image, write_image
from impactreg.parameters import ParameterMap

WriteMap = Callable[..., Path]
Blob = Callable[..., Image]
Capture = pytest.CaptureFixture[str]


def test_help_names_flags_and_verbs(capsys: Capture) -> None:
    assert main(["--help"]) == 0
    told = capsys.readouterr().out
    assert all(word in told for word in ("-fMask", "-t0", "--engine", *VERBS))


def test_every_verb_has_help_of_its_own(capsys: Capture) -> None:
    for verb in VERBS:
        assert main([verb, "--help"]) == 0
    assert "-jacmat" in capsys.readouterr().out


def test_the_version_is_told(capsys: Capture) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out.startswith("impactreg ")


def test_help_imports_nothing_heavy() -> None:
    code = (
        "import sys\nfrom impactreg.cli import main\nmain(['--help'])\n"
        "found = {'torch', 'itk', 'numpy', 'pydantic', 'rich', 'nibabel'} & set(sys.modules)\nassert not found, found"
    )
    subprocess.run([sys.executable, "-c", code], check=True, stdout=subprocess.DEVNULL)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("", "the following arguments are required: -f, -m"),
        ("-f a -m b -p c", "the following arguments are required: -out"),
        ("transformx -tp a", "there is no verb transformx; did you mean transformix?"),
        ("-f a -m b -p c -out d -fmask k", "there is no flag -fmask; did you mean -fMask?"),
        ("transformix -tp a -out b", "there is nothing to do: give -in, -def, -jac all or -jacmat all"),
    ],
)
def test_a_command_that_makes_no_sense_ends_with_2(words: str, message: str, capsys: Capture) -> None:
    assert main(words.split()) == 2
    helped = "impactreg transformix" if words.startswith("transformix ") else "impactreg"
    assert capsys.readouterr() == ("", f"impactreg: error: {message}; see {helped} --help\n")


def test_a_registration_leaves_elastix_files_and_prints_elastix_rows(
    pair: tuple[str, str], write_map: WriteMap, tmp_path: Path, capsys: Capture
) -> None:
    out = tmp_path / "new" / "out"
    first, second = write_map("first.txt"), write_map("second.txt", NumberOfResolutions=1, RandomSeed=7)
    words = ["-f", pair[0], "-m", pair[1], "-p", str(first), "-p", str(second), "-out", str(out)]
    assert main([*words, "--engine", "torch", "-priority", "high"]) == 0
    told = capsys.readouterr()
    assert told.err == ""
    lines = told.out.splitlines()
    assert lines[0].startswith("impactreg ")
    assert "-priority high has no effect" in lines
    headers = [line for line in lines if line.startswith("1:ItNr\t2:Metric") and line.endswith("\tTime[ms]")]
    rows = [line.split("\t") for line in lines if line[:1].isdigit() and not line.startswith("1:ItNr")]
    assert (len(headers), [int(row[0]) for row in rows]) == (3, [0, 1, 2] * 3)
    assert all(float(row[-1]) >= 0 for row in rows)
    names = {file.name for file in out.iterdir()}
    assert {
        "TransformParameters.0.txt",
        "TransformParameters.1.txt",
        "result.1.nii.gz",
        "IterationInfo.0.R1.txt",
    } <= names
    log = (out / "elastix.log").read_text()
    assert log.startswith("impactreg ")
    assert f"command line: impactreg -f {pair[0]}" in log
    assert "device: cpu" in log
    assert "random seeds: 121212, 7" in log
    assert log.count("=============== start of ParameterMap ===============") == 2
    assert '(Transform "TranslationTransform")' in log
    assert log.count("Stopping condition: ") == 3


@pytest.mark.parametrize(("level", "rows"), [("info", True), ("warning", False), ("error", False), ("off", False)])
def test_loglevel_governs_what_is_told(
    level: str, rows: bool, pair: tuple[str, str], write_map: WriteMap, tmp_path: Path, capsys: Capture
) -> None:
    out = tmp_path / "out"
    path = write_map(NumberOfResolutions=1, NumberOfSpatialSample=10)
    words = ["-f", pair[0], "-m", pair[1], "-p", str(path), "-out", str(out), "--engine", "torch", "-loglevel", level]
    assert main(words) == 0
    told = capsys.readouterr()
    assert ("1:ItNr" in told.out) == rows
    assert ("NumberOfSpatialSample" in told.err) == (level in ("info", "warning"))
    assert ("NumberOfSpatialSample ...) is not read" in (out / "elastix.log").read_text()) == (
        level in ("info", "warning")
    )


def test_check_tells_the_plan_and_registers_nothing(
    pair: tuple[str, str], write_map: WriteMap, tmp_path: Path, capsys: Capture
) -> None:
    ours = write_map("ours.txt", Optimizer="Adam", MaximumNumberOfIteration=5)
    both = write_map("both.txt", NumberOfResolutions=1)
    words = ["-f", pair[0], "-m", pair[1], "-p", str(ours), str(both), "-out", str(tmp_path / "out"), "--check"]
    assert main(words) == 0
    told = capsys.readouterr().out
    assert f"stage 0: {ours}, by PyTorch, 2 resolutions" in told
    assert f"stage 1: {both}, by itk-elastix, 1 resolution\n" in told
    assert "did you mean MaximumNumberOfIterations?" in told
    assert "Metric              AdvancedMeanSquares" in told
    assert not (tmp_path / "out").exists()


def test_transformix_applies_what_was_written(
    pair: tuple[str, str], write_map: WriteMap, tmp_path: Path, capsys: Capture
) -> None:
    out, applied = tmp_path / "out", tmp_path / "applied"
    words = ["-f", pair[0], "-m", pair[1], "-p", str(write_map()), "-out", str(out), "--engine", "torch"]
    assert main([*words, "-loglevel", "off"]) == 0
    transform = str(out / "TransformParameters.0.txt")
    assert (
        main(["transformix", "-tp", transform, "-in", pair[1], "-def", "all", "-jac", "all", "-out", str(applied)]) == 0
    )
    names = {file.name for file in applied.iterdir()}
    assert names == {"result.nii.gz", "deformationField.nii.gz", "spatialJacobian.nii.gz", "transformix.log"}
    expected, found = (read_image(folder).numpy() for folder in (out / "result.0.nii.gz", applied / "result.nii.gz"))
    np.testing.assert_allclose(found, expected, atol=1e-4)
    assert "Results are in" in capsys.readouterr().out


def text(content: "str | bytes") -> Callable[[Path], str]:
    def write(folder: Path) -> str:
        path = folder / "broken.txt"
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return str(path)

    return write


MAPS = {
    "truncated": (text('(Transform "TranslationTransform")\n(Metric "Adv'), "broken.txt:2: "),
    "binary": (text(bytes(range(256)) * 40), "broken.txt:2: this is not text in UTF-8"),
    "parentheses": (text("(" * 10_000_000), "broken.txt:1: "),
    "empty": (text(""), "no Metric has been specified"),
    "a picture": (lambda folder: str(folder / "fixed.nii.gz"), "must end in .txt or .toml"),
    "not there": (lambda folder: str(folder / "nosuch.txt"), "there is no such parameter file"),
}


@pytest.mark.parametrize("name", MAPS)
def test_a_broken_parameter_file_is_told_in_one_line(
    name: str, pair: tuple[str, str], tmp_path: Path, capsys: Capture
) -> None:
    make, message = MAPS[name]
    fails(["-f", pair[0], "-m", pair[1], "-p", make(tmp_path)], message, tmp_path, capsys)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"MaximumNumberOfIterations": "many"}, "map.txt:8: (MaximumNumberOfIterations"),
        ({"SP_a": [0.1, "x"]}, "map.txt:9: (SP_a"),
        ({"NumberOfResolutions": 2.5}, "map.txt:7: (NumberOfResolutions 2.5): a whole number"),
        ({"Metric": "AdvancedMeanSquare"}, "did you mean 'AdvancedMeanSquares'?"),
        ({"Optimizer": ()}, "Optimizer"),
        ({"FixedImageDimension": 3, "MovingImageDimension": 3}, "map.txt:12: (FixedImageDimension 3)"),
        (
            {
                "Metric": "Impact",
                "ImpactMode": "Static",
                "ImpactModelsPath": "nosuch.pt",
                "ImpactDimension": 2,
                "ImpactNumberOfChannels": 1,
                "ImpactPatchSize": [0, 0],
                "ImpactVoxelSize": [1, 1],
                "ImpactLayersMask": "1",
                "ImpactSubsetFeatures": 32,
                "ImpactPCA": 0,
                "ImpactLayersWeight": 1,
                "ImpactDistance": "L2",
            },
            "nosuch.pt",
        ),
    ],
)
def test_a_bad_value_is_told_in_one_line(
    changes: dict[str, object],
    message: str,
    pair: tuple[str, str],
    write_map: WriteMap,
    tmp_path: Path,
    capsys: Capture,
) -> None:
    path = write_map(**changes)
    fails(["-f", pair[0], "-m", pair[1], "-p", str(path), "--engine", "torch"], message, tmp_path, capsys)


def cut(image: Image, path: Path) -> None:
    write_image(image, path)
    whole = gzip.decompress(path.read_bytes())
    path.write_bytes(gzip.compress(whole[: len(whole) // 2]))


def not_a_number(image: Image, path: Path) -> None:
    values = image.numpy().copy()
    values[3, 4] = np.nan
    write_image(Image.of(values), path)


def elsewhere(image: Image, path: Path) -> None:
    write_image(Image.of(image.numpy(), origin=[500.0, 0.0]), path)


def nothing(image: Image, path: Path) -> None:
    write_image(Image.of(np.zeros_like(image.numpy())), path)


def zeros(_: Image, path: Path) -> None:
    path.write_bytes(b"\x00" * 1000)


def absent(_: Image, path: Path) -> None:
    assert not path.exists()


@pytest.mark.parametrize(
    ("flag", "spoil", "message"),
    [
        ("-m", cut, "spoilt.nii.gz"),
        ("-m", zeros, "spoilt.nii.gz"),
        ("-m", absent, "spoilt.nii.gz: moving image: there is no such file"),
        ("-m", not_a_number, "moving image: 1 of 400 values are not finite numbers"),
        ("-m", elsewhere, "map outside"),
        ("-fMask", nothing, "fixed mask: the mask is empty"),
        ("-fMask", elsewhere, "fixed mask: "),
        ("-mMask", cut, "moving mask"),
    ],
)
def test_a_spoilt_image_is_told_in_one_line(
    flag: str,
    spoil: Callable[[Image, Path], None],
    message: str,
    pair: tuple[str, str],
    blob: Blob,
    write_map: WriteMap,
    tmp_path: Path,
    capsys: Capture,
) -> None:
    spoil(blob(), tmp_path / "spoilt.nii.gz")
    flags = {
        "-f": pair[0],
        "-m": pair[1],
        "-p": str(write_map()),
        "--engine": "torch",
        flag: str(tmp_path / "spoilt.nii.gz"),
    }
    fails([word for item in flags.items() for word in item], message, tmp_path, capsys)


@pytest.mark.parametrize("flag", ["-m", "-fMask"])
def test_an_image_of_another_dimension_is_told_in_one_line(
    flag: str, pair: tuple[str, str], blob: Blob, write_map: WriteMap, tmp_path: Path, capsys: Capture
) -> None:
    write_image(blob(3), tmp_path / "solid.nii.gz")
    flags = {"-f": pair[0], "-m": pair[1], "-p": str(write_map()), flag: str(tmp_path / "solid.nii.gz")}
    fails([word for item in flags.items() for word in item], "3", tmp_path, capsys)


@pytest.mark.parametrize(
    ("extra", "message"),
    [
        (["--device", "tpu"], "device 'tpu': use cpu, cuda or cuda:N"),
        (["--device", "cuda:99"], "CUDA devices; use cpu"),
        (["-t0", "nosuch.txt"], "nosuch.txt: there is no such transform file"),
    ],
)
def test_what_is_not_there_is_told_in_one_line(
    extra: list[str], message: str, pair: tuple[str, str], write_map: WriteMap, tmp_path: Path, capsys: Capture
) -> None:
    words = ["-f", pair[0], "-m", pair[1], "-p", str(write_map()), "--engine", "torch", *extra]
    fails(words, message, tmp_path, capsys)


def test_an_output_folder_that_cannot_be_written_is_told_in_one_line(
    pair: tuple[str, str], write_map: WriteMap, tmp_path: Path, capsys: Capture
) -> None:
    (tmp_path / "file").write_text("mine")
    for out in (tmp_path / "file", tmp_path / "file" / "below"):
        words = ["-f", pair[0], "-m", pair[1], "-p", str(write_map()), "--engine", "torch", "-out", str(out)]
        assert main([*words, "-loglevel", "off"]) == 1
        told = capsys.readouterr().err
        assert told.count("\n") == 1
        assert str(out) in told
    assert (tmp_path / "file").read_text() == "mine"


def test_a_broken_transform_is_told_in_one_line(pair: tuple[str, str], tmp_path: Path, capsys: Capture) -> None:
    path = tmp_path / "transform.txt"
    ParameterMap.from_dict({"Transform": "TranslationTransform", "NumberOfParameters": 2}).write(path)
    words = ["transformix", "-tp", str(path), "-in", pair[1], "-out", str(tmp_path / "out")]
    assert main(words) == 1
    assert capsys.readouterr().err.count("\n") == 1
    assert not list((tmp_path / "out").glob("*"))


def test_debug_shows_where_an_error_came_from(pair: tuple[str, str], tmp_path: Path, capsys: Capture) -> None:
    words = ["-f", pair[0], "-m", pair[1], "-p", "nosuch", "-out", str(tmp_path / "out"), "--debug"]
    assert main(words) == 1
    told = capsys.readouterr().err
    assert told.startswith("Traceback")
    assert told.splitlines()[-1].startswith("impactreg: error: nosuch: ")


@pytest.mark.parametrize(
    ("error", "code", "message"),
    [
        (KeyboardInterrupt(), 130, "impactreg: interrupted\n"),
        (
            ZeroDivisionError("by\nzero"),
            1,
            "impactreg: error: internal error (ZeroDivisionError: by zero); --debug shows where\n",
        ),
    ],
)
def test_interrupts_and_internal_errors_are_one_line_too(
    error: BaseException, code: int, message: str, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    def broken(arguments: list[str]) -> None:
        raise error

    monkeypatch.setattr("impactreg.cli.transformix.run", broken)
    assert main(["transformix"]) == code
    assert capsys.readouterr().err == message


@pytest.mark.parametrize(
    ("words", "advice"),
    [
        ("-f a -m b -out c", "; add --resume to go on"),
        ("-f0 a -f1 b -m c -out d", "; add --resume to go on"),
        ("register -p e -f0 a -m0 b -out c", "; add --resume to go on"),
        ("-f a -m b -out c --resume", "; run the same command to go on"),
        ("-f a -m b -out c --check", ""),
        ("evaluate -tp t -f a -out c", ""),
        ("transformix -tp t -in a -out c", ""),
        ("report -f a c", ""),
    ],
)
def test_how_to_go_on_is_told_after_an_interrupted_registration_alone(
    words: str, advice: str, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    def interrupted(arguments: list[str]) -> None:
        raise KeyboardInterrupt

    for verb in ("register", "evaluate", "transformix", "report"):
        monkeypatch.setattr(f"impactreg.cli.{verb}.run", interrupted)
    assert main(words.split()) == 130
    assert capsys.readouterr().err == f"impactreg: interrupted{advice}\n"


def test_a_closed_pipe_ends_the_run_in_one_line(pair: tuple[str, str], write_map: WriteMap, tmp_path: Path) -> None:
    path = write_map(MaximumNumberOfIterations=3000)
    words = ["-f", pair[0], "-m", pair[1], "-p", str(path), "-out", str(tmp_path / "out"), "--engine", "torch"]
    command = [sys.executable, "-m", "impactreg", *words]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.readline().startswith("impactreg ")
        process.stdout.close()
        assert process.stderr.read() == "impactreg: error: stopped, since nobody reads the output any more\n"
    assert process.returncode == 1


def fails(words: list[str], message: str, folder: Path, capsys: Capture) -> None:
    """Runs a command that must end with 1, one line on stderr, and nothing in the output folder."""
    out = folder / "out"
    assert main([*words, "-out", str(out), "-loglevel", "error"]) == 1
    told = capsys.readouterr()
    assert told.out == ""
    assert told.err.count("\n") == 1, told.err
    assert told.err.startswith("impactreg: error: ")
    assert "internal error" not in told.err, told.err
    assert message in told.err
    assert len(told.err) < 600
    assert not list(out.glob("*"))
