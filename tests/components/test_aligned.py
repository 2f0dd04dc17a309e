"""Resampling along the axes equals interpolation voxel by voxel."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from impactreg.components.aligned import resample_aligned
from impactreg.components.interpolators import Interpolant
from impactreg.images import Grid, Image
from impactreg.models.features import sampling_grid

OBLIQUE = [[0.8, -0.6, 0], [0.48, 0.64, -0.6], [0.36, 0.48, 0.8]]
FLAT = Grid.of((9, 7), (1.5, 0.8), (3, -4), [[0.6, -0.8], [0.8, 0.6]])
SOLID = Grid.of((9, 7, 6), (1.5, 0.8, 2.2), (3, -4, 5), OBLIQUE)


def noise(grid, channels=1):
    generator = torch.Generator().manual_seed(0)
    return Image(torch.randn(channels, *grid.shape, generator=generator, dtype=torch.float64), grid)


def one_by_one(image, grid, order):
    values = Interpolant.of(image, order, margin=2).values(grid.points())
    return values.T.reshape(image.channels, *grid.shape)


@pytest.mark.parametrize("order", [0, 1, 2, 3])
@pytest.mark.parametrize("grid", [FLAT, SOLID])
@pytest.mark.parametrize("voxel", [0.73, 1.03, 1.9, 5.0])
def test_values_are_those_of_an_interpolant(grid, voxel, order):
    image = noise(grid, channels=2)
    wanted = sampling_grid(grid, (voxel,) * grid.dimension)
    found = resample_aligned(image, wanted, order)
    assert found.grid == wanted
    torch.testing.assert_close(found.data, one_by_one(image, wanted, order), rtol=0, atol=1e-9)


@given(voxel=st.tuples(*[st.floats(0.5, 4)] * 3), order=st.sampled_from([1, 2, 3]))
@settings(max_examples=25)
def test_any_voxel_size_gives_the_values_of_an_interpolant(voxel, order):
    image, wanted = noise(SOLID), sampling_grid(SOLID, voxel)
    found = resample_aligned(image, wanted, order).data
    torch.testing.assert_close(found, one_by_one(image, wanted, order), rtol=0, atol=1e-9)


@pytest.mark.parametrize("order", [0, 1, 2, 3])
def test_the_same_grid_gives_the_same_values(order):
    image = noise(SOLID)
    torch.testing.assert_close(resample_aligned(image, SOLID, order).data, image.data, rtol=0, atol=1e-9)


def test_an_axis_of_one_voxel_stays_what_it_is():
    image = noise(Grid.of((5, 1, 4), (1, 3, 1)))
    found = resample_aligned(image, sampling_grid(image.grid, (1, 1, 1)), 3)
    assert found.grid.size == (5, 3, 4)
    torch.testing.assert_close(found.data, image.data.expand(1, 4, 3, 5), rtol=0, atol=1e-9)


def test_whole_numbers_become_float32():
    image = Image.of(torch.arange(12, dtype=torch.int16).reshape(3, 4))
    assert resample_aligned(image, image.grid, 3).data.dtype == torch.float32
