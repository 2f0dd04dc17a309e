"""The flags, and what is said about those that do not exist."""

from pathlib import Path

import pytest

from impactreg.cli.arguments import UsageError, nearest, numbered, registration_parser, transformix_parser

NEEDED = ["-f", "f.nii", "-m", "m.nii", "-p", "a.txt"]


def test_elastix_flags_are_read() -> None:
    words = "-f F -m M -p A -p B -out O -fMask FM -mMask MM -t0 T -threads 3 -loglevel warning -priority high"
    options = registration_parser("", "").read(words.split())
    given = [numbered(options, name) for name in ("fixed", "moving", "fixed_mask", "moving_mask")]
    assert given == [["F"], ["M"], ["FM"], ["MM"]]
    assert options.parameters == ["A", "B"]
    assert (options.output, options.initial) == (Path("O"), Path("T"))
    assert (options.threads, options.loglevel, options.priority) == (3, "warning", "high")


def test_parameter_files_keep_their_order() -> None:
    options = registration_parser("", "").read([*NEEDED, "-p", "b.txt", "c.txt", "-m", "m", "-p", "a.txt"])
    assert options.parameters == ["a.txt", "b.txt", "c.txt", "a.txt"]


def test_several_images_have_numbers() -> None:
    options = registration_parser("", "").read([*NEEDED[2:], "-f1", "B", "-f0", "A", "-fp", "X.txt", "-mp", "Y.txt"])
    assert numbered(options, "fixed") == ["A", "B"]
    assert numbered(options, "fixed_mask") == []
    assert (options.fixed_points, options.moving_points) == (Path("X.txt"), Path("Y.txt"))


@pytest.mark.parametrize(
    ("words", "message"),
    [("-f0 A -f2 B", "-f1 is missing"), ("-f A -f0 B", "-f: one file for each number: -f is the same as -f0")],
)
def test_numbers_of_images_have_no_gaps_and_come_once(words: str, message: str) -> None:
    options = registration_parser("", "").read([*words.split(), "-m", "M", "-p", "P"])
    with pytest.raises(UsageError, match=message):
        numbered(options, "fixed")


def test_our_flags_are_read() -> None:
    words = [
        "--device",
        "cuda:1",
        "--models",
        "x",
        "y",
        "--models=z",
        "--engine",
        "torch",
        "--seed",
        "0",
        "--check",
        "--debug",
    ]
    options = registration_parser("", "").read([*NEEDED, *words])
    assert options.models == [Path("x"), Path("y"), Path("z")]
    assert (options.device, options.engine, options.seed, options.check, options.debug) == (
        "cuda:1",
        "torch",
        0,
        True,
        True,
    )


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["-fmask", "k"], "there is no flag -fmask; did you mean -fMask?"),
        (["-Out", "d"], "there is no flag -Out; did you mean -out?"),
        (["-pmap.txt"], "there is no flag -pmap.txt"),
        (["--devic", "cpu"], "there is no flag --devic; did you mean --device?"),
        (["--seed=1.5"], "argument --seed: a whole number is needed, not '1.5'"),
        (["--seed", "-1"], "argument --seed: a whole number is needed, not '-1'"),
        (["-threads", "0"], "argument -threads: a number above 0 is needed"),
        (["--engine", "cpp"], "argument --engine: invalid choice: 'cpp'"),
        (["-loglevel", "loud"], "argument -loglevel: invalid choice: 'loud'"),
        (["stray"], ""),
    ],
)
def test_a_wrong_flag_is_named_with_the_nearest_right_one(words: list[str], message: str) -> None:
    if words == ["stray"]:
        words, message = ["-m", "m", "stray"], "unrecognized arguments: stray"
    with pytest.raises(UsageError) as caught:
        registration_parser("", "").read([*NEEDED, *words])
    assert str(caught.value).startswith(message)
    assert "\n" not in str(caught.value)


def test_what_is_missing_is_named() -> None:
    with pytest.raises(UsageError, match=r"the following arguments are required: -m$"):
        registration_parser("", "").read(["-f", "x"])


def test_transformix_flags_are_read() -> None:
    words = ["-tp", "T", "-out", "O", "-in", "I"]
    options = transformix_parser("").read([*words, "-def", "all", "-jac", "all", "-jacmat", "all"])
    assert (options.transform, options.output, options.image) == (Path("T"), Path("O"), "I")
    assert (options.points, options.jacobian, options.jacobian_matrix) == ("all", "all", "all")
    with pytest.raises(UsageError, match="invalid choice: 'some'"):
        transformix_parser("").read(["-tp", "T", "-out", "O", "-jac", "some"])


def test_nothing_is_offered_when_nothing_is_alike() -> None:
    assert nearest("-xyz", ["-out", "--device"]) == ""
