"""Where things lie in a package of an nnU-Net model: one folder of a trainer, its descriptions, its folds."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath

from impactreg.errors import ModelError
from impactreg.models.unpacking import Contents

FINAL = "checkpoint_final.pth"
DESCRIPTIONS = ("dataset.json", "dataset_fingerprint.json", "plans.json")
TRAINER_CLASS = "trainer_class.py"
KEPT = re.compile(
    r"(dataset|dataset_fingerprint|plans)\.json|fold_(\d+|all)/(checkpoint_final\.pth|debug\.json|progress\.png"
    r"|training_log_[\w.-]+\.(txt|png))"
)
"""What belongs into the folder of a trainer."""
BESIDE = re.compile(r"(README|LICEN[CS]E|CITATION|CHANGELOG)[\w.-]*|crop_metadata\.json", re.IGNORECASE)
"""What may lie beside that folder, or in it."""
IGNORED = re.compile(r"(^|/)(__MACOSX/|\.DS_Store$)")


@dataclass(frozen=True)
class Trained:
    """The folder `<Trainer>__<Plans>__<configuration>` of a package: where it lies in it ("" is the top), its name, its
    files by their names below it, and the other files of the package.
    """

    folder: str
    name: str
    files: Mapping[str, str]
    others: tuple[str, ...]

    @property
    def trainer(self) -> str:
        """The trainer's class, such as nnUNetTrainer."""
        return self.name.split("__")[0]

    @property
    def configuration(self) -> str:
        """The configuration, such as 3d_fullres."""
        return self.name.split("__")[2]

    @property
    def folds(self) -> tuple[str, ...]:
        """The folds that have a final checkpoint, such as 0 or all."""
        found = [re.fullmatch(rf"fold_(\d+|all)/{re.escape(FINAL)}", name) for name in self.files]
        return tuple(sorted((one[1] for one in found if one), key=lambda fold: (fold == "all", len(fold), fold)))

    def kept(self) -> dict[str, str]:
        """The files of the package that belong to it -> where they lie in a package in its right form."""
        inside = {path: f"{self.name}/{name}" for name, path in self.files.items() if _belongs(name)}
        parent = PurePosixPath(self.folder).parent
        beside = [path for path in self.others if PurePosixPath(path).parent == parent and BESIDE.fullmatch(_end(path))]
        return inside | {path: _end(path) for path in beside}


def trained_in(contents: Contents, configuration: str | None = None) -> Trained:
    """The folder of a trainer in a folder or zip file, or that folder itself.

    `configuration` chooses between several. Raises `ModelError` where there is none, or more than one.
    """
    files = [name for name in contents.files if not IGNORED.search(name)]
    found = {folder for name in files for folder in _trainers(name)}
    if not contents.zipped and not found and _is_trainer(contents.path.resolve().name):
        found = {""}
    chosen = sorted(f for f in found if configuration in (None, _name(contents, f).split("__")[2]))
    if not chosen:
        names = ", ".join(sorted(_name(contents, folder) for folder in found))
        what = f"of {configuration}; there is {names}" if found else "named <Trainer>__<Plans>__<configuration>"
        raise ModelError(f"{contents.path}: there is no folder {what}")
    if len(chosen) > 1:
        listed = ", ".join(chosen)
        raise ModelError(f"{contents.path}: there are several models: {listed}; name one with --configuration")
    prefix = f"{chosen[0]}/" if chosen[0] else ""
    inside = {name.removeprefix(prefix): name for name in files if name.startswith(prefix)}
    others = tuple(name for name in files if not name.startswith(prefix))
    return Trained(chosen[0], _name(contents, chosen[0]), inside, others)


def _trainers(name: str) -> list[str]:
    """The folders on a file's way that are named as those of trainers."""
    parts = PurePosixPath(name).parts[:-1]
    return ["/".join(parts[: n + 1]) for n, part in enumerate(parts) if _is_trainer(part)][:1]


def _is_trainer(name: str) -> bool:
    parts = name.split("__")
    return len(parts) == 3 and all(parts)


def _name(contents: Contents, folder: str) -> str:
    return _end(folder) if folder else contents.path.resolve().name


def _belongs(name: str) -> bool:
    return bool(KEPT.fullmatch(name) or BESIDE.fullmatch(name))


def _end(path: str) -> str:
    return PurePosixPath(path).name
