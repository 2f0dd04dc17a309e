"""Transforms written as other kinds of files."""

import pytest
import torch

from impactreg.components.transforms.displacement_files import from_voxel_field, read_voxel_field
from impactreg.components.transforms.files import read_transform
from impactreg.components.transforms.transform import Combination
from impactreg.components.transforms.writing import write_transform
from impactreg.errors import OutputError, TransformError
from impactreg.images import Grid

GRID = Grid.of((20, 20, 20), (1.5, 1.5, 1.5), (-10.0, -10.0, -10.0))


@pytest.fixture
def chain(transforms):
    """An affine transform before a B-spline."""
    return Combination(transforms["spline 3"], Combination(transforms["affine"]))


@pytest.fixture
def inside(generator):
    """Points between the voxel centres of the grid."""
    return GRID.index_to_world(torch.rand(30, 3, generator=generator, dtype=torch.float64) * 19)


@pytest.mark.parametrize("name", ["chain.txt", "chain.tfm", "chain.itk.txt"])
def test_files_of_parameters_hold_the_chain_exactly(chain, inside, tmp_path, name):
    write_transform(chain, tmp_path / name, fixed=GRID)
    assert torch.allclose(read_transform(tmp_path / name)(inside), chain(inside), atol=1e-9)


@pytest.mark.itk
@pytest.mark.parametrize("name", ["chain.h5", "chain.hdf5"])
def test_files_of_itk_hold_the_chain_exactly(chain, inside, tmp_path, name):
    write_transform(chain, tmp_path / name)
    assert torch.allclose(read_transform(tmp_path / name)(inside), chain(inside), atol=1e-9)


def test_a_chain_for_elastix_has_a_file_for_each_member(chain, tmp_path):
    write_transform(chain, tmp_path / "chain.txt", fixed=GRID)
    assert sorted(each.name for each in tmp_path.iterdir()) == ["chain.0.txt", "chain.txt"]


@pytest.mark.parametrize("name", ["field.nii.gz", "field.nii", pytest.param("field.nrrd", marks=pytest.mark.itk)])
def test_fields_hold_the_voxels_of_the_fixed_image(chain, tmp_path, name):
    write_transform(chain, tmp_path / name, fixed=GRID)
    points = GRID.points()
    assert torch.allclose(read_transform(tmp_path / name)(points), chain(points), atol=1e-4)


@pytest.mark.parametrize(("name", "flag"), [("field.npz", False), ("field.nii.gz", True)])
def test_learn2reg_fields_are_asked_for_by_ending_or_flag(chain, tmp_path, name, flag):
    write_transform(chain, tmp_path / name, fixed=GRID, moving=GRID, learn2reg=flag)
    points = GRID.points()
    field = from_voxel_field(read_voxel_field(tmp_path / name), GRID, GRID)
    assert torch.allclose(field(points), chain(points), atol=1e-4)


@pytest.mark.itk
def test_a_field_in_memory_goes_to_elastix_with_its_image(chain, inside, tmp_path):
    write_transform(chain, tmp_path / "field.npz", fixed=GRID, moving=GRID)
    field = from_voxel_field(read_voxel_field(tmp_path / "field.npz"), GRID, GRID)
    write_transform(field, tmp_path / "field.txt", fixed=GRID)
    assert torch.allclose(read_transform(tmp_path / "field.txt")(inside), field(inside), atol=1e-5)


def test_what_cannot_be_written_is_told(chain, transforms, tmp_path):
    with pytest.raises(OutputError, match=r'transforms cannot be written to "\.xyz" files: use \.h5, \.tfm'):
        write_transform(chain, tmp_path / "chain.xyz")
    for name, grids, message in (
        ("field.nii.gz", {}, r"needs the grid of the fixed image: give that image \(--reference\)"),
        ("chain.txt", {}, "needs the grid of the fixed image"),
        ("field.npz", {"fixed": GRID}, r"needs the grid of the moving image: give that image \(--moving\)"),
        ("field.nii.gz", {"fixed": Grid.of((4, 4))}, "the fixed image is 2D, but the transform is 3D"),
    ):
        with pytest.raises(TransformError, match=message):
            write_transform(chain, tmp_path / name, **grids)
    added = Combination(transforms["spline 3"], Combination(transforms["spline 2"]), False)
    with pytest.raises(TransformError, match="ITK cannot hold transforms that are added"):
        write_transform(added, tmp_path / "chain.tfm")
    assert not list(tmp_path.iterdir())
