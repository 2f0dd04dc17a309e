"""Local correlation on a lattice."""

import pytest
import torch
from torch.nn import functional

from impactreg.components.dense.local_correlation import LocalCorrelation


def images(generator, *shape):
    fixed, moving = torch.randn(2, *shape, generator=generator, dtype=torch.float64)
    return fixed, moving + 0.5 * fixed


@pytest.mark.parametrize("shape", [(9, 8), (6, 7, 8)])
@pytest.mark.parametrize("radius", [1, 2, 3])
def test_boxes_are_sums_over_all_neighbours(shape, radius, generator):
    values = torch.randn(*shape, generator=generator, dtype=torch.float64)
    kernel = torch.ones(1, 1, *[2 * radius + 1] * len(shape), dtype=torch.float64)
    convolve = functional.conv2d if len(shape) == 2 else functional.conv3d
    expected = convolve(values[None, None], kernel, padding=radius)[0, 0]
    torch.testing.assert_close(LocalCorrelation(values, radius)._box(values), expected)


def test_an_image_correlates_with_any_local_line_of_itself(generator):
    fixed, _ = images(generator, 8, 9, 7)
    value, slope, _ = LocalCorrelation(fixed, 2)(-3 * fixed + 100, torch.ones_like(fixed))
    assert float(value) == pytest.approx(-1)
    assert float(slope.abs().max()) < 1e-9


@pytest.mark.parametrize("shape", [(9, 8), (6, 7, 8)])
def test_the_derivative_is_exact(shape, generator):
    fixed, moving = images(generator, *shape)
    weights = (torch.rand(*shape, generator=generator) > 0.2).double()
    correlation = LocalCorrelation(fixed, 2)
    slope = correlation(moving, weights)[1]
    direction = torch.randn(*shape, generator=generator, dtype=torch.float64)
    ahead, behind = (correlation(moving + step * direction, weights)[0] for step in (1e-6, -1e-6))
    assert float((slope * direction).sum()) == pytest.approx(float((ahead - behind) / 2e-6), rel=1e-6)


def test_flat_images_have_no_correlation_and_no_derivative():
    flat = torch.full((6, 6), 7.0, dtype=torch.float64)
    value, slope, _ = LocalCorrelation(torch.randn(6, 6, dtype=torch.float64), 1)(flat, torch.ones_like(flat))
    assert float(value) == 0
    assert not slope.any()
