"""Deformation fields as transforms."""

import pytest
import torch

from impactreg.components.transforms.displacement import DeformationFieldTransform
from impactreg.errors import ParameterError, TransformError
from impactreg.images import Grid, Image, write_image
from impactreg.parameters import ParameterMap

GRID = Grid.of((4, 3), (2, 3), (10, 20))


def field(grid=GRID):
    """The x displacement is the x index, the y displacement is 1."""
    data = torch.stack([torch.arange(float(grid.size[0])).expand(grid.shape), torch.ones(grid.shape)])
    return Image(data, grid)


def points(*rows):
    return torch.tensor(rows, dtype=torch.float64)


def test_a_point_between_voxels_moves_by_the_linear_mix_of_their_displacements():
    moved = DeformationFieldTransform(field(), 1)(points([13.0, 23.0]))
    assert torch.allclose(moved, points([13.0 + 1.5, 24.0]))


def test_order_0_takes_the_nearest_voxel():
    moved = DeformationFieldTransform(field(), 0)(points([13.2, 23.0]))
    assert torch.allclose(moved, points([13.2 + 2, 24.0]))


def test_the_outer_half_voxel_has_the_border_displacement_and_nothing_moves_beyond():
    moved = DeformationFieldTransform(field(), 1)(points([16.9, 20.0], [17.1, 20.0], [9.1, 20.0]))
    assert torch.allclose(moved, points([19.9, 21.0], [17.1, 20.0], [9.1, 21.0]))


def test_a_field_is_read_from_beside_its_file_and_keeps_its_points(tmp_path):
    write_image(field(), tmp_path / "field.nii")
    path = tmp_path / "t.txt"
    path.write_text('(Transform "DeformationFieldTransform")\n(DeformationFieldFileName "field.nii")\n')
    transform = DeformationFieldTransform.read(ParameterMap.read(path))
    x = points([13.0, 23.0])
    assert transform.order == 0
    assert torch.allclose(transform(x), DeformationFieldTransform(field(), 0)(x))


def test_wrong_files_and_orders_are_told_in_one_line(tmp_path):
    path = tmp_path / "t.txt"
    path.write_text('(DeformationFieldFileName "none.nii")\n')
    with pytest.raises(TransformError, match=r"t\.txt:1: .*none\.nii.*no such file"):
        DeformationFieldTransform.read(ParameterMap.read(path))
    with pytest.raises(TransformError, match=r"DeformationFieldFileName .* is missing"):
        DeformationFieldTransform.read(ParameterMap.from_dict({}))
    write_image(field(), tmp_path / "field.nii")
    given = {"DeformationFieldFileName": str(tmp_path / "field.nii"), "DeformationFieldInterpolationOrder": 2}
    with pytest.raises(TransformError, match="0 or 1"):
        DeformationFieldTransform.read(ParameterMap.from_dict(given))
    with pytest.raises(TransformError, match="2 values"):
        DeformationFieldTransform(Image(torch.zeros(3, *GRID.shape), GRID))


def test_a_field_has_no_parameters_to_optimise():
    transform = DeformationFieldTransform(field())
    assert transform.with_parameters(torch.zeros(0)) is transform
    mapped = transform.at(points([13.0, 23.0]))
    for ask in (
        lambda: mapped.pull_back(mapped.points),
        lambda: mapped.push_forward(torch.zeros(0)),
        lambda: mapped.gram(torch.zeros(0)),
        lambda: mapped.second_moment(torch.zeros(0)),
        lambda: mapped.squared_columns(),
        lambda: transform.with_parameters(torch.zeros(1)),
    ):
        with pytest.raises(TransformError, match="no parameters"):
            ask()
    with pytest.raises(ParameterError, match="cannot be optimised"):
        DeformationFieldTransform.begin(None, None)
