"""elastix.log of a command: how it was called and with what, then all that was told."""

import logging
import platform
import shlex
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError
from importlib.metadata import version as version_of
from logging.handlers import MemoryHandler
from pathlib import Path
from typing import TYPE_CHECKING

from impactreg.cli.arguments import version
from impactreg.cli.console import LEVELS, package
from impactreg.registration.logs import opened

if TYPE_CHECKING:
    from impactreg.parameters import ParameterMap


class LogFile(MemoryHandler):
    """Keeps messages until the run has begun: what fails before that leaves no log, and spares an earlier run's."""

    def __init__(self, path: Path, header: str, *, more: bool = False) -> None:
        super().__init__(capacity=0)
        self._more = more
        self._path = path
        self._header = header

    def shouldFlush(self, record: logging.LogRecord) -> bool:  # noqa: N802
        """Once there is a file to write to."""
        del record
        return self.target is not None

    def begin(self) -> None:
        """Starts the file; raises `OutputError` where it cannot be written."""
        if self.target is not None:
            return
        file = opened(self._path, more=self._more)
        file.handle(logging.makeLogRecord({"msg": self._header, "levelno": logging.INFO}))
        self.setTarget(file)
        self.flush()

    def close(self) -> None:
        """Closes the file, if it was begun."""
        file = self.target
        super().close()
        if file is not None:
            file.close()


@contextmanager
def log_file(path: Path, header: str, level: str, *, more: bool = False) -> Iterator[LogFile]:
    """A log that holds the package's messages from a level on while the block runs; for `info` also the details.

    `more` adds to the file that is there.
    """
    handler = LogFile(path, header, more=more)
    handler.setLevel(logging.DEBUG if level == "info" else LEVELS[level])
    before = package.level
    package.addHandler(handler)
    package.setLevel(min(handler.level, package.getEffectiveLevel()))
    try:
        yield handler
    finally:
        package.setLevel(before)
        package.removeHandler(handler)
        handler.close()


def header(arguments: Sequence[str], facts: dict[str, object]) -> str:
    """The first lines of a log: version, command line, time, versions of what matters, and facts such as the device."""
    libraries = ", ".join(f"{name} {_version(name)}" for name in ("torch", "itk-elastix", "numpy"))
    lines: dict[str, object] = {
        "command line": shlex.join(["impactreg", *arguments]),
        "folder": Path.cwd(),
        "started": time.strftime("%Y-%m-%d %H:%M:%S %z"),
        "machine": f"{platform.platform()}, Python {platform.python_version()}",
        "libraries": libraries,
        **facts,
    }
    return "\n".join([f"impactreg {version()}", *(f"{name}: {value}" for name, value in lines.items())])


def told_maps(maps: "Sequence[ParameterMap]") -> str:
    """Parameter maps as elastix prints them into its log."""
    return "\n".join(
        f"\nParameter map {number}: {each.name}\n"
        "=============== start of ParameterMap ===============\n"
        f"{each.text()}"
        "=============== end of ParameterMap ==============="
        for number, each in enumerate(maps)
    )


def _version(name: str) -> str:
    try:
        return version_of(name)
    except PackageNotFoundError:
        return "not installed"
