"""Points under a B-spline: their Jacobian to the coefficients, and their spatial derivatives."""

import math
from functools import cached_property

import torch
from jaxtyping import Float
from torch import Tensor

from impactreg.components.transforms.local import Hessians, Jacobians, Local
from impactreg.components.transforms.moments import BandedMoment, banded_second_moment
from impactreg.components.transforms.spline_support import DERIVATIVES_AT_ONCE, WEIGHTS_AT_ONCE, Support
from impactreg.components.transforms.transform import Mapped, Parameters, Points, SecondMoment


class BSplineMapped(Mapped):
    """Points under a spline: the weights of the control points around each of them, the same for every dimension."""

    def __init__(self, points: Points, support: Support) -> None:
        self.points = points
        self._support = support

    def pull_back(self, gradient: Points) -> Parameters:
        """The sum of J' gradient over all points."""
        total = gradient.new_zeros(gradient.shape[1], self._support.grid.number_of_voxels)
        for piece, gradients in zip(
            self._support.pieces(WEIGHTS_AT_ONCE), gradient.split(WEIGHTS_AT_ONCE), strict=True
        ):
            for k, along in enumerate(gradients.unbind(dim=1)):
                piece.spread(piece.weights * along[:, None], total[k])
        return total.reshape(-1)

    def push_forward(self, direction: Parameters) -> Points:
        """J direction at every point."""
        return self._support.values(self._channels_last(direction))

    def gram(self, scales: Parameters) -> Float[Tensor, "points dim dim"]:
        """J diag(1 / scales) J' at every point: diagonal."""
        across, along = self._support.across(0)[:, 0].square(), self._support.along(0).square()
        return torch.diag_embed(self._support.sums(self._channels_last(1 / scales), across, along))

    def second_moment(self, scales: Parameters) -> SecondMoment:
        """The second moment of J diag(scales)^-1/2 over all points, kept as a band."""
        weights, index, shape = self._support.weights, self._support.index, self._support.grid.shape
        per_dimension = (1 / scales.sqrt()).reshape(len(shape), -1)
        moments: list[BandedMoment] = []
        for factor in per_dimension:
            if moments and torch.equal(factor, per_dimension[0]):
                moments.append(moments[0])
            else:
                moments.append(banded_second_moment(weights * factor[index], index, shape))
        return SecondMoment(
            sum(m.trace for m in moments),
            math.sqrt(sum(m.frobenius**2 for m in moments)),
            torch.diag_embed(torch.stack([m.sandwich for m in moments], dim=1)),
        )

    def squared_columns(self) -> Parameters:
        """The sum over points of the squared derivatives to each parameter."""
        weights = self._support.weights
        total = weights.new_zeros(self._support.grid.number_of_voxels)
        return self._support.spread(weights.square(), total).repeat(self._support.grid.dimension)

    def _channels_last(self, parameters: Parameters) -> Parameters:
        return parameters.reshape(self._support.grid.dimension, -1).T.reshape(-1)


class BSplineLocal(Local):
    """The spatial derivatives of a spline: the identity and zero where its support leaves the grid
    (`itk::AdvancedBSplineDeformableTransform`).

    The Hessian of a spline of order 1 holds the mixed derivatives alone. `coefficients` are channels-last.
    """

    def __init__(self, support: Support, coefficients: Float[Tensor, " numbers"]) -> None:
        self._support = support
        self._coefficients = coefficients
        self._dimension = support.grid.dimension

    @cached_property
    def jacobian(self) -> Jacobians:
        """I + the slopes of the displacement."""
        slopes = self._derivatives(1).reshape(-1, self._dimension, self._dimension)
        return slopes + torch.eye(self._dimension).to(slopes)

    @cached_property
    def hessian(self) -> Hessians:
        """The second derivatives of the displacement."""
        return self._derivatives(2).reshape(-1, *[self._dimension] * 3)

    def pull_back(self, to_jacobian: Jacobians | None = None, to_hessian: Hessians | None = None) -> Parameters:
        """The gradient to the coefficients: both are pulled to the taps of each point first, and spread once."""
        rows = {1: to_jacobian, 2: to_hessian}
        given = {order: g.reshape(len(g), -1).split(DERIVATIVES_AT_ONCE) for order, g in rows.items() if g is not None}
        total = self._coefficients.new_zeros(self._dimension, self._support.grid.number_of_voxels)
        for i, piece in enumerate(self._support.pieces(DERIVATIVES_AT_ONCE) if given else []):
            pulled = [piece.pulled(pieces[i], order) for order, pieces in given.items()]
            for k, taps in enumerate(sum(pulled[1:], pulled[0]).unbind(dim=2)):
                piece.spread(taps, total[k])
        return total.reshape(-1)

    def _derivatives(self, order: int) -> Float[Tensor, "points derivatives"]:
        return torch.cat(
            [piece.derivatives(self._coefficients, order) for piece in self._support.pieces(DERIVATIVES_AT_ONCE)]
        )
