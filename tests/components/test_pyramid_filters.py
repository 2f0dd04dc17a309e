"""Pyramid filters: against recursions written out voxel by voxel, closed forms, and the geometry of ITK's filters."""

import math

import numpy as np
import pytest
import torch

from impactreg.components.pyramid_filters import (
    ROWS_AT_ONCE,
    _deriche,
    along_axes,
    discrete_gaussian,
    discrete_gaussian_kernel,
    recursive_gaussian,
    resample,
    resampled_grid,
    shrink,
    shrunken_grid,
)
from impactreg.errors import ImageError
from impactreg.images.grid import Grid
from impactreg.images.image import Image

OBLIQUE = ((0.6, -0.8, 0.0), (0.8, 0.6, 0.0), (0.0, 0.0, 1.0))


def no_smoothing(_axis, _n):
    return None


def recursion(line, taps, poles):
    """Deriche's forward pass over a line whose first value has been there forever."""
    line = [line[0]] * 400 + list(line)
    out = [0.0] * len(line)
    for i in range(4, len(line)):
        out[i] = sum(taps[k] * line[i - k] for k in range(5)) - sum(poles[k] * out[i - k] for k in range(1, 5))
    return np.array(out[400:])


@pytest.mark.parametrize(("n", "sigma"), [(2, 1.0), (4, 0.5), (23, 2.3)])
def test_the_recursive_gaussian_is_its_two_recursions_run_over_the_line(n, sigma):
    line = np.random.default_rng(0).normal(size=n)
    forward, backward, poles = _deriche(sigma)
    expected = recursion(line, forward, poles) + recursion(line[::-1], backward, poles)[::-1]
    assert (recursive_gaussian(n, sigma) @ torch.tensor(line)).numpy() == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize("sigma", [1.0, 2.5, 6.0])
def test_the_recursive_gaussian_is_a_gaussian_within_half_a_percent(sigma):
    response = recursive_gaussian(101, sigma)[:, 50]
    x = torch.arange(101, dtype=torch.float64) - 50
    gaussian = torch.exp(-(x**2) / (2 * sigma**2)) / (sigma * math.sqrt(2 * math.pi))
    assert float((response - gaussian).abs().max()) < 5e-3 * float(gaussian.max())


@pytest.mark.parametrize("n", [1, 2, 3, 40])
def test_smoothing_keeps_a_constant_image(n):
    for matrix in (recursive_gaussian(n, 1.7), discrete_gaussian(n, 4.0)):
        assert matrix.sum(dim=1).numpy() == pytest.approx(np.ones(n), abs=1e-12)


@pytest.mark.parametrize("variance", [0.25, 1.0, 16.0, 64.0])
def test_the_discrete_kernel_is_cut_where_it_holds_nine_tenths(variance):
    kernel = discrete_gaussian_kernel(variance)
    full = discrete_gaussian_kernel(variance, maximum_error=1e-9, maximum_width=200)
    mass = full[0] + 2 * full[1:].cumsum(0)
    assert float(kernel[0] + 2 * kernel[1:].sum()) == pytest.approx(1, abs=1e-12)
    assert len(kernel) == 2 or float(mass[len(kernel) - 3]) < 0.9
    assert float(mass[len(kernel) - 2]) >= 0.9
    assert (kernel / kernel[0]).numpy() == pytest.approx((full[: len(kernel)] / full[0]).numpy(), rel=1e-9)


def test_the_discrete_kernel_has_the_variance_it_was_asked_for():
    kernel = discrete_gaussian_kernel(9.0, maximum_error=1e-12, maximum_width=100)
    assert float(2 * (kernel * torch.arange(len(kernel)) ** 2).sum()) == pytest.approx(9.0, rel=1e-6)


def test_without_variance_the_discrete_gaussian_changes_nothing():
    assert torch.equal(discrete_gaussian(5, 0.0), torch.eye(5, dtype=torch.float64))


