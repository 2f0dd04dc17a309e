"""The control points around each point of a B-spline, and their weights for the value and its spatial derivatives.

A weight is a product of polynomials in the fraction u in [0, 1) of a grid step, one for each axis. Small tables turn
the powers of u into the weights of all taps, or into derivatives of them, by one matrix product. Runs of taps along x
are contiguous in channels-last coefficients and stay together; the other axes are those "across".
"""

import itertools
import math
from dataclasses import dataclass, field
from functools import cached_property, lru_cache

import torch
import torch.nn.functional as F  # noqa: N812
from jaxtyping import Bool, Float, Int
from torch import Tensor

from impactreg.components import splines
from impactreg.images import quick
from impactreg.images.grid import Grid

UNIFORM = {
    1: [[1, 0], [-1, 1]],
    2: [[1 / 2, 1 / 2, 0], [-1, 1, 0], [1 / 2, -1, 1 / 2]],
    3: [[1 / 6, 4 / 6, 1 / 6, 0], [-1 / 2, 0, 1 / 2, 0], [1 / 2, -1, 1 / 2, 0], [-1 / 6, 1 / 2, -1 / 2, 1 / 6]],
}
"""For each order, row p is what u^p adds to each tap of the uniform B-spline."""
VALUES_AT_ONCE = 1000
WEIGHTS_AT_ONCE = 500
DERIVATIVES_AT_ONCE = 160
"""Points whose values, weights, or spatial derivatives are worked on together: so few that a processor's cache holds
what is made of them, and that PyTorch shares no operation out among its threads, for which it would wait longer than
the operation takes.
"""


