"""All pairs of a Learn2Reg task, evaluated from displacement fields or transforms as Learn2Reg does."""

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from impactreg.components.transforms.displacement_files import VoxelField, read_voxel_field, voxel_field
from impactreg.components.transforms.exchange import as_transform, opened
from impactreg.errors import PointsError, TransformError
from impactreg.evaluation import learn2reg
from impactreg.evaluation.frame import Frame
from impactreg.evaluation.learn2reg import Numbers, Voxels
from impactreg.evaluation.overlap import common_labels
from impactreg.evaluation.task import Method, Pair, Task
from impactreg.images.files import FilePath, read_image
from impactreg.images.points import read_points

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Figure:
    """A figure of one case: one value, and what it is the mean of (landmarks, labels, or itself)."""

    mean: float
    detailed: tuple[float, ...]
    labels: tuple[int, ...] = ()


@dataclass(frozen=True)
class DatasetEvaluation:
    """A task's figures: of each case by its name (`0001_0000<--0001_0001`) and the method's, and over all cases.

    `folding` is the fraction of voxels, two from the border on, in which each field folds: no figure of Learn2Reg's.
    """

    name: str
    cases: dict[str, dict[str, Figure]]
    aggregates: dict[str, dict[str, float]]
    folding: dict[str, float]


def evaluate_dataset(
    dataset: FilePath, fields: FilePath, *, data: FilePath | None = None, test: bool = False
) -> DatasetEvaluation:
    """Evaluates the registrations of a Learn2Reg task, in Learn2Reg's conventions (see `learn2reg`).

    `dataset` is the task's JSON file: an evaluation configuration, or a dataset of which the pairs in
    `registration_val` count (`registration_test` with `test`). `fields` is the folder with `disp_0001_0001.nii.gz` and
    its like, which may also be transforms (see `Task.transforms`): their fields are made with the grids of both images.
    `data` is the folder with the images, labels and landmarks (that of the JSON file without it). Raises
    `ImpactregError` in one line for what is missing or does not fit.
    """
    task = Task.read(dataset, data, test=test)
    cases, folding = {}, {}
    for pair, file in zip(task.pairs, task.transforms(fields), strict=True):
        logger.info("%s: %s", pair.name, file)
        case = _Case(task, pair, _field(task, pair, file), file)
        cases[pair.name] = case.figures()
        folding[pair.name] = learn2reg.folding(case.field)
    means = {method: [case[method.name].mean for case in cases.values()] for method in task.methods}
    aggregates = {method.name: learn2reg.aggregate(values, method.metric) for method, values in means.items()}
    return DatasetEvaluation(task.name, cases, aggregates, folding)


@dataclass(frozen=True, eq=False)
class _Case:
    """One pair with its field."""

    task: Task
    pair: Pair
    field: VoxelField
    file: Path

    def __post_init__(self) -> None:
        if self.task.shape and self.field.shape != self.task.shape:
            raise TransformError(f"{self.file}: the field has shape {self.field.shape}, not {self.task.shape}")
        if min(self.field.shape[:3]) <= 2 * learn2reg.BORDER:
            raise TransformError(f"{self.file}: a field of more than {2 * learn2reg.BORDER} voxels a side is needed")

    def figures(self) -> dict[str, Figure]:
        found = self._overlaps()
        for method in self.task.methods:
            if method.metric == "sdlogj":
                found[method.name] = _alone(learn2reg.sdlogj(self.field, self._mask()))
            if method.metric == "tre":
                errors = self._errors(method)
                found[method.name] = Figure(float(errors.mean()), tuple(errors.tolist()))
        return found

    def _mask(self) -> Voxels | None:
        path = self.task.beside(self.pair.fixed, "masks")
        if not self.task.masked:
            return None
        if not path.is_file():
            logger.warning("%s: there is no such mask: SDlogJ is of all voxels", path)
            return None
        return self._checked(_voxels(path), path)

    def _errors(self, method: Method) -> Numbers:
        folder = self.task.landmark_folder(method, self.pair)
        paths = [self.task.beside(each, folder, ".csv") for each in (self.pair.fixed, self.pair.moving)]
        fixed, moving = (read_points(path, dimension=3).points.numpy() for path in paths)
        if len(fixed) != len(moving):
            raise PointsError(f"{paths[1]}: it has {len(moving)} landmarks, but {paths[0]} has {len(fixed)}")
        spacing = read_image(self.task.folder / self.pair.moving, name="moving image").grid.spacing
        return learn2reg.tre(self.field, fixed, moving, spacing)

    def _overlaps(self) -> dict[str, Figure]:
        methods = [each for each in self.task.methods if each.metric in ("dice", "hd95")]
        if not methods:
            return {}
        paths = [self.task.beside(each, "labels") for each in (self.pair.fixed, self.pair.moving)]
        fixed_image, moving_image = (read_image(path, name="labels") for path in paths)
        fixed, moving = (_array(image.scalar.numpy()) for image in (fixed_image, moving_image))
        warped = learn2reg.warped_labels(moving, self.field)
        self._checked(fixed, paths[0])
        labels = {method: method.labels or common_labels(fixed_image, moving_image) for method in methods}
        known = {each: learn2reg.overlaps(fixed, moving, warped, each) for each in set(labels.values())}
        values = {method: tuple(known[labels[method]][method.metric == "hd95"]) for method in methods}
        return {
            method.name: Figure(learn2reg.mean(values[method]), values[method], labels[method]) for method in methods
        }

    def _checked(self, voxels: Voxels, path: Path) -> Voxels:
        if voxels.shape != self.field.shape[:3]:
            raise TransformError(f"{path}: {voxels.shape} voxels, but the field {self.file} has {self.field.shape[:3]}")
        return voxels


def _field(task: Task, pair: Pair, file: Path) -> VoxelField:
    """The field in a file, or that of the transform in it."""
    if file.name.endswith((".npz", ".nii.gz")):
        return read_voxel_field(file)
    found = opened(file)
    transform, frame = as_transform(found), Frame.of(found)
    if transform.dimension != 3:
        raise TransformError(f"{file}: the transform is {transform.dimension}D, but Learn2Reg's images are 3D")
    fixed, moving = (
        frame.grid(read_image(task.folder / each, name=f"{what} image").grid)
        for what, each in (("fixed", pair.fixed), ("moving", pair.moving))
    )
    return voxel_field(transform, fixed, moving)


def _alone(value: float) -> Figure:
    return Figure(value, (value,))


def _voxels(path: Path) -> Voxels:
    return _array(read_image(path).scalar.numpy())


def _array(values: Any) -> Voxels:
    """The voxels [z, y, x] as the file holds them: [x, y, z]."""
    return np.asarray(values.transpose())
