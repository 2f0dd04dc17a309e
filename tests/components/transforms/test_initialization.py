"""Where linear transforms start: centres and translations by hand."""

import pytest
import torch

from impactreg.components.setup import Setup
from impactreg.components.transforms.initialization import InitializationSettings, initial_placement
from impactreg.components.transforms.linear import TranslationTransform
from impactreg.components.transforms.transform import Combination
from impactreg.errors import ParameterError, RegistrationError
from impactreg.images import Image, Mask
from impactreg.parameters import ParameterMap

EVERY = ["TranslationTransform", "EulerTransform", "SimilarityTransform", "AffineTransform"]
AUTO = {"AutomaticTransformInitialization": True}


def image(position, spacing, origin, size=(6, 8, 10), value=1.0):
    """Nothing but one voxel, at an index (x, y, z)."""
    data = torch.zeros(size)
    data[position[::-1]] = value
    return Image.of(data, spacing, origin)


FIXED = image((2, 3, 1), (1.0, 2.0, 3.0), (0.0, 0.0, 0.0))
MOVING = image((5, 4, 2), (2.0, 1.0, 1.0), (10.0, 20.0, 30.0), (5, 5, 9))


def place(transform, fixed=FIXED, moving=MOVING, masks=(None, None), before=None, **keys):
    asked = InitializationSettings.read(ParameterMap.from_dict(keys), dimension=fixed.dimension)
    setup = Setup(fixed, moving, *masks, before=before, has_initial=before is not None)
    centre, translation = initial_placement(transform, asked, setup)
    return centre.tolist(), translation.tolist()


def gravity(name):
    return {**AUTO, "AutomaticTransformInitializationMethod": name}


@pytest.mark.parametrize("transform", EVERY)
def test_without_a_wish_the_centre_is_that_of_the_image_and_nothing_moves(transform):
    centre, translation = place(transform)
    assert centre == [4.5, 7, 7.5]
    assert translation == [0, 0, 0]


@pytest.mark.parametrize("transform", EVERY[1:])
def test_geometrical_centres_are_aligned(transform):
    centre, translation = place(transform, **AUTO)
    assert centre == [4.5, 7, 7.5]
    assert translation == pytest.approx([10 + 8 - 4.5, 20 + 2 - 7, 30 + 2 - 7.5])


def test_a_translation_aligns_half_a_voxel_beyond_the_centres_as_elastix_does():
    _, translation = place("TranslationTransform", **AUTO)
    assert translation == pytest.approx([13.5 + 0.5 * (2 - 1), 15 + 0.5 * (1 - 2), 24.5 + 0.5 * (1 - 3)])


@pytest.mark.parametrize("transform", EVERY)
def test_centres_of_gravity_are_aligned(transform):
    samples = {"NumberOfSamplesForCenteredTransformInitialization": 1000000}
    centre, translation = place(transform, **gravity("CenterOfGravity"), **samples)
    fixed, moving = [2, 6, 3], [20, 24, 32]
    assert centre == pytest.approx([4.5, 7, 7.5] if transform == "TranslationTransform" else fixed)
    assert translation == pytest.approx([m - f for f, m in zip(fixed, moving, strict=True)])


@pytest.mark.parametrize("transform", EVERY)
def test_an_empty_image_has_no_centre_of_gravity(transform):
    empty = image((0, 0, 0), (1.0, 1.0, 1.0), (0.0, 0.0, 0.0), value=0.0)
    with pytest.raises(RegistrationError, match=r'no centre of gravity; use .*"GeometricalCenter"'):
        place(transform, moving=empty, **gravity("CenterOfGravity"))


def test_an_affine_transform_may_align_origins():
    centre, translation = place("AffineTransform", **gravity("Origins"))
    assert translation == [10, 20, 30]
    assert centre == pytest.approx([18 - 10, 22 - 20, 32 - 30])


def test_an_affine_transform_may_align_tops():
    _, translation = place("AffineTransform", **gravity("GeometryTop"))
    assert translation[2] == pytest.approx(30 + 5 * 1 - 6 * 3)


def test_there_is_no_top_in_2d():
    flat = Image.of(torch.ones(4, 4))
    with pytest.raises(RegistrationError, match=r'"GeometryTop"\) needs 3D images; use "GeometricalCenter"'):
        place("AffineTransform", flat, flat, **gravity("GeometryTop"))


def test_a_mask_is_what_an_affine_transform_aligns():
    inside = torch.zeros(FIXED.grid.shape, dtype=torch.bool)
    inside[1:3, 2:5, 4:6] = True
    mask = Mask(inside, FIXED.grid)
    centre, _ = place("AffineTransform", masks=(mask, None), **AUTO)
    assert centre == pytest.approx([4.5 * 1, 3 * 2, 1.5 * 3])
    euler, _ = place("EulerTransform", masks=(mask, None), **AUTO)
    assert euler == [4.5, 7, 7.5]


def test_a_threshold_weighs_every_voxel_above_it_alike():
    two = torch.zeros(6, 8, 10)
    two[1, 3, 2], two[1, 3, 6], two[4, 7, 9] = 600.0, 6000.0, 100.0
    fixed = Image.of(two)
    keys = {"CenterOfGravityUsesLowerThreshold": True, "LowerThresholdForCenterGravity": 500}
    every = {"NumberOfSamplesForCenteredTransformInitialization": 1000000}
    centre, _ = place("AffineTransform", fixed, fixed, **gravity("CenterOfGravity"), **keys, **every)
    assert centre == pytest.approx([4, 3, 1])


@pytest.mark.parametrize(
    ("keys", "expected"),
    [({"CenterOfRotation": [1, 2, 3]}, [1, 4, 9]), ({"CenterOfRotationPoint": [1.5, 2, 3]}, [1.5, 2, 3])],
)
@pytest.mark.parametrize("automatic", [True, False])
def test_a_given_centre_is_taken(keys, expected, automatic):
    centre, translation = place("EulerTransform", AutomaticTransformInitialization=automatic, **keys)
    assert centre == expected
    assert (translation != [0, 0, 0]) == automatic


def test_after_an_initial_transform_the_centre_moves_along_and_nothing_is_aligned(caplog):
    before = Combination(TranslationTransform(torch.tensor([1.0, 2.0, 3.0]).double(), torch.zeros(3).double()))
    centre, translation = place("EulerTransform", before=before, **AUTO)
    assert centre == [5.5, 9, 10.5]
    assert translation == [0, 0, 0]
    assert "AutomaticTransformInitialization is not used after an initial transform" in caplog.text


@pytest.mark.parametrize(
    "keys",
    [
        {"CenterOfRotationPoint": [1, 2]},
        {"CenterOfRotation": [1, 2, 3, 4]},
        {"AutomaticTransformInitializationMethod": "CentreOfGravity"},
        {"AutomaticTransformInitialization": "maybe"},
    ],
)
def test_a_start_that_makes_no_sense_is_told(keys):
    with pytest.raises(ParameterError, match=next(iter(keys))) as error:
        place("EulerTransform", **{**AUTO, **keys})
    assert "\n" not in str(error.value)
