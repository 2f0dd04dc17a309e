"""Interpolants: values of SciPy and SimpleITK, exact slopes on oblique grids, borders, margins, channels."""

import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from impactreg.components.interpolators import Interpolant, Interpolator, held_inside, inside_buffer
from impactreg.errors import ParameterError
from impactreg.images import Grid, Image
from impactreg.parameters import ParameterMap

TURN = np.array([[0.8, -0.6, 0], [0.48, 0.64, -0.6], [0.36, 0.48, 0.8]])
GRIDS = {
    "2D": Grid.of((9, 7), (1.5, 0.8), (3, -4)),
    "2D oblique": Grid.of((9, 7), (1.5, 0.8), (3, -4), [[0.6, -0.8], [0.8, 0.6]]),
    "3D": Grid.of((9, 7, 6), (1.5, 0.8, 2.2), (3, -4, 5)),
    "3D oblique": Grid.of((9, 7, 6), (1.5, 0.8, 2.2), (3, -4, 5), TURN),
}


def noise(grid, channels=1, dtype=torch.float64):
    data = torch.randn(channels, *grid.shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    return Image(data.to(dtype), grid)


def indices(grid, count=40, rim=0.5, seed=1):
    unit = torch.rand(count, grid.dimension, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return unit * (torch.tensor(grid.size) - 1 + 2 * rim) - rim


@pytest.fixture(params=GRIDS)
def grid(request):
    return GRIDS[request.param]


@pytest.mark.parametrize("order", [0, 1, 2, 3])
def test_values_are_those_of_scipy_with_a_mirrored_border(grid, order):
    image, index = noise(grid), indices(grid)
    found = Interpolant.of(image, order).values(grid.index_to_world(index))[:, 0]
    # SciPy rounds halves of order 0 down, which random indices do not meet
    expected = ndimage.map_coordinates(image.numpy(), index.flip(1).T.numpy(), order=order, mode="mirror")
    np.testing.assert_allclose(found.numpy(), expected, atol=1e-9)


@pytest.mark.parametrize(("order", "theirs"), [(2, sitk.sitkBSpline2), (3, sitk.sitkBSpline3), (1, sitk.sitkLinear)])
def test_values_are_those_of_simpleitk(grid, order, theirs):
    image = noise(grid)
    given = sitk.GetImageFromArray(image.numpy())
    given.SetSpacing(grid.spacing)
    given.SetOrigin(grid.origin)
    given.SetDirection(np.array(grid.direction).reshape(-1).tolist())
    points = grid.index_to_world(indices(grid, rim=-0.2))
    found = Interpolant.of(image, order).values(points)[:, 0]
    expected = [given.EvaluateAtPhysicalPoint(p, theirs) for p in points.tolist()]
    np.testing.assert_allclose(found.numpy(), expected, atol=1e-5)


@pytest.mark.parametrize("order", [0, 1, 2, 3])
def test_samples_are_interpolated(grid, order):
    image = noise(grid, channels=3)
    found = Interpolant.of(image, order).values(grid.points())
    torch.testing.assert_close(found.T.reshape(image.data.shape), image.data, rtol=0, atol=1e-9)


@pytest.mark.parametrize("order", [0, 1, 2, 3])
def test_values_are_the_same_with_and_without_slopes(grid, order):
    interpolant, points = Interpolant.of(noise(grid, channels=2), order), grid.index_to_world(indices(grid))
    torch.testing.assert_close(interpolant.at(points).values, interpolant.values(points))


@pytest.mark.parametrize("order", [1, 2, 3])
def test_slopes_are_those_of_the_values_in_world_axes(grid, order):
    interpolant = Interpolant.of(noise(grid, channels=3), order)
    points = grid.index_to_world(indices(grid, rim=-0.1))
    weights = torch.randn(len(points), 3, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    found = interpolant.at(points).pull_back(weights)
    step = 1e-6
    for axis in range(grid.dimension):
        by = torch.zeros(grid.dimension, dtype=torch.float64)
        by[axis] = step
        change = (interpolant.values(points + by) - interpolant.values(points - by)) / (2 * step)
        torch.testing.assert_close(found[:, axis], (weights * change).sum(1), rtol=1e-5, atol=1e-6)


def test_the_nearest_neighbour_has_no_slope(grid):
    at = Interpolant.of(noise(grid), 0).at(grid.index_to_world(indices(grid)))
    assert not bool(at.pull_back(torch.ones_like(at.values)).any())


@pytest.mark.parametrize("order", [1, 2, 3])
@given(slope=st.tuples(*[st.floats(-3, 3)] * 3), offset=st.floats(-100, 100))
@settings(max_examples=25)
def test_a_line_through_the_world_is_reproduced_far_from_the_border(order, slope, offset):
    grid = Grid.of((25, 25, 25), (1.5, 0.8, 2.2), (3, -4, 5), TURN)
    slope = torch.tensor(slope, dtype=torch.float64)
    image = Image((grid.points() @ slope + offset).reshape(1, *grid.shape), grid)
    points = grid.index_to_world(torch.tensor([[12.3, 11.7, 12.9], [11.2, 12.5, 12.1]], dtype=torch.float64))
    at = Interpolant.of(image, order).at(points)
    assert torch.allclose(at.values[:, 0], points @ slope + offset, atol=1e-4)
    assert torch.allclose(at.pull_back(torch.ones_like(at.values)), slope.expand(2, 3), atol=1e-4)


@given(index=st.lists(st.tuples(*[st.floats(-100, 100)] * 3), min_size=1, max_size=9))
def test_indices_go_to_the_world_and_back(index):
    index = torch.tensor(index, dtype=torch.float64)
    grid = GRIDS["3D oblique"]
    assert torch.allclose(grid.world_to_index(grid.index_to_world(index)), index, atol=1e-9)


@pytest.mark.parametrize("order", [0, 1, 2, 3])
def test_a_chosen_channel_is_that_of_all(grid, order):
    interpolant, points = Interpolant.of(noise(grid, channels=4), order), grid.index_to_world(indices(grid))
    chosen = torch.tensor([3, 1])
    torch.testing.assert_close(interpolant.values(points, chosen), interpolant.values(points)[:, chosen])
    some, every = interpolant.at(points, chosen), interpolant.at(points)
    weights = torch.rand(len(points), 2, dtype=torch.float64)
    spread = torch.zeros_like(every.values).index_copy(1, chosen, weights)
    torch.testing.assert_close(some.pull_back(weights), every.pull_back(spread))


@pytest.mark.parametrize("order", [0, 1, 2, 3])
@pytest.mark.parametrize("margin", [0, 2])
def test_the_image_is_mirrored_in_the_margin_and_held_beyond(grid, order, margin):
    interpolant = Interpolant.of(noise(grid), order, margin=margin)
    middle = torch.tensor(grid.size).double() / 2 - 0.3  # no tie between two voxels

    def along(x):
        index = torch.stack([middle.clone() for _ in x])
        index[:, 0] = torch.tensor(x)
        return interpolant.values(grid.index_to_world(index))[:, 0]

    edge = margin + 0.45
    torch.testing.assert_close(along([-edge]), along([edge]), rtol=0, atol=1e-9)
    torch.testing.assert_close(along([-margin - 3.0, -99.0]), along([-margin - 0.6] * 2))
    last = grid.size[0] - 1
    torch.testing.assert_close(along([last + edge]), along([last - edge]), rtol=0, atol=1e-9)
    torch.testing.assert_close(along([last + margin + 0.6]), along([last + 77.0]))


def test_an_axis_of_one_voxel_is_constant():
    grid = Grid.of((5, 1))
    image = noise(grid)
    for order in (0, 1, 2, 3):
        interpolant = Interpolant.of(image, order)
        found = interpolant.values(torch.tensor([[2.0, -0.4], [2.0, 0.0], [2.0, 0.3]]).double())
        assert found.flatten().tolist() == pytest.approx([float(image.data[0, 0, 2])] * 3)


def test_whole_numbers_become_float32_and_other_types_stay():
    grid = GRIDS["2D"]
    whole = Image(torch.ones(1, *grid.shape, dtype=torch.int16), grid)
    points = grid.points()
    assert Interpolant.of(whole, 1).values(points).dtype == torch.float32
    for dtype in (torch.float32, torch.float64):
        assert Interpolant.of(noise(grid, dtype=dtype), 3).values(points).dtype == dtype


def test_the_buffer_reaches_half_a_voxel_beyond_the_first_and_not_quite_beyond_the_last(grid):
    n = grid.dimension
    low, high = torch.full((1, n), -0.5).double(), torch.tensor([grid.size]).double() - 0.5
    inside = [low + 1e-6, high - 1e-6]
    outside = [low - 1e-6, high + 1e-6]
    interpolant = Interpolant.of(noise(grid), 1)
    assert all(bool(interpolant.inside(grid.index_to_world(i)).all()) for i in inside)
    assert not any(bool(interpolant.inside(grid.index_to_world(i)).any()) for i in outside)
    plain = Grid.of((4, 4))
    assert inside_buffer(plain, torch.tensor([[-0.5, 0.0], [3.5, 0.0]]).double()).tolist() == [True, False]


def test_points_held_inside_lie_between_the_outermost_voxels(grid):
    index = indices(grid, rim=3.0)
    found = grid.world_to_index(held_inside(grid, grid.index_to_world(index)))
    last = torch.tensor(grid.size).double() - 1
    torch.testing.assert_close(found, torch.minimum(index.clamp(min=0), last), rtol=0, atol=1e-9)


def test_the_linear_interpolator_takes_the_slope_at_the_last_voxel_from_inside():
    image = Image.of(torch.tensor([[0.0, 1.0, 4.0], [0.0, 1.0, 4.0]]))
    point = torch.tensor([[2.0, 0.0]]).double()
    linear = Interpolator.named("LinearInterpolator")
    spline = Interpolator.named("BSplineInterpolator")
    one_sided, mirrored = (kind(kind.Settings.read(ParameterMap.from_dict({}))).of(image) for kind in (linear, spline))
    slopes = [float(i.at(point).pull_back(torch.ones(1, 1))[0, 0]) for i in (one_sided, mirrored)]
    assert slopes == pytest.approx([3, -3])
    assert one_sided.values(point).item() == pytest.approx(4, abs=1e-5)


@pytest.mark.parametrize(
    ("name", "keys", "order"),
    [
        ("LinearInterpolator", {}, 1),
        ("NearestNeighborInterpolator", {}, 0),
        ("BSplineInterpolator", {}, 1),
        ("BSplineInterpolator", {"BSplineInterpolationOrder": 3}, 3),
        ("BSplineInterpolatorFloat", {"BSplineInterpolationOrder": 2}, 2),
    ],
)
def test_parameter_files_choose_interpolators_by_elastix_names(name, keys, order):
    kind = Interpolator.named(name)
    assert kind(kind.Settings.read(ParameterMap.from_dict(keys))).order == order


@pytest.mark.parametrize("order", [-1, 4, "cubic"])
def test_an_order_that_there_is_not_is_refused(order):
    with pytest.raises(ParameterError, match="BSplineInterpolationOrder"):
        Interpolator.named("BSplineInterpolator").Settings.read(
            ParameterMap.from_dict({"BSplineInterpolationOrder": order})
        )
