"""Pyramid filters: smoothing and shrinking of images, each a matrix along one axis after the other.

Every filter of elastix's pyramids is linear and separable, so that one axis of n voxels is mapped to m voxels by an [m,
n] matrix. The matrices hold ITK's own recursions and border rules; they are nearly banded, and only their band is
multiplied.
"""

import math
from collections.abc import Callable, Sequence
from functools import lru_cache

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from impactreg.errors import ImageError
from impactreg.images.grid import Grid
from impactreg.images.image import Image

ROWS_AT_ONCE = 64


def along_axes(
    data: Float[Tensor, "channel *space"], matrices: Sequence[Tensor | None]
) -> Float[Tensor, "channel *coarse"]:
    """Multiply each axis with its matrix; `matrices` is in x, y, z order and None leaves an axis as it is.

    Sums are in float64 and rounded to the type of `data` after each axis, as ITK does.
    """
    for axis, matrix in enumerate(matrices):
        if matrix is not None:
            data = _along(data, data.ndim - 1 - axis, matrix)
    return data


@lru_cache(maxsize=64)
def recursive_gaussian(n: int, sigma: float) -> Float[Tensor, "n n"]:
    """Deriche's recursive approximation of a Gaussian of `sigma` voxels along a line of n voxels.

    The fourth-order recursion and the extended border of `itk::RecursiveGaussianImageFilter` (Deriche 1993; Farnebäck,
    Westin 2006), a forward and a backward pass, solved for all lines at once. Lines of fewer than four voxels, which
    ITK refuses, follow the same rule.
    """
    forward, backward, poles = _deriche(sigma)
    return _one_sided(forward, poles, n) + _one_sided(backward, poles, n).flip(0, 1)


@lru_cache(maxsize=64)
def discrete_gaussian(n: int, variance: float, maximum_error: float = 0.1) -> Float[Tensor, "n n"]:
    """Convolution with Lindeberg's discrete Gaussian exp(-v) I_k(v), cut where its mass passes 1 - `maximum_error`.

    `variance` is in square voxels; the outermost voxels are repeated beyond the border
    (`itk::DiscreteGaussianImageFilter`).
    """
    kernel = discrete_gaussian_kernel(variance, maximum_error)
    radius = len(kernel) - 1
    matrix = torch.zeros(n, n, dtype=torch.float64)
    rows = torch.arange(n)
    for offset in range(-radius, radius + 1):
        columns = (rows + offset).clamp(0, n - 1)
        matrix.index_put_((rows, columns), kernel[abs(offset)].expand(n), accumulate=True)
    return matrix


def discrete_gaussian_kernel(
    variance: float, maximum_error: float = 0.1, maximum_width: int = 32
) -> Float[Tensor, "taps"]:
    """The right half, centre first, of the kernel of `itk::GaussianOperator`; it always has a neighbour."""
    if variance == 0:
        return torch.tensor([1.0, 0.0], dtype=torch.float64)
    taps = _scaled_bessel(variance, maximum_width + 1)
    mass = taps.cumsum(0) * 2 - taps[0]
    enough = int((mass < 1 - maximum_error).sum()) + 1
    length = min(max(enough, 2), maximum_width + 1)
    return taps[:length] / mass[length - 1]


def shrink(image: Image, factors: Sequence[int], smooth: Callable[[int, int], Tensor | None]) -> Image:
    """Every factor-th voxel of an image, smoothed first by the matrix `smooth(axis, n)` of each axis unless it is None.

    Grid, size and picked voxels are those of `itk::ShrinkImageFilter`: n // factor voxels, both centres at the same
    place.
    """
    grid, offsets = shrunken_grid(image.grid, factors)
    picks = [slice(o, o + (m - 1) * f + 1, f) for o, m, f in zip(offsets, grid.size, factors, strict=True)]
    matrices: list[Tensor | None] = []
    for axis, n in enumerate(image.grid.size):
        matrix = smooth(axis, n)
        matrices.append(None if matrix is None else matrix[picks[axis]])
        picks[axis] = picks[axis] if matrix is None else slice(None)
    picked = image.data[(slice(None), *reversed(picks))]
    return Image(along_axes(picked, matrices).contiguous(), grid)


