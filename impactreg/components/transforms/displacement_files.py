"""Displacement fields as image files: ITK's convention (millimetres) and Learn2Reg's (voxels).

ITK, ANTs and 3D Slicer store T(x) - x in millimetres along the world's axes (LPS), a vector a voxel of the fixed image;
in NIfTI that is five dimensions with the intent of a vector. Learn2Reg (https://learn2reg.grand-challenge.org) stores
how many voxels of the moving image's array T(i) is from the fixed voxel i, as an array [x, y, z, 3] in the order in
which NIfTI holds voxels, in a .nii.gz of four dimensions or a .npz file; both images' headers are needed to read it.
"""

import os
from importlib import import_module
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from impactreg.components.setup import PointMap
from impactreg.components.transforms.displacement import DeformationFieldTransform
from impactreg.components.warping import deformation_field, in_voxels
from impactreg.errors import ImageError, OutputError, TransformError
from impactreg.images.files import check_finite, read_image, write_image
from impactreg.images.grid import Grid
from impactreg.images.image import Image
from impactreg.images.nifti import to_nibabel
from impactreg.images.whole import whole_file

FIELD_ENDINGS = (".nii", ".nii.gz", ".mha", ".mhd", ".nrrd")
"""Endings of files that hold a displacement field in ITK's convention."""
_NIFTI = (".nii", ".nii.gz")
_CONVERT = "impactreg convert-transform -tp FIELD --reference FIXED --moving MOVING -out NEW.nii.gz"

VoxelField = npt.NDArray[np.floating[Any]]
"""A field in Learn2Reg's convention: [x, y, z, 3]."""


def is_field_file(path: Path) -> bool:
    """Whether a file's name says that it holds a displacement field."""
    return path.name.lower().endswith((*FIELD_ENDINGS, ".npz"))


def read_field(path: Path) -> DeformationFieldTransform:
    """The transform of a displacement field in ITK's convention, linear between voxels as ITK has it.

    Raises `TransformError` where the file is no image with a vector for each dimension, or one of Learn2Reg's fields.
    """
    if is_learn2reg_file(path):
        raise TransformError(f"{path}: this is a field in voxels as Learn2Reg has it: convert it first, by {_CONVERT}")
    try:
        field = check_finite(read_image(path, name="displacement field"), str(path))
    except ImageError as error:
        raise TransformError(str(error)) from error
    values = field.data if field.data.is_floating_point() else field.data.float()
    return DeformationFieldTransform(field.with_data(values), 1, str(path))


def write_field(transform: PointMap, path: Path, grid: Grid) -> None:
    """Writes T(x) - x for the voxels of the fixed image's grid, in ITK's convention; raises `OutputError`."""
    write_image(deformation_field(transform, grid), path)


def is_learn2reg_file(path: Path) -> bool:
    """Whether a file is a .npz, or a NIfTI of four dimensions with three values a voxel."""
    if path.name.lower().endswith(".npz"):
        return True
    if not path.name.lower().endswith(_NIFTI) or not path.is_file():
        return False
    try:
        shape = import_module("nibabel").load(path).shape
    except Exception:  # a damaged header trips nibabel in many ways; whoever reads the file tells what is wrong
        return False
    return len(shape) == 4 and shape[3] == 3


def read_voxel_field(path: Path) -> VoxelField:
    """The array [x, y, z, 3] of a field in Learn2Reg's convention; raises `TransformError`."""
    try:
        values = _npz(path) if path.name.lower().endswith(".npz") else _nifti(path)
    except FileNotFoundError:
        raise TransformError(f"{path}: there is no such displacement field") from None
    except Exception as error:  # such as a damaged header or archive: the file is what is wrong
        if isinstance(error, TransformError):
            raise
        reason = " ".join(str(error).split()) or type(error).__name__
        raise TransformError(f"{path}: the displacement field cannot be read: {reason}") from error
    if values.ndim != 4 or values.shape[3] != 3 or 0 in values.shape:
        raise TransformError(f"{path}: a field of Learn2Reg has shape x, y, z, 3, but this has {values.shape}")
    if not np.isfinite(values).all():
        raise TransformError(f"{path}: the displacements must be finite numbers")
    return values


def from_voxel_field(values: VoxelField, fixed: Grid, moving: Grid, where: str = "field") -> DeformationFieldTransform:
    """The transform of a field in Learn2Reg's convention between two images; raises `TransformError` for other sizes.

    `where` names the field in messages.
    """
    _check_3d(fixed, moving)
    if values.shape[:3] != fixed.size:
        sizes = f"{' x '.join(map(str, values.shape[:3]))}, but the fixed image {' x '.join(map(str, fixed.size))}"
        raise TransformError(f"{where}: the field has {sizes} voxels: give the fixed image that it belongs to")
    by_voxel = torch.from_numpy(np.array(values, dtype=np.float64)).permute(2, 1, 0, 3).reshape(-1, 3)
    moved = moving.index_to_world(fixed.indices() + by_voxel)
    data = (moved - fixed.points()).T.reshape(3, *fixed.shape)
    return DeformationFieldTransform(Image(data.contiguous(), fixed), 1)


def voxel_field(transform: PointMap, fixed: Grid, moving: Grid) -> VoxelField:
    """A transform between two images as a field in Learn2Reg's convention, in float64; for 3D alone."""
    _check_3d(fixed, moving)

    def displaced(points: Tensor) -> Tensor:
        return moving.world_to_index(transform(points)) - fixed.world_to_index(points)

    found = in_voxels(fixed, displaced, 3, torch.float64, torch.device("cpu")).data
    return np.ascontiguousarray(found.permute(3, 2, 1, 0).numpy())


def write_voxel_field(transform: PointMap, path: Path, fixed: Grid, moving: Grid) -> None:
    """Writes a field in Learn2Reg's convention in float32, as .nii.gz, .nii or .npz, whole or not at all.

    Raises `OutputError` for other endings, and `TransformError` for 2D.
    """
    name = path.name.lower()
    if not name.endswith((*_NIFTI, ".npz")):
        raise OutputError(f"{path}: Learn2Reg's fields are .nii.gz or .npz files")
    values = voxel_field(transform, fixed, moving).astype(np.float32)
    with whole_file(path) as draft:
        if name.endswith(".npz"):
            np.savez_compressed(draft, values)
        else:
            place = to_nibabel(Image(torch.zeros(1, *fixed.shape), fixed)).affine
            import_module("nibabel").Nifti1Image(values, place).to_filename(os.fspath(draft))


def _npz(path: Path) -> VoxelField:
    try:
        with np.load(path, allow_pickle=False) as archive:
            if len(archive.files) != 1:
                raise TransformError(f"{path}: one array is needed, but the file holds {len(archive.files)}")
            return _floating(archive[archive.files[0]])
    except BadZipFile as error:
        raise TransformError(f"{path}: this is no .npz file") from error


def _nifti(path: Path) -> VoxelField:
    return _floating(np.asanyarray(import_module("nibabel").load(path, mmap=False).dataobj))


def _floating(values: npt.NDArray[Any]) -> VoxelField:
    return values.astype(np.float64 if values.dtype.kind == "f" and values.dtype.itemsize > 4 else np.float32)


def _check_3d(fixed: Grid, moving: Grid) -> None:
    if fixed.dimension != 3 or moving.dimension != 3:
        raise TransformError("Learn2Reg's fields are of 3D images: use a field in ITK's convention for 2D")
