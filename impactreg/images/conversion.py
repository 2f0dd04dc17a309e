"""Images from whatever Python programs have at hand, and back."""

import os
import sys
from typing import Any, cast

import numpy as np
from torch import Tensor

from impactreg.errors import ImageError
from impactreg.images.files import read_image
from impactreg.images.grid import Grid, Numbers
from impactreg.images.image import Image
from impactreg.images.nifti import from_nibabel
from impactreg.images.pixels import Array, tensor_of

Rows = "tuple[Numbers, ...] | list[list[float]] | Array"


def as_image(
    anything: Any,
    *,
    name: str = "image",
    spacing: "Numbers | list[float] | None" = None,
    origin: "Numbers | list[float] | None" = None,
    direction: "tuple[Numbers, ...] | list[list[float]] | Array | None" = None,
) -> Image:
    """An `Image` from a path, an itk, SimpleITK or nibabel image, an array, a tensor, a tuple, or an `Image`.

    Arrays and tensors are in z, y, x order (2D: y, x) and take `spacing` (mm), `origin` (mm, LPS) and `direction` in
    x, y, z order; a tuple is (array, spacing[, origin[, direction]]). Everything else has its own geometry. Raises
    `ImageError`, which says what `name` was.
    """
    if isinstance(anything, tuple) and 2 <= len(anything) <= 4 and isinstance(anything[0], np.ndarray | Tensor):
        return as_image(
            anything[0], name=name, **dict(zip(("spacing", "origin", "direction"), anything[1:], strict=False))
        )
    if isinstance(anything, np.ndarray | Tensor):
        return _from_array(anything, name, spacing, origin, direction)
    if spacing is not None or origin is not None or direction is not None:
        raise ImageError(f"{name}: spacing, origin and direction go with arrays and tensors only; this has its own")
    if isinstance(anything, Image):
        return anything
    if isinstance(anything, str | os.PathLike):
        return read_image(cast("str | os.PathLike[str]", anything), name=name)
    return _from_library(anything, name)


def _from_array(values: "Array | Tensor", name: str, spacing: Any, origin: Any, direction: Any) -> Image:
    if values.ndim not in (2, 3) or 0 in values.shape:
        raise ImageError(
            f"{name}: an array of shape (z, y, x) or (y, x) is needed, but it has shape {tuple(values.shape)}"
        )
    try:
        data = values.detach() if isinstance(values, Tensor) else tensor_of(np.ascontiguousarray(values))
        return Image(data[None], Grid.of(tuple(int(n) for n in values.shape[::-1]), spacing, origin, direction))
    except (ImageError, ValueError, TypeError) as error:
        raise ImageError(f"{name}: {error}") from error


def _from_library(image: Any, name: str) -> Image:
    library = type(image).__module__.split(".")[0]
    readers = {"itk": _from_itk, "SimpleITK": _from_simpleitk, "nibabel": from_nibabel}
    if library not in readers or not (hasattr(image, "GetSpacing") or hasattr(image, "dataobj")):
        raise ImageError(
            f"{name}: a {type(image).__name__} is no image: give a path, an Image, an itk, SimpleITK or nibabel image, "
            "an array or tensor with its spacing"
        )
    try:
        return readers[library](image)
    except (ImageError, ValueError, TypeError, RuntimeError) as error:
        raise ImageError(f"{name}: {' '.join(str(error).split())}") from error


def _from_itk(image: Any) -> Image:
    itk = sys.modules["itk"]
    image.Update()  # it may be the output of a filter that has not run yet
    values = itk.array_from_image(image)
    region = image.GetLargestPossibleRegion()
    # the origin belongs to index 0, which a cropped image does not hold
    origin = [float(v) for v in image.TransformIndexToPhysicalPoint(region.GetIndex())]
    direction = itk.array_from_matrix(image.GetDirection())
    return _from_parts(values, [float(s) for s in image.GetSpacing()], origin, direction)


def _from_simpleitk(image: Any) -> Image:
    sitk = sys.modules["SimpleITK"]
    direction = np.array(image.GetDirection()).reshape(image.GetDimension(), image.GetDimension())
    return _from_parts(sitk.GetArrayFromImage(image), list(image.GetSpacing()), list(image.GetOrigin()), direction)


def _from_parts(values: Array, spacing: list[float], origin: list[float], direction: Array) -> Image:
    dimension = len(spacing)
    values = values[None] if values.ndim == dimension else np.moveaxis(values, -1, 0)
    if dimension not in (2, 3) or 0 in values.shape:
        raise ImageError(f"an image of 2 or 3 dimensions is needed, but its size is {values.shape[:0:-1]}")
    return Image(tensor_of(np.ascontiguousarray(values)), Grid.of(values.shape[:0:-1], spacing, origin, direction))
