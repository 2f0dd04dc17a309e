"""Regularisers of a displacement field."""

import pytest
import torch

from impactreg.components.dense.regularisers import REGULARISERS, bending_gradient, diffusion_gradient, energy


def test_diffusion_is_the_sum_of_mean_squared_slopes(generator):
    field, steps = torch.randn(3, 4, 5, 6, generator=generator, dtype=torch.float64), (3.0, 2.0, 1.5)
    expected = sum(field.diff(dim=axis + 1).square().mean() / step**2 for axis, step in enumerate(steps))
    assert float(energy(field, diffusion_gradient(field, steps))) == pytest.approx(float(expected))


def test_bending_of_a_parabola_is_its_second_derivative_squared():
    x = torch.arange(7, dtype=torch.float64) * 2.0
    field = torch.zeros(2, 5, 7, dtype=torch.float64)
    field[0] = 0.5 * x.square()
    assert float(energy(field, bending_gradient(field, (3.0, 2.0)))) == pytest.approx(0.5)


def test_bending_does_not_mind_any_affine_field():
    y, x = torch.meshgrid(torch.arange(5.0), torch.arange(6.0), indexing="ij")
    field = torch.stack([2 * x - y + 3, x + 0.5 * y]).double()
    assert float(bending_gradient(field, (1.0, 1.0)).abs().max()) < 1e-12


@pytest.mark.parametrize("name", sorted(REGULARISERS))
@pytest.mark.parametrize("shape", [(5, 6), (4, 5, 1), (4, 5, 6)])
def test_the_gradient_is_that_of_the_energy(name, shape, generator):
    steps = (1.5, 2.0, 2.5)[: len(shape)]
    field, direction = torch.randn(2, len(shape), *shape, generator=generator, dtype=torch.float64)

    def value(at):
        return float(energy(at, REGULARISERS[name](at, steps)))

    slope = float((REGULARISERS[name](field, steps) * direction).sum())
    assert slope == pytest.approx((value(field + 1e-4 * direction) - value(field - 1e-4 * direction)) / 2e-4, rel=1e-6)
