"""B-splines: SimpleITK's coefficients, the edge of the grid, refinement, control grids, messages."""

import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813
import torch
from hypothesis import given
from hypothesis import strategies as st

from impactreg.components.interpolators import Interpolant
from impactreg.components.setup import Setup
from impactreg.components.transforms.bspline import BSplineTransform
from impactreg.components.transforms.control_grid import control_grid
from impactreg.components.transforms.linear import AffineTransform, TranslationTransform
from impactreg.components.transforms.transform import Combination
from impactreg.errors import ParameterError, TransformError
from impactreg.images import Grid, Image
from impactreg.parameters import ParameterMap

FIXED = Image.of(torch.zeros(10, 21, 31), (2, 1, 3), (5, -4, 7))
OBLIQUE = [[0.8, -0.6, 0], [0.48, 0.64, -0.6], [0.36, 0.48, 0.8]]


def settings(dimension=3, **keys):
    return BSplineTransform.Settings.read(ParameterMap.from_dict(keys, "map.txt"), dimension=dimension)


def at_level(level=0, levels=1, fixed=FIXED, before=None, **keys):
    return control_grid(settings(fixed.dimension, **keys), Setup(fixed, fixed, before=before, levels=levels), level)


def spline(grid, order, seed=0):
    generator = torch.Generator().manual_seed(seed)
    size = grid.number_of_voxels * grid.dimension
    return BSplineTransform(torch.randn(size, generator=generator, dtype=torch.float64), grid, order)


def simpleitk(transform):
    theirs = sitk.BSplineTransform(transform.dimension, transform.order)
    grid = transform.grid
    fixed = [*grid.size, *grid.origin, *grid.spacing, *np.array(grid.direction).reshape(-1)]
    theirs.SetFixedParameters(list(map(float, fixed)))
    theirs.SetParameters(transform.parameters.tolist())
    return theirs


@pytest.mark.parametrize("name", ["spline 1", "spline 2", "spline 3", "spline 3 2D"])
def test_coefficients_are_those_of_simpleitk(transforms, sample, name):
    ours, points = transforms[name], sample(transforms[name].dimension)
    theirs = simpleitk(ours)
    expected = torch.tensor([theirs.TransformPoint(p) for p in points.tolist()], dtype=torch.float64)
    torch.testing.assert_close(ours(points), expected, rtol=0, atol=1e-9)


@pytest.mark.parametrize("order", [1, 2, 3])
def test_points_stay_where_the_support_leaves_the_grid(order):
    grid = Grid.of((7, 6), (3, 4), (-5, 2))
    ones = BSplineTransform(torch.ones(84, dtype=torch.float64), grid, order)
    first = (order - 1) / 2
    for axis, size in enumerate(grid.size):
        index = torch.full((4, 2), 2.6, dtype=torch.float64)
        index[:, axis] = torch.tensor([first - 1e-6, first + 1e-6, size - 1 - first - 1e-6, size - 1 - first + 1e-6])
        points = grid.index_to_world(index)
        moved = (ones(points) - points)[:, 0].tolist()
        assert moved == pytest.approx([0, 1, 1, 0])
        gradient = ones.at(points).pull_back(torch.ones(4, 2).double())
        assert float(gradient.sum()) == pytest.approx(2 * 2)


@pytest.mark.parametrize("order", [1, 2, 3])
@given(slope=st.floats(-2, 2), offset=st.floats(-9, 9))
def test_a_grid_of_linear_coefficients_is_a_linear_displacement(order, slope, offset):
    grid = Grid.of((7, 6, 6), (3, 4, 2), (-5, 2, 1), OBLIQUE)
    wanted = slope * grid.points() + offset
    transform = BSplineTransform(wanted.T.flatten(), grid, order)
    points = grid.index_to_world(torch.tensor([[2.2, 2.7, 2.5], [3.1, 2.0, 2.9]], dtype=torch.float64))
    assert torch.allclose(transform(points), points + slope * points + offset, atol=1e-6)


@pytest.mark.parametrize("order", [1, 2, 3])
def test_all_points_outside_are_left_alone_and_pull_nothing_back(order):
    transform = spline(Grid.of((6, 6, 6), (3, 3, 3)), order)
    points = torch.full((5, 3), 1000.0, dtype=torch.float64)
    assert torch.equal(transform(points), points)
    assert not bool(transform.at(points).pull_back(points).any())


# Refinement.


def refined(order, levels=2, **keys):
    asked = settings(2, BSplineTransformSplineOrder=order, FinalGridSpacingInPhysicalUnits=4, **keys)
    fixed = Image.of(torch.zeros(64, 64))
    setup = Setup(fixed, fixed, levels=levels)
    coarse = spline(control_grid(asked, setup, 0), order)
    return coarse, coarse.at_level(1, asked, setup)


