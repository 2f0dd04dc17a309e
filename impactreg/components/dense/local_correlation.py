"""Local correlation of two images on a lattice: the squared correlation in a box around each point, and its exact
derivative.

It does not ask how intensities of one image follow from those of the other, only that they do so linearly in every
box (Avants et al. 2008, doi:10.1016/j.media.2007.06.004).
"""

from jaxtyping import Float
from torch import Tensor

Lattice = Float[Tensor, "*space"]

FLAT = 1e-4
"""Boxes whose variance is below this share of the image's count as flat: they have no correlation."""
LEAST = 1e-12
"""The least variance of a box where the whole image is flat."""


class LocalCorrelation:
    """Minus the weighted mean of the squared local correlation with a fixed image [*space].

    `radius` is that of the box in lattice points; points without a weight count in no box.
    """

    def __init__(self, fixed: Lattice, radius: int) -> None:
        self._fixed = fixed - fixed.mean()
        self._floor = max(FLAT * float(self._fixed.square().mean()), LEAST)
        self._radius = radius

    def __call__(self, moving: Lattice, weights: Lattice) -> tuple[Tensor, Lattice, Lattice]:
        """The value, its derivative to the moving values (exact but where boxes are flat), and how strongly it curves
        with each of them, about.
        """
        # a correlation does not change with the mean, and small numbers keep their digits
        f, m, w, box = self._fixed, moving - moving.mean(), weights, self._box
        count = box(w).clamp_(min=1.0)
        mean_f, mean_m = box(w * f) / count, box(w * m) / count
        covariance = box(w * f * m) / count - mean_f * mean_m
        var_f = (box(w * f * f) / count - mean_f.square()).clamp_(min=self._floor)
        var_m = (box(w * m * m) / count - mean_m.square()).clamp_(min=self._floor_of(m))
        total = w.sum()
        along = 2 * covariance / (var_f * var_m)
        value = -(w * covariance * along).sum() / (2 * total)
        a, b = w * along / count, w * covariance * along / (var_m * count)
        slope = w * (f * box(a) - box(a * mean_f) - m * box(b) + box(b * mean_m)) / -total
        return value, slope, 2 * w * box(w / (var_m * count)) / total

    def _floor_of(self, moving: Tensor) -> Tensor:
        return (FLAT * moving.square().mean()).clamp_(min=LEAST)

    def _box(self, values: Tensor) -> Tensor:
        """The sum over the box around each point, whose part beyond the border is 0; its own adjoint."""
        for axis in range(values.ndim):
            values = _windows(values, axis, self._radius)
        return values


def _windows(values: Tensor, axis: int, radius: int) -> Tensor:
    """The sums over 2 radius + 1 points along an axis, from sums over 1, 2, 4 ... points."""
    n, length = values.shape[axis], 2 * radius + 1
    sums = values.new_zeros([size + 2 * radius * (k == axis) for k, size in enumerate(values.shape)])
    sums.narrow(axis, radius, n).copy_(values)
    total, start, width = None, 0, 1
    while True:
        if length & width:
            part = sums.narrow(axis, start, n)
            total, start = part.clone() if total is None else total.add_(part), start + width
        width *= 2
        if width > length:
            return values if total is None else total
        long = sums.shape[axis] - width // 2
        sums = sums.narrow(axis, 0, long) + sums.narrow(axis, width // 2, long)
