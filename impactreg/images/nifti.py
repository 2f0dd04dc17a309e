"""NIfTI files through nibabel, with the geometry that ITK gives them; the only place where RAS becomes LPS."""

import os
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from impactreg.errors import ImageError, OutputError
from impactreg.images.grid import Grid
from impactreg.images.image import Image
from impactreg.images.pixels import Array, cast, natural_type, tensor_of
from impactreg.images.storage import Storage, slabs

Matrix = npt.NDArray[np.float64]

_DISPLACEMENT, _VECTOR = 1006, 1007
_MILLIMETRES = {1: 1e3, 2: 1.0, 3: 1e-3}
_FLIP: Matrix = np.diag([-1.0, -1.0, 1.0, 1.0])
_DEFLATE_LIMIT = 1100  # gzip cannot shrink further than about 1 : 1032


def read_nifti(path: Path, storage: Storage | None = None) -> Image:
    """The image in a .nii or .nii.gz file; raises `ImageError` for what is no such file or cannot be registered.

    With `storage`, an uncompressed file larger than that keeps in memory stays on the disk, and its voxels are read
    when they are used.
    """
    nibabel = _nibabel()
    try:
        loaded = nibabel.load(path, mmap=False)
        _check_length(path, loaded)
        with nibabel.openers.ImageOpener(os.fspath(path)) as opened:
            written = type(loaded.header).from_fileobj(opened, check=False)  # nibabel mends and forgets some of it
        raw = _raw(path, loaded, storage)
        signs = np.where(written["pixdim"][1:4] < 0, -1.0, 1.0)
        return _image(loaded.header, raw, float(written["scl_slope"]), float(written["scl_inter"]), signs, storage)
    except (ImageError, OutputError):
        raise
    except Exception as error:  # whatever a damaged header makes nibabel's parser trip over, the file is what is wrong
        raise ImageError(
            f"not a readable NIfTI file ({' '.join(str(error).split()) or type(error).__name__})"
        ) from error


def from_nibabel(image: Any) -> Image:
    """The `Image` of a nibabel image; formats other than NIfTI are taken with their affine."""
    nibabel = _nibabel()
    if not isinstance(image, nibabel.Nifti1Pair):
        image = nibabel.Nifti1Image(np.asanyarray(image.dataobj), image.affine)
    data = image.dataobj
    if nibabel.is_proxy(data):
        return _image(image.header, np.asanyarray(data.get_unscaled()), float(data.slope), float(data.inter))
    return _image(image.header, np.asanyarray(data), 1.0, 0.0)


def to_nibabel(image: Image, pixel_type: "np.dtype[np.generic] | None" = None) -> Any:
    """A `nibabel.Nifti1Image` with qform and sform as ITK writes them; several channels make a vector image."""
    nibabel = _nibabel()
    dtype = pixel_type or natural_type(image.data)
    values = cast(image.data.detach().cpu().numpy(), dtype)
    affine = _ras(image.grid)
    header = nibabel.Nifti1Header()
    header.set_data_dtype(dtype)
    if image.channels > 1:
        header.set_intent("vector")
    result = nibabel.Nifti1Image(_laid_out(values), affine, header, dtype=dtype)
    result.set_qform(affine, code=1)
    result.set_sform(affine, code=1)
    # the spacing as it is, not as the lengths of single-precision columns
    result.header["pixdim"][1 : 1 + image.dimension] = image.grid.spacing
    result.header.set_xyzt_units("mm", "sec")
    return result


def write_nifti(image: Image, path: Path, pixel_type: "np.dtype[np.generic]") -> None:
    """Writes a .nii or, compressed, .nii.gz file; raises `OutputError` for what the format cannot hold."""
    try:
        to_nibabel(image, pixel_type).to_filename(os.fspath(path))
    except _nibabel().spatialimages.HeaderDataError as error:
        raise OutputError(f"NIfTI cannot hold this image ({error}): choose another format") from error


def _raw(path: Path, loaded: Any, storage: Storage | None) -> Array:
    data = loaded.dataobj
    size = int(np.prod(data.shape, dtype=object)) * data.dtype.itemsize
    # an .img beside its .hdr is left to nibabel
    if storage is None or path.suffix.lower() != ".nii" or not storage.exceeded_by(size):
        return np.asanyarray(data.get_unscaled())
    return storage.of_file(path, data.dtype, int(data.offset), data.shape[::-1]).T


def _nibabel() -> Any:
    # imported late because it is slow, and untyped because its own annotations cover half of it
    return import_module("nibabel")


def _laid_out(values: Array) -> Array:
    if values.shape[0] == 1:
        return np.asarray(values[0].T)
    space = values.shape[:0:-1]
    vectors: Array = values.T.reshape(*space, *[1] * (4 - len(space)), values.shape[0])
    return vectors


def _image(
    header: Any, raw: Array, slope: float, inter: float, signs: Matrix | None = None, storage: Storage | None = None
) -> Image:
    dimension, channels = _meaning(header, raw)
    size = raw.shape[:dimension]
    data = _values(raw.reshape(*size, channels), slope, inter, storage)
    if int(header["intent_code"]) == _DISPLACEMENT and channels > 1:
        # this intent promises vectors in RAS, where ITK's own vector images are in LPS
        data = torch.cat([-data[:2].to(torch.promote_types(data.dtype, torch.float32)), data[2:]])
    return Image(data, _grid(header, size, signs))


