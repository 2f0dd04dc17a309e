"""The fine registration of one resolution as a function of the control points: its value, derivative and curvature."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor

from impactreg.components.dense.comparison import Comparison
from impactreg.components.dense.expansion import Expansion, smoothed
from impactreg.components.dense.motions import Displacement, Flow, Moved
from impactreg.components.dense.regularisers import REGULARISERS, energy

Field = Float[Tensor, "dim *space"]
Product = Callable[[Field], Field]


@dataclass(frozen=True, eq=False)
class Term:
    """A comparison on a lattice, and the way there from the nodes of the motion; `backward` ones see the inverse."""

    comparison: Comparison
    expansion: Expansion
    shape: tuple[int, ...]
    backward: bool = False


@dataclass(frozen=True, eq=False)
class Evaluated:
    """The distance, the weighted regularization, and the derivative of their sum to the control points.

    `curve` multiplies a change of the control points by a positive approximation of the second derivative, and
    `diagonal` is about the diagonal of that; both are there only where they were asked for.
    """

    distance: Float[Tensor, ""]
    regularization: Float[Tensor, ""]
    gradient: Field
    curve: Product | None = None
    diagonal: Field | None = None

    @property
    def value(self) -> Float[Tensor, ""]:
        """What is minimised."""
        return self.distance + self.regularization


@dataclass(frozen=True, eq=False)
class Problem:
    """Terms under a motion, with a regularization of its control points.

    `steps` (z, y, x) are the distances of the control points in the unit of the parameters. `reference` are the
    parameters for which the moving features of the terms were taken from the warped image, None for the features of
    the image itself.
    """

    motion: Displacement | Flow
    terms: Sequence[Term]
    steps: tuple[float, ...]
    regularization: str
    weight: float
    reference: Field | None = None

    def at(self, parameters: Field, *, curved: bool = False) -> Evaluated:
        """The value and the derivative at some parameters [dim, *control points]."""
        moved = self.motion.of(parameters if self.reference is None else parameters - self.reference)
        distance, forward, backward, curvatures = self._terms(moved, curved)
        shown = smoothed(parameters, self.motion.passes)
        pull = self._regularized(shown)
        gradient = moved.pull_back(forward, backward) + smoothed(pull, self.motion.passes)
        found = Evaluated(distance, energy(shown, pull), gradient)
        return self._curved(found, curvatures) if curved else found

    def scales(self, parameters: Field) -> tuple[float, ...]:
        """What each term is multiplied by to be its weight at some parameters; 1 for one that is not positive."""
        nodes = self.motion.of(parameters if self.reference is None else parameters - self.reference)
        found = []
        for term in self.terms:
            moved = nodes.backward if term.backward else nodes.forward
            value = 0.0 if moved is None else float(term.comparison.at(term.expansion(moved)).value)
            found.append(term.comparison.weight / value if value * term.comparison.weight > 0 else 1.0)
        return tuple(found)

    def scaled(self, scales: Sequence[float]) -> "Problem":
        """The problem with every term multiplied by a number."""
        pairs = [
            (term, replace(term.comparison, weight=term.comparison.weight * s))
            for term, s in zip(self.terms, scales, strict=True)
        ]
        return replace(self, terms=[replace(term, comparison=comparison) for term, comparison in pairs])

    def _regularized(self, shown: Field) -> Field:
        return REGULARISERS[self.regularization](shown, self.steps) * self.weight

    def _terms(self, moved: Moved, curved: bool) -> tuple[Tensor, Field, Field | None, list[Tensor]]:
        distance = moved.forward.new_zeros(())
        forward = torch.zeros_like(moved.forward)
        backward = None if moved.backward is None else torch.zeros_like(moved.backward)
        curvatures = []
        for term in self.terms:
            nodes, gradient = (moved.backward, backward) if term.backward else (moved.forward, forward)
            if nodes is None or gradient is None:
                continue
            found = term.comparison.at(term.expansion(nodes), curved=curved)
            distance = distance + found.value
            gradient += term.expansion.adjoint(found.gradient.reshape(len(nodes), *term.shape))
            if found.curvature is not None:
                curvatures.append(found.curvature)
        return distance, forward, backward, curvatures

    def _curved(self, found: Evaluated, curvatures: list[Tensor]) -> Evaluated:
        """With products that go through the lattices of all terms."""
        passes = self.motion.passes

        def curve(change: Field) -> Field:
            nodes = smoothed(change, passes)
            result = self._regularized(nodes)
            for term, bend in zip(self.terms, curvatures, strict=True):
                flat = term.expansion(nodes).reshape(len(nodes), -1)
                pushed = torch.stack([(row * flat).sum(dim=0) for row in bend])
                result = result + term.expansion.adjoint(pushed.reshape(len(nodes), *term.shape))
            return smoothed(result, passes)

        return Evaluated(found.distance, found.regularization, found.gradient, curve, self._diagonal(found, curvatures))

    def _diagonal(self, found: Evaluated, curvatures: list[Tensor]) -> Field:
        """That of the terms, with squared weights, and about that of the regularization; smoothing is left out."""
        like = found.gradient
        # the pull of a chequered field is the largest there is, twice the diagonal where differences are of one order
        rough = _chequered(like)
        total = (self._regularized(rough) * rough / 2).mean() * torch.ones_like(like)
        for term, bend in zip(self.terms, curvatures, strict=True):
            along = torch.stack([bend[i, i] for i in range(len(like))]).reshape(len(like), *term.shape)
            total = total + term.expansion.squared().adjoint(along)
        return total


def _chequered(like: Field) -> Field:
    """1 and -1 in turn along every axis."""
    result = torch.ones_like(like)
    for axis in range(1, like.ndim):
        result[(slice(None),) * axis + (slice(1, None, 2),)] *= -1
    return result
