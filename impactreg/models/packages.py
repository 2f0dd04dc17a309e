"""Packages of nnU-Net models in the form of the Spinal Cord Toolbox: made, and installed with where they came from."""

import json
import re
import tempfile
import tomllib
import urllib.parse
import zipfile
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

from impactreg.errors import ModelError, OutputError
from impactreg.images.whole import whole_file
from impactreg.models.catalogue import cache_folder
from impactreg.models.downloads import Progress, from_mirror, unseen
from impactreg.models.lock import digest
from impactreg.models.names import ReleaseTag, split_release
from impactreg.models.orientation import checked_letters
from impactreg.models.package_checks import check, plan_of
from impactreg.models.package_layout import FINAL, IGNORED, TRAINER_CLASS, Trained, trained_in
from impactreg.models.plans import read_json
from impactreg.models.unpacking import CHUNK, Contents, whole

RECORD = "source.toml"


@dataclass(frozen=True)
class Provenance:
    """Where an installed package came from: address or path, SHA-256 and bytes of the zip file, release, day and time
    of the installation (UTC), the trainer's folder, and what was left out.
    """

    name: str
    release: str
    source: str
    sha256: str
    size: int
    date: str
    folder: str
    left_out: tuple[str, ...] = ()

    def text(self) -> str:
        """As TOML."""
        pairs = {key: list(value) if isinstance(value, tuple) else value for key, value in asdict(self).items()}
        return "".join(f"{key} = {json.dumps(value, ensure_ascii=False)}\n" for key, value in pairs.items())

    @classmethod
    def read(cls, path: Path) -> "Provenance":
        """The record beside an installed package; raises `ModelError` where it is missing or damaged."""
        try:
            found = tomllib.loads(path.read_text(encoding="utf-8"))
            return cls(**{**found, "left_out": tuple(found.get("left_out", ()))})
        except (OSError, ValueError, TypeError, RecursionError) as error:
            raise ModelError(f"{path}: the record of an installed package cannot be read: {error}") from None


@dataclass(frozen=True)
class Installed:
    """An installed package: its folder, where it came from, and whether it was put there just now."""

    path: Path
    provenance: Provenance
    new: bool


@dataclass(frozen=True)
class Packed:
    """A package that was made, and what `check` finds in it."""

    path: Path
    findings: tuple[str, ...]


def packages_folder() -> Path:
    """Where packages are installed: the folder `packages` of the cache."""
    return cache_folder() / "packages"


def pack(folder: Path, output: Path, *, name: str, release: ReleaseTag, orientation: str | None = None) -> Packed:
    """Makes `<name>-<release>.zip` of the folder of a training, in the folder `output`; whole or not at all.

    Only what belongs into a package is taken, and of the checkpoints only the final ones. `orientation` is written as
    `image_orientation`. Raises `ModelError` where there is no whole model in the folder, and `OutputError`.
    """
    _check_name(name)
    contents = Contents.of(folder)
    trained = trained_in(contents)
    if not trained.folds:
        raise ModelError(f"{folder}: there is no fold_<N>/{FINAL} in {trained.name}; train to the end first")
    plan_of(contents, trained, orientation)
    changed = _with_orientation(contents, trained, orientation)
    path = output / f"{name}-{release}.zip"
    _write_zip(path, contents, _packed_files(trained), changed, release)
    return Packed(path, check(path))


def install(
    source: str | Path,
    *,
    folder: Path | None = None,
    name: str | None = None,
    sha256: str | None = None,
    progress: Progress = unseen,
) -> Installed:
    """Unpacks a package from a zip file, or from an address by http(s), into a folder of its own in `folder`.

    Nothing of it is run, and only what belongs into a package is unpacked: no `trainer_class.py`, no other code. The
    package is `<folder>/<name>-<release>`, by default of the file's name and in `packages_folder()`; beside the
    trainer's folder lies `source.toml`. A package of the same name is replaced, unless it is the same. `sha256` is
    what the zip file must have. Raises `ModelError` for what is no package or not safe to unpack,
    and `OutputError` where something else is in its place; then nothing is left.
    """
    place = folder or packages_folder()
    if not _is_address(source):
        return _installed(Path(source), str(Path(source).absolute()), place, name, sha256)
    with tempfile.TemporaryDirectory(prefix="impactreg-package-") as temporary:
        path = _downloaded(str(source), Path(temporary), progress)
        return _installed(path, str(source), place, name, sha256)


