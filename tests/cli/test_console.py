"""Rows, bars and messages."""

import io
import logging
from collections.abc import Iterator

import pytest

from impactreg.cli.console import Bars, Rows, console, package
from impactreg.registration.case import Iteration


def iterations() -> Iterator[Iteration]:
    for level in range(2):
        for number in range(2):
            yield Iteration(0, level, 2, number, 5, {"2:Metric": 0.5 - number / 4, "Time[ms]": 12.34})


def test_rows_are_elastix_tables(capsys: pytest.CaptureFixture[str]) -> None:
    rows = Rows()
    for iteration in iterations():
        rows(iteration)
    table = "1:ItNr\t2:Metric\tTime[ms]\n0\t0.500000\t12.3\n1\t0.250000\t12.3\n"
    assert capsys.readouterr().out == table * 2


def test_a_bar_belongs_to_each_resolution_and_is_filled_at_its_end() -> None:
    from rich.console import Console
    from rich.progress import Progress, TextColumn

    progress = Progress(TextColumn("{task.fields[metric]}"), console=Console(file=io.StringIO()), auto_refresh=False)
    bars = Bars(progress, stages=3)
    for iteration in iterations():
        bars(iteration)
    bars.finish()
    assert [task.description for task in progress.tasks] == ["stage 1/3, resolution 1/2", "stage 1/3, resolution 2/2"]
    assert [(task.completed, task.total) for task in progress.tasks] == [(2, 2), (2, 2)]
    assert progress.tasks[0].fields["metric"] == "metric 0.25"


def test_messages_go_to_stdout_and_warnings_to_stderr(capsys: pytest.CaptureFixture[str]) -> None:
    logger = logging.getLogger("impactreg.somewhere")
    before = list(package.handlers), package.level
    with console("info"):
        logger.info("a message")
        logger.info("0\t1.0")
        logger.warning("a warning")
        logger.debug("a detail")
    assert capsys.readouterr() == ("a message\n", "WARNING: a warning\n")
    with console("error") as show:
        logger.warning("a warning")
        show(next(iterations()))
    assert capsys.readouterr() == ("", "")
    assert (list(package.handlers), package.level) == before


def test_a_terminal_gets_bars(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    with console("info", stages=1) as show:
        logging.getLogger("impactreg").warning("[a] warning")
        for iteration in iterations():
            show(iteration)
    told = capsys.readouterr().out
    assert "WARNING: [a] warning" in told
    assert "resolution 2/2" in told
    assert "1:ItNr" not in told
