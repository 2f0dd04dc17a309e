"""What a folder or a zip file of a package holds, and its safe way to the disk: whole or not at all."""

import os
import shutil
import tempfile
import unicodedata
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from impactreg.errors import ModelError, OutputError
from impactreg.models.archives import Limits, members

PACKAGE = Limits(members=20_000, bytes=16 << 30, ratio=300.0, small=1 << 20)
"""What a package may hold at most."""

TEXT_BYTES = 64 << 20
"""The largest file of a package that is read as text."""

CHUNK = 1 << 20


@dataclass(frozen=True)
class Contents:
    """The files of a folder or zip file and their sizes in bytes, by their names with `/`; links are no files."""

    path: Path
    files: Mapping[str, int]
    zipped: bool

    @classmethod
    def of(cls, path: Path) -> "Contents":
        """What lies at a path; raises `ModelError` where this is neither a folder nor a zip file that may be opened."""
        if path.is_dir():
            return cls(path, _folder_files(path), False)
        if not path.is_file():
            raise ModelError(f"{path}: there is no such file or folder")
        return cls(path, {one.filename: one.file_size for one in _listed(path) if not one.is_dir()}, True)

    def read(self, name: str, most: int = TEXT_BYTES) -> bytes:
        """The content of a file; raises `ModelError` where it is too large or damaged."""
        if self.files[name] > most:
            raise ModelError(f"{self.path}: {name} has {self.files[name]} bytes; more than {most} are not read")
        try:
            if not self.zipped:
                return (self.path / name).read_bytes()
            with zipfile.ZipFile(self.path) as archive, archive.open(name) as file:
                return file.read(most + 1)
        # zipfile lets through what its decompressors raise.
        except Exception as error:
            raise ModelError(f"{self.path}: {name} cannot be read: {_said(error)}") from None

    def unpack(self, folder: Path, names: Mapping[str, str]) -> None:
        """Writes the files of a zip, or copies those of a folder: names here -> names in a folder that is made.

        Raises `ModelError` for a damaged file, and `OutputError` where nothing can be written; what is written until
        then stays, so give a folder of `whole`.
        """
        taken: dict[str, str] = {}
        for name, target in names.items():
            same = _same(target)
            if same in taken:
                raise ModelError(f"{self.path}: {taken[same]} and {name} are one file on some systems; mend the names")
            taken[same] = name
        with self._opened() as opened:
            for name, target in names.items():
                self._write(opened, name, folder / target)

    @contextmanager
    def _opened(self) -> Iterator[zipfile.ZipFile | None]:
        if not self.zipped:
            yield None
            return
        with zipfile.ZipFile(self.path) as archive:
            yield archive

    def _write(self, archive: zipfile.ZipFile | None, name: str, target: Path) -> None:
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            output = target.open("xb")
        except OSError as error:
            raise OutputError(f"{target}: cannot be written: {error.strerror or error}") from None
        left = self.files[name]
        try:
            with output, archive.open(name) if archive else (self.path / name).open("rb") as file:
                while chunk := file.read(CHUNK):
                    left -= len(chunk)
                    output.write(chunk)
                    if left < 0:
                        break
        # zipfile lets through what its decompressors raise.
        except Exception as error:
            raise ModelError(f"{self.path}: {name} cannot be unpacked: {_said(error)}") from None
        if left:
            raise ModelError(f"{self.path}: {name} has not the {self.files[name]} bytes that it claims; it is damaged")


@contextmanager
def whole(target: Path) -> Iterator[Path]:
    """A new folder beside `target` that takes its place when the block ends well, and vanishes when it does not.

    What was at `target` before stays until then, and goes after. Raises `OutputError` where it cannot be written.
    """
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        draft = Path(tempfile.mkdtemp(prefix=f".{target.name}-", dir=target.parent))
    except OSError as error:
        raise OutputError(f"{target}: cannot be written: {error.strerror or error}") from None
    try:
        yield draft
        _put(draft, target)
    except OSError as error:
        raise OutputError(f"{target}: cannot be written: {error.strerror or error}") from None
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def _put(draft: Path, target: Path) -> None:
    draft.chmod(0o755)
    if not target.exists():
        draft.rename(target)
        return
    old = Path(tempfile.mkdtemp(prefix=f".{target.name}-old-", dir=target.parent))
    target.rename(old / "old")
    try:
        draft.rename(target)
    except OSError:
        (old / "old").rename(target)
        raise
    finally:
        shutil.rmtree(old, ignore_errors=True)


def _listed(path: Path) -> tuple[zipfile.ZipInfo, ...]:
    try:
        return members(path, PACKAGE, path.name)
    except zipfile.BadZipFile as error:
        raise ModelError(f"{path}: this is no zip file, or a truncated one: {error}") from None


def _folder_files(path: Path) -> dict[str, int]:
    found = {}
    for parent, folders, names in os.walk(path):
        folders[:] = sorted(name for name in folders if not Path(parent, name).is_symlink())
        for name in sorted(names):
            file = Path(parent, name)
            if file.is_file() and not file.is_symlink():
                found[str(PurePosixPath(file.relative_to(path)))] = file.stat().st_size
        if len(found) > PACKAGE.members:
            raise ModelError(f"{path}: there are more than {PACKAGE.members} files in it; give the folder of one model")
    return found


def _same(name: str) -> str:
    """What file systems that do not tell capitals apart, or write accents otherwise, make of a name."""
    return unicodedata.normalize("NFC", name).casefold()


def _said(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
