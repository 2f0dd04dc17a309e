"""A file that appears whole or not at all."""

import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from impactreg.errors import OutputError


@contextmanager
def whole_file(path: Path, *, what: str = "", parents: bool = False) -> Iterator[Path]:
    """A draft beside `path`, with the same extension, that becomes `path` when the block succeeds and else disappears.

    `what` says in messages what the file is; `parents` makes its folder where it is missing. Raises `OutputError`
    where the folder is missing or cannot be written, the disk is full, or `path` is a folder.
    """
    extension = "".join(path.suffixes[-2:]) if path.suffix == ".gz" else path.suffix
    draft = path.with_name(f".{secrets.token_hex(8)}{extension}")
    try:
        if path.is_dir():
            raise IsADirectoryError("this is a folder")
        if parents:
            path.parent.mkdir(parents=True, exist_ok=True)
        draft.touch(exist_ok=False)
        yield draft
        draft.replace(path)
    except OSError as error:
        raise OutputError(f"{path}: {what}{' ' * bool(what)}cannot be written: {error.strerror or error}") from error
    finally:
        with suppress(OSError):
            draft.unlink()


def write_whole(path: Path, text: str) -> None:
    """Writes a text file so that nobody sees half of it; raises `OutputError` where that cannot be."""
    with whole_file(path) as draft:
        draft.write_text(text, encoding="utf-8")
