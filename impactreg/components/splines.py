"""B-splines on a regular grid: weights, derivative weights and the prefilter that turns samples into coefficients.

The basis functions are those of `itk::BSplineKernelFunction`; the prefilter solves the interpolation conditions
exactly, with the mirrored border of `itk::BSplineDecompositionImageFilter` (Unser, Aldroubi, Eden 1993).
"""

from functools import lru_cache
from itertools import pairwise

import torch
from jaxtyping import Float, Int
from torch import Tensor

from impactreg.images import quick

SLAB = 32
"""How many planes of samples are filtered together."""


def support_start(order: int, index: Float[Tensor, "*points"]) -> Float[Tensor, "*points"]:
    """The first grid index under the spline around each continuous `index`: floor(index - (order - 1) / 2)."""
    return quick.floor(index - (order - 1) / 2)


def weights(
    order: int, index: Float[Tensor, "*points"]
) -> tuple[Float[Tensor, "*points"], Float[Tensor, "*points taps"]]:
    """The support's start and the order + 1 weights of the B-spline of this order (0 to 3) at each continuous index."""
    start = support_start(order, index)
    return start, torch.stack(basis(order, index - start), dim=-1)


def weights_and_derivatives(
    order: int, index: Float[Tensor, "*points"]
) -> tuple[Float[Tensor, "*points"], Float[Tensor, "*points taps"], Float[Tensor, "*points taps"]]:
    """As `weights`, with the derivatives of the weights to the index as third value."""
    start = support_start(order, index)
    offset = index - start
    weights, slopes = basis(order, offset), basis_derivative(order, offset)
    return start, torch.stack(weights, dim=-1), torch.stack(slopes, dim=-1)


def basis(order: int, t: Float[Tensor, "*points"]) -> list[Float[Tensor, "*points"]]:
    """The order + 1 weights at offset `t` from the support's start."""
    if order == 0:
        return [torch.ones_like(t)]
    if order == 1:
        return [1 - t, t]
    u = t - 1
    if order == 2:
        last = 0.5 * (0.5 + u) ** 2
        middle = 0.75 - u**2
        return [1 - middle - last, middle, last]
    square = u * u
    last = square * u / 6
    first = (1 - u) ** 3 / 6
    second = 2 / 3 - square * (2 - u) / 2
    return [first, second, 1 - first - second - last, last]


def basis_derivative(order: int, t: Float[Tensor, "*points"]) -> list[Float[Tensor, "*points"]]:
    """The derivatives of `basis` to `t`: differences of the weights of the order below."""
    if order == 0:
        return [torch.zeros_like(t)]
    lower = _lower_basis(order, t)
    inner = [before - after for before, after in pairwise(lower)]
    return [-lower[0], *inner, lower[-1]]


def _lower_basis(order: int, t: Tensor) -> list[Tensor]:
    """The order - 1 weights over the inner taps, on the same support."""
    if order == 1:
        return [torch.ones_like(t)]
    if order == 2:
        return [1.5 - t, t - 0.5]
    u = t - 1
    first = 0.5 * (1 - u) ** 2
    last = 0.5 * u**2
    return [first, 1 - first - last, last]


def coefficients(samples: Float[Tensor, "*space channel"], order: int) -> Float[Tensor, "*space channel"]:
    """B-spline coefficients of samples (channels last) that interpolate them, mirrored at the border; orders 0 and 1
    need none.
    """
    if order < 2:
        return samples
    for axis in range(samples.ndim - 1):
        n = samples.shape[axis]
        if n > 1:
            inverse = inverse_filter(order, n).to(dtype=samples.dtype, device=samples.device)
            samples = _filtered(samples, inverse, axis)
    return samples.contiguous()


def _filtered(samples: Tensor, inverse: Tensor, axis: int) -> Tensor:
    """The matrix applied along an axis, slab by slab so that no second copy of the samples is made on the way."""
    across = 0 if axis else 1
    result = torch.empty_like(samples, memory_format=torch.contiguous_format)
    for first in range(0, samples.shape[across], SLAB):
        slab = (across, first, min(SLAB, samples.shape[across] - first))
        filtered = torch.tensordot(inverse, samples.narrow(*slab), dims=([1], [axis]))
        result.narrow(*slab).copy_(filtered.movedim(0, axis))
    return result


def flat_indices(
    start: Int[Tensor, "points dim"], taps: int, shape: tuple[int, ...]
) -> Int[Tensor, "points taps_to_the_dim"]:
    """Raster indices of the taps^D grid points from `start` (x, y, z) on, x fastest, in a grid of `shape` (z, y, x)."""
    strides = raster_strides(shape)
    along = torch.arange(taps, dtype=start.dtype, device=start.device)
    offsets = along[:1]
    for stride in reversed(strides):
        offsets = (offsets[:, None] + along * stride).reshape(-1)
    first = (start * torch.tensor(strides, dtype=start.dtype, device=start.device)).sum(dim=1, dtype=start.dtype)
    return first[:, None] + offsets


def raster_strides(shape: tuple[int, ...]) -> list[int]:
    """Steps in raster order of the x, y, z axes of a grid of `shape` (z, y, x)."""
    strides = [1]
    for n in reversed(shape[1:]):
        strides.append(strides[-1] * n)
    return strides


def products(
    order: int, offset: Float[Tensor, "points dim"], *, slopes: bool = False, dtype: torch.dtype = torch.float64
) -> Float[Tensor, "points kinds taps_to_the_dim"]:
    """The weights of all taps, x fastest, at offsets (x, y, z) from the support's start; with `slopes`, then those of
    the derivatives along x, y, z.
    """
    along = offset.T.contiguous()
    weights = torch.stack(basis(order, along), dim=1).to(dtype)
    kinds = [weights]
    if slopes:
        derivatives = torch.stack(basis_derivative(order, along), dim=1).to(dtype)
        for axis in range(len(along)):
            kinds.append(torch.stack([derivatives[a] if a == axis else weights[a] for a in range(len(along))]))
    # points last in memory while products are made: long rows, which a processor multiplies at once
    made = torch.stack([_taps_product(kind) for kind in kinds])
    return made.movedim(2, 0).contiguous()


def _taps_product(per_axis: Float[Tensor, "dim taps points"]) -> Float[Tensor, "taps_to_the_dim points"]:
    product = per_axis[-1]
    for axis in reversed(per_axis[:-1].unbind()):
        product = (product[:, None, :] * axis[None, :, :]).reshape(-1, axis.shape[1])
    return product


@lru_cache(maxsize=32)
def inverse_filter(order: int, n: int) -> Float[Tensor, "coefficients samples"]:
    """The matrix that turns n > 1 samples along a line into B-spline coefficients (orders 2 and 3, mirrored border)."""
    side = 1 / 8 if order == 2 else 1 / 6
    matrix = torch.eye(n, dtype=torch.float64) * (1 - 2 * side)
    inner = torch.arange(n - 1)
    matrix[inner, inner + 1] = side
    matrix[inner + 1, inner] = side
    matrix[0, 1] += side
    matrix[n - 1, n - 2] += side
    inverse: Tensor = torch.linalg.inv(matrix)
    return inverse
