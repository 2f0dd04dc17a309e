"""Image files in and out: NIfTI, MetaImage, NRRD, DICOM series, and whatever else ITK reads."""

import os
import re
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch

from impactreg.errors import ImageError, OutputError, TransformError
from impactreg.images.grid import Grid
from impactreg.images.image import Image
from impactreg.images.nifti import read_nifti, write_nifti
from impactreg.images.pixels import Array, cast, natural_type, numpy_type, tensor_of
from impactreg.images.storage import Storage
from impactreg.images.voxel_files import write_metaimage, write_nrrd
from impactreg.images.whole import whole_file

FilePath = str | os.PathLike[str]

FORMATS = ("nii", "nii.gz", "mha", "mhd", "nrrd")
"""The file name extensions that are written here, in full precision."""

ITK_FORMATS = ("gipl", "hdr", "img", "vtk", "dcm")
"""Those that ITK writes, with what each format can hold of types and geometry."""

# 16 bits without sign, of which 32,768 is taken off: ITK writes no signed numbers into a DICOM file of many slices
_SIGNED_DICOM = {
    "0028|0100": "16",
    "0028|0101": "16",
    "0028|0102": "15",
    "0028|0103": "0",
    "0028|1052": "-32768",
    "0028|1053": "1",
}

# what the itk wheels can read scalars as, and the type the file really has
_ITK_TYPES = {
    "char": ("SS", "int8"),
    "unsigned_char": ("UC", "uint8"),
    "short": ("SS", "int16"),
    "unsigned_short": ("US", "uint16"),
    "int": ("SI", "int32"),
    "unsigned_int": ("UI", "uint32"),
    "long": ("D", "int64"),
    "unsigned_long": ("D", "uint64"),
    "long_long": ("D", "int64"),
    "unsigned_long_long": ("D", "uint64"),
    "float": ("F", "float32"),
    "double": ("D", "float64"),
}


def read_image(path: FilePath, *, name: str = "image", storage: Storage | None = None) -> Image:
    """The image in a file, or in a folder with one DICOM series, with the geometry that ITK (so elastix) gives it.

    NIfTI is read by nibabel, everything else by ITK, whose import takes some seconds. Values keep their type where
    torch has it. `name` says in messages what the image is for. An uncompressed NIfTI file larger than what `storage`
    keeps in memory stays on the disk. Raises `ImageError` in one line for what is missing, damaged or unsupported.
    """
    file = Path(path)
    try:
        if not file.exists():
            raise ImageError("there is no such file or folder")
        if file.is_file() and file.stat().st_size == 0:
            raise ImageError("the file is empty")
        if file.is_dir():
            return _read_series(file)
        return read_nifti(file, storage) if file.name.lower().endswith((".nii", ".nii.gz")) else _read_by_itk(file)
    except (ImageError, OSError) as error:
        reason = str(error) if isinstance(error, ImageError) else error.strerror or str(error)
        raise ImageError(f"{path}: {'' if name == 'image' else name + ': '}{reason}") from error


def write_image(image: Image, path: FilePath, *, pixel_type: str | None = None, compress: bool = False) -> None:
    """Writes an image in the format that the extension names (`FORMATS`, `ITK_FORMATS`), whole or not at all.

    `pixel_type` is a name of elastix's (`ResultImagePixelType`) or of NumPy's; without it the values keep their type.
    Fractions are cut off, as elastix does, and values beyond a type's range become its nearest value. Several
    channels are written as ITK writes vectors. `.nii.gz` is always compressed, `.nii` never. Raises `OutputError`.
    """
    file = Path(path)
    suffix = file.name.lower()
    try:
        dtype = natural_type(image.data) if pixel_type is None else numpy_type(pixel_type)
        if suffix.endswith((".nii", ".nii.gz")):
            with whole_file(file) as draft:
                write_nifti(image, draft, dtype)
        elif suffix.endswith((".mha", ".mhd")):
            write_metaimage(image, file, dtype, compress=compress)
        elif suffix.endswith(".nrrd"):
            write_nrrd(image, file, dtype, compress=compress)
        elif suffix.endswith(tuple(f".{each}" for each in ITK_FORMATS)):
            _write_by_itk(image, file, dtype, compress=compress)
        else:
            known = ", ".join((*FORMATS, *ITK_FORMATS))
            raise OutputError(f'"{file.suffix}" files cannot be written: use one of {known}')
    except OutputError as error:
        raise error if str(error).startswith(str(file)) else OutputError(f"{path}: {error}") from error
    except (ValueError, TypeError) as error:
        raise OutputError(f"{path}: cannot be written: {' '.join(str(error).split())}") from error


