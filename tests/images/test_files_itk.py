"""What ITK says of the same files: one process for all, because importing itk takes seconds."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from impactreg.errors import ImageError, OutputError
from impactreg.images import Grid, Image, Mask, as_image, read_image, write_image
from impactreg.images.files import ITK_FORMATS, to_itk

pytestmark = pytest.mark.itk

OBLIQUE = np.linalg.qr(np.random.default_rng(3).normal(size=(3, 3)))[0]


@pytest.fixture(scope="module")
def itk() -> Any:
    return pytest.importorskip("itk")


def assert_as_itk_reads_it(itk: Any, path: Path) -> None:
    theirs, ours = itk.imread(str(path)), read_image(path)
    direction = itk.array_from_matrix(theirs.GetDirection())
    np.testing.assert_allclose(ours.grid.spacing, list(itk.spacing(theirs)), rtol=1e-12)
    np.testing.assert_allclose(ours.grid.origin, list(itk.origin(theirs)), atol=1e-6)
    np.testing.assert_allclose(np.array(ours.grid.direction), direction, atol=1e-6)
    np.testing.assert_array_equal(ours.numpy(), itk.array_from_image(theirs))


def nifti(
    path: Path, values: Any, *, sform: Any = None, qform: Any = None, codes: tuple[int, int] = (1, 1), **header: Any
) -> Path:
    nibabel: Any = pytest.importorskip("nibabel")
    image = nibabel.Nifti1Image(values, None)
    image.set_qform(qform if qform is not None else sform, 1)
    image.set_sform(sform if sform is not None else qform, 1)
    path.write_bytes(image.to_bytes())
    content = bytearray(path.read_bytes())
    fields = np.ndarray((), dtype=nibabel.nifti1.header_dtype, buffer=content)
    for key, value in {"qform_code": codes[0], "sform_code": codes[1], **header}.items():
        fields[key] = value
    path.write_bytes(content)
    return path


def affine(matrix: Any) -> Any:
    result = np.eye(4)
    result[:3, :3], result[:3, 3] = matrix, (11.3, -22.2, 33.1)
    return result


def test_nifti_has_the_geometry_and_the_values_that_itk_reads(itk: Any, tmp_path: Path) -> None:
    values = np.random.default_rng(0).integers(0, 100, (5, 6, 7)).astype(np.int16)
    forms = {"sform": affine(OBLIQUE * [1.1, 2.2, 0.7]), "qform": affine(OBLIQUE[:, ::-1] * [1.1, 2.2, 0.7])}
    for codes in [(0, 0), (0, 1), (0, 2), (1, 0), (1, 1), (1, 2), (2, 3)]:
        assert_as_itk_reads_it(itk, nifti(tmp_path / "a.nii", values, **forms, codes=codes))
    changes: list[dict[str, Any]] = [
        {"scl_slope": 2.5, "scl_inter": -10.1},
        {"scl_slope": 0, "scl_inter": 5},
        {"scl_slope": float("nan"), "scl_inter": 5},
        {"xyzt_units": 1},
        {"xyzt_units": 3},
        {"pixdim": [1, 3, 3, 3, 1, 1, 1, 1], "codes": (0, 1)},
        {"pixdim": [1, -1.1, 2.2, 0.7, 1, 1, 1, 1]},
        {"pixdim": [1, 0, 2.2, 0.7, 1, 1, 1, 1]},
    ]
    for change in changes:
        assert_as_itk_reads_it(itk, nifti(tmp_path / "a.nii", values, **forms, **change))
    nearly = affine((OBLIQUE + 2e-5) * [1.1, 2.2, 0.7])
    assert_as_itk_reads_it(itk, nifti(tmp_path / "a.nii", values, sform=nearly, codes=(0, 1)))
    for dtype in (np.uint8, np.uint16, np.int32, np.float32, np.float64, ">f4"):
        assert_as_itk_reads_it(itk, nifti(tmp_path / "a.nii", values.astype(dtype), **forms))


def test_nifti_of_other_ranks_has_the_dimension_that_itk_reads(itk: Any, tmp_path: Path) -> None:
    straight = affine(np.diag([-1.1, 1.2, 1.3]))
    for shape in [(5, 6), (5, 6, 1), (5, 6, 7, 1), (5, 6, 1, 1), (1, 6, 7)]:
        values = np.arange(np.prod(shape), dtype=np.float32).reshape(shape)
        assert_as_itk_reads_it(itk, nifti(tmp_path / "a.nii", values, sform=straight))
    for shape, intent in [
        ((5, 6, 7, 1, 3), 1007),
        ((5, 6, 7, 1, 3), 1006),
        ((5, 6, 1, 1, 2), 1007),
        ((5, 6, 7, 1, 2), 1007),
    ]:
        values = np.arange(np.prod(shape), dtype=np.float32).reshape(shape)
        assert_as_itk_reads_it(itk, nifti(tmp_path / "a.nii", values, sform=straight, intent_code=intent))


@pytest.mark.parametrize("name", ["a.nii.gz", "a.mha", "a.mhd", "a.nrrd"])
def test_itk_reads_what_is_written_and_we_read_it_back(itk: Any, tmp_path: Path, name: str) -> None:
    for dimension in (2, 3):
        direction = OBLIQUE if dimension == 3 else [[0.6, -0.8], [0.8, 0.6]]
        for channels in (1, dimension):
            for compress in (False, True):
                values = torch.rand((channels, 4, 5, 6)[: dimension + 1]) * 200 - 100
                grid = Grid.of(
                    tuple(values.shape[:0:-1]), [1.1, 2.2, 3.3][:dimension], [1.5, -2.0, 1 / 3][:dimension], direction
                )
                write_image(Image(values, grid), tmp_path / name, compress=compress)
                assert_as_itk_reads_it(itk, tmp_path / name)
                assert read_image(tmp_path / name).grid.same_as(grid, 1e-5)
                assert torch.equal(read_image(tmp_path / name).data, values)


@pytest.mark.parametrize("name", ["a.mha", "a.nrrd"])
def test_every_pixel_type_survives_a_file(itk: Any, tmp_path: Path, name: str) -> None:
    values = Image.of(torch.tensor([[-1.5, 2.5], [3.0, 100.0]]))
    for pixel_type in (
        "char",
        "unsigned char",
        "short",
        "unsigned short",
        "int",
        "unsigned int",
        "long",
        "unsigned long",
        "double",
    ):
        write_image(values, tmp_path / name, pixel_type=pixel_type)
        first = -1.5 if pixel_type == "double" else 0 if "unsigned" in pixel_type else -1
        assert read_image(tmp_path / name).data.flatten().tolist()[0] == first


def test_damaged_and_unknown_files_are_one_line(itk: Any, tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "a.txt").write_text("no image at all")
    image = Image.of(torch.rand(20, 20))
    for name in ("a.mha", "a.nrrd"):
        write_image(image, tmp_path / name)
        (tmp_path / name).write_bytes((tmp_path / name).read_bytes()[:-300])
    for name in ("folder", "a.txt", "a.mha", "a.nrrd"):
        with pytest.raises(ImageError) as caught:
            read_image(tmp_path / name)
        assert "\n" not in str(caught.value)
        assert str(caught.value).startswith(str(tmp_path / name))


def test_a_dicom_series_is_one_image_in_the_order_of_its_positions(itk: Any, tmp_path: Path) -> None:
    sitk = pytest.importorskip("SimpleITK")
    for k in range(4):
        plane = sitk.JoinSeries(sitk.GetImageFromArray(np.full((5, 6), 10 * k, np.int16)))
        plane.SetSpacing((1.5, 2.0, 3.0))
        tags = {"0008|0060": "CT", "0020|000e": "1.2.3.4", "0020|000d": "1.2.3", "0008|0018": f"1.2.3.4.{k}"}
        tags |= {
            "0020|0032": f"1\\2\\{10 + 3 * k}",
            "0020|0037": "1\\0\\0\\0\\1\\0",
            "0008|0016": "1.2.840.10008.5.1.4.1.1.2",
        }
        for tag, value in tags.items():
            plane.SetMetaData(tag, value)
        writer = sitk.ImageFileWriter()
        writer.KeepOriginalImageUIDOn()
        writer.SetFileName(str(tmp_path / f"{3 - k}.dcm"))
        writer.Execute(plane)
    image = read_image(tmp_path)
    assert image.grid == Grid.of([6, 5, 4], [1.5, 2.0, 3.0], [1.0, 2.0, 10.0])
    assert image.data[0, :, 0, 0].tolist() == [0, 10, 20, 30]


def test_itk_images_come_in_and_go_out(itk: Any) -> None:
    image = Image(torch.rand(1, 4, 5, 6), Grid.of([6, 5, 4], [1.0, 2.0, 3.0], [4.0, 5.0, 6.0], OBLIQUE))
    assert as_image(to_itk(image)).grid.same_as(image.grid)
    assert torch.equal(as_image(to_itk(image)).data, image.data)
    vectors = image.with_data(torch.rand(3, 4, 5, 6))
    assert torch.equal(as_image(to_itk(vectors)).data, vectors.data)


def test_a_cropped_itk_image_keeps_its_place(itk: Any) -> None:
    whole = Image.of(torch.rand(6, 7, 8), [1.0, 2.0, 3.0])
    cropped = itk.extract_image_filter(to_itk(whole), extraction_region=itk.ImageRegion[3]([2, 1, 1], [3, 3, 3]))
    assert list(as_image(cropped).grid.origin) == [2, 2, 3]
    assert torch.equal(as_image(cropped).data[0], whole.scalar[1:4, 1:4, 2:5])


def test_the_output_of_an_itk_filter_that_has_not_run_is_computed(itk: Any) -> None:
    smooth = itk.MedianImageFilter.New(to_itk(Image.of(torch.ones(5, 6, 7))))
    assert float(as_image(smooth.GetOutput()).scalar.mean()) == 1


def test_a_mask_contains_what_an_itk_mask_contains_and_has_its_box(itk: Any) -> None:
    generator = np.random.default_rng(0)
    inside = generator.random((6, 7, 8)) > 0.5
    inside[:, :2] = inside[:, :, 6:] = False
    image = Image.of(torch.from_numpy(inside).to(torch.uint8), [1.5, 2.0, 3.0], [10.0, 20.0, -5.0], OBLIQUE)
    theirs = itk.ImageMaskSpatialObject[3].New(Image=to_itk(image))
    theirs.Update()
    straight = Image.of(image.scalar)
    ties = itk.ImageMaskSpatialObject[3].New(Image=to_itk(straight))
    ties.Update()
    for mask, other, index in [
        (Mask.of(image), theirs, generator.random((500, 3)) * 10 - 1),
        (Mask.of(straight), ties, generator.integers(-3, 19, (500, 3)) / 2),
    ]:
        points = mask.grid.index_to_world(torch.from_numpy(index))
        assert mask.contains(points).tolist() == [other.IsInsideInWorldSpace(point) for point in points.tolist()]
    lower, upper = Mask.of(image).world_box
    box = theirs.GetMyBoundingBoxInWorldSpace()
    np.testing.assert_allclose(lower, list(box.GetMinimum()), atol=1e-9)
    np.testing.assert_allclose(upper, list(box.GetMaximum()), atol=1e-9)


KEYS = {
    "Registration": "MultiResolutionRegistration",
    "Metric": "AdvancedMeanSquares",
    "ImageSampler": "Full",
    "Transform": "TranslationTransform",
    "Optimizer": "StandardGradientDescent",
    "Interpolator": "LinearInterpolator",
    "FixedImagePyramid": "FixedShrinkingImagePyramid",
    "MovingImagePyramid": "MovingShrinkingImagePyramid",
    "ResampleInterpolator": "FinalNearestNeighborInterpolator",
    "Resampler": "DefaultResampler",
    "NumberOfResolutions": "1",
    "MaximumNumberOfIterations": "1",
    "SP_a": "1e-10",
    "RequiredRatioOfValidSamples": "0.0001",
    "Scales": "1",
    "WriteResultImage": "false",
}


def mean_square_by_elastix(itk: Any, folder: Path, fixed: Any, moving: Any, **masks: Any) -> float:
    parameters = itk.ParameterObject.New()
    parameters.AddParameterMap(
        {key: [value] for key, value in KEYS.items()} | {"ImagePyramidSchedule": ["1", "1", "1"]}
    )
    images = [itk.image_from_array(values) for values in (fixed, moving)]
    run = itk.ElastixRegistrationMethod[type(images[0]), type(images[1])].New(*images)
    run.SetParameterObject(parameters)
    run.SetOutputDirectory(str(folder))
    for name, values in masks.items():
        getattr(run, f"Set{name}")(itk.image_from_array(values))
    run.Update()
    return float((folder / "IterationInfo.0.R0.txt").read_text().splitlines()[1].split()[1])


@pytest.mark.slow
def test_erosion_leaves_the_samples_that_elastix_uses(itk: Any, tmp_path: Path) -> None:
    fixed = np.random.default_rng(0).random((14, 15, 16)).astype(np.float32) * 10
    values = np.full(fixed.shape, 3, np.uint8)
    for hole in [(7, 7, 8), (2, 12, 13), (0, 0, 0)]:
        values[hole] = 0
    mask = Mask.of(Image.of(torch.from_numpy(values)))
    for name, moving in (("FixedMask", False), ("MovingMask", True)):
        used = fixed[mask.eroded((1, 1, 1), moving=moving).inside.numpy()]
        found = mean_square_by_elastix(itk, tmp_path, fixed, np.zeros_like(fixed), **{name: values})
        assert found == pytest.approx(float((used.astype(np.float64) ** 2).mean()), rel=1e-6)


@pytest.mark.parametrize("pixel_type", ["short", "unsigned short", "unsigned char"])
@pytest.mark.parametrize("extension", [*ITK_FORMATS, "DCM"])
def test_formats_of_itk_hold_the_values(itk: Any, tmp_path: Path, extension: str, pixel_type: str) -> None:
    low = -40 if pixel_type == "short" else 0
    image = Image.of(torch.arange(low, low + 60).reshape(3, 4, 5), (1.5, 2, 3), (1, 2, -3))
    path = tmp_path / f"image.{extension}"
    write_image(image, path, pixel_type=pixel_type)
    assert_as_itk_reads_it(itk, path)
    found = read_image(path)
    np.testing.assert_array_equal(found.numpy(), image.numpy())
    np.testing.assert_allclose((*found.grid.spacing, *found.grid.origin), (1.5, 2, 3, 1, 2, -3), atol=1e-6)
    assert not [file for file in tmp_path.iterdir() if file.stem != "image"]


def test_a_type_that_a_format_of_itk_cannot_hold_is_told(itk: Any, tmp_path: Path) -> None:
    image = Image.of(torch.rand(3, 4, 5))
    for name in ("image.dcm", "missing/image.vtk"):
        with pytest.raises(OutputError) as caught:
            write_image(image, tmp_path / name)
        assert str(caught.value).startswith(str(tmp_path / name))
    assert not list(tmp_path.iterdir())
