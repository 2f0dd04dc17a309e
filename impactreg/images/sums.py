"""Sums over many points or voxels that come out alike, bit by bit, whatever the number of threads.

PyTorch and MKL split long sums among threads, and where they split them decides how they round. Here pieces of a fixed
length are summed first, each by one thread, and their sums in their order. Sums over one of several axes, such as
`sum(dim=1)`, are never split along it and need none of this; nor does `torch.linalg.vector_norm`.
"""

import torch
from jaxtyping import Float
from torch import Tensor

PIECE = 1 << 12
"""Numbers that are summed in one go."""
ROWS = 256
"""Rows that are multiplied in one go: few enough for MKL never to share out the sum over them."""
NUMBERS_AT_ONCE = 1 << 21
"""Numbers that products of rows may fill before they are added up."""


def total(values: Tensor) -> Float[Tensor, ""]:
    """The sum of all values."""
    flat = values.reshape(-1)
    while flat.numel() > PIECE:
        whole = flat.numel() // PIECE * PIECE
        flat = torch.cat([flat[:whole].reshape(-1, PIECE).sum(dim=1), flat[whole:].sum(dim=0, keepdim=True)])
    return flat.sum()


def mean(values: Tensor) -> Float[Tensor, ""]:
    """The mean of all values; not a number where there are none."""
    return total(values) / values.numel()


def dot(one: Float[Tensor, " numbers"], other: Float[Tensor, " numbers"]) -> Float[Tensor, ""]:
    """The scalar product of two vectors."""
    return total(one * other)


def deviation(values: Tensor, *, correction: int = 1) -> Float[Tensor, ""]:
    """The standard deviation of all values, whose sum of squares is divided by their number less `correction`."""
    return (total((values - mean(values)).square()) / (values.numel() - correction)).sqrt()


def inner(one: Float[Tensor, "rows columns"], other: Float[Tensor, "rows others"]) -> Float[Tensor, "columns others"]:
    """The product one' other: the sum over all rows of the products of their numbers."""
    columns, others = one.shape[1], other.shape[1]
    at_once = max(1, NUMBERS_AT_ONCE // (columns * others)) * ROWS
    result = one.new_zeros(columns, others)
    for a, b in zip(one.split(at_once), other.split(at_once), strict=True):
        whole = len(a) // ROWS * ROWS
        left, right = (each[:whole].reshape(-1, ROWS, each.shape[1]) for each in (a, b))
        result += torch.bmm(left.mT, right).sum(dim=0) + _rest(a[whole:], b[whole:])
    return result


def _rest(one: Tensor, other: Tensor) -> Tensor:
    # MKL shares out the sum of a matrix times a vector, however short it is
    if min(one.shape[1], other.shape[1]) == 1:
        return (one * other).sum(dim=0).reshape(one.shape[1], other.shape[1])
    return one.T @ other