def inner_points():
    return 24 + 16 * torch.rand(200, 2, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


@pytest.mark.parametrize("order", [1, 3])
def test_refinement_to_a_nested_grid_keeps_the_transform(order):
    # odd orders: a spline is a spline on a grid of half the spacing whose points hold those of the coarse one
    grid, points = Grid.of((13, 13), (8, 8), (-16, -16)), inner_points()
    coarse = spline(grid, order)
    fine = nested(coarse, Grid.of((25, 25), (4, 4), (-16, -16)))
    torch.testing.assert_close(fine(points), coarse(points), rtol=0, atol=1e-3)


def test_refinement_to_a_nested_grid_keeps_a_quadratic_spline():
    # even orders: knots lie midway between the grid points, so the fine grid is shifted by a quarter of the spacing
    coarse, points = spline(Grid.of((13, 13), (8, 8), (-16, -16)), 2), inner_points()
    fine = nested(coarse, Grid.of((24, 24), (4, 4), (-14, -14)))
    torch.testing.assert_close(fine(points), coarse(points), rtol=0, atol=1e-3)


def nested(coarse, grid):
    """The transform as `at_level` refines it, to a grid of our choice."""
    from impactreg.components.transforms import bspline

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(bspline, "control_grid", lambda *_: grid)
        return coarse.at_level(1, settings(2), Setup(FIXED, FIXED))


def test_evaluating_a_linear_spline_as_a_cubic_one_would_change_the_transform():
    coarse, points = spline(Grid.of((13, 13), (8, 8), (-16, -16)), 1), inner_points()
    cubic = Interpolant(coarse._channels_last, coarse.grid, 3).values(points)
    assert float((points + cubic - coarse(points)).abs().mean()) > 0.1


@pytest.mark.parametrize("order", [1, 2, 3])
def test_refinement_along_the_schedule_keeps_a_smooth_transform(order):
    coarse, fine = refined(order)
    smooth = coarse.with_parameters((coarse.grid.points() / 20).sin().T.flatten() * 5)
    keys = {"BSplineTransformSplineOrder": order, "FinalGridSpacingInPhysicalUnits": 4}
    image = Image.of(torch.zeros(64, 64))
    kept = smooth.at_level(1, settings(2, **keys), Setup(image, image, levels=2))
    assert kept.grid == fine.grid
    points = inner_points()
    torch.testing.assert_close(kept(points), smooth(points), rtol=0, atol=0.05)


def test_at_the_same_grid_the_transform_is_the_same():
    asked, setup = settings(), Setup(FIXED, FIXED)
    start = BSplineTransform.begin(asked, setup)
    assert start.at_level(0, asked, setup) is start
    assert not bool(start.parameters.any())


# Control grids, by hand.


def test_the_grid_surrounds_the_image_evenly():
    grid = at_level(FinalGridSpacingInPhysicalUnits=[10, 7, 6])
    # x: ceil(31 * 2 / 10) + 3 = 10 points; y: 21 / 7 + 3 = 6; z: ceil(30 / 6) + 3 = 8
    assert grid.size == (10, 6, 8)
    assert grid.spacing == (10, 7, 6)
    # x: 90 mm of grid around 60 mm of voxel centres; y: 35 around 20; z: 42 around 27
    assert grid.origin == pytest.approx((5 - 15, -4 - 7.5, 7 - 7.5))
    assert grid.centre == pytest.approx(FIXED.grid.centre)


def test_the_spacing_may_be_in_voxels():
    assert at_level(FinalGridSpacingInVoxels=[5, 7, 2]) == at_level(FinalGridSpacingInPhysicalUnits=[10, 7, 6])
    assert at_level(FinalGridSpacingInVoxels=4).spacing == (8, 4, 12)


def test_the_spacing_is_8_mm_by_default():
    assert at_level().spacing == (8, 8, 8)


def test_each_resolution_halves_the_spacing():
    grids = [at_level(level, 3, FinalGridSpacingInPhysicalUnits=5) for level in range(3)]
    assert [g.spacing[0] for g in grids] == [20, 10, 5]
    assert [g.size[0] for g in grids] == [4 + 3, 7 + 3, 13 + 3]


@pytest.mark.parametrize(
    ("schedule", "expected"),
    [([3, 1.5], [(15, 15, 15), (7.5, 7.5, 7.5)]), ([4, 2, 1, 1, 1, 1], [(20, 10, 5), (5, 5, 5)])],
)
def test_a_schedule_sets_the_factor_of_each_resolution(schedule, expected):
    keys = {"FinalGridSpacingInPhysicalUnits": 5, "GridSpacingSchedule": schedule}
    assert [at_level(level, 2, **keys).spacing for level in range(2)] == expected


@pytest.mark.parametrize(("order", "extra"), [(1, 1), (2, 2), (3, 3)])
def test_the_order_adds_as_many_points(order, extra):
    grid = at_level(FinalGridSpacingInPhysicalUnits=10, BSplineTransformSplineOrder=order)
    assert grid.size[0] == 7 + extra


def test_the_grid_turns_with_the_image():
    fixed = Image(FIXED.data, Grid.of(FIXED.grid.size, FIXED.grid.spacing, FIXED.grid.origin, OBLIQUE))
    grid, plain = at_level(fixed=fixed), at_level()
    assert (grid.size, grid.spacing) == (plain.size, plain.spacing)
    assert grid.direction == fixed.grid.direction
    assert grid.centre == pytest.approx(fixed.grid.centre)


@pytest.mark.parametrize("order", [1, 2, 3])
def test_the_support_of_every_voxel_lies_on_the_grid(order):
    asked = settings(BSplineTransformSplineOrder=order, FinalGridSpacingInPhysicalUnits=6)
    start = BSplineTransform.begin(asked, Setup(FIXED, FIXED))
    ones = start.with_parameters(torch.ones_like(start.parameters))
    points = FIXED.grid.points()
    torch.testing.assert_close(ones(points), points + 1)


def test_after_an_initial_transform_the_grid_surrounds_where_the_image_goes():
    stretch = torch.tensor([2.0, 0, 0, 0, 1, 0, 0, 0, 1, 10, 20, 30], dtype=torch.float64)
    before = Combination(AffineTransform(stretch, torch.tensor(FIXED.grid.centre, dtype=torch.float64)))
    grid, plain = at_level(before=before), at_level()
    # twice the spacing along x, as many points, and the centre moves along
    assert grid.spacing == pytest.approx((16, 8, 8))
    assert grid.size == plain.size
    assert np.subtract(grid.centre, plain.centre) == pytest.approx([10, 20, 30])


def test_after_a_shift_the_grid_is_shifted():
    shift = Combination(TranslationTransform(torch.tensor([3.0, -4.0, 5.0]).double(), torch.zeros(3).double()))
    grid, plain = at_level(before=shift), at_level()
    assert (grid.size, grid.spacing) == (plain.size, pytest.approx(plain.spacing))
    assert np.subtract(grid.origin, plain.origin) == pytest.approx([3, -4, 5])


# Scales and messages.


def test_the_passive_edge_hardly_moves():
    transform = spline(Grid.of((5, 4)), 3)
    assert not bool((transform.default_scales(settings(2)) != 1).any())
    scales = transform.default_scales(settings(2, PassiveEdgeWidth=1)).reshape(2, 4, 5)
    assert scales[0].tolist() == [[1e4] * 5, [1e4, 1, 1, 1, 1e4], [1e4, 1, 1, 1, 1e4], [1e4] * 5]
    assert torch.equal(scales[0], scales[1])
    assert bool((transform.default_scales(settings(2, PassiveEdgeWidth=3)) == 1e4).all())


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"GridSpacingSchedule": [4, 2, 1]}, r"has 3 numbers, but 2 resolutions in 3D need 2 or 6"),
        ({"FinalGridSpacingInVoxels": 4, "FinalGridSpacingInPhysicalUnits": 8}, "are both given; keep one of them"),
        ({"FinalGridSpacingInPhysicalUnits": [8, 0, 8]}, "the grid spacing must be positive"),
        ({"FinalGridSpacingInVoxels": -4}, "the grid spacing must be positive"),
        ({"GridSpacingSchedule": [1, 0]}, "positive"),
        ({"GridSpacingSchedule": [-2, 1]}, "positive"),
        ({"UseCyclicTransform": True}, r'\(UseCyclicTransform "true"\): it is not in the PyTorch loop'),
        ({"BSplineTransformSplineOrder": 4}, "BSplineTransformSplineOrder"),
        ({"PassiveEdgeWidth": -1}, "PassiveEdgeWidth"),
    ],
)
def test_what_makes_no_grid_is_told_in_one_line(keys, message):
    with pytest.raises(ParameterError, match=message) as error:
        BSplineTransform.begin(settings(**keys), Setup(FIXED, FIXED, levels=2))
    assert "\n" not in str(error.value)


