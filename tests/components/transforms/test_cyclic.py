"""Cyclic B-splines."""

import pytest
import torch

from impactreg.components.transforms.bspline import BSplineTransform
from impactreg.components.transforms.cyclic import CyclicBSplineTransform
from impactreg.components.transforms.files import read_transform
from impactreg.components.transforms.itk_text import to_itk
from impactreg.errors import TransformError
from impactreg.images import Grid
from impactreg.parameters import ParameterMap


def random(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.fixture(params=[(2, 1), (2, 3), (3, 2), (3, 3)], ids=str)
def transform(request):
    """Of some dimension and order, with a period of 5 x 4 mm along the last axis."""
    n, order = request.param
    grid = Grid.of((8,) * (n - 1) + (5,), (4,) * n, (-14,) * n)
    return CyclicBSplineTransform(BSplineTransform(random(n * grid.number_of_voxels), grid, order))


def test_it_is_periodic_and_smooth_along_the_last_axis_and_never_moves_it(transform):
    n = transform.dimension
    points = 6 * random(40, n)
    shift = torch.zeros(n).double()
    shift[-1] = 20.0
    for turns in (-2, 1, 5):
        assert torch.allclose(transform(points + turns * shift), transform(points) + turns * shift, atol=1e-9)
    assert torch.allclose(transform(points)[:, -1], points[:, -1], atol=1e-12)
    seam = points.clone()
    seam[:, -1] = 6.0
    ahead, behind = (transform(seam + s * 1e-7 * shift) for s in (1, -1))
    assert torch.allclose(ahead, behind, atol=1e-4)


def test_inside_it_is_the_spline(transform):
    n = transform.dimension
    points = torch.rand(50, n).double() * 2 - 6
    expected = transform.spline(points)
    assert torch.allclose(transform(points)[:, :-1], expected[:, :-1], atol=1e-10)


def test_itk_has_none(transform):
    with pytest.raises(TransformError, match="CyclicBSplineTransform"):
        to_itk(transform)


def test_it_comes_back_as_it_was_written(transform):
    read = read_transform(ParameterMap.from_dict(transform.written()))
    points = 6 * random(40, transform.dimension)
    assert isinstance(read.current, CyclicBSplineTransform)
    assert torch.equal(read(points), transform(points))
    assert torch.allclose(read.with_parameters(read.parameters * 0)(points), points, atol=1e-12)
    with pytest.raises(TransformError, match="not optimised here"):
        read.at(points).squared_columns()
