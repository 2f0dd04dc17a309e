"""B-splines: partition of unity, polynomials, derivatives, and the prefilter of SciPy."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import ndimage
from scipy.interpolate import BSpline

from impactreg.components import splines

ORDERS = [0, 1, 2, 3]
INDEX = st.lists(st.floats(-50, 50), min_size=1, max_size=20).map(lambda v: torch.tensor(v, dtype=torch.float64))


def taps(order, start):
    return start[..., None] + torch.arange(order + 1)


@pytest.mark.parametrize("order", ORDERS)
@given(index=INDEX)
def test_weights_sum_to_one_and_are_never_negative(order, index):
    _, weights = splines.weights(order, index)
    assert torch.allclose(weights.sum(-1), torch.ones_like(index))
    assert float(weights.min()) >= -1e-12


@pytest.mark.parametrize("order", ORDERS)
@given(index=INDEX)
def test_the_support_holds_the_index(order, index):
    start = splines.support_start(order, index)
    reach = (order + 1) / 2
    assert bool((taps(order, start) - index[:, None]).abs().max() <= reach + 1e-9)


@pytest.mark.parametrize("order", [1, 2, 3])
@given(index=INDEX)
def test_a_line_is_reproduced(order, index):
    start, weights = splines.weights(order, index)
    assert torch.allclose((weights * taps(order, start)).sum(-1), index, atol=1e-9)


@pytest.mark.parametrize("order", [2, 3])
@given(index=INDEX)
def test_a_parabola_is_reproduced_but_for_the_variance_of_the_spline(order, index):
    start, weights = splines.weights(order, index)
    variance = (order + 1) / 12
    assert torch.allclose((weights * taps(order, start) ** 2).sum(-1), index**2 + variance, atol=1e-8)


@pytest.mark.parametrize("order", ORDERS)
def test_weights_are_those_of_scipys_basis(order):
    index = torch.linspace(-1.73, 2.91, 57, dtype=torch.float64)
    start, weights = splines.weights(order, index)
    basis = BSpline.basis_element(np.arange(order + 2) - (order + 1) / 2, extrapolate=False)
    distance = (index[:, None] - taps(order, start)).numpy()
    np.testing.assert_allclose(weights.numpy(), np.nan_to_num(basis(distance)), atol=1e-12)


@pytest.mark.parametrize("order", [1, 2, 3])
@given(index=INDEX)
def test_derivatives_are_those_of_the_weights(order, index):
    index = index + 0.1234
    step = 1e-5
    start, weights, slopes = splines.weights_and_derivatives(order, index)
    (above_start, above), (below_start, below) = (splines.weights(order, index + s) for s in (step, -step))
    same = (above_start == start) & (below_start == start)
    assert torch.allclose(slopes[same], ((above - below) / (2 * step))[same], atol=1e-6)
    assert torch.equal(splines.weights(order, index)[1], weights)


def test_the_nearest_neighbour_has_no_slope():
    assert not bool(splines.weights_and_derivatives(0, torch.rand(5).double())[2].any())


@pytest.mark.parametrize("shape", [(9,), (7, 8), (6, 1, 7), (2, 3, 70)])
@pytest.mark.parametrize("order", [2, 3])
def test_coefficients_are_those_of_scipy_and_simpleitk_mirrored(order, shape):
    samples = torch.randn(*shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    found = splines.coefficients(samples[..., None], order)[..., 0]
    # SciPy filters an axis of one sample as well, which ITK leaves alone
    expected = ndimage.spline_filter(samples.numpy().squeeze(), order, mode="mirror").reshape(shape)
    np.testing.assert_allclose(found.numpy(), expected, atol=1e-9)


@pytest.mark.parametrize("order", [0, 1])
def test_samples_are_the_coefficients_of_low_orders(order):
    samples = torch.rand(4, 5, 2)
    assert splines.coefficients(samples, order) is samples


@pytest.mark.parametrize("order", [2, 3])
def test_coefficients_interpolate_the_samples_of_every_channel(order):
    samples = torch.randn(12, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    coefficients = splines.coefficients(samples, order)
    side = {2: 1 / 8, 3: 1 / 6}[order]
    padded = torch.cat([coefficients[1:2], coefficients, coefficients[-2:-1]])
    rebuilt = side * (padded[:-2] + padded[2:]) + (1 - 2 * side) * padded[1:-1]
    torch.testing.assert_close(rebuilt, samples)


def test_filtering_in_slabs_changes_nothing(monkeypatch):
    samples = torch.randn(7, 9, 11, 2, generator=torch.Generator().manual_seed(0))
    whole = splines.coefficients(samples, 3)
    monkeypatch.setattr(splines, "SLAB", 2)
    torch.testing.assert_close(splines.coefficients(samples, 3), whole)


def test_filtering_leaves_its_input_alone():
    samples = torch.rand(5, 6, 1)
    before = samples.clone()
    splines.coefficients(samples, 3)
    assert torch.equal(samples, before)


@pytest.mark.parametrize("kind", [torch.int32, torch.int64])
@pytest.mark.parametrize("shape", [(5, 7), (4, 5, 7)])
def test_raster_indices_run_fastest_over_x(shape, kind):
    generator = torch.Generator().manual_seed(0)
    values = torch.randn(*shape, 2, generator=generator)
    start = torch.stack([torch.randint(0, n - 2, (9,), generator=generator) for n in reversed(shape)], dim=1)
    indices = splines.flat_indices(start.to(kind), 3, shape)
    assert indices.dtype == kind
    taken = values.reshape(-1, 2)[indices]
    for number, first in enumerate(start.flip(1).tolist()):
        block = values[tuple(slice(n, n + 3) for n in first)]
        torch.testing.assert_close(taken[number], block.reshape(-1, 2))


def test_weights_of_all_taps_run_fastest_over_x():
    x, y = 0.25, 0.5
    weights = splines.products(1, torch.tensor([[x, y]], dtype=torch.float64))
    assert weights.tolist() == [[[(1 - x) * (1 - y), x * (1 - y), (1 - x) * y, x * y]]]


@pytest.mark.parametrize("dimension", [2, 3])
def test_slopes_of_all_taps_are_differences_of_their_weights(dimension):
    step, offset = 1e-6, torch.rand(5, dimension, dtype=torch.float64) + 1
    found = splines.products(3, offset, slopes=True)
    assert torch.equal(found[:, :1], splines.products(3, offset))
    for axis in range(dimension):
        moved = step * torch.eye(dimension, dtype=torch.float64)[axis]
        above, below = (splines.products(3, offset + sign * moved)[:, 0] for sign in (1, -1))
        torch.testing.assert_close(found[:, 1 + axis], (above - below) / (2 * step), rtol=0, atol=1e-8)
