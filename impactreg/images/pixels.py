"""Pixel types: their names in parameter files, their torch types, and the cast between them."""

import numpy as np
import torch
from torch import Tensor

from impactreg.errors import ImageError, OutputError

Array = np.ndarray[tuple[int, ...], np.dtype[np.generic]]

PIXEL_TYPES = {
    "char": "int8",
    "unsigned char": "uint8",
    "short": "int16",
    "unsigned short": "uint16",
    "int": "int32",
    "unsigned int": "uint32",
    "long": "int64",
    "unsigned long": "uint64",
    "float": "float32",
    "double": "float64",
}
"""elastix's names of pixel types (`ResultImagePixelType`) and the NumPy types they mean, whose names count as well."""

# torch has no arithmetic on unsigned integers wider than a byte: the next type that holds their values replaces them
_WIDER = {"uint16": "int32", "uint32": "int64", "uint64": "int64", "float16": "float32", "bool": "uint8"}


def numpy_type(name: str) -> "np.dtype[np.generic]":
    """The NumPy type of a pixel type's name; raises `OutputError` for a name that is none."""
    plain = name.replace("_", " ").strip()
    if plain not in PIXEL_TYPES and plain not in PIXEL_TYPES.values():
        raise OutputError(f'pixel type "{name}" is not known: use one of {", ".join(PIXEL_TYPES)}')
    return np.dtype(PIXEL_TYPES.get(plain, plain))


def natural_type(data: Tensor) -> "np.dtype[np.generic]":
    """The type in which a tensor is written when nobody asks for another: its own, float32 for half precision."""
    if data.dtype in (torch.float16, torch.bfloat16):
        return np.dtype("float32")
    return np.dtype(_WIDER.get(str(data.dtype).removeprefix("torch."), str(data.dtype).removeprefix("torch.")))


def tensor_of(array: Array) -> Tensor:
    """A tensor of the nearest torch type with the array's values; `ImageError` where they are no real numbers."""
    kind, size = array.dtype.kind, array.dtype.itemsize
    if kind not in "biuf":
        raise ImageError(f"voxels of type {array.dtype} are not supported: real numbers, one or several a voxel, are")
    if kind == "f" and size > 8:
        array = array.astype(np.float64)
    native = array.astype(array.dtype.newbyteorder("="), copy=False)
    if native.dtype == np.uint64 and native.size and int(native.max()) > np.iinfo(np.int64).max:
        raise ImageError(f"the value {int(native.max())} is too large: whole numbers up to 2^63 - 1 are supported")
    native = native.astype(_WIDER.get(native.dtype.name, native.dtype.name), copy=False)
    return torch.from_numpy(np.require(native, requirements=["C", "W"]))


def cast(array: Array, to: "np.dtype[np.generic]") -> Array:
    """The array in another type: fractions are cut off, as elastix's writer does (`itk::CastImageFilter`).

    What lies outside the range of a whole-number type becomes the nearest number in it, and not-a-number becomes 0,
    where elastix's result is undefined.
    """
    if array.dtype == to:
        return array
    if to.kind not in "iu":
        with np.errstate(over="ignore"):
            return array.astype(to)
    if array.dtype.kind == "f":
        return _whole_numbers(array, to)
    have, want = np.iinfo(array.dtype.name if array.dtype.kind != "b" else "uint8"), np.iinfo(to.name)
    return np.clip(array, max(have.min, want.min), min(have.max, want.max)).astype(to)


def _whole_numbers(array: Array, to: "np.dtype[np.generic]") -> Array:
    info = np.iinfo(to.name)
    # the largest 64-bit numbers are no floating point numbers: rounded up, they would overflow in the cast
    highest = float(info.max) if to.itemsize < 8 else np.nextafter(float(info.max), 0.0)
    values = np.trunc(np.nan_to_num(array.astype(np.float64), nan=0.0, posinf=np.inf, neginf=-np.inf))
    whole = np.clip(values, float(info.min), highest).astype(to)
    whole[values > highest] = info.max
    return whole