def check_finite(image: Image, name: str = "image") -> Image:
    """The image itself; raises `ImageError` when it holds values that are not finite numbers, and says how many."""
    if image.data.is_floating_point():
        bad = int((~torch.isfinite(image.data)).sum())
        if bad:
            raise ImageError(
                f"{name}: {bad} of {image.data.numel()} values are not finite numbers (NaN or infinite): replace them"
            )
    return image


def to_itk(image: Image) -> Any:
    """An `itk.Image` with the same values and geometry; types that itk lacks become wider ones, vectors float32."""
    values = image.numpy()
    wider = {"int8": "int16", "int64": "float64", "uint64": "float64", "float16": "float32", "bool": "uint8"}
    dtype = "float32" if image.channels > 1 else wider.get(values.dtype.name, values.dtype.name)
    return _itk_image(values.astype(dtype, copy=False), image.grid, is_vector=image.channels > 1)


def read_itk_transform(path: FilePath) -> list[tuple[str, list[float], list[float]]]:
    """Class name, parameters and fixed parameters of every transform in a file that ITK reads (.h5, .mat, ...).

    A composite comes first and its members follow, the one applied first last. Raises `TransformError`.
    """
    _check_hdf5(Path(path))
    import itk

    try:
        transforms = itk.transformread(os.fspath(path))
    except RuntimeError as error:
        raise TransformError(f"{path}: the transform cannot be read: {_reason(error)}") from error
    if len(transforms) == 1 and hasattr(transforms[0], "GetNthTransform"):
        transforms += [transforms[0].GetNthTransform(i) for i in range(transforms[0].GetNumberOfTransforms())]
    return [itk_transform_parts(each) for each in transforms]


def _check_hdf5(path: Path) -> None:
    """Refuses a file that is no HDF5 file or lacks its end, on which the library writes pages to stderr."""
    if path.suffix.lower() not in (".h5", ".hdf5"):
        return
    try:
        with path.open("rb") as file:
            start = file.read(48)
        size = path.stat().st_size
    except OSError as error:
        raise TransformError(f"{path}: cannot be read: {error.strerror}") from None
    # The superblock tells where the file ends: since its version 2 at byte 28, before at byte 40, in 8 bytes.
    end = start[28:36] if start[8:9] in (b"\x02", b"\x03") else start[40:48]
    if not start.startswith(b"\x89HDF\r\n\x1a\n") or len(end) < 8 or int.from_bytes(end, "little") > size:
        raise TransformError(f"{path}: the transform cannot be read: this is no HDF5 file, or a truncated one")


def itk_transform_of(text: str) -> Any:
    """The `itk` transform object that ITK's text form describes; raises `TransformError` for one that ITK lacks."""
    import itk

    with tempfile.TemporaryDirectory() as folder:
        plain = Path(folder) / "transform.tfm"
        plain.write_text(text, encoding="utf-8")
        try:
            return itk.transformread(os.fspath(plain))[0]
        except RuntimeError as error:
            raise TransformError(f"ITK has no such transform: {_reason(error)}") from error


def write_itk_transform(text: str, path: Path) -> None:
    """Writes the transforms of ITK's text form as the kind of file that the extension names; raises `OutputError`."""
    import itk

    with tempfile.TemporaryDirectory() as folder:
        plain = Path(folder) / "transform.tfm"
        plain.write_text(text, encoding="utf-8")
        try:
            itk.transformwrite(itk.transformread(os.fspath(plain)), os.fspath(path))
        except RuntimeError as error:
            reason = f"the ITK transform cannot be written: {_reason(error)}; use tfm or itk.txt"
            raise OutputError(f"{path}: {reason}") from error


def _write_by_itk(image: Image, file: Path, dtype: "np.dtype[np.generic]", *, compress: bool) -> None:
    import itk

    values = cast(image.numpy(), dtype)
    if file.is_dir() or not file.parent.is_dir():
        raise OutputError("there is no folder for it, or a folder has its name")
    signed = file.suffix.lower() == ".dcm" and dtype == np.int16
    try:
        made = _itk_image(values.astype(np.float32) if signed else values, image.grid, is_vector=image.channels > 1)
        for tag, value in _SIGNED_DICOM.items() if signed else ():
            made[tag] = value
        with tempfile.TemporaryDirectory(dir=file.parent) as folder:
            itk.imwrite(made, os.fspath(Path(folder) / file.name), compression=compress)
            # such as .img beside .hdr
            for each in Path(folder).iterdir():
                each.replace(file.parent / each.name)
    except (RuntimeError, KeyError) as error:
        reason = _reason(error) if isinstance(error, RuntimeError) else "ITK has no such images"
        advice = f"use one of {', '.join(FORMATS)}, or another pixel type"
        raise OutputError(f"it cannot be written with pixels of type {dtype}: {reason}; {advice}") from error


