"""transformix(), alone and beside real transformix."""

import numpy as np
import pytest
import torch

from impactreg.components.resampling import Output
from impactreg.components.transforms.bspline import BSplineTransform
from impactreg.components.transforms.displacement import DeformationFieldTransform
from impactreg.components.transforms.files import TransformWriter, read_transform
from impactreg.components.transforms.inverse_field import write_inverse
from impactreg.components.transforms.linear import AffineTransform, TranslationTransform
from impactreg.components.transforms.rotating import EulerTransform, SimilarityTransform
from impactreg.components.transforms.transform import Combination
from impactreg.components.warping import deformation_field, jacobian_determinant, spatial_jacobian
from impactreg.errors import ImageError, ImpactregError, PointsError, TransformError
from impactreg.images import Grid, Image, PointSet, read_image, read_points, write_image, write_points
from impactreg.images.files import to_itk
from impactreg.parameters import ParameterMap
from impactreg.registration.transformix import transformix

OBLIQUE = np.linalg.qr(np.random.default_rng(0).normal(size=(3, 3)))[0]
OBLIQUE[:, 0] *= np.sign(np.linalg.det(OBLIQUE))
SETTINGS = {"DefaultPixelValue": -7.5, "ResultImagePixelType": "float", "ResultImageFormat": "mha"}


def numbers(*values):
    return torch.tensor(values, dtype=torch.float64)


