"""Rigidity images: reading, widening, and what they make of control points."""

import pytest
import torch

from impactreg.components.metrics.rigidity_images import RigidityImages, read_rigidity_image
from impactreg.components.transforms.bspline import BSplineTransform
from impactreg.errors import ImageError, ParameterError
from impactreg.images import Grid, Image
from impactreg.images.files import write_image
from impactreg.parameters import ParameterMap

LIKE = Image.of(torch.zeros(5, 5))
CONTROL = Grid.of((5, 5), (4, 4))


def dot(row=2, column=3, value=1.0, grid=None):
    data = torch.zeros(1, 5, 5, dtype=torch.float64)
    data[0, row, column] = value
    return Image(data, grid or Grid.of((5, 5), (4, 4)))


def read(keys, label="Metric1", source="map.txt"):
    return read_rigidity_image(ParameterMap.from_dict(keys, source), label, "FixedRigidityImageName", LIKE)


def still(shift=0.0):
    return BSplineTransform(torch.full((50,), shift, dtype=torch.float64), CONTROL)


def test_no_name_is_no_image():
    assert read({}) is None
    assert read({"FixedRigidityImageName": ""}) is None


def test_a_relative_name_is_looked_for_beside_the_parameter_file(tmp_path):
    write_image(dot(), tmp_path / "rigid.mha")
    (tmp_path / "map.txt").write_text('(FixedRigidityImageName "rigid.mha")')
    given = ParameterMap.read(tmp_path / "map.txt")
    found = read_rigidity_image(given, "Metric0", "FixedRigidityImageName", LIKE)
    assert torch.equal(found.data, dot().data)


def test_a_metric_of_several_has_its_own_image(tmp_path):
    for name, value in (("a", 1.0), ("b", 0.5)):
        write_image(dot(value=value), tmp_path / f"{name}.mha")
    names = {
        "FixedRigidityImageName": str(tmp_path / "a.mha"),
        "Metric1FixedRigidityImageName": str(tmp_path / "b.mha"),
    }
    assert read(names, "Metric1").data.max() == 0.5
    assert read(names, "Metric0").data.max() == 1


def test_without_direction_cosines_the_image_lies_along_the_world(tmp_path):
    write_image(dot(grid=Grid.of((5, 5), (4, 4), (1, 2), [[0, -1], [1, 0]])), tmp_path / "turned.mha")
    found = read({"FixedRigidityImageName": str(tmp_path / "turned.mha"), "UseDirectionCosines": "false"})
    assert found.grid == Grid.of((5, 5), (4, 4), (1, 2))


def test_a_missing_file_and_another_dimension_are_told(tmp_path):
    with pytest.raises(ParameterError, match=r'map.txt.*FixedRigidityImageName "no.mha".*there is no such file'):
        read({"FixedRigidityImageName": "no.mha"})
    write_image(Image.of(torch.zeros(3, 3, 3)), tmp_path / "solid.mha")
    with pytest.raises(ImageError, match="a rigidity image in 2D with one value a voxel is needed, but it is 3D"):
        read({"FixedRigidityImageName": str(tmp_path / "solid.mha")})


def test_without_images_everything_is_rigid():
    assert torch.equal(RigidityImages(None, None, 1.0).widened((4, 4)).coefficients(still()), torch.ones(25).double())


def test_control_points_take_the_nearest_fixed_voxel():
    found = RigidityImages(dot(), None, None).coefficients(still()).reshape(5, 5)
    assert found.nonzero().tolist() == [[2, 3]]
    outside = dot(grid=Grid.of((5, 5), (4, 4), (100, 0)))
    assert not RigidityImages(outside, None, None).coefficients(still()).any()


def test_control_points_take_the_moving_voxel_that_the_spline_takes_them_to():
    found = RigidityImages(None, dot(2, 2), None).coefficients(still(4.0)).reshape(5, 5)
    assert found.nonzero().tolist() == [[1, 1]]


def test_the_more_rigid_of_both_images_counts():
    both = RigidityImages(dot(2, 2, 0.5), dot(2, 2, 0.7), None).coefficients(still()).reshape(5, 5)
    assert both[2, 2] == 0.7


def test_widening_takes_millimetres_as_voxels():
    wide = RigidityImages(dot(), None, 0.5).widened((2.5, 4.9))
    assert wide.dilation is None
    assert wide.fixed.scalar.nonzero().tolist() == [[r, c] for r in range(5) for c in (2, 3, 4)][0:15]
    assert torch.equal(RigidityImages(dot(), None, None).widened((9, 9)).fixed.data, dot().data)


def test_the_multiplier_is_at_least_a_tenth():
    assert RigidityImages(dot(), None, 0.0).widened((10.0, 1.0)).fixed.scalar.nonzero().tolist() == [
        [2, 2],
        [2, 3],
        [2, 4],
    ]
