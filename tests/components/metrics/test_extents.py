"""Bounds of mapped boxes never contradict their points, and tell most of them."""

import pytest
import torch

from impactreg.components.boxes import Boxes
from impactreg.components.interpolators import inside_buffer
from impactreg.components.metrics.extents import told
from impactreg.components.transforms.transform import Combination
from impactreg.images import Grid

TURN = ((0.98, -0.199, 0.0), (0.199, 0.98, 0.0), (0.0, 0.0, 1.0))
TARGET = Grid.of((12, 13, 11), (1.9, 2.1, 2.0), (-1.0, 0.5, -0.5), TURN)


@pytest.fixture
def boxes():
    corners = torch.rand(400, 3, generator=torch.Generator().manual_seed(3), dtype=torch.float64) * 34 - 8
    axes = torch.diag(torch.tensor([1.5, 1.0, 2.0], dtype=torch.float64))
    return Boxes(corners, axes[None], (3, 4, 2))


def truth(transform, boxes):
    return inside_buffer(TARGET, transform(boxes.points)).reshape(len(boxes), -1)


@pytest.mark.parametrize("kind", ["translation", "euler", "affine", "spline"])
@pytest.mark.parametrize("on_top", [False, True])
def test_bounds_agree_with_the_points(boxes, transforms, kind, on_top):
    transform = Combination(transforms[kind].current, transforms["affine"]) if on_top else transforms[kind]
    found, points = told(transform, boxes, TARGET), truth(transform, boxes)
    assert points[found.inside].all()
    assert not points[found.outside].all(dim=1).any()
    left = ~(found.inside | found.outside)
    assert left.sum() < (150 if kind == "spline" else 2)
    assert found.inside.sum() > 20


def test_bounds_of_turned_boxes_agree_with_the_points(transforms, boxes):
    axes = torch.linalg.qr(torch.randn(400, 3, 3, generator=torch.Generator().manual_seed(4)).double())[0]
    turned = Boxes(boxes.corners, axes * 1.5, boxes.shape)
    found, points = told(transforms["spline"], turned, TARGET), truth(transforms["spline"], turned)
    assert points[found.inside].all()
    assert not points[found.outside].all(dim=1).any()


def test_displacements_end_with_the_control_points(transforms, boxes):
    spline = transforms["spline"].current
    moved = Combination(spline.with_parameters(torch.full_like(spline.parameters, 9.0)))
    found, points = told(moved, boxes, TARGET), truth(moved, boxes)
    assert points[found.inside].all()
    assert not points[found.outside].all(dim=1).any()


def test_nothing_is_told_of_sums_of_transforms_or_of_very_large_boxes(transforms, boxes):
    added = Combination(transforms["spline"].current, transforms["affine"], compose=False)
    assert told(added, boxes, TARGET) is None
    large = Boxes(boxes.corners, boxes.axes * 30, boxes.shape)
    assert told(transforms["spline"], large, TARGET) is None