def random(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


class Setting:
    """A fixed and a moving grid, both oblique, in 2D or 3D, and transforms between them."""

    def __init__(self, n, turn=None):
        turn = np.linalg.qr(OBLIQUE[:n, :n])[0] if turn is None else turn
        self.n = n
        self.fixed = Grid.of((19, 17, 14)[:n], (2, 2.5, 3)[:n], (-10, 5, 7)[:n], turn)
        self.moving = Grid.of((21, 18, 16)[:n], (1.7, 2.1, 2.5)[:n], (-8, 7, 6)[:n], turn)
        self.centre = numbers(*self.fixed.centre)
        self.turn = turn

    def image(self):
        return Image((100 * random(1, *self.moving.shape, seed=7)).float(), self.moving)

    def spline(self, order, scale=2.0):
        """Its grid is smaller than the image, so that some voxels lie outside the valid region."""
        n, spacing = self.n, np.array((7.03, 6.51, 9.02)[: self.n])
        origin = self.centre.numpy() - self.turn @ (spacing * np.array([2.03, 2.21, 1.43][:n]))
        grid = Grid.of((5, 6, 4)[:n], spacing, origin, self.turn)
        return BSplineTransform(scale * random(n * grid.number_of_voxels, seed=order), grid, order)

    def field(self, order):
        """A displacement field on axes of its own."""
        turn = self.turn @ np.linalg.qr(np.random.default_rng(2).normal(size=(self.n, self.n)))[0]
        origin = self.centre.numpy() - turn @ np.array((11, 12, 9)[: self.n])
        grid = Grid.of((9, 8, 7)[: self.n], (3, 3.2, 4)[: self.n], origin, turn)
        return DeformationFieldTransform(Image((3 * random(self.n, *grid.shape)).float(), grid), order)

    def euler(self, zyx=False):
        values = (0.2, 2, -1) if self.n == 2 else (0.1, 0.2, -0.15, 2, -1, 3)
        return EulerTransform(numbers(*values), self.centre, zyx)

    def affine(self):
        matrix = torch.eye(self.n, dtype=torch.float64) + 0.1 * random(self.n, self.n, seed=5)
        return AffineTransform(torch.cat([matrix.reshape(-1), numbers(2, -1, 1)[: self.n]]), self.centre)

    def similarity(self):
        values = (1.1, 0.2, 2, -1) if self.n == 2 else (0.1, 0.05, -0.1, 2, -1, 1, 1.1)
        return SimilarityTransform(numbers(*values), self.centre)

    def translation(self):
        return TranslationTransform(numbers(2.3, -1.2, 3)[: self.n], self.centre * 0)

    def chain(self, compose):
        return Combination(
            self.spline(3), Combination(self.spline(2, 1.0), Combination(self.euler()), compose), compose
        )


CASES = {
    "translation": lambda s: Combination(s.translation()),
    "euler": lambda s: Combination(s.euler()),
    "euler zyx": lambda s: Combination(s.euler(True)),
    "similarity": lambda s: Combination(s.similarity()),
    "affine": lambda s: Combination(s.affine()),
    "spline of order 1": lambda s: Combination(s.spline(1)),
    "spline of order 2": lambda s: Combination(s.spline(2)),
    "spline of order 3": lambda s: Combination(s.spline(3)),
    "composed chain": lambda s: s.chain(True),
    "added chain": lambda s: s.chain(False),
    "nearest field": lambda s: Combination(s.field(0)),
    "linear field": lambda s: Combination(s.field(1)),
    "chain with a field": lambda s: Combination(s.spline(3), Combination(s.field(1))),
}


def write(combination, folder, grid, **settings):
    """The chain as files; the last one's path."""
    parameter_map = ParameterMap.from_dict({**SETTINGS, **settings})
    name = "NoInitialTransform"
    for number, each in enumerate(combination.chain()):
        writer = TransformWriter(Output.of(parameter_map, grid), parameter_map, name)
        path, _ = writer.write(each, folder, str(number))
        name = str(path)
    return path


def real_transformix(path, image, folder, *, jacobian):
    """Warped image and deformation field of itk-elastix; Jacobians land in the folder."""
    import itk

    parameters = itk.ParameterObject.New()
    parameters.ReadParameterFile(str(path))
    moving = to_itk(image)
    run = itk.TransformixFilter[type(moving)].New()
    run.SetMovingImage(moving)
    run.SetTransformParameterObject(parameters)
    run.SetComputeDeformationField(True)
    run.SetComputeSpatialJacobian(jacobian)
    run.SetComputeDeterminantOfSpatialJacobian(jacobian)
    run.SetOutputDirectory(str(folder))
    run.SetLogToConsole(False)
    run.Update()
    return itk.array_from_image(run.GetOutput()), itk.array_from_image(run.GetOutputDeformationField())


@pytest.mark.itk
@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("n", [2, 3])
def test_real_transformix_makes_the_same_of_our_files(tmp_path, n, name):
    setting = Setting(n)
    combination, image = CASES[name](setting), setting.image()
    path = write(combination, tmp_path, setting.fixed)
    has_jacobian = "field" not in name
    theirs, their_field = real_transformix(path, image, tmp_path, jacobian=has_jacobian)
    ours = transformix(path, image=image, points="all", jacobian=has_jacobian, jacobian_matrix=has_jacobian)
    spread = float(image.data.max() - image.data.min())
    assert np.abs(ours.image.numpy() - theirs).max() < 1e-5 * spread
    assert 0 < (theirs == -7.5).mean() < 0.5
    assert np.abs(ours.deformation_field.numpy() - their_field).max() < 1e-5
    assert np.abs(their_field).max() > 1
    if has_jacobian:
        determinant, matrix = (read_image(tmp_path / f"{f}.mha") for f in ("spatialJacobian", "fullSpatialJacobian"))
        assert torch.allclose(ours.jacobian.data, determinant.data, atol=1e-5)
        assert torch.allclose(ours.jacobian_matrix.data, matrix.data, atol=1e-5)
        assert determinant.grid.same_as(ours.jacobian.grid)


@pytest.mark.itk
@pytest.mark.parametrize(
    "settings",
    [
        {"FinalBSplineInterpolationOrder": 0},
        {"FinalBSplineInterpolationOrder": 1},
        {"FinalBSplineInterpolationOrder": 2},
        {"ResampleInterpolator": "FinalBSplineInterpolatorFloat"},
        {"ResampleInterpolator": "FinalLinearInterpolator"},
        {"ResampleInterpolator": "FinalNearestNeighborInterpolator"},
        {"UseDirectionCosines": False},
    ],
    ids=str,
)
def test_real_transformix_interpolates_as_we_do(tmp_path, settings):
    setting = Setting(3)
    image = setting.image()
    path = write(Combination(setting.affine()), tmp_path, setting.fixed, **settings)
    # the executable turns the image when it reads it; itk-elastix takes an image in memory as it is
    seen = image if settings.get("UseDirectionCosines", True) else Image(image.data, image.grid.without_direction())
    theirs, _ = real_transformix(path, seen, tmp_path, jacobian=False)
    ours = transformix(path, image=image).image
    assert np.abs(ours.numpy() - theirs).max() < 1e-5 * float(image.data.max() - image.data.min())


@pytest.mark.itk
@pytest.mark.parametrize("extension", ["tfm", "itk.txt", "h5"])
def test_real_transformix_reads_the_itk_files_that_ours_refer_to(tmp_path, extension):
    setting = Setting(3)
    parameter_map = ParameterMap.from_dict(SETTINGS)
    writer = TransformWriter(Output.of(parameter_map, setting.fixed), parameter_map, extension=extension)
    for name, transform in (("0", setting.spline(3)), ("1", setting.euler(True))):
        path, _ = writer.write(Combination(transform), tmp_path, name)
        _, field = real_transformix(path, setting.image(), tmp_path, jacobian=False)
        assert np.abs(deformation_field(transform, setting.fixed).numpy() - field).max() < 1e-5


@pytest.mark.itk
@pytest.mark.parametrize("kind", ["point", "index"])
def test_points_are_written_as_real_transformix_writes_them(tmp_path, kind):
    import itk

    setting = Setting(3)
    path = write(setting.chain(True), tmp_path, setting.fixed)
    points = setting.fixed.index_to_world(6 + 3 * random(5, 3)) if kind == "point" else (6 + 3 * random(5, 3)).round()
    (tmp_path / "in.txt").write_text(
        f"{kind}\n5\n" + "\n".join(" ".join(f"{v:.9f}" for v in p) for p in points.tolist()) + "\n"
    )
    parameters = itk.ParameterObject.New()
    parameters.ReadParameterFile(str(path))
    moving = to_itk(setting.image())
    theirs = tmp_path / "theirs"
    theirs.mkdir()
    run = itk.TransformixFilter[type(moving)].New()
    run.SetMovingImage(moving)
    run.SetTransformParameterObject(parameters)
    run.SetFixedPointSetFileName(str(tmp_path / "in.txt"))
    run.SetOutputDirectory(str(theirs))
    run.SetLogToConsole(False)
    run.Update()
    transformix(path, image=setting.image(), points=tmp_path / "in.txt", output_directory=tmp_path / "ours")
    expected = (theirs / "outputpoints.txt").read_text().splitlines()
    found = (tmp_path / "ours" / "outputpoints.txt").read_text().splitlines()
    assert len(found) == len(expected) == 5
    for ours, real in zip(found, expected, strict=True):
        words = list(zip(ours.split(), real.split(), strict=True))
        assert all(a == b or abs(float(a) - float(b)) <= 2e-6 for a, b in words)
        assert [c for c in ours if not c.isdigit()] == [c for c in real if not c.isdigit()]


@pytest.fixture
def flat():
    """A 2D setting."""
    return Setting(2)


@pytest.fixture
def shift_file(flat, tmp_path):
    """A translation's file."""
    return write(Combination(flat.translation()), tmp_path, flat.fixed, ResultImageFormat="nii")


def test_all_that_is_asked_for_lands_in_the_folder(flat, shift_file, tmp_path):
    out = tmp_path / "out"
    write_points(PointSet(flat.fixed.points()[:3]), tmp_path / "p.txt")
    result = transformix(
        shift_file,
        image=flat.image(),
        points=tmp_path / "p.txt",
        jacobian=True,
        jacobian_matrix=True,
        output_directory=out,
    )
    assert sorted(p.name for p in out.iterdir()) == [
        "fullSpatialJacobian.nii",
        "outputpoints.txt",
        "result.nii",
        "spatialJacobian.nii",
    ]
    assert torch.allclose(read_image(out / "result.nii").data, result.image.data)
    assert torch.allclose(read_image(out / "fullSpatialJacobian.nii").data, result.jacobian_matrix.data)
    assert result.deformation_field is None
    field = transformix(shift_file, points="all", output_directory=out).deformation_field
    assert torch.allclose(read_image(out / "deformationField.nii").data, field.data)


def test_a_line_of_outputpoints(flat, shift_file, tmp_path):
    (tmp_path / "p.txt").write_text("index\n1\n1 2\n")
    transformix(shift_file, points=tmp_path / "p.txt", output_directory=tmp_path)
    x, y = flat.fixed.index_to_world(numbers(1, 2)[None])[0].tolist()
    (i, j) = torch.floor(flat.fixed.world_to_index(numbers(x + 2.3, y - 1.2)[None])[0] + 0.5).int().tolist()
    assert (tmp_path / "outputpoints.txt").read_text() == (
        f"Point\t0\t; InputIndex = [ 1 2 ]\t; InputPoint = [ {x:.6f} {y:.6f} ]\t; OutputIndexFixed = [ {i} {j} ]"
        f"\t; OutputPoint = [ {x + 2.3:.6f} {y - 1.2:.6f} ]\t; Deformation = [ 2.300000 -1.200000 ]\n"
    )


@pytest.mark.parametrize("ending", [".vtk", ".csv", ".fcsv", ".mrk.json"])
def test_other_point_files_come_back_in_their_own_format(flat, shift_file, tmp_path, ending):
    points = flat.fixed.points()[:4]
    write_points(PointSet(points), tmp_path / f"p{ending}")
    transformix(shift_file, points=tmp_path / f"p{ending}", output_directory=tmp_path)
    read = read_points(tmp_path / f"outputpoints{ending}", dimension=2)
    assert torch.allclose(read.points, points + numbers(2.3, -1.2))
    assert (tmp_path / "outputpoints.txt").exists() == (ending != ".vtk")


def test_points_in_memory_are_transformed_in_memory(flat, shift_file):
    points = flat.fixed.points()[:4]
    for given in (points, PointSet(points)):
        assert torch.allclose(transformix(shift_file, points=given).points.points, points + numbers(2.3, -1.2))


def test_maps_chains_and_transforms_in_memory_will_do(flat, shift_file):
    image, one = flat.image(), ParameterMap.read(shift_file)
    expected = transformix(shift_file, image=image).image.data
    assert torch.equal(transformix(one, image=image).image.data, expected)
    assert torch.equal(transformix([one], image=image).image.data, expected)
    twice = Combination(flat.translation(), Combination(flat.translation()))
    reference = Image(torch.zeros(1, *flat.fixed.shape), flat.fixed)
    for given in (flat.fixed, reference):
        found = transformix(twice, points="all", reference=given)
        assert torch.allclose(
            found.deformation_field.data, transformix([one, one], points="all").deformation_field.data
        )


def test_a_displacement_field_has_a_grid_of_its_own(flat, tmp_path):
    sitk = pytest.importorskip("SimpleITK")
    field, moving = flat.field(1).field, flat.image()
    path = tmp_path / "field.nii.gz"
    write_image(field, path)
    found = transformix(path, image=moving, points="all")
    assert found.image.grid.same_as(field.grid)
    assert torch.allclose(found.deformation_field.data, read_image(path).data, atol=1e-5)
    there, image = (
        sitk.GetImageFromArray(values.numpy().astype(float), isVector=is_vector)
        for values, is_vector in ((field.data.movedim(0, -1), True), (moving.scalar, False))
    )
    for each, grid in ((there, field.grid), (image, moving.grid)):
        each.SetSpacing(grid.spacing)
        each.SetOrigin(grid.origin)
        each.SetDirection(np.array(grid.direction).reshape(-1).tolist())
    transform = sitk.DisplacementFieldTransform(sitk.Image(there))
    theirs = sitk.GetArrayFromImage(sitk.Resample(image, there, transform, sitk.sitkBSpline, 0.0, sitk.sitkFloat64))
    inside = sitk.GetArrayFromImage(sitk.Resample(image * 0 + 1, there, transform, sitk.sitkLinear, 0.0)) == 1
    assert inside.mean() > 0.3
    assert np.abs(found.image.scalar.numpy() - theirs)[inside].max() < 1e-3
    assert transformix(path, image=moving, reference=flat.fixed).image.grid == flat.fixed
    assert transformix(DeformationFieldTransform(field), jacobian=True).jacobian.grid == field.grid


def test_points_may_be_an_array(flat, shift_file):
    rows = [[1.0, 2.0], [3.0, 4.0]]
    expected = transformix(shift_file, points=PointSet(numbers(*rows))).points.points
    for given in (np.array(rows), np.array(rows, np.float32), rows, numbers(*rows)):
        assert torch.equal(transformix(shift_file, points=given).points.points, expected)


def test_a_field_behind_another_transform_needs_a_reference(flat):
    with pytest.raises(TransformError, match=r"give that image as reference \(--reference\)"):
        transformix(Combination(flat.field(1), flat.euler()), points="all")


def test_a_failure_leaves_no_folder_that_was_not_there(flat, shift_file, tmp_path):
    new, kept = tmp_path / "new" / "deep", tmp_path / "kept"
    kept.mkdir()
    for folder in (new, kept, kept / "inner"):
        with pytest.raises(ImageError, match="no such file"):
            transformix(shift_file, image=tmp_path / "none.nii", output_directory=folder)
    assert kept.is_dir()
    assert not any(kept.iterdir())
    assert not new.parent.exists()
    with pytest.raises(ImageError, match="no such file"):
        transformix(shift_file, image=tmp_path / "none.nii", output_directory=tmp_path)
    assert shift_file.exists()


def test_without_direction_cosines_everything_is_on_the_original_grid(flat, tmp_path):
    path = write(Combination(flat.translation()), tmp_path, flat.fixed, UseDirectionCosines=False)
    found = transformix(path, image=flat.image(), points="all", jacobian=True)
    assert found.image.grid == found.deformation_field.grid == found.jacobian.grid == flat.fixed


def test_jacobians_are_those_of_the_transform(flat):
    combination = flat.chain(True)
    found = transformix(combination, jacobian=True, jacobian_matrix=True, reference=flat.fixed)
    assert torch.equal(found.jacobian.data, jacobian_determinant(combination, flat.fixed).data)
    assert torch.equal(found.jacobian_matrix.data, spatial_jacobian(combination, flat.fixed).data)


def test_wrong_requests_are_one_clear_line(flat, shift_file, tmp_path):
    image3d = Setting(3).image()
    (tmp_path / "p.txt").write_text("point\n1\n1 2 3\n")
    bad = [
        (TransformError, "nothing to do", lambda: transformix(shift_file)),
        (TransformError, "no such transform file", lambda: transformix(tmp_path / "none.txt", points="all")),
        (TransformError, "needed to know the fixed image", lambda: transformix(flat.chain(True), points="all")),
        (TransformError, "at least one", lambda: transformix([], points="all")),
        (ImageError, "the input image is 3D, but the transform is 2D", lambda: transformix(shift_file, image=image3d)),
        (ImageError, "input image: .*no such file", lambda: transformix(shift_file, image=tmp_path / "none.nii")),
        (PointsError, "1 points of 2", lambda: transformix(shift_file, points=tmp_path / "p.txt")),
        (TransformError, "3D, but the transform is 2D", lambda: transformix(shift_file, points=random(4, 3))),
        (ImpactregError, "3D", lambda: transformix(shift_file, points="all", reference=image3d)),
    ]
    for kind, message, request in bad:
        with pytest.raises(kind, match=message) as error:
            request()
        assert "\n" not in str(error.value)


def test_an_image_file_is_read_and_its_values_are_cast_as_asked(flat, tmp_path):
    write_image(flat.image(), tmp_path / "moving.nii")
    path = write(
        Combination(flat.translation()), tmp_path, flat.fixed, ResultImageFormat="nii", ResultImagePixelType="short"
    )
    result = transformix(path, image=tmp_path / "moving.nii", output_directory=tmp_path)
    assert read_image(tmp_path / "result.nii").data.dtype == torch.int16
    assert torch.equal(read_image(tmp_path / "result.nii").data.float(), result.image.data.trunc())


def test_the_inverse_brings_points_back_and_warps_onto_the_moving_grid(tmp_path, flat, caplog):
    chain = Combination(smooth_spline(flat), Combination(flat.euler()))
    path = write(chain, tmp_path, flat.fixed, ResultImageFormat="nii")
    reference = flat.image()
    inner = flat.fixed.index_to_world(torch.tensor([[6.0, 7.0], [9.5, 8.0]]).double())
    found = transformix(
        path,
        image=Image(torch.rand(1, *flat.fixed.shape), flat.fixed),
        points=PointSet(chain(inner)),
        jacobian=True,
        output_directory=tmp_path / "out",
        reference=reference,
        inverse=True,
    )
    assert torch.allclose(found.points.points, inner, rtol=0, atol=1e-5)
    assert found.point_residuals.max() < 1e-6
    assert found.image.grid == found.jacobian.grid == flat.moving
    assert found.inverse.transform.field.grid == flat.moving
    assert (tmp_path / "out" / "outputpoints.txt").exists()
    back = transformix(path, points="all", reference=reference, inverse=True).deformation_field
    assert back.grid == flat.moving
    assert torch.allclose(back.data, found.inverse.transform.field.data, atol=1e-5)


def test_the_inverse_of_a_linear_chain_is_exact(flat):
    chain = Combination(flat.euler(), Combination(flat.affine()))
    found = transformix(chain, points="all", reference=flat.moving, inverse=True)
    points = flat.moving.points()
    back = points + found.deformation_field.data.double().flatten(1).T
    assert torch.allclose(chain(back), points, rtol=0, atol=1e-4)
    assert str(found.inverse) == "exact"


def test_an_inverse_needs_the_moving_grid_and_tells_points_that_have_none(flat, shift_file, caplog):
    with pytest.raises(TransformError, match="--reference"):
        transformix(shift_file, points="all", inverse=True)
    rim = flat.spline(3).with_parameters(torch.full_like(flat.spline(3).parameters, 4.0))
    found = transformix(rim, points=flat.moving.points(), reference=flat.moving, inverse=True)
    assert (found.point_residuals > 1e-3).any()
    assert "have no sure inverse" in caplog.text


@pytest.mark.itk
@pytest.mark.parametrize("linear", [True, False])
def test_real_transformix_reads_a_written_inverse(tmp_path, linear):
    """It maps the moving grid to fixed points, so that the transform brings them back."""
    setting = Setting(3)
    chain = Combination(setting.affine() if linear else smooth_spline(setting), Combination(setting.euler()))
    parameter_map = ParameterMap.from_dict(SETTINGS)
    writer = TransformWriter(Output.of(parameter_map, setting.fixed), parameter_map)
    path, _ = write_inverse(chain, setting.moving, writer, tmp_path, "0")
    _, field = real_transformix(path, setting.image(), tmp_path, jacobian=False)
    ours = deformation_field(read_transform(path), setting.moving)
    assert field.shape[:3] == setting.moving.shape
    assert np.abs(ours.numpy() - field).max() < 1e-4
    points = setting.moving.points()
    back = points + torch.as_tensor(field).double().reshape(-1, 3)
    assert torch.linalg.vector_norm(chain(back) - points, dim=1).max() < 2e-3


def smooth_spline(setting):
    """A B-spline that reaches beyond both images, whose rim therefore does no harm."""
    n, spacing = setting.n, np.array((12.0, 12.0, 12.0)[: setting.n])
    shape = (14,) * n
    origin = setting.centre.numpy() - setting.turn @ (spacing * (np.array(shape) - 1) / 2)
    grid = Grid.of(shape, spacing, origin, setting.turn)
    return BSplineTransform(1.5 * random(n * grid.number_of_voxels, seed=3), grid)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int16, torch.int32, torch.int64])
