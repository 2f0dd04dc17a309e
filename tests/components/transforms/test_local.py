"""Spatial derivatives of transforms: finite differences, the chain rule, known parabolas, what is not known."""

import pytest
import torch

from impactreg.components.transforms.bspline import BSplineTransform
from impactreg.components.transforms.displacement import DeformationFieldTransform
from impactreg.components.transforms.local import DifferentiatedLocal
from impactreg.components.transforms.transform import Combination
from impactreg.errors import TransformError
from impactreg.images import Grid, Image

STEP = 1e-4


def differences(function, points):
    """Central differences of a function of points along each world axis, as last dimension."""
    steps = STEP * torch.eye(points.shape[1], dtype=torch.float64)
    return torch.stack([(function(points + by) - function(points - by)) / (2 * STEP) for by in steps], dim=-1)


def smooth(transform, points):
    """The points near which the transform has no edge, such as the border of a control grid."""
    corners = torch.cartesian_prod(*[torch.tensor([-1.0, 1.0])] * points.shape[1]).double() * 2 * STEP
    around = torch.stack([transform.local(points + by).jacobian for by in corners])
    keep = (around.amax(dim=0) - around.amin(dim=0)).amax(dim=(1, 2)) < 0.01
    assert keep.sum() > len(points) / 2
    return points[keep]


def held(transform, points):
    local = transform.local(points)
    torch.testing.assert_close(local.jacobian, differences(transform, points), rtol=0, atol=1e-6)
    second = differences(lambda p: transform.local(p).jacobian, points)
    torch.testing.assert_close(local.hessian.contiguous(), second, rtol=0, atol=1e-6)


def pulled(transform, points, *, both=True):
    generator = torch.Generator().manual_seed(0)
    local = transform.local(points)
    to_jacobian, to_hessian = (
        torch.randn(size, generator=generator, dtype=torch.float64)
        for size in (local.jacobian.shape, local.hessian.shape)
    )
    direction = torch.randn(transform.parameters.shape, generator=generator, dtype=torch.float64)

    def at(parameters):
        there = transform.with_parameters(parameters).local(points)
        return (there.jacobian * to_jacobian * both).sum() + (there.hessian * to_hessian).sum()

    high, low = (at(transform.parameters + by * direction) for by in (1e-5, -1e-5))
    gradient = local.pull_back(to_jacobian if both else None, to_hessian)
    assert float(gradient @ direction) == pytest.approx(float(high - low) / 2e-5, rel=1e-6, abs=1e-6)


def test_the_derivatives_are_those_of_finite_differences(transform, sample):
    held(transform, smooth(transform, sample(transform.dimension)))


@pytest.mark.parametrize("both", [True, False])
def test_gradients_are_pulled_back_to_the_parameters(transform, sample, both):
    pulled(transform, sample(transform.dimension), both=both)


@pytest.mark.parametrize("compose", [True, False])
@pytest.mark.parametrize("current", ["affine", "spline 3", "spline 2"])
@pytest.mark.parametrize("before", ["similarity", "spline 3"])
def test_combinations_follow_the_chain_rule(transforms, sample, current, before, compose):
    inner = Combination(transforms[before], Combination(transforms["euler"], transforms["translation"]))
    both = Combination(transforms[current], inner, compose)
    held(both, smooth(both, sample(3)))
    pulled(both, sample(3))
    pulled(both, sample(3), both=False)


def test_chains_of_matrices_are_flat_and_others_are_not(transforms):
    points = torch.zeros(2, 3, dtype=torch.float64)
    for compose in (True, False):
        assert Combination(transforms["euler"], transforms["affine"], compose).local(points).flat
        assert not Combination(transforms["euler"], transforms["spline 3"], compose).local(points).flat
        assert not Combination(transforms["spline 3"], transforms["euler"], compose).local(points).flat


@pytest.mark.parametrize("order", [2, 3])
def test_a_parabola_has_its_second_derivative_everywhere(order):
    grid = Grid.of((9, 8), (3, 4), (-5, 2))
    x, y = grid.points().T
    # a spline whose coefficients are a parabola is that parabola but for a constant
    transform = BSplineTransform(torch.cat([0.05 * x**2 - 0.02 * x * y, 0.03 * y**2]), grid, order)
    points = grid.index_to_world(torch.tensor([[2.3, 2.9], [4.1, 3.2]], dtype=torch.float64))
    expected = torch.tensor([[[0.1, -0.02], [-0.02, 0]], [[0, 0], [0, 0.06]]], dtype=torch.float64)
    torch.testing.assert_close(transform.local(points).hessian, expected.expand(2, 2, 2, 2))


@pytest.mark.parametrize("order", [1, 2, 3])
def test_outside_its_grid_a_spline_neither_stretches_nor_bends(order):
    grid = Grid.of((7, 6, 7), (3, 4, 2))
    transform = BSplineTransform(torch.randn(3 * 294, dtype=torch.float64), grid, order)
    far = torch.tensor([[-30.0, 0, 0], [9.0, 9.0, 90.0]], dtype=torch.float64)
    local = transform.local(far)
    assert torch.equal(local.jacobian, torch.eye(3, dtype=torch.float64).expand(2, 3, 3))
    assert not local.hessian.any()
    assert not local.pull_back(torch.ones(2, 3, 3).double(), torch.ones(2, 3, 3, 3).double()).any()


def test_nothing_to_pull_back_is_no_gradient(transforms):
    local = transforms["spline 3"].local(torch.zeros(3, 3, dtype=torch.float64))
    assert torch.equal(local.pull_back(), torch.zeros_like(transforms["spline 3"].parameters))


def test_a_deformation_field_stretches_but_does_not_tell_how_it_bends():
    grid = Grid.of((6, 5), (2, 2))
    x, y = grid.points().T
    field = DeformationFieldTransform(Image(torch.stack([0.1 * x, 0.2 * y]).reshape(2, 5, 6), grid))
    local = field.local(torch.tensor([[3.3, 4.1], [90.0, 0.0]], dtype=torch.float64))
    assert isinstance(local, DifferentiatedLocal)
    expected = torch.tensor([[[1.1, 0], [0, 1.2]], [[1, 0], [0, 1]]], dtype=torch.float64)
    torch.testing.assert_close(local.jacobian, expected)
    with pytest.raises(TransformError, match="second spatial derivatives of a DeformationFieldTransform are not known"):
        _ = local.hessian
    with pytest.raises(TransformError, match="cannot be differentiated to its parameters"):
        local.pull_back(None, None)
