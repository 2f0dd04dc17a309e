"""`impactreg convert-transform`, and what it writes in other verbs."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from impactreg.cli import main
from impactreg.components.transforms.files import read_transform
from impactreg.images import Image, read_image, read_points, write_image, write_points
from impactreg.parameters import ParameterMap

Capture = pytest.CaptureFixture[str]
SHIFT = torch.tensor([1.0, 2.0, -1.0], dtype=torch.float64)
POINTS = torch.tensor([[3.0, 4, 5], [6, 5, 4]], dtype=torch.float64)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with a translation and two images of 3D."""
    keys = {"Transform": "TranslationTransform", "TransformParameters": SHIFT.tolist()}
    grid = {"Size": [12, 11, 10], "Spacing": [1] * 3, "Origin": [0] * 3, "Direction": np.eye(3).reshape(-1)}
    ParameterMap.from_dict({**keys, **grid}).write(tmp_path / "shift.txt")
    values = np.random.default_rng(0).random((10, 11, 12)).astype(np.float32)
    write_image(Image.of(values), tmp_path / "fixed.nii.gz")
    write_image(Image.of(values, [2.0, 1.0, 1.0]), tmp_path / "moving.nii.gz")
    return tmp_path


def convert(folder: Path, one: str, other: str, *flags: str) -> int:
    files = [str(folder / flag) if flag.endswith(".nii.gz") else flag for flag in flags]
    return main(["convert-transform", "-tp", str(folder / one), "-out", str(folder / other), *files])


def moved(path: Path) -> torch.Tensor:
    return read_transform(path)(POINTS)


@pytest.mark.parametrize("name", ["other.txt", "other.tfm", "field.nii.gz"])
def test_a_transform_keeps_what_it_does(folder: Path, name: str) -> None:
    assert convert(folder, "shift.txt", name) == 0
    assert torch.allclose(moved(folder / name), POINTS + SHIFT, atol=1e-5)
    assert convert(folder, name, "back.txt", "--reference", "fixed.nii.gz") == 0
    assert torch.allclose(moved(folder / "back.txt"), POINTS + SHIFT, atol=1e-5)


def test_learn2reg_fields_go_out_and_come_in(folder: Path) -> None:
    images = ["--reference", "fixed.nii.gz", "--moving", "moving.nii.gz"]
    assert convert(folder, "shift.txt", "disp.nii.gz", "--learn2reg", *images) == 0
    assert convert(folder, "disp.nii.gz", "field.nii", *images) == 0
    assert torch.allclose(moved(folder / "field.nii"), POINTS + SHIFT, atol=1e-5)


def test_learn2reg_fields_need_both_images(folder: Path, capsys: Capture) -> None:
    assert convert(folder, "shift.txt", "disp.npz", "--reference", "fixed.nii.gz") == 1
    assert "needs the grid of the moving image: give that image (--moving)" in capsys.readouterr().err
    assert convert(folder, "shift.txt", "disp.npz", "--reference", "fixed.nii.gz", "--moving", "moving.nii.gz") == 0
    assert convert(folder, "disp.npz", "field.nii.gz") == 1
    assert "give its images by --reference and --moving" in capsys.readouterr().err


def test_transformix_applies_a_displacement_field(folder: Path) -> None:
    assert convert(folder, "shift.txt", "field.nii.gz") == 0
    write_points(POINTS, folder / "points.csv")
    flags = ["-def", str(folder / "points.csv"), "--reference", str(folder / "fixed.nii.gz"), "-out", str(folder)]
    assert main(["transformix", "-tp", str(folder / "field.nii.gz"), *flags]) == 0
    assert torch.allclose(read_points(folder / "outputpoints.csv").points, POINTS + SHIFT, atol=1e-5)


def test_a_registration_starts_from_a_displacement_field(folder: Path) -> None:
    assert convert(folder, "shift.txt", "field.nii.gz") == 0
    keys = {
        "Metric": "AdvancedMeanSquares",
        "Transform": "TranslationTransform",
        "Optimizer": "StandardGradientDescent",
        "NumberOfResolutions": 1,
        "MaximumNumberOfIterations": 1,
        "SP_a": 0,
        "ImageSampler": "Full",
        "WriteResultImage": "false",
        "AutomaticTransformInitialization": "false",
    }
    ParameterMap.from_dict(keys).write(folder / "map.txt")
    flags = ["-f", str(folder / "fixed.nii.gz"), "-m", str(folder / "fixed.nii.gz"), "-p", str(folder / "map.txt")]
    out = folder / "out"
    assert main([*flags, "-t0", str(folder / "field.nii.gz"), "-out", str(out), "--engine", "torch"]) == 0
    assert torch.allclose(moved(out / "TransformParameters.0.txt"), POINTS + SHIFT, atol=1e-5)


def test_what_was_made_without_directions_is_written_for_images_as_they_lie(folder: Path, capsys: Capture) -> None:
    content = ParameterMap.read(folder / "shift.txt").replace({"UseDirectionCosines": "false"})
    content.write(folder / "straight.txt")
    turn = np.array([[0.0, -1, 0], [1, 0, 0], [0, 0, 1]])
    for name in ("fixed", "moving"):
        image = read_image(folder / f"{name}.nii.gz")
        grid = replace(image.grid, direction=tuple(map(tuple, turn.tolist())))
        write_image(Image(image.data, grid), folder / f"t{name}.nii.gz")
    images = ["--reference", "tfixed.nii.gz", "--moving", "tmoving.nii.gz"]
    assert convert(folder, "straight.txt", "field.nii.gz", "--reference", "tfixed.nii.gz") == 1
    assert "give the images that it belongs to by --reference and --moving" in capsys.readouterr().err
    assert convert(folder, "straight.txt", "field.nii.gz", *images) == 0
    assert convert(folder, "straight.txt", "disp.npz", *images) == 0
    assert convert(folder, "straight.txt", "field.h5", *images) == 1
    assert "write a displacement field (.nii.gz)" in capsys.readouterr().err
    assert convert(folder, "straight.txt", "plain.tfm", "--reference", "fixed.nii.gz", "--moving", "moving.nii.gz") == 0
    assert torch.allclose(moved(folder / "plain.tfm"), POINTS + SHIFT)
    there = torch.tensor(turn) @ SHIFT
    turned = torch.tensor(turn) @ POINTS.T
    assert torch.allclose(read_transform(folder / "field.nii.gz")(turned.T), turned.T + there, atol=1e-5)
    voxels = np.load(folder / "disp.npz")["arr_0"][3, 4, 5]
    expected = (POINTS[0] + SHIFT) / torch.tensor([2.0, 1.0, 1.0]) - POINTS[0]
    assert voxels == pytest.approx(expected.tolist(), abs=1e-5)


def test_the_grid_of_a_parameter_file_comes_before_that_of_a_field(folder: Path) -> None:
    assert convert(folder, "shift.txt", "field.nii.gz") == 0
    keys = {"Transform": "DeformationFieldTransform", "DeformationFieldFileName": str(folder / "field.nii.gz")}
    grid = {"Size": [6, 5, 4], "Spacing": [2] * 3, "Origin": [1] * 3, "Direction": np.eye(3).reshape(-1)}
    ParameterMap.from_dict({**keys, **grid, "DeformationFieldInterpolationOrder": 1}).write(folder / "file.txt")
    assert convert(folder, "file.txt", "other.nii.gz") == 0
    assert read_image(folder / "other.nii.gz").grid.size == (6, 5, 4)
