"""What is wrong with a package of a model, one line for each finding; nothing of the package is run."""

import ast
import re
from collections.abc import Callable, Iterator
from pathlib import Path

from impactreg.errors import ModelError
from impactreg.models.names import ModelName, split_release
from impactreg.models.package_layout import DESCRIPTIONS, FINAL, TRAINER_CLASS, Trained, trained_in
from impactreg.models.plans import Plan, read_json, read_plan
from impactreg.models.unpacking import Contents

Finding = str


def check(path: Path) -> tuple[Finding, ...]:
    """What is wrong with the package in a zip file or folder, and what to do about it; nothing where all is well.

    Each finding is one line. Whether the weights fit the plans shows when the package is converted.
    """
    findings = list(_name_findings(path)) if not path.is_dir() else []
    try:
        contents = Contents.of(path)
        trained = trained_in(contents)
    except ModelError as error:
        return (*findings, str(error))
    for look in _LOOKS:
        findings.extend(look(contents, trained))
    return tuple(findings)


def plan_of(contents: Contents, trained: Trained, orientation: str | None = None) -> Plan:
    """The plan of a trainer's folder; raises `ModelError` where a file is missing or makes no sense."""
    texts = []
    for name in ("plans.json", "dataset.json"):
        if name not in trained.files:
            raise ModelError(f"{contents.path}: {trained.name}/{name} is missing; take it from the training")
        texts.append(contents.read(trained.files[name]))
    return read_plan(texts[0], texts[1], trained.configuration, f"{contents.path}: {trained.name}", orientation)


def _name_findings(path: Path) -> Iterator[Finding]:
    if path.suffix.lower() != ".zip":
        yield f"{path.name}: a package is a zip file; make one with impactreg models pack"
    name, release = split_release(path.stem)
    if release is None:
        yield f"{path.name}: there is no release in the file's name; end it with -rYYYYMMDD.zip"
    try:
        yield from (f"{path.name}: {remark}" for remark in ModelName.parse(name).remarks)
    except ModelError as error:
        yield str(error)


def _layout_findings(contents: Contents, trained: Trained) -> Iterator[Finding]:
    if contents.zipped and "/" in trained.folder:
        yield f"{trained.folder}: the folder of the trainer lies in another one; it belongs to the top of the zip file"
    if not trained.trainer.startswith("nnUNetTrainer"):
        yield f"{trained.name}: a trainer is named nnUNetTrainer or nnUNetTrainer_<what>"
    for name in DESCRIPTIONS:
        if name not in trained.files:
            yield f"{trained.name}: {name} is missing; take it from the folder of the training"
    if not trained.folds:
        yield f"{trained.name}: there is no fold_<N>/{FINAL}; train to the end, or take the fold that was"
    kept = trained.kept()
    extra = [name for name, path in trained.files.items() if path not in kept and name != TRAINER_CLASS]
    for name in (*extra, *(path for path in trained.others if path not in kept)):
        yield f"{name}: does not belong into a package{_why(name)}; leave it out"


def _why(name: str) -> str:
    if re.search(r"checkpoint_\w+\.pth$", name):
        return f", of which only {FINAL} is used"
    if name.endswith((".py", ".pkl", ".pickle")):
        return ", whose code nobody can trust"
    return ""


def _dataset_findings(contents: Contents, trained: Trained) -> Iterator[Finding]:
    if "dataset.json" not in trained.files:
        return
    where = f"{trained.name}/dataset.json"
    try:
        found = read_json(contents.read(trained.files["dataset.json"]), where)
    except ModelError as error:
        yield str(error)
        return
    if found.get("image_orientation") is None:
        yield (
            f"{where}: image_orientation is missing; add three letters that say where the axes of the training images "
            'come from, such as "image_orientation": "RPI", or use pack --orientation RPI'
        )


def _plan_findings(contents: Contents, trained: Trained) -> Iterator[Finding]:
    if not {"plans.json", "dataset.json"} <= trained.files.keys():
        return
    try:
        plan_of(contents, trained)
    except ModelError as error:
        yield str(error)


def _trainer_findings(contents: Contents, trained: Trained) -> Iterator[Finding]:
    """`trainer_class.py` is parsed, to tell whether it is what it claims, and never run."""
    if TRAINER_CLASS not in trained.files:
        return
    where = f"{trained.name}/{TRAINER_CLASS}"
    try:
        tree = ast.parse(contents.read(trained.files[TRAINER_CLASS], 1 << 20))
    except (ModelError, SyntaxError, ValueError, RecursionError, MemoryError) as error:
        # A MemoryError of the parser says nothing.
        yield f"{where}: this is no Python: {(str(error).splitlines() or [type(error).__name__])[0]}"
        return
    functions = {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}
    if "get_trainer_class" not in functions:
        yield f"{where}: there is no function get_trainer_class, which the Spinal Cord Toolbox calls"
    if trained.trainer == "nnUNetTrainer":
        yield f"{where}: nnUNetTrainer is nnU-Net's own trainer, which needs no file; leave it out"


_LOOKS: tuple[Callable[[Contents, Trained], Iterator[Finding]], ...] = (
    _layout_findings,
    _dataset_findings,
    _plan_findings,
    _trainer_findings,
)
