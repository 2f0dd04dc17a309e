"""How the fine stage steps: Adam in place, or Gauss-Newton steps solved by conjugate gradients."""

import math
from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from jaxtyping import Float
from torch import Tensor

from impactreg.components.dense.problem import Evaluated

Field = Float[Tensor, "dim *space"]

DECAYS = (0.9, 0.999)
EPSILON = 1e-8
LEAST = 1e-12
"""Share of the largest entry below which a diagonal is not trusted."""


@dataclass(eq=False)
class Adam:
    """Steps of about `rate` along each parameter (Kingma and Ba, ICLR 2015), in place.

    The rate falls along a cosine to its share `final` at the last of `iterations`. `mean` and `square` are the moments
    of the gradient so far.
    """

    rate: float
    iterations: int
    final: float = 1.0
    done: int = 0
    mean: Tensor = field(default_factory=lambda: torch.zeros(0))
    square: Tensor = field(default_factory=lambda: torch.zeros(0))

    def step(self, parameters: Field, found: Evaluated) -> float:
        """Changes the parameters and returns the rate."""
        if self.mean.shape != parameters.shape:
            self.mean, self.square = torch.zeros_like(parameters), torch.zeros_like(parameters)
        self.done += 1
        gradient, (slow, slower) = found.gradient, DECAYS
        self.mean.lerp_(gradient, 1 - slow)
        self.square.mul_(slower).addcmul_(gradient, gradient, value=1 - slower)
        root = self.square.sqrt().div_((1 - slower**self.done) ** 0.5).add_(EPSILON)
        rate = self.rate * self._share()
        parameters.addcdiv_(self.mean, root, value=-rate / (1 - slow**self.done))
        return rate

    def _share(self) -> float:
        if self.iterations < 2 or self.final == 1:
            return 1.0
        turned = math.pi * min((self.done - 1) / (self.iterations - 1), 1.0)
        return self.final + (1 - self.final) * (1 + math.cos(turned)) / 2


@dataclass(eq=False)
class GaussNewton:
    """Steps to the minimum of the quadratic form that the problem is like, none longer than `longest`.

    The form is minimised by `solves` iterations of preconditioned conjugate gradients.
    """

    longest: float
    solves: int

    def step(self, parameters: Field, found: Evaluated) -> float:
        """Changes the parameters and returns 1, the share of the step that is taken where it is short."""
        if found.curve is None or found.diagonal is None:
            return 0.0
        change = conjugate_gradients(found.curve, -found.gradient, found.diagonal, self.solves)
        length = torch.linalg.vector_norm(change, dim=0, keepdim=True)
        change.mul_(self.longest / length.clamp_(min=self.longest))
        parameters.add_(change)
        return 1.0


def conjugate_gradients(matrix: Callable[[Field], Field], right: Field, diagonal: Field, iterations: int) -> Field:
    """An approximate solution of matrix x = right, for a positive matrix with about this diagonal."""
    scale = 1 / torch.maximum(diagonal, LEAST * diagonal.max())
    solution, residual = torch.zeros_like(right), right.clone()
    direction = scale * residual
    size = (residual * direction).sum()
    for _ in range(iterations):
        product = matrix(direction)
        along = size / (direction * product).sum().clamp(min=torch.finfo(size.dtype).tiny)
        solution += along * direction
        residual -= along * product
        preconditioned = scale * residual
        before, size = size, (residual * preconditioned).sum()
        direction = preconditioned + size / before.clamp(min=torch.finfo(size.dtype).tiny) * direction
    return solution
