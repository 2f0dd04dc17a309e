"""Euler and similarity: the parameters of SimpleITK, in their order and with their signs."""

import pytest
import SimpleITK as sitk  # noqa: N813
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from impactreg.components.setup import Setup
from impactreg.components.transforms.rotating import EulerTransform, SimilarityTransform
from impactreg.errors import TransformError
from impactreg.images import Image
from impactreg.parameters import ParameterMap

ANGLE = st.floats(-3.2, 3.2)


def simpleitk(transform):
    kinds = {
        (EulerTransform, 2): sitk.Euler2DTransform,
        (EulerTransform, 3): sitk.Euler3DTransform,
        (SimilarityTransform, 2): sitk.Similarity2DTransform,
        (SimilarityTransform, 3): sitk.Similarity3DTransform,
    }
    theirs = kinds[type(transform), transform.dimension]()
    theirs.SetCenter(transform.centre.tolist())
    if getattr(transform, "compute_zyx", False):
        theirs.SetComputeZYX(True)
    theirs.SetParameters(transform.parameters.tolist())
    return theirs


@pytest.mark.parametrize("name", ["euler", "euler zyx", "euler 2D", "similarity", "similarity 2D"])
def test_parameters_are_those_of_simpleitk(transforms, sample, name):
    ours = transforms[name]
    theirs, points = simpleitk(ours), sample(ours.dimension)
    expected = torch.tensor([theirs.TransformPoint(p) for p in points.tolist()], dtype=torch.float64)
    torch.testing.assert_close(ours(points), expected, rtol=0, atol=1e-9)


@pytest.mark.parametrize("zyx", [False, True])
@given(angles=st.tuples(ANGLE, ANGLE, ANGLE))
@settings(max_examples=25)
def test_any_angles_make_a_rotation(zyx, angles):
    matrix = EulerTransform(torch.tensor([*angles, 0, 0, 0]).double(), torch.zeros(3).double(), zyx).matrix()
    assert torch.allclose(matrix @ matrix.T, torch.eye(3).double())
    assert float(torch.linalg.det(matrix)) == pytest.approx(1)


@given(angles=st.tuples(ANGLE, ANGLE, ANGLE), zyx=st.booleans())
@settings(max_examples=25)
def test_matrix_derivatives_are_those_of_the_matrix(angles, zyx):
    centre = torch.zeros(3).double()
    start = torch.tensor([*angles, 0, 0, 0]).double()
    found = EulerTransform(start, centre, zyx).matrix_derivatives()
    for i, derivative in enumerate(found):
        by = torch.zeros(6).double()
        by[i] = 1e-6
        high, low = (EulerTransform(start + s * by, centre, zyx).matrix() for s in (1, -1))
        assert torch.allclose(derivative, (high - low) / 2e-6, atol=1e-6)


@given(versor=st.tuples(*[st.floats(-0.5, 0.5)] * 3), scale=st.floats(0.2, 3))
def test_a_similarity_scales_every_distance_alike(versor, scale):
    parameters = torch.tensor([*versor, 1, 2, 3, scale]).double()
    matrix = SimilarityTransform(parameters, torch.zeros(3).double()).matrix()
    assert torch.allclose(matrix @ matrix.T, scale**2 * torch.eye(3).double())


@pytest.mark.parametrize("versor", [(1, 0, 0), (0.8, 0.8, 0), (0.7, -0.7, 0.3)])
def test_a_versor_that_is_too_long_is_told(versor):
    transform = SimilarityTransform(torch.tensor([*versor, 0, 0, 0, 1]).double(), torch.zeros(3).double())
    with pytest.raises(TransformError, match=r"the versor of a similarity transform must be shorter than 1, but"):
        transform(torch.zeros(1, 3).double())


def test_the_order_of_rotations_is_read_from_the_map_and_written():
    keys = ParameterMap.from_dict({"ComputeZYX": True})
    image = Image.of(torch.zeros(4, 4, 4))
    start = EulerTransform.begin(EulerTransform.Settings.read(keys), Setup(image, image))
    assert start.compute_zyx
    assert start.written()["ComputeZYX"] == ["true"]
    assert EulerTransform.read(ParameterMap.from_dict(start.written())).compute_zyx


def test_in_2d_there_is_no_order_of_rotations(transforms):
    assert "ComputeZYX" not in transforms["euler 2D"].written()