def _itk_image(values: Array, grid: Grid, *, is_vector: bool) -> Any:
    import itk

    result = itk.image_from_array(np.ascontiguousarray(values), is_vector=is_vector)
    result.SetSpacing([float(s) for s in grid.spacing])
    result.SetOrigin([float(o) for o in grid.origin])
    result.SetDirection(itk.matrix_from_array(np.array(grid.direction)))
    return result


def _read_by_itk(file: Path) -> Image:
    import itk

    io = itk.ImageIOFactory.CreateImageIO(os.fspath(file), itk.CommonEnums.IOFileMode_ReadMode)
    if io is None:
        raise ImageError(
            "this is no image that ITK can read: use NIfTI, MetaImage, NRRD, or a folder with a DICOM series"
        )
    try:
        io.SetFileName(os.fspath(file))
        io.ReadImageInformation()
        image_type, dtype = _type_of(itk, io, io.GetNumberOfDimensions())
        reader = itk.ImageFileReader[image_type].New(FileName=os.fspath(file), ImageIO=io)
        reader.Update()
    except RuntimeError as error:
        raise ImageError(f"it cannot be read: {_reason(error)}") from error
    return _image(itk, reader.GetOutput(), dtype)


def _read_series(folder: Path) -> Image:
    import itk

    names = itk.GDCMSeriesFileNames.New(UseSeriesDetails=True, Directory=os.fspath(folder))
    series = [list(names.GetFileNames(uid)) for uid in names.GetSeriesUIDs()]
    if len(series) != 1:
        found = "no DICOM files" if not series else f"{len(series)} DICOM series"
        raise ImageError(f"the folder holds {found}: name a folder with the files of one series, or an image file")
    try:
        io = itk.GDCMImageIO.New(FileName=series[0][0])
        io.ReadImageInformation()
        image_type, dtype = _type_of(itk, io, 3)
        reader = itk.ImageSeriesReader[image_type].New(FileNames=series[0], ImageIO=io)
        reader.Update()
    except RuntimeError as error:
        raise ImageError(f"the DICOM series cannot be read: {_reason(error)}") from error
    return _image(itk, reader.GetOutput(), dtype)


def _type_of(itk: Any, io: Any, dimension: int) -> tuple[Any, str]:
    size = [int(io.GetDimensions(d)) for d in range(io.GetNumberOfDimensions())]
    pixel, component = io.GetPixelTypeAsString(io.GetPixelType()), io.GetComponentTypeAsString(io.GetComponentType())
    if dimension not in (2, 3):
        raise ImageError(f"an image of 2 or 3 dimensions is needed, but its size is {' x '.join(map(str, size))}")
    if pixel in ("rgb", "rgba", "complex") or component not in _ITK_TYPES:
        raise ImageError(f"voxels of type {pixel} {component} are not supported: grey values or vectors are needed")
    if io.GetNumberOfComponents() > 1:
        return itk.VectorImage[itk.F, dimension], "float32"
    name, dtype = _ITK_TYPES[component]
    return itk.Image[getattr(itk, name), dimension], dtype


def _image(itk: Any, image: Any, dtype: str) -> Image:
    values: Array = itk.array_from_image(image)
    grid = Grid.of(
        list(itk.size(image)),
        list(itk.spacing(image)),
        list(itk.origin(image)),
        itk.array_from_matrix(image.GetDirection()),
    )
    values = np.moveaxis(values, -1, 0) if values.ndim > grid.dimension else values[None]
    return Image(tensor_of(np.ascontiguousarray(values).astype(dtype, copy=False)), grid)


def itk_transform_parts(transform: Any) -> tuple[str, list[float], list[float]]:
    """Class name, parameters and fixed parameters of an `itk` transform object; the name alone of a composite."""
    if "Composite" in transform.GetTransformTypeAsString():
        return transform.GetTransformTypeAsString(), [], []
    parameters, fixed = transform.GetParameters(), transform.GetFixedParameters()
    return (
        transform.GetTransformTypeAsString(),
        [float(parameters[i]) for i in range(len(parameters))],
        [float(fixed[i]) for i in range(len(fixed))],
    )


def _reason(error: RuntimeError) -> str:
    # ITK's messages: the path of a C++ file, then a line "ITK ERROR: Class(0x55...): what happened"
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    chosen = next((line for line in lines if "ITK ERROR" in line), lines[-1] if lines else "no reason given")
    return re.sub(r"^.*ITK ERROR:\s*(\w+\(0x[0-9a-f]+\):\s*)?", "", chosen)
