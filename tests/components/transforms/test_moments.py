"""The banded second moment against the whole matrix."""

import pytest
import torch

from impactreg.components import splines
from impactreg.components.transforms.moments import banded_second_moment


@pytest.mark.parametrize(("order", "shape"), [(1, (4, 5)), (2, (5, 6)), (3, (6, 7)), (1, (3, 4, 5)), (3, (5, 5, 6))])
def test_it_is_that_of_the_whole_matrix(order, shape):
    generator, dimension = torch.Generator().manual_seed(0), len(shape)
    first = (order - 1) / 2
    size = torch.tensor(shape[::-1], dtype=torch.float64)
    index = torch.rand(20, dimension, generator=generator, dtype=torch.float64) * (size - 1 - 2 * first) + first
    start = splines.support_start(order, index)
    product = splines.products(order, index - start)[:, 0]
    taps = splines.flat_indices(start.long(), order + 1, shape)
    found = banded_second_moment(product, taps, shape)
    rows = torch.zeros(20, int(size.prod()), dtype=torch.float64).scatter_(1, taps, product)
    whole = rows.T @ rows / 20
    assert found.trace == pytest.approx(float(whole.trace()))
    assert found.frobenius == pytest.approx(float(whole.norm()))
    torch.testing.assert_close(found.sandwich, ((rows @ whole) * rows).sum(1))


def test_points_without_weights_count_for_nothing_but_the_mean():
    weights = torch.tensor([[0.5, 0.5], [0.0, 0.0]], dtype=torch.float64)
    found = banded_second_moment(weights, torch.tensor([[1, 2], [0, 1]]), (4,))
    assert found.trace == pytest.approx(0.25)
    assert found.sandwich.tolist() == pytest.approx([0.125, 0])
