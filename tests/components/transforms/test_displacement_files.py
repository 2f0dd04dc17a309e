"""Displacement fields as files, in ITK's convention (checked with SimpleITK) and in Learn2Reg's."""

import nibabel
import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813
import torch

from impactreg.components.transforms.displacement_files import (
    from_voxel_field,
    is_learn2reg_file,
    read_field,
    read_voxel_field,
    voxel_field,
    write_field,
    write_voxel_field,
)
from impactreg.components.transforms.files import read_transform
from impactreg.components.transforms.linear import AffineTransform
from impactreg.errors import ImpactregError, OutputError, TransformError
from impactreg.images import Grid

OBLIQUE = np.linalg.qr(np.random.default_rng(3).normal(size=(3, 3)))[0]
FIXED = Grid.of((9, 8, 7), (1.0, 1.5, 2.0), (5.0, -6.0, 7.0), OBLIQUE)
MOVING = Grid.of((6, 9, 8), (2.0, 1.2, 1.7), (4.0, 6.0, -7.0), np.diag([-1.0, -1.0, 1.0]))
AFFINE = AffineTransform(
    torch.tensor([1.1, 0.1, 0, -0.1, 0.9, 0.2, 0, 0.1, 1, 1, 2, -1], dtype=torch.float64),
    torch.tensor([3.0, 4, 5], dtype=torch.float64),
)


@pytest.fixture
def inside(generator):
    """Points between the outermost voxel centres of the fixed image."""
    index = torch.rand(20, 3, generator=generator, dtype=torch.float64) * (torch.tensor(FIXED.size) - 1)
    return FIXED.index_to_world(index)


@pytest.mark.parametrize("name", ["field.nii.gz", "field.nii", pytest.param("field.mha", marks=pytest.mark.itk)])
def test_simpleitk_moves_points_by_our_field_and_we_by_its(tmp_path, inside, name):
    write_field(AFFINE, tmp_path / name, FIXED)
    field = sitk.ReadImage(str(tmp_path / name), sitk.sitkVectorFloat64)
    theirs = sitk.DisplacementFieldTransform(field)
    moved = torch.tensor([theirs.TransformPoint(point) for point in inside.tolist()], dtype=torch.float64)
    assert torch.allclose(moved, AFFINE(inside), atol=1e-5)
    assert torch.allclose(read_transform(tmp_path / name)(inside), moved, atol=1e-5)


def test_a_nifti_field_of_simpleitk_is_read_in_lps(tmp_path, inside):
    write_field(AFFINE, tmp_path / "field.nii.gz", FIXED)
    field = sitk.ReadImage(str(tmp_path / "field.nii.gz"), sitk.sitkVectorFloat64)
    sitk.WriteImage(field, str(tmp_path / "theirs.nii.gz"))
    assert nibabel.load(tmp_path / "theirs.nii.gz").shape == (9, 8, 7, 1, 3)
    assert torch.allclose(read_field(tmp_path / "theirs.nii.gz")(inside), AFFINE(inside), atol=1e-5)


def test_a_field_is_an_initial_transform_in_a_chain(tmp_path, inside):
    write_field(AFFINE, tmp_path / "field.nii", FIXED)
    (tmp_path / "on_top.txt").write_text(
        '(Transform "TranslationTransform")\n(NumberOfParameters 3)\n(TransformParameters 1 2 3)\n'
        '(InitialTransformParameterFileName "field.nii")\n(HowToCombineTransforms "Compose")\n'
    )
    moved = read_transform(tmp_path / "on_top.txt")(inside)
    assert torch.allclose(moved, AFFINE(inside) + torch.tensor([1.0, 2, 3]), atol=1e-5)


def test_learn2reg_counts_voxels_of_the_moving_array(tmp_path, inside):
    write_voxel_field(AFFINE, tmp_path / "disp.nii.gz", FIXED, MOVING)
    values = nibabel.load(tmp_path / "disp.nii.gz").get_fdata()
    assert values.shape == (9, 8, 7, 3)
    index = np.array([4.0, 2.0, 6.0])
    world = AFFINE(FIXED.index_to_world(torch.tensor(index)[None]))
    assert np.allclose(index + values[4, 2, 6], MOVING.world_to_index(world)[0], atol=1e-5)
    again = from_voxel_field(read_voxel_field(tmp_path / "disp.nii.gz"), FIXED, MOVING)
    assert torch.allclose(again(inside), AFFINE(inside), atol=1e-5)


