"""Transforms in and out of matrices, itk and SimpleITK."""

import builtins

import numpy as np
import pytest
import torch

from impactreg.components.transforms.displacement import DeformationFieldTransform
from impactreg.components.transforms.exchange import (
    as_transform,
    from_matrix,
    to_itk_transform,
    to_matrix,
    to_sitk_transform,
)
from impactreg.components.transforms.transform import Combination
from impactreg.errors import MissingExtra, TransformError
from impactreg.images import Grid, Image
from impactreg.parameters import ParameterMap

LINEAR = [
    "translation",
    "euler zyx",
    "similarity",
    "affine",
    "translation 2D",
    "euler 2D",
    "similarity 2D",
    "affine 2D",
]
BENT = ["spline 3", "spline 3 2D"]


def transformed(theirs, points):
    return torch.tensor(np.array([theirs.TransformPoint([float(v) for v in row]) for row in points]))


def chain(transforms, *names):
    """The transforms applied one after the other, the first name first."""
    combination = None
    for name in names:
        combination = Combination(transforms[name], combination)
    return combination


def field(generator):
    grid = Grid.of((7, 8, 9), (4, 4, 4), (-12, -14, -16))
    data = torch.randn(3, *grid.shape, generator=generator, dtype=torch.float64)
    return DeformationFieldTransform(Image(data, grid))


@pytest.mark.parametrize("name", LINEAR)
def test_a_matrix_moves_points_as_its_transform_does(name, transforms, sample):
    transform = transforms[name]
    n = transform.dimension
    points, matrix = sample(n), to_matrix(transform)
    assert matrix.dtype == np.float64
    assert matrix.shape == (n + 1, n + 1)
    homogeneous = torch.cat([points, torch.ones(len(points), 1)], dim=1)
    torch.testing.assert_close((homogeneous @ torch.from_numpy(matrix).T)[:, :n], transform(points))
    torch.testing.assert_close(from_matrix(matrix)(points), transform(points))


def test_a_chain_has_the_product_of_its_matrices(transforms):
    product = to_matrix(transforms["affine"]) @ to_matrix(transforms["euler"])
    np.testing.assert_allclose(to_matrix(chain(transforms, "euler", "affine")), product, atol=1e-12)


def test_added_linear_transforms_have_a_matrix_too(transforms, sample):
    added = Combination(transforms["affine"], transforms["euler"], compose=False)
    torch.testing.assert_close(from_matrix(to_matrix(added))(sample(3)), added(sample(3)))


def test_what_bends_has_no_matrix(transforms):
    with pytest.raises(TransformError, match=r"^a BSplineTransform is not linear and has no matrix: take the points"):
        to_matrix(chain(transforms, "spline 3", "affine"))


@pytest.mark.parametrize(
    ("matrix", "message"),
    [
        (np.eye(2), r"is 4 x 4 \(3D\) or 3 x 3 \(2D\), but this one has shape \(2, 2\)"),
        (np.ones(4), r"but this one has shape \(4,\)"),
        (np.linalg.qr(np.random.default_rng(0).normal(size=(3, 3)))[0], "put a rotation alone into the upper left"),
        (np.diag([1, 1, np.nan, 1]), "finite, with 0 0 0 1 as last row"),
        (np.diag([1.0, 1, 0, 1]), "is singular"),
    ],
)
def test_what_is_no_matrix_of_a_transform_is_refused(matrix, message):
    with pytest.raises(TransformError, match=message):
        from_matrix(matrix)


@pytest.mark.parametrize("name", [*LINEAR, *BENT, "spline 1", "spline 2"])
def test_simpleitk_moves_points_alike_there_and_back(name, transforms, sample):
    pytest.importorskip("SimpleITK")
    transform = transforms[name]
    points = sample(transform.dimension)
    theirs = to_sitk_transform(transform)
    torch.testing.assert_close(transformed(theirs, points), transform(points), rtol=0, atol=1e-12)
    torch.testing.assert_close(as_transform(theirs)(points), transform(points), rtol=0, atol=1e-12)