def _installed(path: Path, source: str, place: Path, name: str | None, sha256: str | None) -> Installed:
    contents = Contents.of(path)
    if not contents.zipped:
        raise ModelError(f"{path}: a zip file is installed, not a folder; impactreg models pack makes one")
    found = digest(path)
    if sha256 is not None and found != sha256.lower():
        raise ModelError(f"{source}: the SHA-256 of the file is {found}, not {sha256}; it is not installed")
    trained = trained_in(contents)
    if not trained.folds:
        raise ModelError(f"{source}: there is no fold_<N>/{FINAL} in {trained.name}; this is no whole model")
    plan_of(contents, trained)
    stem, release = split_release(name or path.stem)
    _check_name(stem)
    kept = trained.kept()
    left_out = tuple(file for file in contents.files if file not in kept and not IGNORED.search(file))
    tag = str(release) if release else ""
    now = datetime.now(UTC).isoformat(timespec="seconds")
    record = Provenance(stem, tag, source, found, path.stat().st_size, now, trained.name, left_out)
    target = place / (f"{stem}-{tag}" if tag else stem)
    if (before := _same_package(target, record)) is not None:
        return Installed(target, before, False)
    if target.exists() and not (target / RECORD).is_file():
        raise OutputError(f"{target}: this is no installed package, and is not replaced; choose another --name")
    with whole(target) as draft:
        contents.unpack(draft, kept)
        (draft / RECORD).write_text(record.text(), encoding="utf-8")
    return Installed(target, record, True)


def _same_package(target: Path, record: Provenance) -> Provenance | None:
    """The record of what is installed, where it is the same package and all of it is still there."""
    try:
        before = Provenance.read(target / RECORD)
        trained = trained_in(Contents.of(target))
    except ModelError:
        return None
    return before if before.sha256 == record.sha256 and trained.folds else None


def _is_address(source: str | Path) -> bool:
    return isinstance(source, str) and bool(re.match(r"[A-Za-z][A-Za-z0-9+.-]+://", source))


def _downloaded(url: str, folder: Path, progress: Progress) -> Path:
    parts = urllib.parse.urlsplit(url)
    if parts.scheme.lower() not in ("http", "https") or parts.query or parts.fragment:
        raise ModelError(f"{url}: an address is http(s)://.../<name>-rYYYYMMDD.zip, without what follows a ? or #")
    base, _, last = url.rpartition("/")
    file = urllib.parse.unquote(last)
    _check_name(file)
    return from_mirror(base, file, folder, progress).path


def _check_name(name: str) -> None:
    if not re.fullmatch(r"\w[\w.-]{0,199}", name, re.ASCII):
        raise ModelError(f"{name!r:.80}: a model's name has letters, digits, _ - and . only; give one with --name")


def _with_orientation(contents: Contents, trained: Trained, orientation: str | None) -> dict[str, bytes]:
    """`dataset.json` with another `image_orientation`, by its name in the contents; nothing where none was given."""
    if orientation is None:
        return {}
    file = trained.files["dataset.json"]
    described = read_json(contents.read(file), file)
    described["image_orientation"] = checked_letters(orientation, "--orientation")
    return {file: json.dumps(described, indent=4).encode()}


def _packed_files(trained: Trained) -> dict[str, str]:
    """Files of the training -> names in the zip file; a trainer's own class goes along, for others to look at."""
    extra = {trained.files[name]: f"{trained.name}/{name}" for name in (TRAINER_CLASS,) if name in trained.files}
    return dict(sorted((trained.kept() | extra).items(), key=lambda pair: pair[1]))


def _write_zip(
    path: Path, contents: Contents, names: dict[str, str], changed: dict[str, bytes], release: ReleaseTag
) -> None:
    with whole_file(path, parents=True) as draft, zipfile.ZipFile(draft, "w") as archive:
        for name, target in names.items():
            _add(archive, contents, name, target, changed.get(name), release)


def _add(
    archive: zipfile.ZipFile, contents: Contents, name: str, target: str, changed: bytes | None, release: ReleaseTag
) -> None:
    day = release.day
    member = zipfile.ZipInfo(target, (max(day.year, 1980), day.month, day.day, 0, 0, 0))
    member.external_attr = 0o644 << 16
    # Weights hardly become smaller.
    member.compress_type = zipfile.ZIP_STORED if target.endswith(".pth") else zipfile.ZIP_DEFLATED
    with archive.open(member, "w", force_zip64=True) as output:
        if changed is not None:
            output.write(changed)
            return
        with (contents.path / name).open("rb") as file:
            while chunk := file.read(CHUNK):
                output.write(chunk)
