"""The inverse of transforms at points."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from impactreg.components.transforms.bspline import BSplineTransform
from impactreg.components.transforms.displacement import DeformationFieldTransform
from impactreg.components.transforms.inverse import inverse_points, is_linear, linear_inverse
from impactreg.components.transforms.linear import AffineTransform
from impactreg.components.transforms.rotating import EulerTransform
from impactreg.components.transforms.spline_kernel import SplineKernelTransform
from impactreg.components.transforms.transform import Combination
from impactreg.components.warping import determinants, jacobians
from impactreg.errors import TransformError
from impactreg.images import Grid, Image


def random(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def spline(strength, n=3, seed=0):
    """Control points every 10 mm from -60 to 60 mm; the valid region is 50 mm wide on each side."""
    grid = Grid.of((13,) * n, (10,) * n, (-60,) * n)
    return BSplineTransform(strength * random(n * grid.number_of_voxels, seed=seed), grid)


def inside(n, count=4000, seed=3):
    generator = torch.Generator().manual_seed(seed)
    return 70 * torch.rand(count, n, generator=generator, dtype=torch.float64) - 35


def affine(n=3, seed=5):
    matrix = torch.eye(n, dtype=torch.float64) + 0.2 * random(n, n, seed=seed)
    return AffineTransform(torch.cat([matrix.reshape(-1), 8 * random(n, seed=1)]), 30 * random(n, seed=2))


@pytest.mark.parametrize(("n", "strength"), [(3, 4.0), (2, 4.2)])
def test_a_strong_spline_is_inverted_to_a_millionth_of_a_millimetre(n, strength):
    transform, points = spline(strength, n), inside(n)
    volumes = determinants(jacobians(transform, points))
    assert 0 < volumes.min() < 0.3
    assert volumes.max() > 2
    result = inverse_points(transform, transform(points))
    assert result.found.all()
    assert result.residuals.max() < 1e-6
    assert (result.points - points).abs().max() < 1e-4
    assert torch.allclose(result.determinants, volumes, atol=1e-4)
    there = inverse_points(transform, points)
    assert torch.linalg.vector_norm(transform(there.points) - points, dim=1).max() < 1e-6


@pytest.mark.parametrize("compose", [True, False])
def test_chains_of_linear_and_bending_members_are_inverted(compose):
    euler = EulerTransform(torch.tensor([0.9, -0.4, 0.5, 20, -30, 10], dtype=torch.float64), torch.zeros(3).double())
    chains = {
        True: Combination(affine(), Combination(spline(2.0), Combination(euler))),
        False: Combination(spline(1.0), Combination(affine()), compose=False),
    }
    chain = chains[compose]
    points = inside(3) if not compose else linear_inverse(euler)(inside(3))
    result = inverse_points(chain, chain(points))
    assert result.found.all()
    assert (result.points - points).abs().max() < 1e-4
    assert result.residuals.max() < 1e-6


def test_a_field_and_a_kernel_spline_are_inverted():
    grid = Grid.of((25, 25, 25), (4, 4, 4), (-48, -48, -48))
    smooth = spline(1.5)
    field = DeformationFieldTransform(Image((smooth(grid.points()) - grid.points()).T.reshape(3, *grid.shape), grid))
    fixed = 30 * random(12, 3, seed=8)
    kernel = SplineKernelTransform.through(fixed, fixed + 2 * random(12, 3, seed=9))
    for transform in (field, kernel):
        result = inverse_points(transform, transform(inside(3)))
        assert result.found.all()
        assert (result.points - inside(3)).abs().max() < 1e-4


@given(st.integers(0, 2**16), st.sampled_from([2, 3]))
def test_linear_chains_are_inverted_exactly(seed, n):
    chain = Combination(affine(n, seed), Combination(affine(n, seed + 1)))
    assert is_linear(chain)
    points = inside(n, 20)
    matrix = jacobians(chain, points)[0]
    if torch.linalg.cond(matrix) > 1e3:
        return
    assert torch.allclose(linear_inverse(chain)(chain(points)), points, rtol=0, atol=1e-8)
    assert inverse_points(chain, points).residuals.max() < 1e-8


def test_a_flat_transform_has_no_inverse():
    flat = AffineTransform(torch.tensor([1, 0, 1, 0, 0, 0], dtype=torch.float64), torch.zeros(2).double())
    with pytest.raises(TransformError, match="no inverse"):
        linear_inverse(Combination(flat))


def test_points_in_a_fold_are_told():
    transform, points = spline(9.0, 2), inside(2, 20000)
    folded = determinants(jacobians(transform, points)) <= 0
    assert 0.02 < folded.double().mean() < 0.5
    result = inverse_points(transform, transform(points))
    elsewhere = (result.points - points).norm(dim=1) > 1e-3
    assert (result.folded | elsewhere | ~folded).all()
    assert result.folded.any()
    assert (result.found == ((result.residuals <= 1e-6) & (result.determinants > 0))).all()


def test_points_that_no_point_is_mapped_to_are_told():
    """At the rim of its valid region a spline jumps to zero displacement, which leaves a gap."""
    n = 2
    grid = Grid.of((8,) * n, (10,) * n, (-35,) * n)
    shift = torch.zeros(n, *grid.shape, dtype=torch.float64)
    shift[0] = 4.0
    transform = BSplineTransform(shift.reshape(-1), grid)
    rows = torch.tensor([[-24.0, 0.0], [-22.0, 0.0], [-10.0, 0.0], [40.0, 0.0]], dtype=torch.float64)
    result = inverse_points(transform, rows)
    assert result.found.tolist() == [False, False, True, True]
    assert torch.allclose(result.points[2:], rows[2:] - torch.tensor([[4.0, 0.0], [0.0, 0.0]]).double())
    assert (result.residuals[:2] > 0.1).all()
