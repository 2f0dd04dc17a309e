"""Translation and affine: the parameters of SimpleITK, starting points and scales."""

import pytest
import SimpleITK as sitk  # noqa: N813
import torch

from impactreg.components.setup import Setup
from impactreg.components.transforms.linear import AffineTransform, TranslationTransform
from impactreg.components.transforms.rotating import EulerTransform, SimilarityTransform
from impactreg.errors import TransformError
from impactreg.images import Image
from impactreg.parameters import ParameterMap

FIXED = Image.of(torch.zeros(5, 7, 9), (2, 3, 4), (-1, 5, 2))
KINDS = [TranslationTransform, AffineTransform, EulerTransform, SimilarityTransform]


def settings(kind, dimension=3, **keys):
    return kind.Settings.read(ParameterMap.from_dict(keys), dimension=dimension)


def test_a_translation_moves_points_by_its_parameters(transforms, sample):
    for name, by in (("translation", [4, 5, 6]), ("translation 2D", [4, 5])):
        points = sample(len(by))
        torch.testing.assert_close(transforms[name](points), points + torch.tensor(by))


@pytest.mark.parametrize("name", ["affine", "affine 2D"])
def test_affine_parameters_are_those_of_simpleitk(transforms, sample, name):
    ours = transforms[name]
    theirs = sitk.AffineTransform(ours.dimension)
    theirs.SetCenter(ours.centre.tolist())
    theirs.SetParameters(ours.parameters.tolist())
    points = sample(ours.dimension)
    expected = torch.tensor([theirs.TransformPoint(p) for p in points.tolist()], dtype=torch.float64)
    torch.testing.assert_close(ours(points), expected)


@pytest.mark.parametrize("dimension", [2, 3])
@pytest.mark.parametrize("kind", KINDS)
def test_the_start_is_the_identity_about_the_centre_of_the_fixed_image(kind, dimension, sample):
    fixed = FIXED if dimension == 3 else Image.of(torch.zeros(7, 9), (2, 3), (-1, 5))
    start = kind.begin(settings(kind, dimension), Setup(fixed, fixed))
    assert start.centre.tolist() == pytest.approx(fixed.grid.centre)
    points = sample(dimension)
    torch.testing.assert_close(start(points), points)
    assert start.linear


@pytest.mark.parametrize("kind", KINDS)
def test_a_start_may_be_a_translation(kind, sample):
    moving = Image.of(torch.zeros(5, 7, 9), (2, 3, 4), (9, 1, 2))
    asked = settings(kind, AutomaticTransformInitialization=True)
    start = kind.begin(asked, Setup(FIXED, moving))
    torch.testing.assert_close(start(sample(3)), sample(3) + torch.tensor([10.0, -4.0, 0.0]))
    assert start.translation.tolist() == [10, -4, 0]


@pytest.mark.parametrize(
    ("kind", "dimension", "expected"),
    [
        (TranslationTransform, 3, [1, 1, 1]),
        (AffineTransform, 2, [1e5] * 4 + [1] * 2),
        (EulerTransform, 2, [1e5, 1, 1]),
        (EulerTransform, 3, [1e5] * 3 + [1] * 3),
        (SimilarityTransform, 2, [1e4, 1e5, 1, 1]),
        (SimilarityTransform, 3, [1e5] * 3 + [1] * 3 + [1e4]),
    ],
)
def test_scales_default_to_those_of_elastix(kind, dimension, expected):
    transform = kind(kind.identity_parameters(dimension), torch.zeros(dimension).double())
    assert transform.default_scales(settings(kind)).tolist() == expected


def test_scales_are_one_number_for_the_matrix_or_one_for_each_parameter():
    transform = EulerTransform(torch.zeros(3).double(), torch.zeros(2).double())
    assert transform.default_scales(settings(EulerTransform, Scales=7)).tolist() == [7, 1, 1]
    assert transform.default_scales(settings(EulerTransform, Scales=[7, 2, 3])).tolist() == [7, 2, 3]
    with pytest.raises(TransformError, match=r"\(Scales \.\.\.\) of EulerTransform has 1 or 3 numbers, not 2"):
        transform.default_scales(settings(EulerTransform, Scales=[7, 2]))


def test_scales_of_a_similarity_fill_up_from_its_defaults():
    transform = SimilarityTransform(SimilarityTransform.identity_parameters(2), torch.zeros(2).double())
    assert transform.default_scales(settings(SimilarityTransform, Scales=[5, 6])).tolist() == [5, 6, 1, 1]


@pytest.mark.parametrize("kind", [AffineTransform, EulerTransform, SimilarityTransform])
def test_a_centre_that_is_missing_is_told(kind):
    written = {"NumberOfParameters": 3, "TransformParameters": [0, 0, 0]}
    with pytest.raises(TransformError, match=r"a transform needs \(CenterOfRotationPoint \.\.\.\), which is missing"):
        kind.read(ParameterMap.from_dict(written, "t.txt"))


def test_a_written_translation_has_no_centre(transforms):
    assert set(transforms["translation"].written()) == {"NumberOfParameters", "TransformParameters"}
    assert transforms["affine"].written()["CenterOfRotationPoint"] == [3, 4, 5]
