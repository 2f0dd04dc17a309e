"""Images and fields through a transform."""

import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813
import torch

from impactreg.components import warping
from impactreg.components.transforms.bspline import BSplineTransform
from impactreg.components.transforms.displacement import DeformationFieldTransform
from impactreg.components.transforms.linear import AffineTransform, TranslationTransform
from impactreg.components.transforms.rotating import EulerTransform
from impactreg.components.transforms.transform import Combination
from impactreg.components.warping import (
    deformation_field,
    determinants,
    determinants_by_differences,
    jacobian_determinant,
    jacobians,
    spatial_jacobian,
    warp,
)
from impactreg.images import Grid, Image

TURN = [[0.8, -0.6, 0], [0.6, 0.8, 0], [0, 0, 1]]
GRID = Grid.of((9, 8, 7), (2, 1.5, 3), (5, -3, 2), TURN)
MOVING = Grid.of((11, 10, 8), (1.7, 1.6, 2.5), (4, -2, 3), TURN)


def numbers(*values):
    return torch.tensor(values, dtype=torch.float64)


def moving_image(dtype=torch.float32):
    generator = torch.Generator().manual_seed(3)
    return Image((100 * torch.randn(1, *MOVING.shape, generator=generator)).to(dtype), MOVING)


def rotation():
    return EulerTransform(numbers(0.1, -0.2, 0.15, 1, -2, 0.5), numbers(*GRID.centre))


def spline():
    grid = Grid.of((6, 7, 5), (7, 6, 9), (-12, -11, -10))
    generator = torch.Generator().manual_seed(4)
    return BSplineTransform(
        2 * torch.randn(3 * grid.number_of_voxels, generator=generator, dtype=torch.float64), grid, 3
    )


def shift(*by):
    return TranslationTransform(numbers(*by), numbers(*by) * 0)


def by_simpleitk(image, transform, interpolator, default):
    theirs = sitk.GetImageFromArray(image.numpy())
    theirs.SetSpacing(image.grid.spacing)
    theirs.SetOrigin(image.grid.origin)
    theirs.SetDirection(np.array(image.grid.direction).reshape(-1).tolist())
    euler = sitk.Euler3DTransform(transform.centre.tolist(), *transform.parameters.tolist()[:3])
    euler.SetTranslation(transform.parameters.tolist()[3:])
    direction = np.array(GRID.direction).reshape(-1).tolist()
    resampled = sitk.Resample(
        theirs, GRID.size, euler, interpolator, GRID.origin, GRID.spacing, direction, default, sitk.sitkFloat32
    )
    return torch.from_numpy(sitk.GetArrayFromImage(resampled))


@pytest.mark.parametrize(
    ("order", "clamped", "interpolator"),
    [
        (3, False, sitk.sitkBSpline),
        (2, False, sitk.sitkBSpline2),
        (1, True, sitk.sitkLinear),
        (0, False, sitk.sitkNearestNeighbor),
    ],
)
def test_it_resamples_as_itk_does(order, clamped, interpolator):
    expected = by_simpleitk(moving_image(), rotation(), interpolator, -55.0)
    ours = warp(moving_image(), rotation(), GRID, order=order, default=-55.0, clamped=clamped)
    assert (ours.scalar == -55).any()
    assert torch.allclose(ours.scalar, expected, atol=1e-3)


def test_the_image_ends_half_a_voxel_beyond_its_outermost_voxel_centres():
    image = Image(torch.ones(1, 1, 4), Grid.of((4, 1)))
    edges = Grid.of((4, 1), (1.4999, 1), (-0.5, 0))
    assert warp(image, shift(0, 0), edges, order=1, default=9).scalar.tolist() == [[1, 1, 1, 9]]
    assert warp(image, shift(-0.0001, 0), edges, order=1, default=9).scalar[0, 0] == 9


def test_pieces_do_not_show(monkeypatch):
    whole = warp(moving_image(), rotation(), GRID)
    monkeypatch.setattr(warping, "VOXELS_AT_ONCE", 37)
    assert torch.allclose(warp(moving_image(), rotation(), GRID).data, whole.data, atol=1e-4)


def test_labels_keep_their_type_and_large_values_with_the_nearest_voxel():
    labels = Image(torch.tensor([[[2**30 + 1, 2**30 + 2, 7]]], dtype=torch.int32), Grid.of((3, 1)))
    warped = warp(labels, shift(1, 0), labels.grid, order=0)
    assert warped.data.dtype == torch.int32
    assert warped.scalar.tolist() == [[2**30 + 2, 7, 0]]
    assert warp(labels, shift(0.5, 0), labels.grid, order=1).data.dtype == torch.float32