def resample(image: Image, factors: Sequence[int], smooth: Callable[[int, int], Tensor | None]) -> Image:
    """An image on the grid of `resampled_grid`, by linear interpolation after smoothing as in `shrink`.

    Raises `ImageError` where a factor is so large that no voxel is left inside the image.
    """
    matrices = []
    for axis, (n, factor) in enumerate(zip(image.grid.size, factors, strict=True)):
        matrix, picks = smooth(axis, n), None if factor == 1 else _linear(axis, n, factor)
        matrices.append(matrix if picks is None else picks if matrix is None else picks @ matrix)
    return Image(along_axes(image.data, matrices), resampled_grid(image.grid, factors))


def shrunken_grid(grid: Grid, factors: Sequence[int]) -> tuple[Grid, tuple[int, ...]]:
    """The grid of an image shrunken by whole `factors` (x, y, z), and the index of the first voxel that is picked.

    A first voxel that lies half-way between two is the upper one, but for rounding errors. They decide in ITK too, so
    its order of operations is kept: axis-aligned grids give its voxels, oblique ones may give the neighbour.
    """
    size, spacing = _coarser(grid, factors)
    offset = _centre(grid) - _centre(Grid(size, spacing, grid.origin, grid.direction))
    shrunken = Grid(size, spacing, tuple(float(v) for v in np.array(grid.origin) + offset), grid.direction)
    index = (grid.inverse_matrix * (np.array(shrunken.origin) - np.array(grid.origin))).sum(axis=1)
    return shrunken, tuple(max(0, round(2 * float(i) + 0.5) >> 1) for i in index)


def resampled_grid(grid: Grid, factors: Sequence[int]) -> Grid:
    """The grid of a level of `itk::MultiResolutionPyramidImageFilter`: the first voxels share their outer corner."""
    size, spacing = _coarser(grid, factors)
    offset = np.array(grid.direction) @ (np.array(spacing) - np.array(grid.spacing)) * 0.5
    return Grid(size, spacing, tuple(float(v) for v in np.array(grid.origin) + offset), grid.direction)


def _centre(grid: Grid) -> np.ndarray:
    # not a matrix product, which may add in another order
    return np.asarray((grid.matrix * ((np.array(grid.size) - 1) / 2)).sum(axis=1) + np.array(grid.origin))