def _values(raw: Array, slope: float, inter: float, storage: Storage | None) -> Tensor:
    def converted(part: slice) -> Tensor:
        return tensor_of(np.ascontiguousarray(_scaled(raw[..., part, :], slope, inter).transpose()))

    first = converted(slice(0, 1))
    as_stored = _scaling(slope, inter) == (1.0, 0.0) and first.numpy().dtype == raw.dtype
    if storage is None or as_stored or not storage.exceeded_by(raw.size * first.dtype.itemsize):
        return converted(slice(None))
    data = storage.zeros(raw.shape[::-1], first.dtype)
    for part in slabs(raw.shape[-2], first.nbytes):
        data[:, part] = converted(part)
    return data


def _meaning(header: Any, raw: Array) -> tuple[int, int]:
    if raw.dtype.kind not in "biuf":
        raise ImageError(f"voxels of type {raw.dtype} are not supported: grey values or vectors are needed")
    shape, intent = raw.shape, int(header["intent_code"])
    if intent in (_DISPLACEMENT, _VECTOR) and len(shape) == 5:
        dimension = max(d for d in (1, 2, 3, 4) if d == 1 or shape[d - 1] > 1)
        channels = shape[4]
    else:
        dimension, channels = len(shape), 1
        while dimension > 3 and shape[dimension - 1] == 1:
            dimension -= 1
    if dimension not in (2, 3):
        raise ImageError(f"an image of 2 or 3 dimensions is needed, but its size is {' x '.join(map(str, shape))}")
    if min(shape) < 1:
        raise ImageError(f"it holds no voxels: its size is {' x '.join(map(str, shape))}")
    return dimension, channels


def _scaled(raw: Array, slope: float, inter: float) -> Array:
    slope, inter = _scaling(slope, inter)
    if (slope, inter) == (1.0, 0.0):
        return raw
    result = raw.dtype if raw.dtype.kind == "f" else np.dtype(np.float32)
    return (raw.astype(result).astype(np.float64) * slope + inter).astype(result.newbyteorder("="))


def _scaling(slope: float, inter: float) -> tuple[float, float]:
    slope, inter = (value if np.isfinite(value) else 0.0 for value in (slope, inter))
    epsilon = np.finfo(float).eps
    slope = slope if abs(slope) > epsilon else 1.0
    return (1.0, 0.0) if abs(slope - 1) <= epsilon and abs(inter) <= epsilon else (slope, inter)


def _grid(header: Any, size: tuple[int, ...], signs: Matrix | None) -> Grid:
    n = len(size)
    signs = np.ones(n) if signs is None else signs[:n]  # ITK mirrors an axis whose pixdim is negative
    unit = _MILLIMETRES.get(int(header["xyzt_units"]) & 7, 1.0)
    spacing = [abs(float(header["pixdim"][d + 1])) * unit for d in range(n)]
    affine = _chosen(header)
    if affine is None:
        return Grid.of(size, spacing, None, np.diag(signs))
    lps = _FLIP @ affine
    columns = lps[:n, :n]
    lengths = np.linalg.norm(columns, axis=0)
    return Grid.of(size, spacing, lps[:n, 3] * unit, columns / np.where(lengths > 0, lengths, 1.0) * signs)


def _chosen(header: Any) -> Matrix | None:
    # ITK's choice (itk::NiftiImageIO): an orthonormal sform that is the scanner's or the only one, otherwise the qform
    qcode, scode = int(header["qform_code"]), int(header["sform_code"])
    if qcode <= 0 and scode <= 0:
        return None
    sform = np.asarray(header.get_sform(), dtype=np.float64)
    if qcode <= 0:
        if not _orthonormal(sform):
            raise ImageError(
                "its sform is sheared or singular, and it has no qform: elastix cannot use it; resample it first"
            )
        return sform
    qform = np.asarray(header.get_qform(), dtype=np.float32).astype(np.float64)
    return sform if scode == 1 and _orthonormal(sform) else qform


def _orthonormal(affine: Matrix) -> bool:
    lengths = np.linalg.norm(affine[:3, :3], axis=0)
    if not np.isfinite(affine).all() or lengths.min() <= 0:
        return False
    rotation = affine[:3, :3] / lengths
    return bool(np.abs(rotation @ rotation.T - np.eye(3)).max() <= 1e-4)


def _ras(grid: Grid) -> Matrix:
    affine = np.eye(4)
    n = grid.dimension
    affine[:n, :n] = grid.matrix
    affine[:n, 3] = grid.origin
    return _FLIP @ affine


def _check_length(path: Path, loaded: Any) -> None:
    # before memory is asked for: a damaged header may promise more voxels than there are bytes in the world
    needed = int(np.prod([int(n) for n in loaded.shape], dtype=object)) * loaded.get_data_dtype().itemsize
    held = path.stat().st_size * (_DEFLATE_LIMIT if path.suffix == ".gz" else 1)
    if needed > held:
        raise ImageError(f"the file is cut short: its header promises {needed} bytes of voxels")
