"""What is seen while it runs: messages, and a row for every iteration, or a bar for every resolution on a terminal."""

import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Protocol, TextIO

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress, TaskID

    from impactreg.registration.case import Iteration

package = logging.getLogger("impactreg")

LEVELS = {"off": logging.CRITICAL + 1, "error": logging.ERROR, "warning": logging.WARNING, "info": logging.INFO}
"""`-loglevel` as levels of logging."""


class Show(Protocol):
    """Shows an iteration."""

    def __call__(self, iteration: "Iteration", /) -> None: ...  # noqa: D102


@contextmanager
def console(level: str, stages: int = 1) -> Iterator[Show]:
    """Shows the package's messages down to a level while the block runs, and gives what shows iterations."""
    if LEVELS[level] > logging.INFO:
        with _messages(_plain_handlers(), LEVELS[level]):
            yield _show_nothing
    elif sys.stdout.isatty():
        with _bars(stages) as (bars, handler), _messages([handler], LEVELS[level]):
            yield bars
    else:
        with _messages(_plain_handlers(), LEVELS[level]):
            yield Rows()


class Rows:
    """Iterations as elastix prints them: a header for every resolution, then rows that end with the time in ms.

    Programs that run elastix, such as 3D Slicer's extensions, read these rows.
    """

    def __init__(self) -> None:
        self._level: tuple[int, int] | None = None

    def __call__(self, iteration: "Iteration") -> None:
        """Writes a row at once."""
        from impactreg.registration.results import iteration_table

        header, row = iteration_table([(iteration.number, iteration.columns)]).splitlines()
        level = iteration.stage, iteration.level
        sys.stdout.write(f"{header}\n{row}\n" if level != self._level else f"{row}\n")
        sys.stdout.flush()
        self._level = level


class Bars:
    """A progress bar for every resolution, with the metric's latest value."""

    def __init__(self, progress: "Progress", stages: int) -> None:
        self._progress = progress
        self._stages = stages
        self._level: tuple[int, int] | None = None
        self._task: TaskID | None = None

    def __call__(self, iteration: "Iteration") -> None:
        """Moves the bar of the iteration's resolution."""
        level = iteration.stage, iteration.level
        if level != self._level or self._task is None:
            self.finish()
            stage = f"stage {iteration.stage + 1}/{self._stages}, " if self._stages > 1 else ""
            name = f"{stage}resolution {iteration.level + 1}/{iteration.levels}"
            self._task = self._progress.add_task(name, total=iteration.of or None, metric="")
            self._level = level
        metric = iteration.columns.get("2:Metric")
        shown = "" if metric is None else f"metric {metric:.6g}"
        self._progress.update(self._task, completed=iteration.number + 1, metric=shown)

    def finish(self) -> None:
        """Fills the bar of a resolution that ended before its last iteration."""
        if self._task is not None:
            done = self._progress.tasks[self._task].completed
            self._progress.update(self._task, total=done, completed=done)


def _show_nothing(iteration: "Iteration", /) -> None:
    del iteration


@contextmanager
def _bars(stages: int) -> Iterator[tuple[Bars, logging.Handler]]:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    screen = Console(highlight=False)
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[metric]}"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=screen) as progress:
        bars = Bars(progress, stages)
        yield bars, _ScreenHandler(screen)
        bars.finish()


class _ScreenHandler(logging.Handler):
    """Messages above the bars."""

    def __init__(self, screen: "Console") -> None:
        super().__init__()
        self._screen = screen

    def emit(self, record: logging.LogRecord) -> None:
        """Prints a message, warnings in yellow."""
        style = "yellow" if record.levelno >= logging.WARNING else ""
        self._screen.print(self.format(record), style=style, markup=False)


def _plain_handlers() -> list[logging.Handler]:
    """Messages on stdout, warnings and errors on stderr."""
    told, warned = _Stream(sys.stdout), _Stream(sys.stderr)
    told.addFilter(lambda record: record.levelno < logging.WARNING)
    warned.setLevel(logging.WARNING)
    return [told, warned]


@contextmanager
def _messages(handlers: list[logging.Handler], level: int) -> Iterator[None]:
    before = package.level
    for handler in handlers:
        handler.setLevel(max(level, handler.level))
        handler.addFilter(_is_no_row)
        handler.setFormatter(_Formatter())
        package.addHandler(handler)
    package.setLevel(min(level, logging.INFO))
    try:
        yield
    finally:
        package.setLevel(before)
        for handler in handlers:
            package.removeHandler(handler)


def _is_no_row(record: logging.LogRecord) -> bool:
    """Rows of iterations are logged too, for the log file; they are shown when they happen."""
    return "\t" not in record.getMessage()


class _Stream(logging.StreamHandler[TextIO]):
    """Messages on a stream; a reader that has gone away ends the run, as it does where rows are written."""

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802
        """Complains, unless the reader is gone."""
        if isinstance(sys.exc_info()[1], BrokenPipeError):
            raise
        super().handleError(record)


class _Formatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        said = record.getMessage()
        return f"{record.levelname}: {said}" if record.levelno >= logging.WARNING else said
