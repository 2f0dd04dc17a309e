"""What a Learn2Reg task asks to evaluate: its evaluation configuration, or its dataset description."""

import json
import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from impactreg.components.transforms.files import ITK_EXTENSIONS
from impactreg.errors import ImageError, ImpactregError, TransformError
from impactreg.images.files import FilePath

METRICS = ("sdlogj", "dice", "hd95", "tre")
_ENDINGS = (".npz", ".nii.gz", ".txt", ".toml", *(f".{each}" for each in ITK_EXTENSIONS))
_LAST = re.compile(r"TransformParameters\.(\d+)\.(?:txt|toml)")
_IMAGE = re.compile(r"_(\d{4})_(\d{4})\.nii\.gz$")


@dataclass(frozen=True)
class Method:
    """A figure: its name in results, one of `METRICS`, the labels (none: all that both images have), or the folder of
    landmarks.
    """

    name: str
    metric: str
    labels: tuple[int, ...] = ()
    folder: str = ""


@dataclass(frozen=True)
class Pair:
    """Two images of a task, as paths in its folder such as `./imagesTr/LungCT_0001_0000.nii.gz`."""

    fixed: str
    moving: str

    @property
    def name(self) -> str:
        """`0001_0000<--0001_0001`: Learn2Reg's name of the case."""
        return "{}_{}<--{}_{}".format(*self.numbers)

    @property
    def numbers(self) -> tuple[str, str, str, str]:
        """Subject and modality of the fixed and of the moving image."""
        found = [_IMAGE.search(each) for each in (self.fixed, self.moving)]
        fixed, moving = (match.groups() if match else ("", "") for match in found)
        return fixed[0], fixed[1], moving[0], moving[1]

    @property
    def is_usual(self) -> bool:
        """Whether the images are of the modalities 0000 and 0001 in this order."""
        return (self.numbers[1], self.numbers[3]) == ("0000", "0001")

    @property
    def short_name(self) -> str:
        """`disp_0001_0001`: the field's name without modalities."""
        return "disp_{}_{}".format(*self.numbers[::2])

    @property
    def long_name(self) -> str:
        """`disp_0001_0000_0001_0001`: the field's full name."""
        return "disp_{}_{}_{}_{}".format(*self.numbers)


@dataclass(frozen=True)
class Task:
    """A task with its methods and pairs; `folder` holds its data and `shape` is that of fields, where it is said."""

    name: str
    methods: tuple[Method, ...]
    pairs: tuple[Pair, ...]
    folder: Path
    shape: tuple[int, ...] = ()
    masked: bool = False

    @classmethod
    def read(cls, path: FilePath, data: FilePath | None = None, *, test: bool = False) -> "Task":
        """A task from a JSON file: an evaluation configuration (`eval_pairs`) or a dataset (`registration_val`).

        `data` is the folder with the images, without it that of the file. A dataset does not say what is evaluated:
        that is SDlogJ, and what lies in its folders `labels*`, `landmarks*` and `keypoints*`; `test` takes its
        `registration_test`. Raises `ImpactregError` in one line for what is missing.
        """
        content = _json(Path(path))
        folder = Path(data) if data is not None else Path(path).parent
        if not folder.is_dir():
            raise ImageError(f"{folder}: there is no such folder with the data of the task")
        try:
            return _configuration(content, folder) if "eval_pairs" in content else _dataset(content, folder, test)
        except ImpactregError as error:
            raise type(error)(f"{path}: {error}") from error
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            reason = f"{error} is missing" if isinstance(error, KeyError) else str(error)
            raise ImageError(f"{path}: this is no Learn2Reg task: {reason}") from error

    def transforms(self, folder: FilePath) -> list[Path]:
        """The file with the field or transform of each pair; raises `TransformError` that lists the missing ones.

        That is `disp_0001_0001.npz` or `.nii.gz`, else a transform file of that name, else the last
        TransformParameters file in a folder of that name, which is the output folder of a registration. The name
        without modalities serves where no other pair has it, too.
        """
        shared = Counter(pair.short_name for pair in self.pairs)
        found, missing = [], []
        for pair in self.pairs:
            short = pair.is_usual or shared[pair.short_name] == 1
            names = [pair.short_name, pair.long_name] if pair.is_usual else [pair.long_name]
            names += [pair.short_name] if short and not pair.is_usual else []
            there = next((file for name in names if (file := _transform_file(Path(folder) / name))), None)
            if there is None:
                missing.append(" or ".join(names))
            else:
                found.append(there)
        if missing:
            shown = "; ".join(missing[:5]) + (" ..." if len(missing) > 5 else "")
            raise TransformError(
                f"{folder}: {len(missing)} of {len(self.pairs)} fields (.nii.gz or .npz) or transforms (.txt, .h5 ..., "
                f"or a folder with TransformParameters files) are missing: {shown}"
            )
        return found

    def beside(self, image: str, folder: str, ending: str = ".nii.gz") -> Path:
        """The file that belongs to an image in another folder, such as `labels`, with another ending."""
        return self.folder / image.replace("images", folder).replace(".nii.gz", ending)

    def landmark_folder(self, method: Method, pair: Pair) -> str:
        """The folder of a pair's landmarks, which for other pairs than the usual ends in both modalities."""
        fixed, moving = pair.numbers[1], pair.numbers[3]
        if fixed == moving or pair.is_usual:
            return method.folder
        low, high = sorted((fixed, moving))
        written = f"{method.folder}{low}{high}"
        short = f"{method.folder}{int(low)}{int(high)}"
        return next((each for each in (written, short) if self.beside(pair.fixed, each, ".csv").is_file()), written)