WRITTEN = {"TransformParameters": [0] * 32, "GridSize": [4, 4]}


def test_what_a_file_does_not_say_is_elastix_default():
    found = BSplineTransform.read(ParameterMap.from_dict(WRITTEN))
    assert found.grid == Grid.of((4, 4))
    assert found.order == 3


def test_a_grid_index_shifts_the_origin():
    found = BSplineTransform.read(
        ParameterMap.from_dict({**WRITTEN, "GridIndex": [1, -2], "GridSpacing": [3, 5], "GridOrigin": [10, 10]})
    )
    assert found.grid.origin == (13, 0)


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"TransformParameters": [0] * 31}, "31 TransformParameters are given where 32 are needed"),
        ({"UseCyclicTransform": True}, "cyclic B-splines"),
        ({"GridSize": [2, 8]}, r"order 3 needs more than 3 control points per axis"),
        ({"BSplineTransformSplineOrder": 5}, r"\(BSplineTransformSplineOrder 5\): 1, 2 or 3 is needed"),
    ],
)
def test_a_file_that_makes_no_spline_is_told_in_one_line(keys, message):
    with pytest.raises(TransformError, match=message) as error:
        BSplineTransform.read(ParameterMap.from_dict({**WRITTEN, **keys}, "t.txt"))
    assert "\n" not in str(error.value)
    assert "t.txt" in str(error.value)


def test_a_file_without_a_grid_is_told():
    with pytest.raises(TransformError, match=r"a transform needs \(GridSize \.\.\.\), which is missing"):
        BSplineTransform.read(ParameterMap.from_dict({"TransformParameters": [0] * 32}))
