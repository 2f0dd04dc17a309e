"""Real image pairs of which the right registration is known, and how far a transform is from it.

The pairs lie in a folder that does not come with the program (by default `../shared/data` beside the repository).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from statistics import fmean

import torch
from torch import Tensor

from impactreg.components.transforms.bspline import BSplineTransform
from impactreg.components.transforms.files import read_transform
from impactreg.components.transforms.transform import Combination
from impactreg.components.warping import warp
from impactreg.images import Grid, Image, read_image, read_points
from impactreg.parameters import ParameterMap

REPOSITORY = Path(__file__).resolve().parents[2]
DATA = REPOSITORY.parent / "shared" / "data"

CENTRE = 0.31000519, 5.31000519, 6.43999481
BRAIN_RIGID = 0.15883224, -0.00421242, -0.02203980, -0.84552959, -2.43117146, 8.87260010
"""How the brain of t1-pd-rigid lies, an `EulerTransform` about `CENTRE`; `brain_truth.py` estimates it."""

PointMap = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Score:
    """How good a transform is: target registration errors in mm (mean, median) and the mean Dice of labels.

    What does not apply is None.
    """

    mean: float | None = None
    median: float | None = None
    dice: float | None = None

    @property
    def error(self) -> float:
        """One number, less is better: the mean error in mm, else 1 - Dice."""
        if self.mean is not None:
            return self.mean
        return 1.0 - (self.dice or 0.0)


@dataclass(frozen=True)
class Pair:
    """Two images with what is known of them; everything is read when it is first asked for.

    `truth` gives the moving points (mm) of the fixed points `where`. Labels are compared after the moving ones are
    warped; `of_labels` are those that count (none given: all). `initial` is the transform that a registration starts
    with, and `shrink` makes both images and labels that many times coarser. `known_to` is how well the truth is known
    (mm): what is nearer to it is not better.
    """

    name: str
    title: str
    folder: Path
    fixed_file: str
    moving_file: str
    points: Callable[[Path], tuple[Tensor, Tensor]] | None = None
    label_files: tuple[str, str] | None = None
    label_list: str | None = None
    mask_files: tuple[str | None, str | None] = (None, None)
    start: Callable[[Path], Combination] | None = None
    shrink: int = 1
    known_to: float = 0.0

    @cached_property
    def fixed(self) -> Image:
        return self._image(self.fixed_file)

    @cached_property
    def moving(self) -> Image:
        return self._image(self.moving_file)

    @cached_property
    def masks(self) -> tuple[Image | None, Image | None]:
        fixed, moving = (None if name is None else read_image(self.folder / name) for name in self.mask_files)
        return fixed, moving

    @cached_property
    def initial(self) -> Combination | None:
        return None if self.start is None else self.start(self.folder)

    def before(self) -> Score:
        """The score of no registration."""
        return self.score(self.initial or (lambda points: points))

    def score(self, transform: PointMap) -> Score:
        """The score of a transform from fixed to moving points."""
        mean = median = dice = None
        if self.points is not None:
            where, truth = self.points(self.folder)
            distances = torch.linalg.vector_norm(transform(where) - truth, dim=1)
            mean, median = float(distances.mean()), float(distances.median())
        if self.label_files is not None:
            dice = self._dice(transform)
        return Score(mean, median, dice)

    def _dice(self, transform: PointMap) -> float:
        fixed, moving = self._labels
        warped = warp(moving, transform, fixed.grid, order=0).scalar
        found = []
        for label in self._counted:
            a, b = fixed.scalar == label, warped == label
            found.append(2.0 * float((a & b).sum()) / max(1.0, float(a.sum() + b.sum())))
        return fmean(found)

    @cached_property
    def _labels(self) -> tuple[Image, Image]:
        names = self.label_files or ("", "")
        fixed, moving = (read_image(self.folder / name) for name in names)
        return every(fixed, self.shrink), every(moving, self.shrink)

    @cached_property
    def _counted(self) -> list[int]:
        if self.label_list is not None:
            return [int(line) for line in (self.folder / self.label_list).read_text().split()]
        present = [set(image.scalar.unique().int().tolist()) for image in self._labels]
        return sorted((present[0] & present[1]) - {0})

    def _image(self, name: str) -> Image:
        return averaged(read_image(self.folder / name), self.shrink)


def averaged(image: Image, factor: int) -> Image:
    """The image with voxels `factor` times as large, each the mean of those that it holds."""
    if factor == 1:
        return image
    pooled = torch.nn.functional.avg_pool3d(image.data[None].float(), factor)[0]
    return Image(pooled, _coarser(image.grid, factor, tuple(pooled.shape[:0:-1])))


def every(image: Image, factor: int) -> Image:
    """The image with every `factor`-th voxel, for labels: the one nearest to the centre of the voxels of `averaged`."""
    if factor == 1:
        return image
    picked = image.data[(slice(None), *[slice(factor // 2, None, factor)] * image.dimension)]
    offset = image.grid.index_to_world(torch.full((1, image.dimension), float(factor // 2), dtype=torch.float64))
    spacing = [s * factor for s in image.grid.spacing]
    return Image(picked, Grid.of(tuple(picked.shape[:0:-1]), spacing, offset[0].tolist(), image.grid.direction))


def _coarser(grid: Grid, factor: int, size: tuple[int, ...]) -> Grid:
    middle = torch.full((1, grid.dimension), (factor - 1) / 2, dtype=torch.float64)
    origin = grid.index_to_world(middle)[0].tolist()
    return Grid.of(size, [s * factor for s in grid.spacing], origin, grid.direction)


def landmarks(fixed: str, moving: str) -> Callable[[Path], tuple[Tensor, Tensor]]:
    """Points from two files whose lines correspond."""
    return lambda folder: (read_points(folder / fixed).points, read_points(folder / moving).points)


def mapped(fixed: str, transform: Callable[[Path], Combination]) -> Callable[[Path], tuple[Tensor, Tensor]]:
    """Points from a file, and where a transform takes them."""

    def points(folder: Path) -> tuple[Tensor, Tensor]:
        where = read_points(folder / fixed).points
        return where, transform(folder)(where)

    return points


def of_head(image: str, level: float) -> Callable[[Path], tuple[Tensor, Tensor]]:
    """Every eighth pixel of the head in two aligned images: each is its own truth."""

    def points(folder: Path) -> tuple[Tensor, Tensor]:
        fixed = read_image(folder / image)
        index = torch.nonzero(fixed.scalar[::8, ::8] > level).flip(1) * 8
        where = fixed.grid.index_to_world(index.to(torch.float64))
        return where, where

    return points


def turned(degrees: float, shift: tuple[float, float], centre: tuple[float, float]) -> Callable[[Path], Combination]:
    """A rigid start for aligned images, which a registration has to undo."""
    return lambda _folder: euler((math.radians(degrees), *shift), centre)


def euler(parameters: Sequence[float], centre: Sequence[float]) -> Combination:
    """An `EulerTransform` of elastix: its angles (radians) and shift (mm) about a centre (mm)."""
    written = {
        "Transform": "EulerTransform",
        "NumberOfParameters": len(parameters),
        "TransformParameters": list(parameters),
        "CenterOfRotationPoint": list(centre),
        "HowToCombineTransforms": "Compose",
    }
    return read_transform([ParameterMap.from_dict(written)])


def bent(size: tuple[float, float], spacing: float, sigma: float) -> Callable[[Path], Combination]:
    """A smooth random warp as the start for aligned images of `size` mm, which a registration has to undo."""
    number = [int(length // spacing) + 4 for length in size]
    grid = Grid.of(number, [spacing] * 2, [-1.5 * spacing] * 2)
    generator = torch.Generator().manual_seed(0)
    parameters = sigma * torch.randn(2 * grid.number_of_voxels, dtype=torch.float64, generator=generator)
    return lambda _folder: Combination(BSplineTransform(parameters, grid))


def pairs(data: Path = DATA) -> dict[str, Pair]:
    """The pairs by name."""
    slices = "BrainProtonDensitySliceBorder20.mha", "BrainT1SliceBorder20.mha"
    found = [
        Pair(
            "t1-pd",
            "brain, T1 / PD, one man, known warp",
            data / "brain_t1_pd",
            "fixed_t1.nii.gz",
            "moving_pd.nii.gz",
            landmarks("fixed_points.txt", "moving_points.txt"),
        ),
        Pair(
            "t1-pd-rigid",
            "brain, T1 / PD, one man, rigid",
            data / "brain_t1_pd",
            "fixed_t1.nii.gz",
            "moving_pd_original.nii.gz",
            mapped("fixed_points.txt", lambda _folder: euler(BRAIN_RIGID, CENTRE)),
            known_to=0.1,
        ),
        Pair(
            "t1-pd-rigid-silver",
            "the same, silver standard of the whole head",
            data / "brain_t1_pd",
            "fixed_t1.nii.gz",
            "moving_pd_original.nii.gz",
            mapped("fixed_points.txt", lambda folder: read_transform(folder / "silver_rigid.txt")),
            known_to=0.1,
        ),
        Pair(
            "ct-cbct",
            "abdomen, CT / cone-beam CT, known warp",
            data / "ct_cbct",
            "fixed_ct.nii.gz",
            "moving_cbct.nii.gz",
            landmarks("fixed_points.txt", "moving_points.txt"),
            label_files=("fixed_seg.nii.gz", "moving_seg.nii.gz"),
            mask_files=(None, "moving_fov_mask.nii.gz"),
        ),
        Pair(
            "mr-ct",
            "brain templates, MR / CT, known warp",
            data / "brain_mr_ct_template",
            "fixed_t1.nii.gz",
            "moving_ct.nii.gz",
            landmarks("fixed_points.txt", "moving_points.txt"),
            label_files=("fixed_tissue.nii.gz", "moving_tissue.nii.gz"),
        ),
        Pair(
            "slices-rigid",
            "brain slice, PD / T1, turned by 10 degrees",
            data / "2d" / "itk_brain_slices",
            *slices,
            of_head(slices[0], 20),
            start=turned(10, (13, 17), (110, 128)),
            known_to=0.05,
        ),
        Pair(
            "slices",
            "brain slice, PD / T1, known warp",
            data / "2d" / "itk_brain_slices",
            *slices,
            of_head(slices[0], 20),
            start=bent((221, 257), 40, 9),
        ),
        Pair(
            "lung",
            "lung, CT / CT, breathing",
            data / "lung_ct",
            "fixed_image.mha",
            "moving_image.nii.gz",
            landmarks("fixed_landmarks.txt", "moving_landmarks.txt"),
            mask_files=("fixed_mask.mha", None),
            start=lambda folder: read_transform(folder / "elastix_initial_affine.txt"),
        ),
        Pair(
            "lung-unmasked",
            "lung, CT / CT, breathing, without its mask",
            data / "lung_ct",
            "fixed_image.mha",
            "moving_image.nii.gz",
            landmarks("fixed_landmarks.txt", "moving_landmarks.txt"),
            start=lambda folder: read_transform(folder / "elastix_initial_affine.txt"),
        ),
        Pair(
            "t1-t1",
            "brain, T1 / T1, two people",
            data / "brain_t1",
            "subjectA_t1.nii.gz",
            "subjectB_t1.nii.gz",
            label_files=("subjectA_seg.nii.gz", "subjectB_seg.nii.gz"),
            label_list="eval_labels.txt",
            shrink=2,
        ),
        Pair(
            "head",
            "head slice, CT, inside a mask",
            data / "2d" / "itkelastix_head",
            "CT_2D_head_fixed.mha",
            "CT_2D_head_moving.mha",
            label_files=("CT_2D_head_fixed_mask.mha", "CT_2D_head_moving_mask.mha"),
            mask_files=("CT_2D_head_fixed_mask.mha", None),
        ),
        Pair(
            "hands",
            "two hands, X-ray",
            data / "2d" / "hands_xray",
            "fixed_image.mha",
            "moving_image.mha",
            landmarks("fixed_landmarks.txt", "moving_landmarks.txt"),
        ),
    ]
    return {pair.name: pair for pair in found}
