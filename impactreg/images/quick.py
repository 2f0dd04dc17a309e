"""Roundings and roots of few numbers, without waking the other threads.

PyTorch shares floor, exp, log and sqrt of a few thousand numbers out among its threads. An iteration of a registration
has many of them; each would wait for a thread to be woken, on a busy machine for longer than all its work takes.
"""

import math

import torch
from jaxtyping import Float
from torch import Tensor


def floor(x: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """The largest whole numbers that are not above `x`, which must be in the range of int64."""
    if x.is_cuda:
        return torch.floor(x)
    cut = x.to(torch.int64).to(x.dtype)
    return cut.sub_((x < cut).to(x.dtype))


def exp(x: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """e to the power of `x`, to a few units in the last place."""
    return torch.exp(x) if x.is_cuda else torch.pow(math.e, x)


def log(x: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """The natural logarithm."""
    return torch.log(x) if x.is_cuda else torch.xlogy(x.new_ones(()), x)