def test_every_channel_is_warped():
    image = Image(torch.randn(3, *MOVING.shape), MOVING)
    warped = warp(image, rotation(), GRID)
    for channel in range(3):
        alone = warp(Image(image.data[channel : channel + 1], MOVING), rotation(), GRID)
        assert torch.allclose(warped.data[channel], alone.scalar, atol=1e-4)


def test_a_deformation_field_holds_displacements_in_millimetres():
    field = deformation_field(rotation(), GRID)
    assert field.data.dtype == torch.float32
    points = GRID.points()
    expected = (rotation()(points) - points).T.reshape(3, *GRID.shape)
    assert torch.allclose(field.data.double(), expected, atol=1e-5)


def test_the_jacobian_of_a_linear_transform_is_its_matrix():
    matrix = numbers(1.1, 0.1, 0, -0.1, 0.9, 0.2, 0.3, 0.1, 1)
    transform = AffineTransform(torch.cat([matrix, numbers(1, 2, 3)]), numbers(0, 0, 0))
    found = spatial_jacobian(transform, GRID).data.reshape(9, -1)
    assert torch.allclose(found, matrix.float()[:, None].expand_as(found))
    determinant = jacobian_determinant(transform, GRID).data
    assert torch.allclose(determinant, torch.linalg.det(matrix.reshape(3, 3)).float())


@pytest.mark.parametrize("compose", [True, False])
def test_the_jacobian_of_a_chain_is_the_limit_of_differences(compose):
    grid = Grid.of((5, 5, 5), (8, 8, 8), (-14, -13, -12))
    field = DeformationFieldTransform(Image(torch.randn(3, *grid.shape, dtype=torch.float64), grid), 1)
    chain = Combination(spline(), Combination(field, Combination(rotation())), compose)
    points = torch.randn(40, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64) * 5
    found = jacobians(chain, points)
    for axis in range(3):
        step = torch.zeros(3, dtype=torch.float64)
        step[axis] = 1e-5
        difference = (chain(points + step) - chain(points - step)) / 2e-5
        assert torch.allclose(found[:, :, axis], difference, atol=1e-5)


def test_the_jacobian_outside_a_spline_is_the_identity():
    far = torch.full((2, 3), 500.0, dtype=torch.float64)
    assert torch.equal(jacobians(spline(), far), torch.eye(3, dtype=torch.float64).expand(2, 3, 3))


def test_a_determinant_in_two_dimensions():
    transform = AffineTransform(numbers(1.5, 0.5, 0.25, 2, 0, 0), numbers(0, 0))
    assert torch.allclose(jacobian_determinant(transform, Grid.of((3, 2))).data, torch.tensor(1.5 * 2 - 0.5 * 0.25))


@pytest.mark.parametrize("dimension", [2, 3])
def test_determinants_written_out_are_those_of_a_factorisation(dimension):
    matrices = torch.randn(50, dimension, dimension, dtype=torch.float64)
    torch.testing.assert_close(determinants(matrices), torch.linalg.det(matrices))


@pytest.mark.parametrize("grid", [GRID, Grid.of((5, 4), (2, 1.5)), Grid.of((1, 6, 40), (3, 1, 2), direction=TURN)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_differences_give_the_determinant_of_a_linear_field_up_to_the_border(grid, dtype, generator):
    n, along = grid.dimension, torch.tensor(grid.direction, dtype=torch.float64)
    # along an axis of one voxel a field says nothing
    known = torch.diag(torch.tensor([float(size > 1) for size in grid.size], dtype=torch.float64))
    change = 0.1 * torch.randn(n, n, generator=generator, dtype=torch.float64) @ along @ known @ along.T
    field = Image((grid.points() @ change.T).T.reshape(n, *grid.shape), grid)
    found = torch.cat(list(determinants_by_differences(field, dtype)))
    assert found.dtype == dtype
    expected = torch.linalg.det(torch.eye(n) + change).to(dtype)
    torch.testing.assert_close(found, expected.expand(grid.shape), atol=1e-4, rtol=0)


def test_planes_between_which_differences_are_taken_do_not_show(monkeypatch):
    field = Image(torch.randn(3, *GRID.shape), GRID)
    whole = torch.cat(list(determinants_by_differences(field)))
    monkeypatch.setattr(warping, "PLANES_AT_ONCE", 2)
    assert torch.equal(torch.cat(list(determinants_by_differences(field))), whole)