def test_labels_keep_their_pixel_type_and_get_no_new_values(dtype, tmp_path):
    setting = Setting(3)
    highest = min(torch.iinfo(dtype).max, 2**31)
    values = torch.tensor([0, 3, 7, highest], dtype=dtype)
    chosen = torch.randint(0, 4, (1, *setting.moving.shape), generator=torch.Generator().manual_seed(0))
    write_image(Image(values[chosen], setting.moving), tmp_path / "labels.mha")
    keys = {**SETTINGS, "ResultImagePixelType": "short"}
    output = Output.of(ParameterMap.from_dict(keys), setting.fixed)
    path, _ = TransformWriter(output, ParameterMap.from_dict(keys)).write(Combination(setting.spline(3)), tmp_path, "0")
    found = transformix(path, image=tmp_path / "labels.mha", labels=True, output_directory=tmp_path / "out").image
    written = read_image(tmp_path / "out/result.mha")
    assert found.data.dtype == written.data.dtype == dtype
    assert torch.equal(found.data, written.data)
    assert set(found.data.unique().tolist()) == set(values.tolist())


def test_a_matrix_or_what_was_returned_is_a_transform_too():
    setting = Setting(3)
    moving, by = setting.image(), numbers(2, -1, 0.5)
    transform = TranslationTransform(by, torch.zeros(3).double())
    matrix = torch.eye(4).double()
    matrix[:3, 3] = by
    expected = transformix(transform, image=moving, reference=setting.fixed)
    for given in (matrix, matrix.numpy(), expected):
        assert torch.equal(transformix(given, image=moving, reference=setting.fixed).image.data, expected.image.data)