def test_axes_are_multiplied_in_x_y_z_order_and_in_blocks():
    n = ROWS_AT_ONCE + 9
    data = torch.rand(2, 3, 4, n, dtype=torch.float64)
    x, z = torch.rand(n, n, dtype=torch.float64), torch.rand(5, 3, dtype=torch.float64)
    expected = torch.einsum("ax,bz,czyx->cbya", x, z, data)
    assert torch.allclose(along_axes(data, [x, None, z]), expected)


def test_results_have_the_type_of_the_data():
    data = torch.rand(1, 6, 7)
    assert along_axes(data, [recursive_gaussian(7, 1.0), recursive_gaussian(6, 1.0)]).dtype == torch.float32


def test_shrinking_keeps_the_centre_of_the_image():
    grid = Grid.of((27, 22, 19), (0.8, 1.1, 2.3), (-31.7, 12.3, 5.9), OBLIQUE)
    shrunken, _ = shrunken_grid(grid, (4, 3, 1))
    assert shrunken.size == (6, 7, 19)
    assert shrunken.centre == pytest.approx(grid.centre, abs=1e-9)


def test_shrinking_picks_the_voxels_next_to_the_centred_positions():
    image = Image.of(torch.arange(9.0).expand(4, 9))
    picked = shrink(image, (4, 3), no_smoothing)
    assert picked.scalar.tolist() == [[2.0, 6.0]]
    assert picked.grid.origin == (2.0, 1.5)


def test_a_first_voxel_between_two_is_the_upper_one():
    assert shrunken_grid(Grid.of((8, 6)), (2, 4))[1] == (1, 3)


def test_a_factor_beyond_the_size_leaves_the_middle_voxel():
    assert shrink(Image.of(torch.arange(5.0).expand(3, 5)), (9, 1), no_smoothing).scalar.tolist() == [[2.0]] * 3


def test_smoothing_before_shrinking_is_that_of_the_whole_line():
    image = Image.of(torch.rand(11, 10, dtype=torch.float64))
    smooth = [recursive_gaussian(10, 1.0), recursive_gaussian(11, 2.0)]
    whole = Image(along_axes(image.data, smooth), image.grid)
    at_once = shrink(image, (2, 3), lambda axis, _n: smooth[axis])
    assert torch.allclose(at_once.data, shrink(whole, (2, 3), no_smoothing).data)


def test_resampling_averages_around_the_centres_of_the_coarse_voxels():
    image = Image.of(torch.arange(7.0).expand(6, 7), (2.0, 1.0), (10.0, 0.0))
    coarse = resample(image, (2, 3), no_smoothing)
    assert coarse.scalar.tolist() == [[0.5, 2.5, 4.5]] * 2
    assert coarse.grid == Grid.of((3, 2), (4.0, 3.0), (11.0, 1.0))


def test_resampling_equals_interpolation_in_world_space():
    data = torch.rand(9, 8, 11, dtype=torch.float64)
    image = Image.of(data, (0.8, 1.1, 2.3), (-3.0, 2.0, 1.0), OBLIQUE)
    linear = image.with_data(image.grid.points()[:, 1].reshape(1, 9, 8, 11))
    coarse = resample(linear, (3, 2, 4), no_smoothing)
    assert coarse.data.reshape(-1).numpy() == pytest.approx(coarse.grid.points()[:, 1].numpy(), abs=1e-9)


def test_the_corner_of_the_first_voxel_stays_when_resampling():
    grid = Grid.of((9, 8, 7), (1.0, 2.0, 3.0), (5.0, 6.0, 7.0), OBLIQUE)
    corner = torch.full((1, 3), -0.5, dtype=torch.float64)
    coarse = resampled_grid(grid, (2, 3, 1))
    assert coarse.index_to_world(corner)[0].tolist() == pytest.approx(grid.index_to_world(corner)[0].tolist())


def test_a_factor_that_leaves_no_voxel_is_an_error():
    image = Image.of(torch.rand(3, 9))
    assert resample(image, (1, 5), no_smoothing).grid.size == (9, 1)
    with pytest.raises(ImageError, match=r"factor 6 along y leaves nothing of 3 voxels; .* can have 5 there at most"):
        resample(image, (1, 6), no_smoothing)