def _coarser(grid: Grid, factors: Sequence[int]) -> tuple[tuple[int, ...], tuple[float, ...]]:
    size = tuple(max(1, n // f) for n, f in zip(grid.size, factors, strict=True))
    return size, tuple(s * f for s, f in zip(grid.spacing, factors, strict=True))


def _along(data: Tensor, axis: int, matrix: Tensor) -> Tensor:
    """One axis of `data` (z, y, x behind the channel) times `matrix`, in blocks of rows with the columns they need."""
    shape = data.shape
    lines = data.reshape(math.prod(shape[:axis]), shape[axis], -1)
    out = torch.empty(lines.shape[0], matrix.shape[0], lines.shape[2], dtype=data.dtype, device=data.device)
    for first, last, low, high in _blocks(matrix):
        block = matrix[first:last, low:high].to(data.device)
        wanted = lines[:, low:high].to(torch.float64)
        if lines.shape[2] == 1:
            out[:, first:last, 0] = wanted[:, :, 0] @ block.T
        else:
            out[:, first:last] = torch.bmm(block.expand(len(lines), -1, -1), wanted)
    return out.reshape(*shape[:axis], matrix.shape[0], *shape[axis + 1 :])


def _blocks(matrix: Tensor) -> list[tuple[int, int, int, int]]:
    """Blocks of rows (first, last) and the columns (low, high) where they are not zero."""
    blocks = []
    for first in range(0, len(matrix), ROWS_AT_ONCE):
        last = min(first + ROWS_AT_ONCE, len(matrix))
        used = (matrix[first:last].abs().amax(dim=0) > 1e-12).nonzero()[:, 0]
        blocks.append((first, last, int(used.min()), int(used.max()) + 1))
    return blocks


def _deriche(sigma: float) -> tuple[list[float], list[float], list[float]]:
    """The taps of the forward and of the backward pass, and the poles of both, for a Gaussian of `sigma` voxels."""
    w1, l1, w2, l2 = 0.6681, -1.3932, 2.0787, -1.3732
    a1, b1, a2, b2 = 1.3530, 1.8151, -0.3531, 0.0902
    sin1, cos1, exp1 = math.sin(w1 / sigma), math.cos(w1 / sigma), math.exp(l1 / sigma)
    sin2, cos2, exp2 = math.sin(w2 / sigma), math.cos(w2 / sigma), math.exp(l2 / sigma)
    taps = [
        a1 + a2,
        exp2 * (b2 * sin2 - (a2 + 2 * a1) * cos2) + exp1 * (b1 * sin1 - (a1 + 2 * a2) * cos1),
        2 * exp1 * exp2 * ((a1 + a2) * cos1 * cos2 - b1 * cos2 * sin1 - b2 * cos1 * sin2) + a2 * exp1**2 + a1 * exp2**2,
        exp2 * exp1**2 * (b2 * sin2 - a2 * cos2) + exp1 * exp2**2 * (b1 * sin1 - a1 * cos1),
        0.0,
    ]
    poles = [
        1.0,
        -2 * (exp2 * cos2 + exp1 * cos1),
        4 * cos1 * cos2 * exp1 * exp2 + exp1**2 + exp2**2,
        -2 * cos1 * exp1 * exp2**2 - 2 * cos2 * exp2 * exp1**2,
        exp1**2 * exp2**2,
    ]
    gain = 2 * sum(taps) / sum(poles) - taps[0]
    forward = [t / gain for t in taps]
    backward = [0.0, *(f - p * forward[0] for f, p in zip(forward[1:], poles[1:], strict=True))]
    return forward, backward, poles


def _one_sided(taps: list[float], poles: list[float], n: int) -> Tensor:
    """The matrix of y_i = sum_k taps_k x_(i-k) - sum_(k>0) poles_k y_(i-k), where x_0 has been there forever."""
    steady = sum(taps) / sum(poles)
    right = _toeplitz(taps, n)
    before = [sum(taps[i + 1 :]) - steady * sum(poles[i + 1 :]) for i in range(min(n, len(taps)))]
    right[: len(before), 0] += torch.tensor(before, dtype=torch.float64)
    solved: Tensor = torch.linalg.solve_triangular(_toeplitz(poles, n), right, upper=False, unitriangular=True)
    return solved


def _toeplitz(column: list[float], n: int) -> Tensor:
    matrix = torch.zeros(n, n, dtype=torch.float64)
    for k, value in enumerate(column[:n]):
        matrix.diagonal(-k).fill_(value)
    return matrix


def _scaled_bessel(variance: float, count: int) -> Tensor:
    """exp(-v) I_k(v) for k below `count`, by the power series of the Bessel functions, whose terms are all positive."""
    k = torch.arange(count, dtype=torch.float64)[:, None]
    j = torch.arange(int(variance + 12 * math.sqrt(variance) + 40), dtype=torch.float64)[None, :]
    logarithm = (2 * j + k) * math.log(variance / 2) - torch.lgamma(j + 1) - torch.lgamma(j + k + 1) - variance
    return logarithm.exp().sum(dim=1)


@lru_cache(maxsize=64)
def _linear(axis: int, n: int, factor: int) -> Tensor:
    if factor >= 2 * n:
        name, most = "xyz"[axis], 2 * n - 1
        raise ImageError(
            f"the pyramid factor {factor} along {name} leaves nothing of {n} voxels; "
            f"the image pyramid schedule can have {most} there at most"
        )
    position = torch.arange(max(1, n // factor), dtype=torch.float64) * factor + (factor - 1) / 2
    low = position.floor().long().clamp(max=n - 1)
    matrix = torch.zeros(len(low), n, dtype=torch.float64)
    rows = torch.arange(len(low))
    fraction = position - position.floor()
    matrix.index_put_((rows, low), 1 - fraction, accumulate=True)
    matrix.index_put_((rows, (low + 1).clamp(max=n - 1)), fraction, accumulate=True)
    return matrix
