"""Transforms made with `(UseDirectionCosines "false")` are evaluated as transformix applies them."""

import logging
from pathlib import Path

import numpy as np
import pytest
import torch

from impactreg.components.resampling import Output
from impactreg.components.transforms.exchange import as_transform, from_matrix
from impactreg.components.transforms.files import TransformWriter
from impactreg.errors import TransformError
from impactreg.evaluation import evaluate
from impactreg.evaluation.frame import Frame
from impactreg.evaluation.landmarks import registration_errors
from impactreg.evaluation.overlap import label_overlaps
from impactreg.images import Grid, Image, Mask, PointSet, write_image, write_points
from impactreg.parameters import ParameterMap
from impactreg.registration.transformix import transformix

TURN = np.linalg.qr(np.random.default_rng(3).normal(size=(3, 3)))[0]
FIXED = Grid.of((20, 18, 16), (1.0, 1.5, 2.0), (5.0, 6.0, 7.0), TURN)
MOVING = Grid.of((22, 17, 18), (1.1, 1.4, 1.7), (4.0, 6.0, 7.0), TURN[:, [1, 2, 0]])
INDICES = torch.tensor([[4.0, 5, 6], [10, 9, 8], [12, 3, 11]])


def ball(grid: Grid, centre: tuple[float, float, float]) -> Image:
    """A ball of 6 mm around a place in the world without directions."""
    points = grid.without_direction().points()
    inside = torch.linalg.vector_norm(points - torch.tensor(centre, dtype=torch.float64), dim=1) < 6
    return Image((3 * inside.reshape(1, *grid.shape)).to(torch.uint8), grid)


@pytest.fixture
def transforms(tmp_path: Path) -> tuple[Path, Path]:
    """A transform of straight images, and its inverse."""
    matrix = np.eye(4)
    matrix[:3, :3] = np.array([[1.05, 0.1, 0], [-0.05, 0.97, 0.02], [0, 0.04, 1.1]])
    matrix[:3, 3] = 0.5, -0.8, 1.2
    plain = ParameterMap.from_dict({"UseDirectionCosines": False, "ResultImageFormat": "mha"})
    given = (matrix, FIXED, "there"), (np.linalg.inv(matrix), MOVING, "back")
    there, back = (
        TransformWriter(Output.of(plain, grid), plain).write(from_matrix(each), tmp_path, name)[0]
        for each, grid, name in given
    )
    return there, back


@pytest.fixture
def truth(tmp_path: Path) -> dict[str, Path]:
    """Files of labels and landmarks."""
    for name, grid, centre in (("fixed", FIXED, (14, 18, 20)), ("moving", MOVING, (17, 16.4, 23.9))):
        write_image(ball(grid, centre), tmp_path / f"{name}_labels.mha")
    rows = "\n".join(" ".join(f"{value:g}" for value in row) for row in INDICES.tolist())
    (tmp_path / "fixed_points.txt").write_text(f"index\n3\n{rows}\n")
    write_points(PointSet(MOVING.without_direction().index_to_world(INDICES + 1)), tmp_path / "moving_points.txt")
    labels = {f"{name}_labels": tmp_path / f"{name}_labels.mha" for name in ("fixed", "moving")}
    return labels | {f"{name}_points": tmp_path / f"{name}_points.txt" for name in ("fixed", "moving")}


def test_figures_are_those_of_what_transformix_makes(transforms: tuple[Path, Path], truth: dict[str, Path]) -> None:
    found = evaluate(transforms[0], **truth, fixed_mask=truth["fixed_labels"])
    made = transformix(transforms[0], image=truth["moving_labels"], labels=True, points=truth["fixed_points"])
    assert made.image is not None
    assert made.points is not None
    assert found.overlaps == label_overlaps(ball(FIXED, (14, 18, 20)), made.image, (3,))
    assert found.overlaps[0].dice > 0.8
    moving = PointSet(MOVING.without_direction().index_to_world(INDICES + 1))
    assert found.errors is not None
    assert torch.allclose(found.errors.values, registration_errors(made.points, moving).values)
    assert found.deformation is not None
    assert found.deformation.voxels == int((ball(FIXED, (14, 18, 20)).data > 0).sum())


def test_what_is_told_of_the_inverse_and_of_learn2reg_is_of_the_same_world(
    transforms: tuple[Path, Path], truth: dict[str, Path]
) -> None:
    found = evaluate(transforms[0], **truth, inverse=transforms[1], learn2reg_figures=True)
    assert found.inverse_consistency is not None
    assert found.inverse_consistency.largest < 1e-9
    assert found.learn2reg is not None
    assert found.errors is not None
    assert found.learn2reg.tre == pytest.approx(found.errors.values.tolist(), abs=1e-2)


def test_world_points_are_told_to_be_taken_as_they_stand(
    transforms: tuple[Path, Path], truth: dict[str, Path], caplog: pytest.LogCaptureFixture
) -> None:
    points = {name: truth[name] for name in ("fixed_points", "moving_points")}
    with caplog.at_level(logging.WARNING):
        evaluate(transforms[0], **points)
    assert '(UseDirectionCosines "false"): landmarks are taken as transformix takes them' in caplog.text


def test_an_inverse_of_another_run_is_refused(transforms: tuple[Path, Path]) -> None:
    other = ParameterMap.read(transforms[1]).replace({"UseDirectionCosines": "true"})
    with pytest.raises(TransformError, match=r'has \(UseDirectionCosines "false"\), but the inverse "true"'):
        evaluate(transforms[0], inverse=other, fixed=FIXED, moving=MOVING)


def test_a_transform_is_brought_into_the_world_of_two_images(transforms: tuple[Path, Path]) -> None:
    frame, transform = Frame.of(transforms[0]), as_transform(transforms[0])
    there = frame.in_world(transform, FIXED, MOVING)(FIXED.index_to_world(INDICES.double()))
    straight = transform(FIXED.without_direction().index_to_world(INDICES.double()))
    assert torch.allclose(MOVING.world_to_index(there), MOVING.without_direction().world_to_index(straight))
    assert frame.turns(None, FIXED)
    assert not frame.turns(FIXED.without_direction())


def test_what_has_no_parameter_map_sees_images_as_they_lie() -> None:
    frame, transform = Frame.of(np.eye(4)), from_matrix(np.eye(4))
    mask = Mask.of(ball(FIXED, (14, 18, 20)))
    assert frame.fixed is None
    assert frame.grid(FIXED) is FIXED
    assert frame.seen(mask) is mask
    assert frame.in_world(transform, FIXED, MOVING) is transform
