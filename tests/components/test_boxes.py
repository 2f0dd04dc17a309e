"""Boxes: splines on many small lattices agree with splines point by point."""

import pytest
import torch

from impactreg.components import boxes
from impactreg.components.boxes import Boxes, BoxInterpolant, mapped
from impactreg.components.interpolators import Interpolant
from impactreg.components.transforms.bspline import BSplineTransform
from impactreg.components.transforms.linear import AffineTransform
from impactreg.components.transforms.rotating import EulerTransform
from impactreg.components.transforms.transform import Combination
from impactreg.images import Grid, Image

TURN = torch.linalg.qr(torch.randn(3, 3, generator=torch.Generator().manual_seed(4)).double())[0]
CONTROL = Grid.of((8, 7, 9), (9, 10, 8), (-9, -12, -10), TURN.numpy())
CENTRE = torch.tensor([10.0, 12.0, 11.0], dtype=torch.float64)


def numbers(*values):
    return torch.tensor(values, dtype=torch.float64)


@pytest.fixture
def lattices():
    """Boxes along the axes of the control grid, some of which leave it."""
    index = torch.rand(60, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64) * 12 - 2
    axes = TURN * numbers(2.0, -1.5, 1.0)
    return Boxes(CONTROL.index_to_world(index), axes[None], (5, 6, 7))


@pytest.fixture
def chains():
    noise = torch.randn(3 * CONTROL.number_of_voxels, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    affine = AffineTransform(numbers(1.03, 0.02, 0, -0.01, 0.98, 0.03, 0, 0.02, 1.01, 0.5, -0.3, 0.2), CENTRE)
    euler = EulerTransform(numbers(0.05, -0.04, 0.06, 0.5, -0.3, 0.2), CENTRE)
    splines = [BSplineTransform(noise, CONTROL, order) for order in (1, 2, 3)]
    both = [(s, i) for s in (*splines, affine, euler) for i in (None, euler, splines[2])]
    return [Combination(c, i and Combination(i), how) for c, i in both for how in (True, False)]


def test_points_are_those_of_each_lattice_with_the_first_axis_fastest():
    axes = torch.tensor([[[1.0, 0], [0, 10]], [[2.0, 0], [0, 20]]]).double()
    given = Boxes(numbers(0, 0, 100, 100).reshape(2, 2), axes, (2, 3))
    first = [[0.0, 0], [1, 0], [2, 0], [0, 10], [1, 10], [2, 10]]
    assert given.points[:6].tolist() == first
    assert given.points[6:].tolist() == [[100 + 2 * x, 100 + 2 * y] for x, y in first]
    assert given[1:].points.tolist() == given.points[6:].tolist()
    assert given.within((1, 1), (1, 2)).points.tolist() == [[1, 10], [2, 10], [102, 120], [104, 120]]


def test_boxes_have_steps_on_a_grid_of_the_same_axes_alone(lattices):
    assert lattices.steps_on(CONTROL) == pytest.approx([2 / 9, -0.15, 1 / 8])
    assert lattices.steps_on(Grid.of((4, 4, 4))) is None
    assert Boxes(lattices.corners, lattices.axes.repeat(60, 1, 1), (2, 2, 2)).steps_on(CONTROL) is None
    assert Boxes(lattices.corners, lattices.axes[:, :, :2], (2, 2)).steps_on(CONTROL) is None


def test_transformed_points_and_pulled_gradients_are_those_of_each_point(lattices, chains):
    gradient = torch.randn(lattices.points.shape, generator=torch.Generator().manual_seed(5), dtype=torch.float64)
    for chain in chains:
        expected, found = chain.at(lattices.points), mapped(chain, lattices)
        torch.testing.assert_close(found.points, expected.points)
        torch.testing.assert_close(found.pull_back(gradient), expected.pull_back(gradient))


def test_a_spline_on_a_grid_of_the_same_axes_takes_blocks(lattices, chains):
    kinds = [type(mapped(chain, lattices)).__name__ for chain in chains if isinstance(chain.current, BSplineTransform)]
    assert kinds.count("_MappedBoxes") == 12
    assert kinds.count("_MappedPieces") == 6


def test_pieces_add_up(lattices, chains, monkeypatch):
    monkeypatch.setattr(boxes, "POINTS_AT_ONCE", 100)
    chain = chains[2]
    gradient = torch.ones_like(lattices.points)
    expected, found = chain.at(lattices.points), mapped(chain, lattices)
    torch.testing.assert_close(found.points, expected.points)
    torch.testing.assert_close(found.pull_back(gradient), expected.pull_back(gradient))


@pytest.mark.parametrize("order", [0, 1, 2, 3])
@pytest.mark.parametrize("channels", [1, 2])
@pytest.mark.parametrize("aligned", [True, False])
def test_values_in_boxes_are_those_at_each_point(order, channels, aligned):
    grid = Grid.of((20, 18, 16), (1.0, 1.2, 0.9), (3, 4, 5), TURN.numpy())
    data = torch.randn(channels, *grid.shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    index = torch.rand(40, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64) * 20 - 4
    axes = TURN if aligned else torch.eye(3, dtype=torch.float64)
    given = Boxes(grid.index_to_world(index), axes[None] * 1.1, (4, 5, 3))
    image = Image(data, grid)
    expected = Interpolant.of(image, order, margin=30).values(given.points)
    found = BoxInterpolant(image, order, 10.0).values(given)
    torch.testing.assert_close(found.movedim(1, -1).reshape(-1, channels), expected)


def test_the_border_is_mirrored_as_often_as_need_be():
    image = Image.of(torch.arange(5.0, dtype=torch.float64).expand(4, 5))
    outside = Boxes(numbers(-3, 1, 7, 1, 105, 1, -55, 1).reshape(4, 2), torch.eye(2).double()[None], (1, 1))
    found = BoxInterpolant(image, 1, 1.0).values(outside).flatten()
    torch.testing.assert_close(found, numbers(3, 1, 1, 1))
    one = BoxInterpolant(Image.of(torch.full((1, 1), 7.0).double()), 3, 1.0)
    torch.testing.assert_close(one.values(outside).flatten(), numbers(7, 7, 7, 7))
