"""Model files from the hub or a mirror: downloaded once, checked, recorded in the lock file, and verified."""

import logging
import os
import shutil
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import final

from impactreg.errors import ModelError, OutputError
from impactreg.models.archives import check_torchscript
from impactreg.models.cards import CardFile, ModelCard
from impactreg.models.downloads import Download, Progress, from_hub, from_hub_cache, from_mirror, unseen
from impactreg.models.lock import Lock, Record, digest, exclusive

OFFLINE = ("IMPACTREG_OFFLINE", "HF_HUB_OFFLINE")

log = logging.getLogger(__name__)


@final
@dataclass(frozen=True)
class Fetched:
    """A model file that is here: its path, what the lock file says of it, and whether it was downloaded just now."""

    name: str
    path: Path
    record: Record
    downloaded: bool


@final
@dataclass(frozen=True)
class Store:
    """The folder that fetched model files lie in, by their paths in parameter files, and the lock file beside it."""

    cache: Path

    @property
    def folder(self) -> Path:
        """Where the files are."""
        return self.cache / "fetched"

    @property
    def lock(self) -> Lock:
        """What is recorded of them."""
        return Lock(self.cache / "models.lock.toml")

    def path(self, file: CardFile) -> Path:
        """Where a file is, or would be."""
        return self.folder / file.path

    def find(self, file: CardFile) -> Path | None:
        """The file where it is here, once its bytes are those of the card and of the lock file; else None.

        Raises `ModelError` where they are not, or where nobody recorded them.
        """
        path = self.path(file)
        if not path.is_file():
            return None
        record = self.lock.get(file.path)
        wanted = file.sha256 or (record.sha256 if record else None)
        again = f"fetch it again with: impactreg models fetch {file.path}"
        if wanted is None:
            raise ModelError(f"{path}: nothing is recorded of this file in {self.lock.path}; {again}")
        if (found := digest(path)) != wanted:
            raise ModelError(
                f"{path}: the file has changed since it was fetched: its SHA-256 is {found}, not {wanted}; {again}"
            )
        return path

    def state(self, file: CardFile, *, verify: bool = False) -> str:
        """Whether a file is "fetched", "damaged" or not here (""); without `verify` its size alone is looked at."""
        path = self.path(file)
        if not path.is_file():
            return ""
        if verify:
            try:
                return "fetched" if self.find(file) else ""
            except ModelError:
                return "damaged"
        record = self.lock.get(file.path)
        return "fetched" if record and record.size == path.stat().st_size else "damaged"

    def fetch(
        self,
        card: ModelCard,
        file: CardFile,
        *,
        mirror: str | None = None,
        offline: bool | None = None,
        renew: bool = False,
        progress: Progress = unseen,
    ) -> Fetched:
        """Brings a file here, or finds that it is here already.

        `mirror` (by default IMPACTREG_MIRROR) is an address under which the files lie by their paths; else they come
        from the card's repository on the hub. `offline` (by default IMPACTREG_OFFLINE or HF_HUB_OFFLINE) uses no
        network. The first fetch records SHA-256, size, commit, address and date; every later one must bring the same
        bytes, unless `renew` forgets the record. What the card pins always counts. Two processes may do this at
        once: the second waits and finds the file.

        Raises `ModelError` for what cannot be had or is not what it should be; then nothing new is left here.
        """
        if card.source != "hub":
            raise ModelError(f"{file.path}: {card.family} is {card.source}; there is nothing to fetch")
        path = self.path(file)
        with exclusive(self._parts(file).with_name(f"{Path(file.path).stem}.lock")):
            record = None if renew else self.lock.get(file.path)
            if record is not None and _is_whole(path, file, record):
                return Fetched(file.path, path, record, False)
            found = self._download(card, file, record, mirror, is_offline(offline), progress)
            record = self._accept(found, file, record)
            return Fetched(file.path, path, record, True)

    def _download(
        self,
        card: ModelCard,
        file: CardFile,
        record: Record | None,
        mirror: str | None,
        offline: bool,
        progress: Progress,
    ) -> Download:
        folder = self._parts(file)
        mirror = mirror or os.environ.get("IMPACTREG_MIRROR")
        revision = file.revision or (record.revision if record else None) or None
        repository = card.repository or ""
        try:
            folder.mkdir(parents=True, exist_ok=True)
            if offline:
                found = None if mirror else from_hub_cache(repository, file.path, revision, folder)
                if found is None:
                    raise ModelError(
                        f"{file.path}: it is not on this machine, and the network is not to be used: "
                        "fetch it without --offline, IMPACTREG_OFFLINE and HF_HUB_OFFLINE"
                    )
                return found
            log.info("fetching %s from %s", file.path, mirror or repository)
            if mirror:
                return from_mirror(mirror, file.path, folder, progress)
            return from_hub(repository, file.path, revision, folder, progress)
        except OSError as error:
            raise OutputError(f"{folder}: cannot be written: {error.strerror or error}") from None

    def _accept(self, found: Download, file: CardFile, record: Record | None) -> Record:
        """Puts a download in its place and records it, or throws it away and tells what is wrong with it."""
        try:
            made = _record(found)
            _check(found, file, record, made)
            check_torchscript(found.path, file.path)
            path = self.path(file)
            path.parent.mkdir(parents=True, exist_ok=True)
            # The record comes first: a file without one is not used, and a record without a file does no harm.
            if record is None:
                self.lock.put(file.path, made)
            found.path.replace(path)
        except OSError as error:
            raise OutputError(f"{self.path(file)}: cannot be written: {error.strerror or error}") from None
        finally:
            shutil.rmtree(self._parts(file), ignore_errors=True)
        return record or made

    def _parts(self, file: CardFile) -> Path:
        """Where a file is while it comes."""
        return self.folder / ".parts" / file.path.removesuffix(".pt")


def is_offline(asked: bool | None = None) -> bool:
    """Whether the network is not to be used: as asked, else by IMPACTREG_OFFLINE and HF_HUB_OFFLINE."""
    if asked is not None:
        return asked
    return any(os.environ.get(name, "").lower() in ("1", "on", "true", "yes") for name in OFFLINE)


def _is_whole(path: Path, file: CardFile, record: Record) -> bool:
    if not path.is_file():
        return False
    return digest(path) == (file.sha256 or record.sha256)


def _record(found: Download) -> Record:
    return Record(
        sha256=digest(found.path),
        size=found.path.stat().st_size,
        revision=found.revision,
        url=found.url,
        date=datetime.now(UTC).date(),
    )


def _check(found: Download, file: CardFile, record: Record | None, made: Record) -> None:
    pins = [("its card", file.sha256), ("the lock file", record.sha256 if record else None)]
    for whose, wanted in pins:
        if wanted is not None and made.sha256 != wanted:
            advice = "" if file.sha256 else "; if it was meant to change, fetch it with --renew"
            raise ModelError(
                f"{found.url}: the file is refused: its SHA-256 is {made.sha256}, but {whose} says {wanted}{advice}"
            )
    if file.size is not None and made.size != file.size:
        raise ModelError(f"{found.url}: the file is refused: it has {made.size} bytes, but its card says {file.size}")
    if file.revision is not None and made.revision not in ("", file.revision):
        raise ModelError(
            f"{found.url}: the file is refused: it is of commit {made.revision}, but its card says {file.revision}"
        )
