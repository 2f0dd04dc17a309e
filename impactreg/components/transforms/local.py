"""Local: how a transform stretches and bends space around each point, and what that owes to its parameters.

The spatial Jacobian dT_k/dx_i and the spatial Hessian d2T_k/dx_i dx_j are found when they are asked for; their
derivatives to the parameters are never built, but gradients to them are pulled back.
"""

from abc import abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import torch
from jaxtyping import Float
from torch import Tensor

from impactreg.errors import TransformError

Jacobians = Float[Tensor, "points dim dim"]
Hessians = Float[Tensor, "points dim dim dim"]


class Local:
    """The spatial derivatives of a transform at points.

    `jacobian` [n, k, i] is dT_k/dx_i (no unit) and `hessian` [n, k, i, j] is d2T_k/dx_i dx_j (1/mm). `flat` says that
    the Hessian is zero everywhere, whatever the parameters are.
    """

    flat: bool = False

    @property
    @abstractmethod
    def jacobian(self) -> Jacobians:
        """dT_k/dx_i."""

    @property
    @abstractmethod
    def hessian(self) -> Hessians:
        """d2T_k/dx_i dx_j; raises `TransformError` where a transform does not know it."""

    @abstractmethod
    def pull_back(
        self, to_jacobian: Jacobians | None = None, to_hessian: Hessians | None = None
    ) -> Float[Tensor, " parameters"]:
        """The gradient to the parameters of something whose gradients to Jacobian and Hessian are given."""


@dataclass(frozen=True)
class LinearLocal(Local):
    """A matrix that is the same everywhere; `derivatives` are those of the matrix to the parameters at `positions`."""

    points: int
    matrix: Float[Tensor, "dim dim"]
    derivatives: Float[Tensor, "matrix_parameters dim dim"]
    positions: list[int]
    parameters: int

    flat = True

    @property
    def jacobian(self) -> Jacobians:
        """The matrix for each point."""
        return self.matrix.expand(self.points, -1, -1)

    @property
    def hessian(self) -> Hessians:
        """Zero."""
        return self.matrix.new_zeros(()).expand(self.points, *[len(self.matrix)] * 3)

    def pull_back(
        self, to_jacobian: Jacobians | None = None, to_hessian: Hessians | None = None
    ) -> Float[Tensor, " parameters"]:
        """The gradient through the matrix."""
        del to_hessian
        gradient = self.matrix.new_zeros(self.parameters)
        if to_jacobian is not None and self.positions:
            gradient[self.positions] = torch.einsum("mki,ki->m", self.derivatives, to_jacobian.sum(dim=0))
        return gradient


class DifferentiatedLocal(Local):
    """The spatial Jacobian of any transform that PyTorch can differentiate; there is no Hessian."""

    def __init__(
        self,
        transform: Callable[[Float[Tensor, "points dim"]], Float[Tensor, "points dim"]],
        points: Float[Tensor, "points dim"],
        name: str,
    ) -> None:
        self._transform = transform
        self._points = points
        self._name = name

    @cached_property
    def jacobian(self) -> Jacobians:
        """dT_k/dx_i by differentiation of the transform; the identity where it does not depend on the point."""
        with torch.enable_grad():
            there = self._points.detach().requires_grad_()
            moved = self._transform(there)
            rows = [torch.autograd.grad(part.sum(), there, retain_graph=True)[0] for part in moved.unbind(dim=1)]
        return torch.stack(rows, dim=1)

    @property
    def hessian(self) -> Hessians:
        """Not known: raises `TransformError`, as elastix does for deformation fields."""
        raise TransformError(
            f"second spatial derivatives of {self._name} are not known: penalties on bending need transforms that have "
            "them, such as B-splines or affine ones"
        )

    def pull_back(
        self, to_jacobian: Jacobians | None = None, to_hessian: Hessians | None = None
    ) -> Float[Tensor, " parameters"]:
        """Not known: raises `TransformError`."""
        raise TransformError(
            f"spatial derivatives of {self._name} cannot be differentiated to its parameters: penalties on them need "
            "another transform, such as a B-spline"
        )


@dataclass(frozen=True)
class CombinedLocal(Local):
    """Of a transform on top of the one before it; abstract."""

    current: Local
    before: Local

    @property
    def flat(self) -> bool:  # type: ignore[override]
        """Whether neither bends."""
        return self.current.flat and self.before.flat


class ComposedLocal(CombinedLocal):
    """current(before(x)): J = J1 J0 and H_k = J0' H1_k J0 + sum over p of J1_kp H0_p (the chain rule)."""

    @property
    def jacobian(self) -> Jacobians:
        """J1 J0."""
        return self.current.jacobian @ self.before.jacobian

    @cached_property
    def hessian(self) -> Hessians:
        """What the current transform bends, seen through the one before, and what the one before bends, passed on."""
        if self.current.flat:
            return self._passed_on
        seen = _sandwiched(self.current.hessian, self.before)
        return seen if self.before.flat else seen + self._passed_on

    @property
    def _passed_on(self) -> Hessians:
        return torch.einsum("nkp,npij->nkij", self.current.jacobian, self.before.hessian)

    def pull_back(
        self, to_jacobian: Jacobians | None = None, to_hessian: Hessians | None = None
    ) -> Float[Tensor, " parameters"]:
        """The gradient to the parameters of the current transform."""
        stretch = None if to_jacobian is None else to_jacobian @ self.before.jacobian.mT
        bend = None
        if to_hessian is not None and not self.before.flat:
            passed = torch.einsum("nkij,npij->nkp", to_hessian, self.before.hessian)
            stretch = passed if stretch is None else stretch + passed
        if to_hessian is not None and not self.current.flat:
            bend = _sandwiched(to_hessian, self.before, transposed=True)
        return self.current.pull_back(stretch, bend)


class AddedLocal(CombinedLocal):
    """current(x) + before(x) - x: J = J1 + J0 - I and H = H1 + H0."""

    @property
    def jacobian(self) -> Jacobians:
        """J1 + J0 - I."""
        jacobian = self.current.jacobian
        return jacobian + self.before.jacobian - torch.eye(jacobian.shape[1]).to(jacobian)

    @property
    def hessian(self) -> Hessians:
        """H1 + H0."""
        return self.current.hessian if self.before.flat else self.current.hessian + self.before.hessian

    def pull_back(
        self, to_jacobian: Jacobians | None = None, to_hessian: Hessians | None = None
    ) -> Float[Tensor, " parameters"]:
        """The gradient to the parameters of the current transform."""
        return self.current.pull_back(to_jacobian, to_hessian)


def _sandwiched(hessian: Hessians, through: Local, *, transposed: bool = False) -> Hessians:
    """J' H_k J for each k, or J H_k J' when `transposed`, with the Jacobian J of `through`."""
    points, dimension = hessian.shape[:2]
    if isinstance(through, LinearLocal):
        # one matrix for all points: one product instead of very many small ones
        matrix = through.matrix.T if transposed else through.matrix
        flat = hessian.reshape(points * dimension, -1) @ torch.kron(matrix, matrix)
        return flat.reshape(hessian.shape)
    jacobian = through.jacobian.mT if transposed else through.jacobian
    return jacobian.mT[:, None] @ hessian @ jacobian[:, None]