@dataclass(frozen=True)
class Support:
    """The (order + 1)^D control points from `start` (x, y, z) on around each point, on a grid of control points.

    `powers` [dim, points, order + 1] holds 1, u, u^2, ... for each axis, and nothing but zeros where the support leaves
    the grid, so that every weight is zero there.
    """

    start: Float[Tensor, "points dim"]
    powers: Float[Tensor, "dim points powers"]
    order: int
    grid: Grid
    _across: dict[int, Float[Tensor, "points derivatives runs"]] = field(default_factory=dict, repr=False)
    _along: dict[int, Float[Tensor, "points numbers"]] = field(default_factory=dict, repr=False)
    _pieces: "dict[int, list[Support]]" = field(default_factory=dict, repr=False)

    @classmethod
    def of(cls, points: Float[Tensor, "points dim"], grid: Grid, order: int) -> "Support":
        """The support of world points."""
        index = grid.world_to_index(points) - (order - 1) / 2
        room = torch.tensor(grid.size, dtype=index.dtype, device=index.device) - order
        inside = ((index >= 0) & (index < room)).all(dim=1)
        # not clamped: at a limit a clamp would halve the derivative to the point
        held = torch.where(inside[:, None], index, 0.0)
        start = quick.floor(held)
        return cls(start, _powers((held - start).T, order, inside), order, grid)

    def pieces(self, points: int) -> "list[Support]":
        """The same support for at most so many points each."""
        if points not in self._pieces:
            parts = zip(self.start.split(points), self.powers.split(points, dim=1), strict=True)
            self._pieces[points] = [Support(start, powers, self.order, self.grid) for start, powers in parts]
        return self._pieces[points]

    @cached_property
    def rows(self) -> Int[Tensor, "points runs"]:
        """Raster index of the first tap of every run along x, y fastest."""
        return self._raster(every=self.order + 1)

    @cached_property
    def index(self) -> Int[Tensor, "points taps"]:
        """Raster index of every tap, x fastest."""
        return self._raster(every=1)

    def _raster(self, every: int) -> Int[Tensor, "points some_taps"]:
        strides, offsets = _raster_steps(self.grid.shape, self.order + 1)
        first = (self.start @ strides.to(self.start)).long()
        return first[:, None] + offsets[::every].to(first.device)

    @cached_property
    def weights(self) -> Float[Tensor, "points taps"]:
        """The weights of all taps, x fastest."""
        along = self.powers[0] @ _kernel(self.order, 0).to(self.powers)
        return (self.across(0)[:, 0, :, None] * along[:, None, :]).reshape(len(along), -1)

    def values(self, coefficients: Float[Tensor, " numbers"]) -> Float[Tensor, "points channel"]:
        """The spline with these channels-last coefficients."""
        return torch.cat([p.sums(coefficients, p.across(0)[:, 0], p.along(0)) for p in self.pieces(VALUES_AT_ONCE)])

    def sums(
        self,
        coefficients: Float[Tensor, " numbers"],
        across: Float[Tensor, "points runs"],
        along: Float[Tensor, "points run"],
    ) -> Float[Tensor, "points channel"]:
        """The weighted sums of coefficients, with weights as `across` and `along` give them, or their squares."""
        runs = F.embedding_bag(self.rows, self._table(coefficients), per_sample_weights=across, mode="sum")
        return (runs * along) @ _to_world(self.grid, self.order, 0).to(runs)

    def derivatives(self, coefficients: Float[Tensor, " numbers"], order: int) -> Float[Tensor, "points derivatives"]:
        """The derivatives of the spline of one order (1 or 2) along world axes: [channel, i] or [channel, i, j] in a
        row.
        """
        blocks = self._table(coefficients).index_select(0, self.rows.reshape(-1))
        runs = torch.bmm(self.across(order), blocks.reshape(*self.rows.shape, -1))
        return (runs.reshape(len(runs), -1) * self.along(order)) @ _to_world(self.grid, self.order, order).to(runs)

    def pulled(self, gradient: Float[Tensor, "points derivatives"], order: int) -> Float[Tensor, "points taps channel"]:
        """What a gradient to `derivatives` of an order is to every coefficient of the support."""
        across = self.across(order)
        runs = (gradient @ _to_world(self.grid, self.order, order).to(gradient).T) * self.along(order)
        taps = torch.bmm(across.mT, runs.reshape(*across.shape[:2], -1))
        return taps.reshape(len(taps), -1, self.grid.dimension)

    def spread(
        self, values: Float[Tensor, "points taps"], total: Float[Tensor, " control_points"]
    ) -> Float[Tensor, " control_points"]:
        """Adds the values of all points to `total` at each control point."""
        return total.scatter_add_(0, self.index.reshape(-1), values.reshape(-1))

    def across(self, order: int) -> Float[Tensor, "points derivatives runs"]:
        """The weights of the runs along x, for each of the `_combinations` of derivatives to the other axes."""
        if order not in self._across:
            product = self._product(1, order)
            for axis in range(2, self.grid.dimension):
                product = product * self._product(axis, order)
            size = len(product), len(_combinations(self.grid.dimension, order)), -1
            self._across[order] = product.reshape(size)
        return self._across[order]

    def along(self, order: int) -> Float[Tensor, "points numbers"]:
        """The weights within runs that complete each combination of `across` to a derivative of this order, repeated
        for each channel.
        """
        if order not in self._along:
            table = _along_table(self.order, self.grid.dimension, order)
            self._along[order] = self.powers[0] @ table.to(self.powers)
        return self._along[order]

    def _product(self, axis: int, order: int) -> Float[Tensor, "points numbers"]:
        return self.powers[axis] @ _across_table(self.order, self.grid.dimension, axis, order).to(self.powers)

    def _table(self, coefficients: Float[Tensor, " numbers"]) -> Float[Tensor, "runs run"]:
        """Every run along x of coefficients as a row; rows overlap in memory."""
        channels = coefficients.numel() // self.grid.number_of_voxels
        size = (self.grid.number_of_voxels - self.order, (self.order + 1) * channels)
        return coefficients.as_strided(size, (channels, 1))


