"""elastix.log: the package's log of one run in a file of the output folder."""

import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from impactreg.errors import OutputError

_package = logging.getLogger("impactreg")


@contextmanager
def log_file(directory: Path | None, name: str = "elastix.log", *, more: bool = False) -> Iterator[None]:
    """Writes what the package logs in this thread, from INFO on, to a file in the output folder while the block runs;
    `more` adds to what is there.

    Handlers of the loggers above get what they get without it; a handler of the package's own logger should have its
    own level. Does nothing without a folder; raises `OutputError` where the file cannot be written.
    """
    if directory is None:
        yield
        return
    handler = opened(directory / name, more=more)
    thread = threading.get_ident()
    handler.addFilter(lambda record: record.thread == thread)
    handler.setLevel(logging.INFO)
    _tap.open(handler)
    try:
        yield
    finally:
        _tap.close(handler)
        handler.close()


def opened(path: Path, *, more: bool = False) -> logging.FileHandler:
    """What writes messages as they are to a file, below what is there with `more`; raises `OutputError`."""
    try:
        handler = logging.FileHandler(path, mode="a" if more else "w", encoding="utf-8")
    except OSError as error:
        raise OutputError(f"{path}: cannot be written: {error.strerror or error}; choose another folder") from error
    handler.setFormatter(logging.Formatter("%(message)s"))
    return handler


class _Onwards(logging.Handler):
    """Hands a record on to the loggers above."""

    def emit(self, record: logging.LogRecord) -> None:
        """As propagation does."""
        if _package.parent is not None:
            _package.parent.handle(record)


@dataclass
class _Tap:
    """The package's logger, opened for INFO while a log file needs it and put back when the last one is closed."""

    lock: threading.Lock = field(default_factory=threading.Lock)
    files: int = 0
    before: tuple[int, bool] = (logging.NOTSET, True)
    onwards: _Onwards = field(default_factory=_Onwards)

    def open(self, handler: logging.Handler) -> None:
        """Lets INFO through to the file, and no more than before to the loggers above."""
        with self.lock:
            if self.files == 0:
                self.before = (_package.level, _package.propagate)
                self.onwards.setLevel(_package.getEffectiveLevel())
                if _package.propagate:
                    _package.addHandler(self.onwards)
                _package.propagate = False
                _package.setLevel(min(logging.INFO, _package.getEffectiveLevel()))
            self.files += 1
            _package.addHandler(handler)

    def close(self, handler: logging.Handler) -> None:
        """Takes a file away."""
        with self.lock:
            _package.removeHandler(handler)
            self.files -= 1
            if self.files == 0:
                _package.removeHandler(self.onwards)
                _package.setLevel(self.before[0])
                _package.propagate = self.before[1]


_tap = _Tap()
