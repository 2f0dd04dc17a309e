"""Resampling between grids with the same axes."""

import pytest
import torch

from impactreg.components.aligned import resample_aligned
from impactreg.errors import ImageError
from impactreg.images import Grid, Image
from impactreg.images.storage import Storage
from impactreg.models.features import sampling_grid
from impactreg.models.regridding import Regridding


def image(*size: int) -> Image:
    values = torch.rand((2, *size[::-1]), generator=torch.Generator().manual_seed(0))
    return Image(values, Grid.of(size, (1.0, 2.0, 1.5)[: len(size)], (3.0, 4.0, 5.0)[: len(size)]))


@pytest.mark.parametrize("size", [(20, 30, 25), (1, 7, 3), (40, 2, 5), (9, 12)])
@pytest.mark.parametrize("voxel", [(0.7, 2.0, 3.1), (1.0, 2.0, 1.0)])
def test_cubic_resampling_is_that_of_the_metric(size, voxel):
    given = image(*size)
    grid = sampling_grid(given.grid, voxel[: len(size)])
    found = Regridding(given, grid, 3).all(Storage())
    torch.testing.assert_close(found.data, resample_aligned(given, grid, 3).data, rtol=0, atol=1e-6)


def test_linear_resampling_follows_a_ramp_and_continues_the_border():
    ramp = Image(torch.arange(5.0).expand(1, 4, 3, 5), Grid.of((5, 3, 4)))
    grid = Grid.of((6, 3, 4), (1.0, 1.0, 1.0), (-0.5, 0.0, 0.0))
    found = Regridding(ramp, grid, 1).all(Storage())
    assert found.data[0, 0, 0].tolist() == [0.0, 0.5, 1.5, 2.5, 3.5, 4.0]


def test_the_same_grid_gives_the_same_image():
    given = image(5, 6, 7)
    assert Regridding(given, given.grid, 3).all(Storage()) is given


def test_other_axes_are_refused():
    turned = Grid.of((5, 6, 7), direction=[[0.0, 1.0, 0.0], [1.0, 0.0, 0.0], [0.0, 0.0, 1.0]])
    with pytest.raises(ImageError, match="only resampled onto a grid with the same axes"):
        Regridding(image(5, 6, 7), turned, 1)
