"""What shells are told to complete, tried in the shells that are there."""

import shutil
import subprocess

import pytest

from impactreg.cli import VERBS, main

Capture = pytest.CaptureFixture[str]


def script(shell: str, capsys: Capture) -> str:
    assert main(["completion", shell]) == 0
    return capsys.readouterr().out


def completed(line: str, capsys: Capture) -> list[str]:
    words = line.split(" ")
    line = f"COMP_WORDS=({' '.join(repr(word) for word in words)}); COMP_CWORD={len(words) - 1}"
    call = f"{line}; _impactreg; echo ${{COMPREPLY[@]}}"
    done = subprocess.run(
        ["bash", "-c", f"{script('bash', capsys)}\n{call}"],
        capture_output=True,
        text=True,
        check=True,
        cwd="/proc/self/fd",
    )
    assert done.stderr == ""
    return done.stdout.split()


@pytest.mark.skipif(shutil.which("bash") is None, reason="bash is not installed")
@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("impactreg transf", ["transformix"]),
        ("impactreg -f a -fM", ["-fMask"]),
        ("impactreg -f a --engine t", ["torch"]),
        ("impactreg -f a -p mind-bspline-", ["mind-bspline-2d"]),
        ("impactreg transformix -jacm", ["-jacmat"]),
        ("impactreg transformix --eng", []),
        ("impactreg transformix -jac ", ["all"]),
    ],
)
def test_bash_completes_verbs_flags_and_their_words(line: str, expected: list[str], capsys: Capture) -> None:
    found = completed(line, capsys)
    assert [word for word in found if not word.isdigit()] == expected


def test_every_verb_can_be_completed_in_every_shell(capsys: Capture) -> None:
    for shell in ("bash", "zsh", "fish"):
        told = script(shell, capsys)
        assert all(verb in told for verb in VERBS)


def test_numbered_flags_are_not_offered(capsys: Capture) -> None:
    assert "-fMask7" not in script("bash", capsys)


def test_an_unknown_shell_is_told(capsys: Capture) -> None:
    assert main(["completion", "tcsh"]) == 2
    assert "invalid choice: 'tcsh'" in capsys.readouterr().err