@pytest.mark.parametrize("name", ["disp.nii.gz", "disp.nii", "disp.npz"])
def test_fields_of_learn2reg_come_back(tmp_path, name):
    write_voxel_field(AFFINE, tmp_path / name, FIXED, MOVING)
    assert is_learn2reg_file(tmp_path / name)
    assert np.allclose(read_voxel_field(tmp_path / name), voxel_field(AFFINE, FIXED, MOVING), atol=1e-5)
    assert [each.name for each in tmp_path.iterdir()] == [name]


def test_the_header_of_a_learn2reg_field_is_the_fixed_images(tmp_path):
    write_voxel_field(AFFINE, tmp_path / "disp.nii.gz", FIXED, MOVING)
    affine = nibabel.load(tmp_path / "disp.nii.gz").affine
    corner = affine @ [8, 7, 6, 1] * [-1, -1, 1, 1]
    assert np.allclose(corner[:3], FIXED.index_to_world(torch.tensor([[8.0, 7, 6]]).double())[0], atol=1e-4)


def test_half_precision_is_read(tmp_path):
    np.savez(tmp_path / "disp.npz", np.ones((5, 6, 7, 3), np.float16))
    assert read_voxel_field(tmp_path / "disp.npz").dtype == np.float32


def save(path, values):
    nibabel.Nifti1Image(values.astype(np.float32), np.eye(4)).to_filename(path)


def test_a_learn2reg_field_is_not_taken_for_one_in_millimetres(tmp_path):
    save(tmp_path / "disp.nii.gz", np.zeros((4, 5, 6, 3)))
    with pytest.raises(TransformError, match="in voxels as Learn2Reg has it: convert it first, by impactreg convert"):
        read_transform(tmp_path / "disp.nii.gz")
    np.savez(tmp_path / "disp.npz", np.zeros((4, 5, 6, 3)))
    with pytest.raises(TransformError, match=r"disp\.npz: this is a field in voxels as Learn2Reg has it: convert it"):
        read_transform(tmp_path / "disp.npz")


def test_what_is_no_field_is_one_line(tmp_path):
    save(tmp_path / "scalar.nii.gz", np.zeros((4, 5, 6)))
    (tmp_path / "broken.nii.gz").write_text("no image")
    (tmp_path / "broken.npz").write_text("no archive")
    np.savez(tmp_path / "two.npz", np.zeros(3), np.zeros(3))
    np.savez(tmp_path / "nan.npz", np.full((5, 5, 5, 3), np.nan))
    np.savez(tmp_path / "flat.npz", np.zeros((5, 5, 3)))
    for name, reader, message in (
        ("scalar.nii.gz", read_transform, "a field in 3D needs 3 values a voxel, but it has 1"),
        ("broken.nii.gz", read_transform, "not a readable NIfTI file"),
        ("nowhere.nii.gz", read_transform, "there is no such transform file"),
        ("nowhere.nii.gz", read_voxel_field, "there is no such displacement field"),
        ("scalar.nii.gz", read_voxel_field, r"has shape x, y, z, 3, but this has \(4, 5, 6\)"),
        ("broken.npz", read_voxel_field, "broken.npz: "),
        ("two.npz", read_voxel_field, "one array is needed, but the file holds 2"),
        ("nan.npz", read_voxel_field, "must be finite numbers"),
        ("flat.npz", read_voxel_field, "has shape x, y, z, 3"),
    ):
        with pytest.raises(ImpactregError, match=message) as caught:
            reader(tmp_path / name)
        assert "\n" not in str(caught.value)
        assert name in str(caught.value)


def test_a_learn2reg_field_belongs_to_its_images(tmp_path):
    values = voxel_field(AFFINE, FIXED, MOVING)
    with pytest.raises(TransformError, match="the field has 9 x 8 x 7, but the fixed image 6 x 9 x 8 voxels"):
        from_voxel_field(values, MOVING, FIXED)
    with pytest.raises(TransformError, match="are of 3D images"):
        voxel_field(AFFINE, Grid.of((4, 4)), MOVING)
    with pytest.raises(OutputError, match=r"Learn2Reg's fields are \.nii\.gz or \.npz files"):
        write_voxel_field(AFFINE, tmp_path / "disp.mha", FIXED, MOVING)