def _powers(
    fraction: Float[Tensor, "dim points"], order: int, inside: Bool[Tensor, " points"]
) -> Float[Tensor, "dim points powers"]:
    powers = [inside.to(fraction).expand_as(fraction)]
    for _ in range(order):
        powers.append(powers[-1] * fraction)
    return torch.stack(powers, dim=2)


@lru_cache
def _raster_steps(shape: tuple[int, ...], taps: int) -> tuple[Float[Tensor, " dim"], Int[Tensor, " taps"]]:
    """Raster steps along x, y, z, and those from the first tap of a support to every one of it."""
    origin = torch.zeros(1, len(shape), dtype=torch.long)
    strides = torch.tensor(splines.raster_strides(shape), dtype=torch.float64)
    return strides, splines.flat_indices(origin, taps, shape)[0]


@lru_cache
def _combinations(dimension: int, order: int) -> tuple[tuple[int, ...], ...]:
    """Orders of derivatives to y, z whose sum is up to `order`, by their sum: what is missing falls to x."""
    every = itertools.product(range(order + 1), repeat=dimension - 1)
    return tuple(sorted((c for c in every if sum(c) <= order), key=sum))


@lru_cache
def _kernel(spline_order: int, derivative: int) -> Float[Tensor, "powers taps"]:
    """What each power of u adds to the weight, or to its derivative, of each tap along one axis."""
    table = torch.tensor(UNIFORM[spline_order], dtype=torch.float64)
    factors = [math.perm(p, derivative) for p in range(spline_order + 1)]
    derived = torch.zeros_like(table)
    for p in range(derivative, spline_order + 1):
        derived[p - derivative] = factors[p] * table[p]
    return derived


@lru_cache
def _across_table(spline_order: int, dimension: int, axis: int, order: int) -> Float[Tensor, "powers numbers"]:
    """The kernel of one axis for each combination, repeated over the taps of the other axes across."""
    taps = spline_order + 1
    columns = []
    for combination in _combinations(dimension, order):
        kernel = _kernel(spline_order, combination[axis - 1])
        inner = taps ** (axis - 1)
        outer = taps ** (dimension - 1 - axis)
        columns.append(kernel[:, None, :, None].expand(taps, outer, taps, inner).reshape(taps, -1))
    return torch.cat(columns, dim=1)


@lru_cache
def _along_table(spline_order: int, dimension: int, order: int) -> Float[Tensor, "powers numbers"]:
    """The kernel along x that completes each combination, repeated for each channel."""
    kernels = [_kernel(spline_order, order - sum(c)) for c in _combinations(dimension, order)]
    return torch.cat([kernel.repeat_interleave(dimension, dim=1) for kernel in kernels], dim=1)


@lru_cache(maxsize=32)
def _to_world(grid: Grid, spline_order: int, order: int) -> Float[Tensor, "numbers derivatives"]:
    """Sums runs [combination, tap, channel] over their taps, and turns derivatives along grid axes into derivatives
    along world axes [channel, ...].
    """
    dimension = grid.dimension
    steps = torch.from_numpy(grid.inverse_matrix.copy())
    turned = torch.stack([_turned(steps, c, order) for c in _combinations(dimension, order)])
    channels = torch.eye(dimension, dtype=torch.float64)
    table = turned[:, None, None, None, :] * channels[None, None, :, :, None]
    return table.expand(-1, spline_order + 1, -1, -1, -1).reshape(-1, dimension * turned.shape[1])


def _turned(steps: Float[Tensor, "dim dim"], combination: tuple[int, ...], order: int) -> Float[Tensor, " derivatives"]:
    """The derivatives [i, ...] along world axes that one derivative along grid axes adds to; row a of `steps` is the
    gradient of grid index a.
    """
    axes = [0] * (order - sum(combination)) + [a for a, times in enumerate(combination, 1) for _ in range(times)]
    total = steps.new_zeros(len(steps) ** order)
    for arranged in set(itertools.permutations(axes)):
        product = steps.new_ones(1)
        for axis in arranged:
            product = (product[:, None] * steps[axis][None, :]).reshape(-1)
        total += product
    return total
