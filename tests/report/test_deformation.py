from __future__ import annotations

import math

import pytest
import torch

from impactreg.components.transforms.linear import AffineTransform, TranslationTransform
from impactreg.components.transforms.transform import Combination
from impactreg.images import Grid, Image
from impactreg.report.deformation import Deformation, likeness, mutual_information
from impactreg.report.planes import planes_of

GRID = Grid.of((20, 18, 16), (2, 2, 2))


def shifted(*shift: float) -> Combination:
    return Combination(
        TranslationTransform(torch.tensor(shift, dtype=torch.float64), torch.zeros(3, dtype=torch.float64))
    )


def test_a_translation_is_affine_and_folds_nothing() -> None:
    found = Deformation.of(shifted(3.0, 4.0, 0.0), planes_of(GRID))
    assert found.is_affine
    assert float(found.displacement.mean()) == pytest.approx(5)
    assert found.folded == 0
    assert found.spread == pytest.approx(0, abs=1e-6)


def test_a_mirror_folds_every_point() -> None:
    mirror = torch.tensor([-1.0, 0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0], dtype=torch.float64)
    transform = Combination(AffineTransform(mirror, torch.zeros(3, dtype=torch.float64)))
    found = Deformation.of(transform, planes_of(GRID))
    assert found.folded == 1
    assert math.isnan(found.spread)


def test_finer_points_are_moved_as_the_lattice_is() -> None:
    field = Deformation.of(shifted(1.0, -2.0, 3.0), planes_of(GRID)).fields[0]
    shift = field.moved_at(40, 36) - field.plane.points(40, 36)
    torch.testing.assert_close(shift, torch.tensor([1.0, -2.0, 3.0], dtype=torch.float64).expand_as(shift))


def test_equal_images_share_all_information_and_unlike_ones_none() -> None:
    a, b = torch.rand(50_000, dtype=torch.float64), torch.rand(50_000, dtype=torch.float64)
    assert mutual_information(a, a) == pytest.approx(math.log(32), rel=0.01)
    assert mutual_information(a, b) < 0.02


def test_the_right_translation_makes_images_more_alike() -> None:
    values = torch.nn.functional.avg_pool3d(torch.rand(1, 22, 24, 26), 5, stride=1)[0]
    fixed = Image(values[None, 1:17, 1:19, 1:21], Grid.of((20, 18, 16), (2, 2, 2)))
    moving = Image(values[None, :16, :18, :20], Grid.of((20, 18, 16), (2, 2, 2)))
    found = likeness(Deformation.of(shifted(2.0, 2.0, 2.0), planes_of(GRID)), fixed, moving)
    assert found is not None
    assert found.information[1] > found.information[0]
    assert found.correlation[1] == pytest.approx(1, abs=1e-5)


def test_images_that_do_not_overlap_have_no_likeness() -> None:
    image = Image(torch.rand(1, 16, 18, 20), GRID)
    assert likeness(Deformation.of(shifted(500.0, 0.0, 0.0), planes_of(GRID)), image, image) is None