def test_a_chain_is_a_composite_in_simpleitk(transforms, sample, generator):
    pytest.importorskip("SimpleITK")
    combination = Combination(field(generator), chain(transforms, "euler", "affine", "spline 3"))
    theirs = to_sitk_transform(combination)
    assert theirs.GetName() == "CompositeTransform"
    points = sample(3)
    # ITK leaves a field where its last voxel centre is, and elastix half a voxel later
    inside = (chain(transforms, "euler", "affine", "spline 3")(points).abs() < 11).all(dim=1)
    torch.testing.assert_close(transformed(theirs, points)[inside], combination(points)[inside], rtol=0, atol=1e-11)
    torch.testing.assert_close(as_transform(theirs)(points), combination(points), rtol=0, atol=1e-11)
    assert int(inside.sum()) > 5


def test_composites_in_composites_and_other_linear_kinds_are_read(sample):
    sitk = pytest.importorskip("SimpleITK")
    inner = sitk.CompositeTransform([sitk.ScaleTransform(3, (1.1, 1.2, 0.9)), sitk.TranslationTransform(3, (1, 2, 3))])
    theirs = sitk.CompositeTransform([sitk.VersorTransform((0, 0, 1), 0.4, (1, 2, 3)), inner])
    theirs.AddTransform(sitk.VersorRigid3DTransform((1, 0, 0), 0.3, (4, 5, 6), (7, 8, 9)))
    torch.testing.assert_close(as_transform(theirs)(sample(3)), transformed(theirs, sample(3)), rtol=0, atol=1e-12)


def test_without_simpleitk_the_message_names_it(transforms, monkeypatch):
    def missing(name, *rest):
        raise ImportError(name)

    monkeypatch.setattr("impactreg.components.transforms.exchange.import_module", missing)
    with pytest.raises(MissingExtra, match="SimpleITK is not installed: pip install SimpleITK"):
        to_sitk_transform(transforms["euler"])


@pytest.mark.itk
@pytest.mark.parametrize("name", [*LINEAR, *BENT])
def test_itk_moves_points_alike_there_and_back(name, transforms, sample):
    transform = transforms[name]
    points = sample(transform.dimension)
    theirs = to_itk_transform(transform)
    torch.testing.assert_close(transformed(theirs, points), transform(points), rtol=0, atol=1e-12)
    torch.testing.assert_close(as_transform(theirs)(points), transform(points), rtol=0, atol=1e-12)


@pytest.mark.itk
def test_a_chain_is_a_composite_in_itk(transforms, sample):
    combination = chain(transforms, "euler", "affine", "spline 3")
    theirs = to_itk_transform(combination)
    assert theirs.GetNumberOfTransforms() == 3
    torch.testing.assert_close(transformed(theirs, sample(3)), combination(sample(3)), rtol=0, atol=1e-12)
    torch.testing.assert_close(as_transform(theirs)(sample(3)), combination(sample(3)), rtol=0, atol=1e-12)


@pytest.mark.itk
def test_what_itk_cannot_hold_is_told(transforms):
    with pytest.raises(TransformError, match=r"ITK has no such transform: .*BSplineTransform"):
        to_itk_transform(transforms["spline 2"])
    with pytest.raises(TransformError, match=r"^ITK cannot hold transforms that are added"):
        to_itk_transform(Combination(transforms["affine"], transforms["spline 3"], compose=False))


def test_maps_results_and_tensors_are_transforms(transforms, sample, tmp_path):
    points, affine = sample(3), transforms["affine"]
    parameter_map = ParameterMap.from_dict({"Transform": "AffineTransform", **affine.written()})
    parameter_map.write(tmp_path / "affine.txt")

    class Found:
        transform = Combination(affine)

    matrix = to_matrix(affine)
    for given in (
        affine,
        parameter_map,
        [parameter_map],
        tmp_path / "affine.txt",
        Found(),
        matrix,
        torch.tensor(matrix),
    ):
        torch.testing.assert_close(as_transform(given)(points), affine(points))


@pytest.mark.parametrize("given", [3, None, object(), [1, 2]])
def test_what_is_no_transform_is_refused_in_one_line(given):
    with pytest.raises(TransformError, match=f"^a {type(given).__name__} is no transform: give a path, a transform"):
        as_transform(given)


def test_nothing_is_imported_for_transforms_of_our_own(transforms, monkeypatch):
    real = builtins.__import__

    def watched(name, *rest):
        assert name.split(".")[0] not in ("itk", "SimpleITK")
        return real(name, *rest)

    monkeypatch.setattr(builtins, "__import__", watched)
    as_transform(to_matrix(as_transform(transforms["euler"])))
