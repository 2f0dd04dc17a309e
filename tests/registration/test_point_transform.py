"""Points both ways."""

import numpy as np
import pytest
import torch

import impactreg
from impactreg.components.transforms.bspline import BSplineTransform
from impactreg.components.transforms.rotating import EulerTransform
from impactreg.components.transforms.transform import Combination
from impactreg.errors import PointsError, TransformError
from impactreg.images import Grid, PointSet, write_points
from impactreg.parameters import ParameterMap


def random(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def spline(strength):
    grid = Grid.of((13, 13), (10, 10), (-60, -60))
    return BSplineTransform(strength * random(2 * grid.number_of_voxels), grid)


EULER = EulerTransform(torch.tensor([0.2, 3, -2]).double(), torch.zeros(2).double())
CHAIN = Combination(spline(2.0), Combination(EULER))
POINTS = 10 * random(20, 2, seed=3)


def test_points_go_there_and_come_back():
    there = impactreg.transform_points(CHAIN, POINTS)
    assert torch.equal(there, CHAIN(POINTS))
    assert torch.allclose(impactreg.transform_points(CHAIN, there, inverse=True), POINTS, rtol=0, atol=1e-5)


def test_the_answer_is_what_was_given(tmp_path):
    write_points(PointSet(POINTS), tmp_path / "p.csv")
    assert isinstance(impactreg.transform_points(CHAIN, POINTS.numpy()), np.ndarray)
    assert impactreg.transform_points(EULER, POINTS.tolist()).shape == (20, 2)
    for given in (PointSet(POINTS), tmp_path / "p.csv", str(tmp_path / "p.csv")):
        found = impactreg.transform_points(CHAIN, given)
        assert isinstance(found, PointSet)
        assert torch.equal(found.points, CHAIN(POINTS))


def test_files_and_maps_are_transforms_too(tmp_path):
    parameter_map = ParameterMap.from_dict({"Transform": "EulerTransform", **EULER.written()})
    (tmp_path / "t.txt").write_text(parameter_map.text())
    for transform in (parameter_map, [parameter_map], tmp_path / "t.txt", str(tmp_path / "t.txt"), EULER):
        assert torch.equal(impactreg.transform_points(transform, POINTS), EULER(POINTS))


def test_points_without_an_inverse_are_refused():
    grid = Grid.of((8, 8), (10, 10), (-35, -35))
    shift = torch.zeros(2, *grid.shape).double()
    shift[0] = 4.0
    gap = BSplineTransform(shift.reshape(-1), grid)
    points = torch.tensor([[0.0, 0.0], [-24.0, 0.0], [5.0, 5.0]]).double()
    with pytest.raises(TransformError, match=r"1 of 3 points have no sure inverse \(numbers 1, from 0\)"):
        impactreg.transform_points(gap, points, inverse=True)


def test_what_are_no_points_is_one_clear_line(unchecked_shapes):
    with pytest.raises(TransformError, match="the points are 3D, but the transform is 2D"):
        impactreg.transform_points(CHAIN, random(4, 3))
    with pytest.raises(PointsError, match="shape"):
        impactreg.transform_points(CHAIN, random(4))
