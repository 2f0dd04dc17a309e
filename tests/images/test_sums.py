"""Sums that do not depend on the number of threads."""

import pytest
import torch

from impactreg.images import sums

LENGTHS = [0, 1, 255, 256, 4096, 5000, 200_000]


@pytest.fixture
def threads():
    """Sets the number of threads, and puts it back."""
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


@pytest.mark.parametrize("length", LENGTHS)
def test_a_total_is_the_sum(length, generator):
    values = torch.rand(length, generator=generator, dtype=torch.float64)
    torch.testing.assert_close(sums.total(values), values.sum())
    torch.testing.assert_close(sums.dot(values, values), values @ values)


def test_mean_and_deviation_are_those_of_pytorch(generator):
    values = torch.randn(70, 90, generator=generator, dtype=torch.float64)
    torch.testing.assert_close(sums.mean(values), values.mean())
    torch.testing.assert_close(sums.deviation(values), values.std())
    torch.testing.assert_close(sums.deviation(values, correction=0), values.std(correction=0))


@pytest.mark.parametrize("rows", LENGTHS[1:])
@pytest.mark.parametrize("columns", [(1, 6), (6, 1), (5, 3)])
def test_an_inner_product_is_that_of_matrices(rows, columns, generator):
    one, other = (torch.randn(rows, n, generator=generator, dtype=torch.float64) for n in columns)
    torch.testing.assert_close(sums.inner(one, other), one.T @ other)


def test_sums_are_the_same_bit_by_bit_on_one_thread_and_on_several(threads, generator):
    values = torch.randn(200_000, generator=generator, dtype=torch.float64)
    rows = torch.randn(30_000, 12, generator=generator, dtype=torch.float64)
    found = []
    for number in (1, 2, 3, 4):
        threads(number)
        pairs = [sums.total(values), sums.mean(values), sums.deviation(values), sums.dot(values, values.flip(0))]
        few = rows[:1000]
        found.append([*pairs, sums.inner(rows, rows), sums.inner(rows, rows[:, :1]), sums.inner(few[:, :1], few)])
    for others in found[1:]:
        assert all(torch.equal(a, b) for a, b in zip(found[0], others, strict=True))
