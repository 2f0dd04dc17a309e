"""Pixel types and the cast of a writer."""

import numpy as np
import pytest
import torch

from impactreg.errors import ImageError, OutputError
from impactreg.images.pixels import cast, natural_type, numpy_type, tensor_of


@pytest.mark.parametrize(
    ("name", "numpy_name"),
    [
        ("short", "int16"),
        ("unsigned char", "uint8"),
        ("unsigned_char", "uint8"),
        ("float32", "float32"),
        ("long", "int64"),
    ],
)
def test_elastix_and_numpy_names_mean_numpy_types(name: str, numpy_name: str) -> None:
    assert numpy_type(name) == np.dtype(numpy_name)


def test_an_unknown_pixel_type_is_an_output_error_that_lists_the_known() -> None:
    with pytest.raises(OutputError, match='"shrot" is not known: use one of char'):
        numpy_type("shrot")


def test_fractions_are_cut_off_and_values_beyond_the_range_become_its_ends() -> None:
    values = np.array([1.9, -1.9, 40000.0, -40000.0, np.nan, np.inf, -np.inf])
    assert cast(values, np.dtype("int16")).tolist() == [1, -1, 32767, -32768, 0, 32767, -32768]
    assert cast(np.array([1e30, -3.0]), np.dtype("uint64")).tolist() == [2**64 - 1, 0]
    assert cast(np.array([1e30, -1e30]), np.dtype("int64")).tolist() == [2**63 - 1, -(2**63)]
    assert cast(np.array([300, -1], np.int32), np.dtype("uint8")).tolist() == [255, 0]
    assert cast(np.array([True]), np.dtype("int16")).tolist() == [1]


@pytest.mark.parametrize(
    ("name", "dtype"),
    [
        ("uint16", torch.int32),
        ("uint32", torch.int64),
        ("int8", torch.int8),
        (">f4", torch.float32),
        ("float64", torch.float64),
    ],
)
def test_arrays_become_tensors_of_a_type_that_holds_their_values(name: str, dtype: torch.dtype) -> None:
    largest = np.iinfo(name).max if np.dtype(name).kind in "iu" else 1.5
    tensor = tensor_of(np.array([largest], name))
    assert tensor.dtype == dtype
    assert tensor.item() == largest


def test_complex_and_far_too_large_numbers_are_image_errors() -> None:
    with pytest.raises(ImageError, match="complex64"):
        tensor_of(np.zeros(2, np.complex64))
    with pytest.raises(ImageError, match="too large"):
        tensor_of(np.array([2**64 - 1], np.uint64))


def test_half_precision_is_written_in_single_precision() -> None:
    assert natural_type(torch.zeros(1, dtype=torch.bfloat16)) == np.float32
    assert natural_type(torch.zeros(1, dtype=torch.bool)) == np.uint8
    assert natural_type(torch.zeros(1, dtype=torch.int16)) == np.int16
