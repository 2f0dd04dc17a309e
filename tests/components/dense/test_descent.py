"""How the fine stage steps."""

import pytest
import torch

from impactreg.components.dense.descent import Adam, GaussNewton, conjugate_gradients
from impactreg.components.dense.problem import Evaluated


def found(gradient, curve=None, diagonal=None):
    return Evaluated(torch.zeros(()), torch.zeros(()), gradient, curve, diagonal)


def test_adam_steps_as_that_of_pytorch(generator):
    start = torch.randn(3, 4, 5, generator=generator, dtype=torch.float64)
    ours, theirs = start.clone(), start.clone().requires_grad_()
    adam, reference = Adam(0.3, 6), torch.optim.Adam([theirs], lr=0.3)
    for _ in range(6):
        gradient = torch.randn(start.shape, generator=generator, dtype=torch.float64)
        theirs.grad = gradient
        reference.step()
        assert adam.step(ours, found(gradient)) == 0.3
    torch.testing.assert_close(ours, theirs.detach())


def test_the_rate_falls_along_a_cosine_to_its_share():
    adam, parameters = Adam(2.0, 5, 0.1), torch.zeros(2, 2, 2)
    rates = [adam.step(parameters, found(torch.ones(2, 2, 2))) for _ in range(5)]
    assert rates == pytest.approx([2.0, 1.7364, 1.1, 0.4636, 0.2], abs=1e-3)


def quadratic(generator):
    """A positive matrix on fields of 2 x 3 x 4 numbers."""
    root = torch.randn(24, 24, generator=generator, dtype=torch.float64)
    matrix = root @ root.T + 24 * torch.eye(24)
    return matrix, lambda change: (matrix @ change.reshape(-1)).reshape(change.shape)


def test_conjugate_gradients_solve_as_many_equations_as_they_have_iterations(generator):
    matrix, product = quadratic(generator)
    right = torch.randn(2, 3, 4, generator=generator, dtype=torch.float64)
    diagonal = matrix.diagonal().reshape(right.shape)
    solution = conjugate_gradients(product, right, diagonal, 24)
    torch.testing.assert_close(product(solution), right)
    assert torch.equal(conjugate_gradients(product, 0 * right, diagonal, 3), 0 * right)


@pytest.mark.parametrize("longest", [100.0, 1e-3])
def test_gauss_newton_goes_to_the_minimum_but_no_further_than_allowed(longest, generator):
    matrix, product = quadratic(generator)
    best = torch.randn(2, 3, 4, generator=generator, dtype=torch.float64)
    parameters = torch.zeros_like(best)
    step = found(-product(best), product, matrix.diagonal().reshape(best.shape))
    assert GaussNewton(longest, 24).step(parameters, step) == 1.0
    if longest > 1:
        torch.testing.assert_close(parameters, best)
    else:
        torch.testing.assert_close(parameters.norm(dim=0), torch.full((3, 4), longest, dtype=torch.float64))
