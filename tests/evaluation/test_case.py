"""evaluate() for one registration."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch

from impactreg.components.transforms.exchange import from_matrix
from impactreg.components.transforms.transform import Combination
from impactreg.errors import ImageError, ImpactregError, PointsError, TransformError
from impactreg.evaluation import evaluate
from impactreg.evaluation.table import content_of
from impactreg.images import Grid, Image, PointSet, write_image, write_points

FIXED = Grid.of((18, 16, 14), (1.0, 1.5, 2.0), (5.0, 6.0, 7.0))
MOVING = Grid.of((20, 18, 16), (1.1, 1.2, 1.7), (4.0, 6.0, 7.0))
SHIFT = (1.0, 1.5, 0.0)
POINTS = PointSet(torch.tensor([[10.0, 11, 12], [14, 15, 16], [12, 20, 20]]))


def shift(sign: float = 1.0) -> Combination:
    matrix = np.eye(4)
    matrix[:3, 3] = sign * np.array(SHIFT)
    return from_matrix(matrix)


def ball(grid: Grid, centre: tuple[float, float, float], label: int = 3) -> Image:
    """A ball of 5 mm."""
    inside = torch.linalg.vector_norm(grid.points() - torch.tensor(centre, dtype=torch.float64), dim=1) < 5
    return Image((label * inside.reshape(1, *grid.shape)).to(torch.uint8), grid)


def labels() -> dict[str, Image]:
    return {"fixed_labels": ball(FIXED, (13, 17, 19)), "moving_labels": ball(MOVING, (14, 18.5, 19))}


def points() -> dict[str, PointSet]:
    return {"fixed_points": POINTS, "moving_points": PointSet(POINTS.points + torch.tensor(SHIFT))}


def test_the_right_transform_leaves_no_error() -> None:
    found = evaluate(shift(), **labels(), **points(), inverse=shift(-1))
    assert found.errors_before is not None
    assert found.errors_before.mean == pytest.approx(math.hypot(1, 1.5))
    assert found.errors is not None
    assert found.errors.largest < 1e-12
    assert found.overlaps[0].label == 3
    assert found.overlaps[0].dice > 0.93 > 0.8 > found.overlaps_before[0].dice
    assert found.overlaps[0].asd < found.overlaps_before[0].asd
    assert found.deformation is not None
    assert found.deformation.mean == pytest.approx(1)
    assert found.inverse_consistency is not None
    assert found.inverse_consistency.largest < 1e-9
    assert found.learn2reg is None


def test_without_a_transform_it_is_told_how_things_are() -> None:
    found = evaluate(**labels(), **points())
    assert found.errors_before is not None
    assert found.overlaps_before
    assert (found.errors, found.overlaps, found.deformation) == (None, (), None)


def test_learn2reg_has_its_own_figures() -> None:
    found = evaluate(shift(), **labels(), **points(), learn2reg_figures=True).learn2reg
    assert found is not None
    assert found.sdlogj == pytest.approx(0, abs=1e-9)
    # the border of a cubic spline is mirrored, so that a ramp bends there
    assert found.tre == pytest.approx([0, 0, 0], abs=0.01)
    assert found.dice[3] > 0.85
    # a voxel's step, whatever its size
    assert found.hd95[3] in (0.0, 1.0, math.sqrt(2))


def test_files_of_points_may_hold_indices(tmp_path: Path) -> None:
    (tmp_path / "fixed.txt").write_text("index\n2\n1 2 3\n4 5 6\n")
    moved = FIXED.index_to_world(torch.tensor([[1.0, 2, 3], [4, 5, 6]]).double()) + torch.tensor(SHIFT)
    write_points(moved, tmp_path / "moving.mrk.json")
    files = {"fixed_points": tmp_path / "fixed.txt", "moving_points": str(tmp_path / "moving.mrk.json")}
    found = evaluate(shift(), fixed=FIXED, **files)
    assert found.errors is not None
    assert found.errors.largest < 1e-9


def test_images_are_read_from_files_and_masks_count(tmp_path: Path) -> None:
    for name, image in labels().items():
        write_image(image, tmp_path / f"{name}.nii.gz")
    given = {name: tmp_path / f"{name}.nii.gz" for name in labels()}
    found = evaluate(shift(), **given, fixed_mask=tmp_path / "fixed_labels.nii.gz")
    assert found.overlaps == evaluate(shift(), **labels()).overlaps
    assert found.deformation is not None
    assert found.deformation.voxels == int((labels()["fixed_labels"].data > 0).sum())


def test_what_is_infinite_or_no_number_is_null_in_json() -> None:
    far = from_matrix(np.diag([1.0, 1, 1, 1]) + np.eye(4, k=3) * 400)
    content = content_of(evaluate(far, **labels()))
    assert content["labels"]["after"]["3"] == {"dice": 0.0, "hd95_mm": None, "asd_mm": None}


BAD: dict[str, tuple[type[ImpactregError], dict[str, object], str]] = {
    "nothing": (TransformError, {}, "there is nothing to evaluate"),
    "one side of points": (
        PointsError,
        {"fixed_points": POINTS},
        r"landmarks come in pairs: give the moving ones \(-mp",
    ),
    "one side of labels": (ImageError, {"moving_labels": ball(MOVING, (0, 0, 0))}, r"give the fixed labels \(-fl\)"),
    "too few points": (
        PointsError,
        {"fixed_points": POINTS, "moving_points": PointSet(POINTS.points[:2])},
        "there are 3 fixed landmarks and 2 moving ones",
    ),
    "points in 2D": (
        PointsError,
        {"transform": shift(), "fixed_points": PointSet(POINTS.points[:, :2]), "moving_points": POINTS},
        "the points are 2D, but the transform is 3D",
    ),
    "another grid": (ImageError, {**labels(), "fixed": MOVING}, "fixed labels: they are on another grid"),
    "no common label": (
        ImageError,
        {"fixed_labels": ball(FIXED, (13, 17, 19), 1), "moving_labels": ball(MOVING, (13, 17, 19), 2)},
        "no label is in both label images",
    ),
    "no landmarks": (
        PointsError,
        {"fixed_points": torch.zeros(0, 3), "moving_points": torch.zeros(0, 3)},
        "there are no landmarks",
    ),
    "a mask in 2D": (
        ImageError,
        {"transform": shift(), "fixed": FIXED, "fixed_mask": Image.of(torch.ones(4, 4))},
        "fixed mask: it is 2D, but the transform is 3D",
    ),
    "an inverse in 2D": (
        TransformError,
        {"transform": shift(), "inverse": np.eye(3), "fixed": FIXED, "moving": MOVING},
        "the transform is 3D, but the inverse 2D",
    ),
    "an image in 2D": (TransformError, {"transform": shift(), "fixed": Grid.of((4, 4))}, "3D, but the fixed image 2D"),
    "an inverse alone": (TransformError, {"inverse": shift(), **points()}, "is compared with its transform"),
    "no moving grid": (
        TransformError,
        {"transform": shift(), "inverse": shift(), "fixed": FIXED},
        "needs the grids of both images",
    ),
    "Learn2Reg without images": (
        TransformError,
        {"transform": shift(), "learn2reg_figures": True, **points()},
        "Learn2Reg's figures need a transform",
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_what_does_not_fit_is_one_line(name: str) -> None:
    error, given, message = BAD[name]
    with pytest.raises(error, match=message) as caught:
        evaluate(**given)  # type: ignore[arg-type]
    assert "\n" not in str(caught.value)
