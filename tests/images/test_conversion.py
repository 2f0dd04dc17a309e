"""Images from arrays, tensors, tuples, and other libraries' images."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from impactreg.errors import ImageError
from impactreg.images import Image, as_image, write_image


def test_an_array_takes_the_geometry_that_is_given_with_it() -> None:
    image = as_image(
        np.zeros((4, 5, 6), np.uint16), spacing=[1.0, 2.0, 3.0], origin=[4.0, 5.0, 6.0], direction=-np.eye(3)
    )
    assert list(image.grid.size) == [6, 5, 4]
    assert list(image.grid.spacing) == [1, 2, 3]
    assert list(image.grid.origin) == [4, 5, 6]
    assert image.grid.direction[0][0] == -1
    assert image.data.dtype == torch.int32


def test_a_tuple_is_an_array_with_its_geometry() -> None:
    image = as_image((torch.zeros(4, 5), (2.0, 3.0), (7.0, 8.0)))
    assert list(image.grid.spacing) == [2, 3]
    assert list(image.grid.origin) == [7, 8]


def test_an_image_and_a_path_pass_through(tmp_path: Path) -> None:
    image = Image.of(torch.rand(4, 5), [2.0, 3.0])
    assert as_image(image) is image
    write_image(image, tmp_path / "a.nii")
    assert torch.equal(as_image(str(tmp_path / "a.nii")).data, image.data)
    assert torch.equal(as_image(tmp_path / "a.nii").data, image.data)


def test_a_nibabel_image_has_its_scaled_values_and_lps_geometry(tmp_path: Path) -> None:
    nibabel: Any = pytest.importorskip("nibabel")
    affine = np.diag([2.0, 3.0, 4.0, 1.0])
    affine[:3, 3] = 10, 20, 30
    original = nibabel.Nifti1Image(np.arange(24, dtype=np.float32).reshape(2, 3, 4), affine)
    image = as_image(original)
    assert list(image.grid.origin) == [-10, -20, 30]
    assert image.scalar[3, 2, 1] == 23
    original.set_data_dtype(np.uint8)
    original.to_filename(tmp_path / "a.nii")
    assert as_image(nibabel.load(tmp_path / "a.nii")).scalar[3, 2, 1] == pytest.approx(23, abs=0.1)
    other = nibabel.MGHImage(np.zeros((2, 3, 4), np.float32), affine)
    assert list(as_image(other).grid.origin) == [-10, -20, 30]


def test_a_simpleitk_image_keeps_values_and_geometry() -> None:
    sitk = pytest.importorskip("SimpleITK")
    original = sitk.GetImageFromArray(np.arange(24, dtype=np.int16).reshape(2, 3, 4))
    original.SetSpacing((1.0, 2.0, 3.0))
    original.SetOrigin((4.0, 5.0, 6.0))
    original.SetDirection((0, 1, 0, -1, 0, 0, 0, 0, 1))
    image = as_image(original)
    assert list(image.grid.size) == [4, 3, 2]
    for index in [(0, 0, 0), (3, 1, 1)]:
        point = original.TransformIndexToPhysicalPoint(index)
        world = image.grid.index_to_world(torch.tensor([index], dtype=torch.float64))
        np.testing.assert_allclose(world[0], point)
        assert image.scalar[index[::-1]] == original[index]


@pytest.mark.parametrize(
    ("anything", "reason"),
    [
        (42, "a int is no image"),
        (None, "a NoneType is no image"),
        (np.zeros(5), "shape"),
        (np.zeros((2, 0)), "shape"),
        ((np.zeros((4, 5)), (1.0, 2.0, 3.0)), "needs 2 spacings"),
        (np.zeros((4, 5), np.complex64), "complex64"),
        ("nowhere.nii", "no such file"),
    ],
)
def test_what_is_no_image_is_an_image_error_that_names_it(anything: object, reason: str) -> None:
    with pytest.raises(ImageError, match=f"fixed image: .*{reason}"):
        as_image(anything, name="fixed image")


def test_geometry_beside_something_that_has_its_own_is_refused() -> None:
    with pytest.raises(ImageError, match="has its own"):
        as_image(Image.of(torch.zeros(2, 2)), spacing=[1.0, 1.0])
