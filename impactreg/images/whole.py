"""A file that appears whole or not at all."""

import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from impactreg.errors import OutputError


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """A draft beside `path`, with the same extension, that becomes `path` when the block succeeds and else disappears.

    Raises `OutputError` where the folder is missing or cannot be written, the disk is full, or `path` is a folder.
    """
    if path.is_dir():
        raise OutputError(f"{path}: this is a folder; a file cannot be written over it")
    extension = "".join(path.suffixes[-2:]) if path.suffix == ".gz" else path.suffix
    draft = path.with_name(f".{secrets.token_hex(8)}{extension}")
    try:
        draft.touch(exist_ok=False)
        yield draft
        draft.replace(path)
    except OSError as error:
        raise OutputError(f"{path}: cannot be written: {error.strerror or error}") from error
    finally:
        with suppress(OSError):
            draft.unlink()
