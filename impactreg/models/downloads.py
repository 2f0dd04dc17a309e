"""Files over HTTP: from a mirror by its address, and from the Hugging Face hub by its own library."""

import http.client
import os
import shutil
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any, final

from impactreg.errors import MissingExtra, ModelError

MOST_BYTES = 4 << 30
"""No model file is larger; what claims to be is not downloaded."""

CHUNK = 1 << 20
SECONDS = 30.0

Progress = Callable[[int, int | None], None]
"""Is told how many bytes of a file are here, and of how many, where that is known."""


def unseen(here: int, total: int | None) -> None:
    """Shows no progress."""
    del here, total


@final
@dataclass(frozen=True)
class Download:
    """A file that came: where it was put, the address it is from, and the commit, where the server told it."""

    path: Path
    url: str
    revision: str = ""


def from_mirror(mirror: str, file: str, folder: Path, progress: Progress) -> Download:
    """Downloads MIRROR/FILE by http(s) into a folder, going on where an earlier attempt ended.

    Raises `ModelError` for another kind of address, what the server refuses, a file that is too large or is cut off;
    what came until then is kept for the next attempt.
    """
    url = f"{mirror.rstrip('/')}/{urllib.parse.quote(file)}"
    if urllib.parse.urlsplit(url).scheme not in ("http", "https"):
        raise ModelError(f"{mirror}: a mirror has an address that starts with http:// or https://")
    path = folder / Path(file).name
    part = path.with_name(f"{path.name}.part")
    try:
        _resume(url, part, progress)
    except (OSError, http.client.HTTPException, ValueError) as error:
        reason = getattr(error, "reason", None) or str(error) or type(error).__name__
        raise ModelError(f"{url}: cannot be downloaded: {_one_line(reason)}") from None
    return Download(part.replace(path), url)


def from_hub(repository: str, file: str, revision: str | None, folder: Path, progress: Progress) -> Download:
    """Downloads a file of a repository on the hub into a folder, at the commit that `revision` (or main) means now.

    huggingface_hub goes on where an earlier attempt ended, takes the file from its own cache where it is there, and
    honours HF_ENDPOINT, HF_HOME and HF_TOKEN. Raises `MissingExtra` without it, and `ModelError` for what goes wrong.
    """
    hub = _hub()
    endpoint = os.environ.get("HF_ENDPOINT") or None
    url = hub.hf_hub_url(repository, file, revision=revision, endpoint=endpoint)
    with _told(url):
        found = hub.get_hf_file_metadata(url, endpoint=endpoint)
        if found.size is not None:
            _check_size(found.size)
        bar = _bar(progress)
        commit = found.commit_hash or revision
        path = hub.hf_hub_download(
            repository, file, revision=commit, local_dir=folder, endpoint=endpoint, tqdm_class=bar
        )
    return Download(Path(path), url, found.commit_hash or "")


def from_hub_cache(repository: str, file: str, revision: str | None, folder: Path) -> Download | None:
    """A copy of the file that huggingface_hub has in its cache, without a network; None where it has none."""
    try:
        hub = _hub()
    except MissingExtra:
        return None
    found = hub.try_to_load_from_cache(repository, file, revision=revision)
    if not isinstance(found, str):
        return None
    path = folder / Path(file).name
    shutil.copyfile(found, path)
    # .../snapshots/COMMIT/FILE
    commit = Path(found).parents[len(Path(file).parts) - 1].name
    return Download(path, hub.hf_hub_url(repository, file, revision=commit), commit)


def _hub() -> ModuleType:
    try:
        import huggingface_hub
    except ImportError:
        raise MissingExtra(
            "the Hugging Face hub needs huggingface_hub: pip install 'impactreg[hub]'; or name a mirror with "
            "--mirror URL or IMPACTREG_MIRROR"
        ) from None
    module: ModuleType = huggingface_hub
    return module


def _resume(url: str, part: Path, progress: Progress) -> None:
    """Appends to `part` what is missing of the file at `url`.

    From its start where the server cannot resume, or does not say by an ETag or a date that it still is that file.
    """
    label = part.with_name(f"{part.name}.label")
    request = urllib.request.Request(url, headers={"User-Agent": "impactreg"})
    here = part.stat().st_size if part.is_file() and label.is_file() else 0
    if here:
        request.add_header("Range", f"bytes={here}-")
        request.add_header("If-Range", label.read_text(encoding="latin-1"))
    try:
        answer = urllib.request.urlopen(request, timeout=SECONDS)
    except urllib.error.HTTPError as error:
        if error.code != http.HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE or not here:
            raise
        # All of it is here, or it became shorter: only the whole file tells.
        label.unlink()
        return _resume(url, part, progress)
    with answer:
        if answer.status != http.HTTPStatus.PARTIAL_CONTENT:
            here = 0
            _keep_label(answer, label)
        length = answer.headers.get("Content-Length")
        total = here + int(length) if length else None
        _check_size(total or 0)
        with part.open("ab" if here else "wb") as file:
            _copy(answer, file, here, total, progress)
    return None


def _keep_label(answer: Any, label: Path) -> None:
    etag = answer.headers.get("ETag") or ""
    strong = etag if not etag.startswith("W/") else ""
    found = strong or answer.headers.get("Last-Modified")
    if found:
        label.write_text(found, encoding="latin-1")
    else:
        label.unlink(missing_ok=True)


def _copy(answer: Any, file: Any, here: int, total: int | None, progress: Progress) -> None:
    progress(here, total)
    while chunk := answer.read(CHUNK):
        here += len(chunk)
        _check_size(here)
        file.write(chunk)
        progress(here, total)
    if total is not None and here < total:
        raise ValueError(f"the connection broke off after {here} of {total} bytes; try again to go on from there")


def _check_size(size: int) -> None:
    if size > MOST_BYTES:
        raise ModelError(f"the file has {size} bytes, more than the {MOST_BYTES} that a model may have")


@contextmanager
def _told(url: str) -> Iterator[None]:
    """Whatever the hub's library raises, and it has many kinds, in one line."""
    try:
        yield
    except (ModelError, MissingExtra, KeyboardInterrupt):
        raise
    except Exception as error:
        raise ModelError(f"{url}: cannot be downloaded: {_one_line(error)}") from None


def _one_line(error: object) -> str:
    return " ".join(str(error).split())[:300] or type(error).__name__


def _bar(progress: Progress) -> type[Any]:
    """What huggingface_hub takes for a progress bar of tqdm, which tells `progress`."""
    silent: type[Any] = import_module("tqdm").tqdm

    def start(self: Any, *_: Any, **options: Any) -> None:
        silent.__init__(self, disable=True)
        self.here = int(options.get("initial") or 0)
        self.size = int(options.get("total") or 0) or None

    def update(self: Any, n: float | None = 1) -> None:
        self.here += int(n or 0)
        progress(self.here, self.size)

    return type("Bar", (silent,), {"__init__": start, "update": update})