def _transform_file(name: Path) -> Path | None:
    """The file or output folder of this name without ending, if there is one."""
    files = (name.with_name(name.name + ending) for ending in _ENDINGS)
    inside = {int(found[1]): each for each in sorted(name.glob("*")) if (found := _LAST.fullmatch(each.name))}
    return next((file for file in files if file.is_file()), inside[max(inside)] if inside else None)


def _json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise ImageError(f"{path}: cannot be read: {error.strerror or error}") from error
    except (ValueError, RecursionError) as error:
        raise ImageError(f"{path}: this is no JSON file: {str(error)[:80]}") from error
    if not isinstance(content, dict):
        raise ImageError(f"{path}: a JSON object is needed, as in Learn2Reg's dataset and configuration files")
    return content


def _configuration(content: dict[str, Any], folder: Path) -> Task:
    methods = tuple(_method(each) for each in content["evaluation_methods"])
    if len({method.name for method in methods}) != len(methods):
        raise ImageError("the names of evaluation_methods must differ")
    shape = tuple(int(n) for n in content.get("expected_shape", ()))
    masked = bool(content.get("masked_evaluation", False))
    return Task(str(content["task_name"]), methods, _pairs(content["eval_pairs"]), folder, shape, masked)


def _method(given: dict[str, Any]) -> Method:
    metric = given["metric"]
    if metric not in METRICS:
        raise ImageError(f'there is no metric "{metric}": Learn2Reg has {", ".join(METRICS)}')
    return Method(
        str(given["name"]),
        metric,
        tuple(int(label) for label in given.get("labels", ())),
        str(given["dest"]) if metric == "tre" else "",
    )


def _dataset(content: dict[str, Any], folder: Path, test: bool) -> Task:
    key = "registration_test" if test else "registration_val"
    pairs = _pairs(content[key])
    task = Task(str(content["name"]), (), pairs, folder, _shape(content), True)
    first = pairs[0]
    has_labels = all(task.beside(each, "labels").is_file() for each in (first.fixed, first.moving))
    methods = [Method("LogJacDetStd", "sdlogj")]
    methods += [Method("DSC", "dice"), Method("HD95", "hd95")] if has_labels else []
    for name, place in (("TRE_lm", "landmarks"), ("TRE_kp", "keypoints")):
        method = Method(name, "tre", (), place)
        if task.beside(first.fixed, task.landmark_folder(method, first), ".csv").is_file():
            methods.append(method)
    masked = task.beside(first.fixed, "masks").is_file()
    return Task(task.name, tuple(methods), pairs, folder, task.shape, masked)


def _shape(content: dict[str, Any]) -> tuple[int, ...]:
    shapes = content.get("tensorImageShape", {})
    return (*(int(n) for n in shapes["0"]), 3) if "0" in shapes else ()


def _pairs(given: Iterable[dict[str, Any]]) -> tuple[Pair, ...]:
    pairs = tuple(Pair(str(each["fixed"]), str(each["moving"])) for each in given)
    if not pairs:
        raise ImageError("the task has no pairs of images")
    for image in (name for pair in pairs for name in (pair.fixed, pair.moving)):
        if not _IMAGE.search(image):
            raise ImageError(f"images are named TASK_0001_0000.nii.gz in Learn2Reg, not {image}")
    return pairs
