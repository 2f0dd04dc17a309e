"""Files of every format: values, types, geometry, and what is wrong with damaged ones."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from impactreg.errors import ImageError, OutputError
from impactreg.images import Grid, Image, read_image, write_image
from impactreg.images.files import check_finite
from impactreg.images.nifti import from_nibabel, to_nibabel

OBLIQUE = np.linalg.qr(np.random.default_rng(3).normal(size=(3, 3)))[0]


def an_image(dimension: int = 3, channels: int = 1) -> Image:
    values = torch.rand((channels, 4, 5, 6)[: dimension + 1], generator=torch.Generator().manual_seed(1)) * 100
    direction = OBLIQUE if dimension == 3 else np.linalg.qr(OBLIQUE[:2, :2])[0]
    spacing, origin = [1.1, 2.2, 3.3][:dimension], [-20.5, 31.25, 7.0][:dimension]
    return Image(values, Grid.of(tuple(values.shape[:0:-1]), spacing, origin, direction))


@pytest.mark.parametrize("name", ["a.nii", "a.nii.gz"])
@pytest.mark.parametrize("channels", [1, 2, 3])
@pytest.mark.parametrize("dimension", [2, 3])
def test_nifti_gives_back_what_was_written(tmp_path: Path, name: str, channels: int, dimension: int) -> None:
    image = an_image(dimension, channels)
    write_image(image, tmp_path / name)
    again = read_image(tmp_path / name)
    assert torch.equal(again.data, image.data)
    assert again.grid.same_as(image.grid, 1e-5)
    assert [file.name for file in tmp_path.iterdir()] == [name]


@given(st.permutations([0, 1, 2]), st.lists(st.sampled_from([-1.0, 1.0]), min_size=3, max_size=3))
def test_every_orientation_survives_nifti(order: list[int], signs: list[float]) -> None:
    direction = np.eye(3)[order] * signs
    image = Image(
        torch.arange(24.0).reshape(1, 2, 3, 4), Grid.of([4, 3, 2], [1.0, 2.0, 3.0], [5.0, 6.0, 7.0], direction)
    )
    again = from_nibabel(to_nibabel(image))
    assert again.grid.same_as(image.grid, 1e-6)
    assert torch.equal(again.data, image.data)


def test_a_nifti_file_written_by_nibabel_is_turned_from_ras_to_lps(tmp_path: Path) -> None:
    nibabel: Any = pytest.importorskip("nibabel")
    nibabel.Nifti1Image(np.zeros((3, 4, 5), np.int16), np.diag([2.0, 3.0, 4.0, 1.0])).to_filename(tmp_path / "a.nii")
    grid = read_image(tmp_path / "a.nii").grid
    assert list(grid.spacing) == [2, 3, 4]
    np.testing.assert_array_equal(np.array(grid.direction), np.diag([-1, -1, 1]))


@pytest.mark.parametrize(
    "pixel_type", ["char", "unsigned char", "short", "unsigned_short", "int", "long", "float", "double"]
)
def test_a_pixel_type_is_what_the_file_holds(tmp_path: Path, pixel_type: str) -> None:
    nibabel: Any = pytest.importorskip("nibabel")
    image = an_image()
    write_image(image, tmp_path / "a.nii.gz", pixel_type=pixel_type)
    expected = image.data if pixel_type in ("float", "double") else image.data.trunc()
    assert torch.equal(read_image(tmp_path / "a.nii.gz").data.float(), expected)
    raw = nibabel.load(tmp_path / "a.nii.gz").get_data_dtype().name
    assert raw == {"char": "int8", "unsigned char": "uint8", "short": "int16", "unsigned_short": "uint16"}.get(
        pixel_type, {"int": "int32", "long": "int64", "float": "float32", "double": "float64"}.get(pixel_type)
    )


def test_values_that_are_not_finite_are_counted() -> None:
    image = Image.of(torch.tensor([[1.0, float("nan")], [float("inf"), 2.0]]))
    with pytest.raises(ImageError, match=r"^fixed image: 2 of 4 values are not finite"):
        check_finite(image, "fixed image")
    assert check_finite(Image.of(torch.zeros(2, 2))).channels == 1


@pytest.mark.parametrize(
    ("name", "damage", "reason"),
    [
        ("a.nii", lambda content: content[: len(content) // 2], "cut short"),
        ("a.nii.gz", lambda content: content[: len(content) // 2], "not a readable NIfTI file"),
        ("a.nii", lambda content: content[:100], "not a readable NIfTI file"),
        ("a.nii", lambda _: b"", "the file is empty"),
        ("a.nii", lambda _: b"garbage" * 100, "not a readable NIfTI file"),
        ("a.nii.gz", lambda _: b"garbage" * 100, "not a readable NIfTI file"),
        ("a.nii", lambda content: content[:42] + b"\xff\x7f" * 3 + content[48:], "cut short"),
    ],
)
def test_a_damaged_nifti_file_is_one_line(
    tmp_path: Path, name: str, damage: Callable[[bytes], bytes], reason: str
) -> None:
    path = tmp_path / name
    write_image(an_image(), path)
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(ImageError, match=reason) as caught:
        read_image(path, name="fixed image")
    assert str(caught.value).startswith(f"{path}: fixed image: ")
    assert "\n" not in str(caught.value)


@given(st.integers(0, 351), st.binary(min_size=1, max_size=6))
def test_no_damage_to_a_nifti_header_raises_anything_but_an_image_error(
    tmp_path_factory: pytest.TempPathFactory, position: int, noise: bytes
) -> None:
    path = tmp_path_factory.mktemp("fuzz") / "a.nii"
    write_image(an_image(), path)
    content = bytearray(path.read_bytes())
    content[position : position + len(noise)] = noise
    path.write_bytes(content)
    message = ""
    try:
        read_image(path)
    except ImageError as error:
        message = str(error)
    assert "\n" not in message


@pytest.mark.parametrize(
    ("shape", "dtype", "reason"),
    [
        ((3, 4, 5, 6), np.float32, "2 or 3 dimensions is needed, but its size is 3 x 4 x 5 x 6"),
        ((3, 4, 5), [("R", "u1"), ("G", "u1"), ("B", "u1")], "not supported"),
        ((3, 4, 5), np.complex64, "complex64 are not supported"),
    ],
)
def test_series_colours_and_complex_numbers_are_image_errors(
    tmp_path: Path, shape: tuple[int, ...], dtype: Any, reason: str
) -> None:
    nibabel: Any = pytest.importorskip("nibabel")
    nibabel.Nifti1Image(np.zeros(shape, dtype), np.eye(4)).to_filename(tmp_path / "a.nii")
    with pytest.raises(ImageError, match=reason):
        read_image(tmp_path / "a.nii")


def test_a_missing_file_is_an_image_error() -> None:
    with pytest.raises(ImageError, match=r"^nowhere/a.nii: moving image: there is no such file or folder$"):
        read_image("nowhere/a.nii", name="moving image")


def test_a_sheared_sform_without_a_qform_is_refused_as_itk_refuses_it(tmp_path: Path) -> None:
    nibabel: Any = pytest.importorskip("nibabel")
    sheared = np.eye(4)
    sheared[0, 1] = 0.1
    nibabel.Nifti1Image(np.zeros((3, 4, 5), np.int16), sheared).to_filename(tmp_path / "a.nii")
    with pytest.raises(ImageError, match="sheared"):
        read_image(tmp_path / "a.nii")


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("a.jpeg", "cannot be written: use one of nii"),
        ("missing/a.nii", "No such file"),
        ("missing/a.mhd", "No such file"),
        ("folder.nii", "a folder"),
    ],
)
def test_what_cannot_be_written_is_an_output_error_and_leaves_nothing(tmp_path: Path, name: str, reason: str) -> None:
    (tmp_path / "folder.nii").mkdir()
    with pytest.raises(OutputError, match=reason) as caught:
        write_image(an_image(), tmp_path / name)
    assert str(caught.value).startswith(str(tmp_path / name))
    assert [file.name for file in tmp_path.iterdir()] == ["folder.nii"]


def test_a_disk_error_leaves_the_old_file_and_no_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_image(an_image(), tmp_path / "a.mhd")
    before = {file.name: file.read_bytes() for file in tmp_path.iterdir()}

    def full(_: Path, content: bytes) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(OutputError, match="No space left on device"):
        write_image(an_image(channels=3), tmp_path / "a.mhd")
    assert {file.name: file.read_bytes() for file in tmp_path.iterdir()} == before


def test_an_image_too_long_for_nifti_is_an_output_error(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match=r"a.nii: NIfTI cannot hold this image"):
        write_image(Image.of(torch.zeros(1, 40000)), tmp_path / "a.nii")
    assert not list(tmp_path.iterdir())


def test_an_unknown_pixel_type_is_an_output_error_that_names_the_file(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match=r"a.nii: pixel type .* is not known"):
        write_image(an_image(), tmp_path / "a.nii", pixel_type="flaot")


def test_importing_the_room_imports_neither_itk_nor_nibabel() -> None:
    program = "import sys, impactreg.images; print([name for name in ('itk', 'nibabel') if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
