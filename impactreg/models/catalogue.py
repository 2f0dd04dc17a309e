"""Which file a written model path means: files, folders, fetched models, and models made on the spot."""

import logging
import os
import tempfile
from collections.abc import Iterable, Sequence
from difflib import get_close_matches
from functools import cache
from itertools import islice
from pathlib import Path

import torch

from impactreg.errors import ModelError, OutputError
from impactreg.images.whole import write_whole
from impactreg.models.cards import CardFile, ModelCard, cards, known, names, parts
from impactreg.models.export import export
from impactreg.models.fetching import Store
from impactreg.models.lock import digest
from impactreg.models.mind import MIND, example, variants

__all__ = ["VERSION", "CardFile", "ModelCard", "cache_folder", "cards", "locate", "store"]

# Counts up when a built-in model changes, so that older cached files are left alone.
VERSION = 2
LISTED = 2000

log = logging.getLogger(__name__)


def locate(written: str, *, relative_to: Path | None = None, search: Sequence[Path] = ()) -> Path:
    """The model file that a written path (`ImpactModelsPath`) means.

    Tried in this order: the path as written; from the folder `relative_to` (that of the parameter file); its trailing
    parts, longest first, in each folder of `search` and then of the environment variable IMPACTREG_MODELS
    (`/Data/Models/TS/a.pt` is `DIR/TS/a.pt` or `DIR/a.pt`); today's name of an older name that a card knows, in these
    folders (`TS/M730_2_Layers.pt` is `DIR/TS/M730.pt`); what `impactreg models fetch` brought, verified; built-in
    models by trailing parts (`MIND/R1D2_3D.pt`), made on the spot and cached. Known names may lack `.pt`. Nothing is
    downloaded. Raises `ModelError` that tells where it looked, the nearest known names and what to do, or that a
    fetched file changed.
    """
    named = (Path(each) for each in os.environ.get("IMPACTREG_MODELS", "").split(os.pathsep) if each)
    folders = [_at_home(folder) for folder in (*search, *named)]
    candidates = list(dict.fromkeys(_candidates(written, relative_to, folders)))
    found = next((path for path in candidates if _is_file(path)), None)
    found = found or _by_card(written, folders) or _built_in(written)
    if found is None:
        raise ModelError(_not_found(written, candidates, folders))
    return found


def store() -> Store:
    """Where fetched model files are kept."""
    return Store(cache_folder())


def cache_folder() -> Path:
    """Where models are kept: IMPACTREG_CACHE, else XDG_CACHE_HOME/impactreg, else ~/.cache/impactreg."""
    if own := os.environ.get("IMPACTREG_CACHE"):
        return _at_home(Path(own))
    shared = os.environ.get("XDG_CACHE_HOME")
    return (Path(shared) if shared else Path.home() / ".cache") / "impactreg"


def _at_home(path: Path) -> Path:
    """The path with the user's folder for `~`; as it is where it names a user whom nobody knows."""
    try:
        return path.expanduser()
    except RuntimeError:
        return path


def _candidates(written: str, relative_to: Path | None, folders: Iterable[Path]) -> Iterable[Path]:
    if written.strip():
        path = _at_home(Path(written))
        yield path
        if relative_to is not None:
            yield relative_to / path
        trailing = parts(written)
        for folder in folders:
            for first in range(len(trailing)):
                yield folder.joinpath(*trailing[first:])


def _by_card(written: str, folders: Iterable[Path]) -> Path | None:
    found = known(written)
    if found is None or found[0].source == "built-in":
        return None
    _, file = found
    here = next((folder / file.path for folder in folders if _is_file(folder / file.path)), None)
    path = here or store().find(file)
    if path is not None and "/".join(parts(written)[-2:]) != file.path:
        log.info("%s is an older name of %s", written, file.path)
    return path


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except (OSError, ValueError):
        return False


def _built_in(written: str) -> Path | None:
    name = "/".join(parts(written)[-2:])
    if name not in variants():
        found = known(written)
        if found is None or found[0].source != "built-in":
            return None
        name = found[1].path
    try:
        return _cached(name, cache_folder() / "models")
    except OutputError:
        log.warning("%s cannot be written; %s is made again in each process", cache_folder(), name)
        return _cached(name, Path(_process_folder().name))


def _cached(name: str, folder: Path) -> Path:
    """The built-in model in a folder, made anew where it is missing or not what was recorded beside it."""
    dimension, radius, dilation = variants()[name]
    torch_version = ".".join(torch.__version__.split(".")[:2])
    path = folder / f"MIND-R{radius}D{dilation}-{dimension}D-v{VERSION}-torch{torch_version}.pt"
    record = path.with_suffix(".sha256")
    if not _intact(path, record):
        log.info("making %s in %s", name, folder)
        # Two processes may do this at once: both write the same bytes, and each file appears whole.
        made = export(MIND(dimension, radius, dilation), path, example=example(dimension), name=name)
        write_whole(record, f"{made.sha256}\n")
    return path


def _intact(path: Path, record: Path) -> bool:
    try:
        return record.read_text(encoding="ascii").strip() == digest(path)
    except (OSError, UnicodeDecodeError, ModelError):
        return False


@cache
def _process_folder() -> "tempfile.TemporaryDirectory[str]":
    return tempfile.TemporaryDirectory(prefix="impactreg-models-")


def _not_found(written: str, candidates: Sequence[Path], folders: Sequence[Path]) -> str:
    places = ", ".join(map(str, candidates)) or "nowhere, because the path is empty"
    start = f"{written}: there is no such model file; looked at {places}"
    if found := known(written):
        _, file = found
        advice = f"{file.path} is known: get it with impactreg models fetch {file.path}"
        return f"{start}; {advice}, or give the folder that holds it with --models DIR or IMPACTREG_MODELS"
    others = {*variants(), *names()}
    for folder in folders:
        others.update(str(path.relative_to(folder)) for path in islice(folder.glob("**/*.pt"), LISTED))
    near = get_close_matches("/".join(parts(written)[-2:]), sorted(others), 3, 0.5) or ["MIND/R1D2_3D.pt"]
    return (
        f"{start}; known names near it: {', '.join(near)}; "
        "give the folder that holds it with --models DIR or IMPACTREG_MODELS, or use a built-in model"
    )
