"""The derivatives of a cubic B-spline at its own control points, found by filtering its coefficients, and back.

A filter of three taps along each axis gives the value, slope or curvature there; beyond the border of the grid the
outermost coefficients are repeated (`itk::TransformRigidityPenaltyTerm`).
"""

from collections.abc import Iterator, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

Orders = tuple[int, ...]
Derivatives = dict[Orders, Float[Tensor, "dim *grid"]]
"""Derivatives of every component of the displacement (mm per mm, or per mm^2) by the orders along x, y, z: (1, 0, 0)
is the slope along x."""

TAPS = ((1 / 6, 4 / 6, 1 / 6), (-0.5, 0.0, 0.5), (1.0, -2.0, 1.0))
"""The cubic B-spline and its derivatives at whole numbers of grid steps."""


def control_derivatives(
    coefficients: Float[Tensor, "dim *grid"], spacing: Sequence[float], highest: int
) -> Derivatives:
    """All derivatives along grid axes of orders 1 to `highest` (1 or 2), for a grid [z, y, x] of this spacing (mm)."""
    found: Derivatives = {(): coefficients}
    for axis, step in enumerate(spacing):
        found = {
            (*orders, order): _filtered(values, -1 - axis, _taps(order, step))
            for orders, values in found.items()
            for order in range(highest - sum(orders) + 1)
        }
    return {orders: values for orders, values in found.items() if sum(orders)}


def pulled_to_coefficients(gradients: Derivatives, spacing: Sequence[float]) -> Float[Tensor, "dim *grid"]:
    """The gradient to the coefficients, for gradients to some of the derivatives."""
    left = dict(gradients)
    for axis in reversed(range(len(spacing))):
        before: Derivatives = {}
        for orders, values in left.items():
            back = _filtered_back(values, -1 - axis, _taps(orders[axis], spacing[axis]))
            known = before.get(orders[:axis])
            before[orders[:axis]] = back if known is None else known + back
        left = before
    return left[()]


def _taps(order: int, step: float) -> tuple[float, ...]:
    return tuple(tap / step**order for tap in TAPS[order])


def _filtered(values: Tensor, axis: int, taps: Sequence[float]) -> Tensor:
    n = values.shape[axis]
    padded = torch.cat([values.narrow(axis, 0, 1), values, values.narrow(axis, n - 1, 1)], dim=axis)
    return _sum(tap * padded.narrow(axis, shift, n) for shift, tap in enumerate(taps) if tap)


def _filtered_back(values: Tensor, axis: int, taps: Sequence[float]) -> Tensor:
    """The transpose of `_filtered`: what fell on a repeated border goes to the outermost coefficient."""
    n = values.shape[axis]
    shape = list(values.shape)
    shape[axis] = n + 2
    padded = values.new_zeros(shape)
    for shift, tap in enumerate(taps):
        if tap:
            padded.narrow(axis, shift, n).add_(values, alpha=tap)
    inner = padded.narrow(axis, 1, n)
    inner.narrow(axis, 0, 1).add_(padded.narrow(axis, 0, 1))
    inner.narrow(axis, n - 1, 1).add_(padded.narrow(axis, n + 1, 1))
    return inner


def _sum(parts: Iterator[Tensor]) -> Tensor:
    total = next(parts)
    for part in parts:
        total = total + part
    return total
