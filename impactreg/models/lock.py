"""What was fetched, written down: a lock file with the SHA-256 of each model file, verified ever after."""

import hashlib
import json
import os
import sys
import tomllib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import date
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple, final

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from impactreg.errors import ModelError, OutputError
from impactreg.images.whole import write_whole

MOST_BYTES = 10_000_000
HEADER = "# The model files that impactreg fetched. A file that differs from its line here is not used.\n"
CHUNK = 1 << 20


@final
class Record(BaseModel):
    """What is known of a fetched file: its SHA-256 and bytes, the commit it is from, where it was got and when."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    sha256: str = Field(pattern="^[0-9a-f]{64}$")
    size: int = Field(ge=0)
    revision: str = ""
    url: str = ""
    date: date


_RECORDS = TypeAdapter(dict[str, Record])


@final
class Lock:
    """The lock file `models.lock.toml`: a `Record` for each model file, by its path in parameter files.

    Changes are written whole, one process after the other.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def records(self) -> dict[str, Record]:
        """All records; none where there is no lock file. Raises `ModelError` where it cannot be understood."""
        try:
            with self.path.open("rb") as file:
                content = file.read(MOST_BYTES + 1)
        except FileNotFoundError:
            return {}
        except OSError as error:
            raise ModelError(f"{self.path}: the lock file cannot be read: {error.strerror or error}") from None
        try:
            if len(content) > MOST_BYTES:
                raise ValueError(f"it has more than {MOST_BYTES} bytes")
            return _RECORDS.validate_python(tomllib.loads(content.decode("utf-8")))
        except ValidationError as error:
            first = error.errors()[0]
            said = f"{'.'.join(map(str, first['loc']))}: {first['msg']}"
        except (ValueError, RecursionError) as error:
            said = str(error)
        raise ModelError(f"{self.path}: the lock file cannot be read: {said}; mend it, or move it away")

    def get(self, name: str) -> Record | None:
        """The record of a file."""
        return self.records().get(name)

    def put(self, name: str, record: Record | None) -> None:
        """Writes the record of a file, or takes it away; raises `OutputError` where that cannot be."""
        with exclusive(self.path.with_suffix(".lock")):
            records = {**self.records(), name: record}
            write_whole(self.path, _text({key: value for key, value in sorted(records.items()) if value}))


def digest(path: Path) -> str:
    """The SHA-256 of a file as hexadecimal digits; each version of a file is read once in a process.

    Raises `ModelError` where it cannot be read.
    """
    try:
        state = path.stat()
        return _digest(_FileVersion(path, state.st_mtime_ns, state.st_size, state.st_ino))
    except OSError as error:
        raise ModelError(f"{path}: the model cannot be read: {error.strerror or error}") from None


@contextmanager
def exclusive(path: Path) -> Iterator[None]:
    """Lets one process after the other into the block; the file at `path` stays, for taking it away is a race.

    The lock goes with the process that holds it, however that ends. Raises `OutputError` where the file cannot be
    made.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    except OSError as error:
        raise OutputError(f"{path}: cannot be written: {error.strerror or error}") from None
    try:
        _wait_for(handle)
        yield
    finally:
        os.close(handle)


def _wait_for(handle: int) -> None:
    if sys.platform == "win32":
        import msvcrt

        waiting = True
        while waiting:
            # Windows gives up after ten seconds.
            with suppress(OSError):
                msvcrt.locking(handle, msvcrt.LK_LOCK, 1)
                waiting = False
    else:
        import fcntl

        fcntl.flock(handle, fcntl.LOCK_EX)


class _FileVersion(NamedTuple):
    path: Path
    changed: int
    size: int
    node: int


@lru_cache(maxsize=256)
def _digest(version: _FileVersion) -> str:
    found = hashlib.sha256()
    with version.path.open("rb") as file:
        while chunk := file.read(CHUNK):
            found.update(chunk)
    return found.hexdigest()


def _text(records: Mapping[str, Record]) -> str:
    def lines() -> Iterator[str]:
        yield HEADER
        for name, record in records.items():
            yield f"[{json.dumps(name)}]"
            yield from (f"{key} = {json.dumps(value, default=str)}" for key, value in record)
            yield ""

    return "\n".join(lines())
