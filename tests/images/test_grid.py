"""Grid: index to world and back, and when two grids are the same."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from impactreg.errors import ImageError
from impactreg.images.grid import Grid


@st.composite
def grids(draw: st.DrawFn) -> Grid:
    dimension = draw(st.sampled_from([2, 3]))
    size = draw(st.lists(st.integers(1, 40), min_size=dimension, max_size=dimension))
    spacing = draw(st.lists(st.floats(0.1, 10), min_size=dimension, max_size=dimension))
    origin = draw(st.lists(st.floats(-500, 500), min_size=dimension, max_size=dimension))
    generator = np.random.default_rng(draw(st.integers(0, 1000)))
    direction = np.linalg.qr(generator.normal(size=(dimension, dimension)))[0]
    return Grid.of(size, spacing, origin, direction)


@given(grids(), st.integers(0, 1000))
def test_world_to_index_undoes_index_to_world(grid: Grid, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    index = torch.rand(20, grid.dimension, generator=generator, dtype=torch.float64) * 100 - 20
    torch.testing.assert_close(grid.world_to_index(grid.index_to_world(index)), index, rtol=1e-9, atol=1e-8)


@given(grids())
def test_the_origin_is_index_zero_and_the_centre_lies_between_the_corners(grid: Grid) -> None:
    zero = torch.zeros(1, grid.dimension, dtype=torch.float64)
    np.testing.assert_allclose(grid.index_to_world(zero)[0], grid.origin, atol=1e-9)
    np.testing.assert_allclose(grid.corners().mean(dim=0), grid.centre, atol=1e-6)


@given(grids())
def test_a_grid_is_the_same_as_itself_and_not_as_its_neighbours(grid: Grid) -> None:
    step = min(grid.spacing)
    nearly = [o + 1e-6 * step for o in grid.origin]
    moved = [o + 0.01 * step for o in grid.origin]
    assert grid.same_as(Grid.of(grid.size, grid.spacing, nearly, grid.direction))
    assert not grid.same_as(Grid.of(grid.size, grid.spacing, moved, grid.direction))
    assert not grid.same_as(Grid.of([n + 1 for n in grid.size], grid.spacing, grid.origin, grid.direction))


def test_points_run_through_x_fastest() -> None:
    grid = Grid.of([3, 2], [1.0, 10.0], [5.0, 7.0])
    assert grid.points().tolist() == [[5, 7], [6, 7], [7, 7], [5, 17], [6, 17], [7, 17]]


@pytest.mark.parametrize(
    ("size", "spacing", "direction"),
    [
        ([0, 2], [1.0, 1.0], None),
        ([2, 2], [1.0, -1.0], None),
        ([2, 2], [1.0, float("nan")], None),
        ([2, 2], [1.0, 1.0], [[1.0, 1.0], [1.0, 1.0]]),
        ([2, 2], [1.0, 1.0, 1.0], None),
    ],
)
def test_impossible_geometry_is_an_image_error(size: list[int], spacing: list[float], direction: object) -> None:
    with pytest.raises(ImageError):
        Grid.of(size, spacing, None, direction)  # type: ignore[arg-type]
