"""Which file a written model path means (files, folders, models made on the spot), and the model cards."""

import hashlib
import logging
import os
import tempfile
import tomllib
from collections.abc import Iterable, Sequence
from difflib import get_close_matches
from functools import cache
from itertools import islice
from pathlib import Path, PurePosixPath
from typing import Literal

import torch
from pydantic import BaseModel, ConfigDict, Field, ValidationError

import impactreg
from impactreg.errors import ModelError, OutputError
from impactreg.models.export import export
from impactreg.models.mind import MIND, example, variants

# Counts up when a built-in model changes, so that older cached files are left alone.
VERSION = 2
LISTED = 2000

log = logging.getLogger(__name__)


class _Card(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class CardLayer(_Card):
    """One layer of feature maps: its channels, and its stride in voxels of the input."""

    channels: int = Field(gt=0)
    stride: int = Field(default=1, gt=0)


class CardFile(_Card):
    """One model file: its path as parameter files write it, what it takes and what it makes."""

    path: str
    dimension: Literal[2, 3]
    input_channels: int = Field(default=1, gt=0)
    layers: tuple[CardLayer, ...]
    field_of_view: int = Field(gt=0, description="voxels along each axis that one feature depends on")
    older_names: tuple[str, ...] = ()
    sha256: str | None = Field(default=None, pattern="^[0-9a-f]{64}$")


class ModelCard(_Card):
    """What is known of a family of models: where it comes from, its licence, and its files."""

    family: str
    title: str
    description: str
    citation: str
    licence: str
    source: Literal["built-in", "file"]
    files: tuple[CardFile, ...]

    @classmethod
    def read(cls, path: Path) -> "ModelCard":
        """The card of a TOML file; raises `ModelError` with the file, the key and what is wrong with it."""
        try:
            return cls.model_validate(tomllib.loads(path.read_text(encoding="utf-8")))
        except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
            raise ModelError(f"{path}: the model card cannot be read: {error}") from None
        except ValidationError as error:
            first = error.errors()[0]
            key = ".".join(map(str, first["loc"]))
            raise ModelError(f"{path}: ({key} {first['input']!r}): {first['msg']}") from None


def cards() -> tuple[ModelCard, ...]:
    """The cards that come with the package, by file name."""
    package = Path(impactreg.__file__).parent
    folders = (package / "shipped" / "models", package.parent / "models")
    folder = next((folder for folder in folders if folder.is_dir()), None)
    return tuple(map(ModelCard.read, sorted(folder.glob("*.toml")))) if folder else ()


def locate(written: str, *, relative_to: Path | None = None, search: Sequence[Path] = ()) -> Path:
    """The model file that a written path (`ImpactModelsPath`) means.

    Tried in this order: the path as written; from the folder `relative_to` (that of the parameter file); its trailing
    parts, longest first, in each folder of `search` and then of the environment variable IMPACTREG_MODELS
    (`/Data/Models/TS/a.pt` is `DIR/TS/a.pt` or `DIR/a.pt`); built-in models by trailing parts (`MIND/R1D2_3D.pt`),
    made on the spot and cached. Nothing is downloaded. Raises `ModelError` that tells where it looked, the nearest
    known names and what to do.
    """
    folders = [*search, *map(Path, filter(None, os.environ.get("IMPACTREG_MODELS", "").split(os.pathsep)))]
    candidates = list(dict.fromkeys(_candidates(written, relative_to, folders)))
    found = next((path for path in candidates if _is_file(path)), None) or _built_in(written)
    if found is None:
        raise ModelError(_not_found(written, candidates, folders))
    return found


def cache_folder() -> Path:
    """Where built-in models are kept: IMPACTREG_CACHE, else XDG_CACHE_HOME/impactreg, else ~/.cache/impactreg."""
    if own := os.environ.get("IMPACTREG_CACHE"):
        return Path(own).expanduser()
    shared = os.environ.get("XDG_CACHE_HOME")
    return (Path(shared) if shared else Path.home() / ".cache") / "impactreg"


def _candidates(written: str, relative_to: Path | None, folders: Iterable[Path]) -> Iterable[Path]:
    if written.strip():
        path = Path(written).expanduser()
        yield path
        if relative_to is not None:
            yield relative_to / path
        parts = _parts(written)
        for folder in folders:
            for first in range(len(parts)):
                yield folder.expanduser().joinpath(*parts[first:])


def _parts(written: str) -> tuple[str, ...]:
    """The parts of a path without its root and steps upwards, which lead nowhere in another folder."""
    parts = PurePosixPath(written.strip().replace("\\", "/")).parts
    return tuple(part for part in parts if part not in ("/", "//", "..", "~"))


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except (OSError, ValueError):
        return False


def _built_in(written: str) -> Path | None:
    name = "/".join(_parts(written)[-2:])
    if name not in variants():
        return None
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
        _write_whole(record, f"{made.sha256}\n")
    return path


def _intact(path: Path, record: Path) -> bool:
    try:
        return record.read_text(encoding="ascii").strip() == hashlib.sha256(path.read_bytes()).hexdigest()
    except (OSError, UnicodeDecodeError):
        return False


def _write_whole(path: Path, text: str) -> None:
    try:
        with tempfile.NamedTemporaryFile("w", dir=path.parent, prefix=f".{path.name}-", delete=False) as file:
            file.write(text)
        Path(file.name).replace(path)
    except OSError as error:
        raise OutputError(f"{path}: cannot be written: {error.strerror or error}") from None


@cache
def _process_folder() -> "tempfile.TemporaryDirectory[str]":
    return tempfile.TemporaryDirectory(prefix="impactreg-models-")


def _not_found(written: str, candidates: Sequence[Path], folders: Sequence[Path]) -> str:
    known = {*variants(), *(file.path for card in cards() for file in card.files)}
    for folder in folders:
        known.update(str(path.relative_to(folder)) for path in islice(folder.glob("**/*.pt"), LISTED))
    name = "/".join(_parts(written)[-2:])
    near = get_close_matches(name, sorted(known), 3, 0.5) or ["MIND/R1D2_3D.pt"]
    places = ", ".join(map(str, candidates)) or "nowhere, because the path is empty"
    return (
        f"{written}: there is no such model file; looked at {places}; known names near it: {', '.join(near)}; "
        "give the folder that holds it with --models DIR or IMPACTREG_MODELS, or use a built-in model"
    )
