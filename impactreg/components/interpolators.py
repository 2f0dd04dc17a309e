"""Interpolators: the value of an image, and its gradient in world space, between the voxels.

An interpolant keeps channels-last coefficients with a mirrored rim, so that the whole support of any point inside the
buffer is at hand: the channels of a voxel are one row of a table, and rows are weighted and summed as they are read.
"""

from dataclasses import dataclass
from functools import cached_property

import torch
import torch.nn.functional as F  # noqa: N812
from jaxtyping import Bool, Float, Int
from pydantic import Field
from torch import Tensor

from impactreg.components import scalar_splines, splines
from impactreg.components.component import Component
from impactreg.images.grid import Grid
from impactreg.images.image import Image
from impactreg.parameters import Settings

POINTS_AT_ONCE = 2048
"""Points whose weights are made together: so few that a processor's cache holds these."""


@dataclass(frozen=True)
class Interpolated:
    """Values [points, channel] of an interpolant, with what is needed to differentiate them to the points' coordinates.

    `to_world` turns derivatives along the index axes into those along the world's.
    """

    values: Float[Tensor, "points channel"]
    to_world: Float[Tensor, "dim dim"]

    def pull_back(self, derivative: Float[Tensor, "points channel"]) -> Float[Tensor, "points dim"]:
        """The sum over channels of derivative times the gradient (per millimetre, world axes) at each point."""
        return self._along_index_axes(derivative) @ self.to_world.T

    def _along_index_axes(self, derivative: Tensor) -> Tensor:
        raise NotImplementedError


@dataclass(frozen=True)
class ScalarInterpolated(Interpolated):
    """Of one channel: its derivatives along the index axes are at hand."""

    slopes: Float[Tensor, "points dim"]

    def _along_index_axes(self, derivative: Tensor) -> Tensor:
        return derivative * self.slopes


@dataclass(frozen=True)
class VectorInterpolated(Interpolated):
    """Of many channels: each with its derivatives along the index axes."""

    gradients: Float[Tensor, "points dim channel"]

    def _along_index_axes(self, derivative: Tensor) -> Tensor:
        return torch.bmm(self.gradients, derivative[:, :, None])[:, :, 0]


class Interpolant:
    """A function of world points, made from B-spline coefficients once and evaluated many times.

    `coefficients` are channels-last [*space, channel] on `grid`; `order` is that of the B-spline (0 to 3): 0 is the
    nearest neighbour and 1 is linear. The border is mirrored, as in `itk::BSplineInterpolateImageFunction`, up to
    `margin` voxels beyond the buffer. `one_sided` takes the slope at the centre of the last voxel from inside, as
    `itk::AdvancedLinearInterpolateImageFunction` does.
    """

    def __init__(
        self,
        coefficients: Float[Tensor, "*space channel"],
        grid: Grid,
        order: int,
        *,
        one_sided: bool = False,
        margin: int = 0,
    ) -> None:
        self.grid = grid
        self.order = order
        self.channels = int(coefficients.shape[-1])
        self._one_sided = one_sided
        self._margin = margin
        self._rim = order // 2 + 1 + margin
        padded = _mirror(coefficients, self._rim)
        self._shape = tuple(padded.shape[:-1])
        self._coefficients = padded.reshape(-1)

    @classmethod
    def of(cls, image: Image, order: int, *, one_sided: bool = False, margin: int = 0) -> "Interpolant":
        """The interpolant of an image's values; whole numbers become float32."""
        data = image.data if image.data.is_floating_point() else image.data.to(torch.float32)
        samples = data.movedim(0, -1).contiguous()
        return cls(splines.coefficients(samples, order), image.grid, order, one_sided=one_sided, margin=margin)

    def inside(self, points: Float[Tensor, "points dim"]) -> Bool[Tensor, " points"]:
        """Whether each point lies in the image buffer."""
        return inside_buffer(self.grid, points)

    def values(
        self, points: Float[Tensor, "points dim"], channels: Int[Tensor, " chosen"] | None = None
    ) -> Float[Tensor, "points channel"]:
        """The values at world points (mm); points farther outside than the margin get the value there. `channels`
        chooses some.
        """
        if self.channels == 1:
            return scalar_splines.value(self.scalars, self._index(points))[:, None]
        return self._sums(points, channels, slopes=False)[:, 0]

    def at(self, points: Float[Tensor, "points dim"], channels: Int[Tensor, " chosen"] | None = None) -> Interpolated:
        """The values at world points, ready to pull derivatives to them back to the points."""
        to_world = self._index_to_world_gradient
        if self.channels == 1:
            values, along = scalar_splines.value_and_slopes(self.scalars, self._index(points))
            return ScalarInterpolated(values[:, None], to_world, along)
        sums = self._sums(points, channels, slopes=True)
        return VectorInterpolated(sums[:, 0], to_world, sums[:, 1:])

    @property
    def device(self) -> torch.device:
        """Where the coefficients are."""
        return self._coefficients.device

    @property
    def _dtype(self) -> torch.dtype:
        return self._coefficients.dtype

    @cached_property
    def _index_to_world_gradient(self) -> Tensor:
        matrix = torch.as_tensor(self.grid.inverse_matrix.T.copy())
        return matrix.to(dtype=self._dtype, device=self._coefficients.device)

    @property
    def scalars(self) -> scalar_splines.Scalars:
        """The coefficients with their rim; those of several channels follow each other at every grid point."""
        return scalar_splines.Scalars(self._coefficients, self.order, self._shape, self._rim)

    def _size(self, like: Tensor) -> Tensor:
        return torch.tensor(self.grid.size, dtype=like.dtype, device=like.device)

    def _index(self, points: Tensor) -> Tensor:
        index = self.grid.world_to_index(points)
        size = self._size(index)
        if self._one_sided:
            index = torch.where((index - size + 1).abs() <= 1e-12 * size, index - 1e-6, index)
        return torch.minimum(index.clamp(min=-0.5 - self._margin), size - 0.5 + self._margin)

    def _sums(
        self, points: Float[Tensor, "points dim"], channels: Int[Tensor, " chosen"] | None, *, slopes: bool
    ) -> Float[Tensor, "points kinds channel"]:
        """The weighted sums of the coefficients under each point: the value, then the slopes along the index axes."""
        table = self._coefficients.reshape(-1, self.channels)
        small = torch.int32 if len(table) < 1 << 31 else torch.int64
        found = []
        for index in self._index(points).split(POINTS_AT_ONCE):
            start = splines.support_start(self.order, index)
            weights = splines.products(self.order, index - start, slopes=slopes, dtype=self._dtype)
            taps = splines.flat_indices(start.to(small) + self._rim, self.order + 1, self._shape)
            found.append(_weighted_sums(table, taps, weights))
        whole = torch.cat(found)
        return whole if channels is None else whole.index_select(2, channels)


class BSplineInterpolatorSettings(Settings):
    """What `BSplineInterpolator` reads."""

    b_spline_interpolation_order: int = Field(
        1, ge=0, le=3, alias="BSplineInterpolationOrder", description="Order of the B-spline, 0 to 3; 1 is linear."
    )


class Interpolator(Component, kind="Interpolator"):
    """How the moving image is evaluated during the registration; chosen by `Interpolator`."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings

    @property
    def order(self) -> int:
        """The order of the B-spline."""
        raise NotImplementedError

    def of(self, image: Image) -> Interpolant:
        """The interpolant of an image."""
        return Interpolant.of(image, self.order)


class BSplineInterpolator(Interpolator, name=("BSplineInterpolator", "BSplineInterpolatorFloat")):
    """B-splines of order 0 to 3 (`elx::BSplineInterpolator`)."""

    Settings = BSplineInterpolatorSettings
    settings: BSplineInterpolatorSettings

    @property
    def order(self) -> int:
        """`BSplineInterpolationOrder`."""
        return self.settings.b_spline_interpolation_order


class LinearInterpolator(Interpolator, name="LinearInterpolator"):
    """Linear interpolation (`elx::LinearInterpolator`, `itk::AdvancedLinearInterpolateImageFunction`)."""

    @property
    def order(self) -> int:
        """1."""
        return 1

    def of(self, image: Image) -> Interpolant:
        """The interpolant of an image, with the slope at the last voxel's centre taken from inside."""
        return Interpolant.of(image, self.order, one_sided=True)


class NearestInterpolant(Interpolant):
    """The value of the nearest voxel, with the central differences there as gradient."""

    def __init__(self, image: Image) -> None:
        super().__init__(image.data.movedim(0, -1), image.grid, 0)
        slopes = torch.stack([_central_differences(image.scalar, axis) for axis in reversed(range(image.dimension))])
        self._slopes = Interpolant(slopes.movedim(0, -1), image.grid, 0)

    def at(self, points: Float[Tensor, "points dim"], channels: Int[Tensor, " chosen"] | None = None) -> Interpolated:
        """The values at world points, ready to pull derivatives to them back to the points."""
        del channels
        return ScalarInterpolated(self.values(points), self._index_to_world_gradient, self._slopes.values(points))


class NearestNeighborInterpolator(Interpolator, name="NearestNeighborInterpolator"):
    """The value of the nearest voxel (`elx::NearestNeighborInterpolator`), and central differences as its gradient, as
    metrics of elastix take where an interpolator has none.
    """

    @property
    def order(self) -> int:
        """0."""
        return 0

    def of(self, image: Image) -> Interpolant:
        """The interpolant of an image of one channel."""
        return NearestInterpolant(image) if image.channels == 1 else super().of(image)


def _central_differences(values: Float[Tensor, "*space"], axis: int) -> Float[Tensor, "*space"]:
    """Half the difference of both neighbours along an axis; beyond the border the outermost voxel goes on
    (`itk::GradientImageFilter`).
    """
    n = values.shape[axis]
    after = torch.arange(1, n + 1, device=values.device).clamp(max=n - 1)
    before = torch.arange(-1, n - 1, device=values.device).clamp(min=0)
    return (values.index_select(axis, after) - values.index_select(axis, before)) / 2


def _weighted_sums(
    table: Float[Tensor, "rows channel"], taps: Int[Tensor, "points taps"], weights: Float[Tensor, "points kinds taps"]
) -> Float[Tensor, "points kinds channel"]:
    """The sums of weighted rows of a table, several of each point.

    The sums of a point follow each other, so that its rows come from far away in memory once. PyTorch sums numbers of
    single precision as it reads them; those of double precision it would add row by row on one thread.
    """
    if table.dtype != torch.float32:
        return torch.bmm(weights, table.index_select(0, taps.reshape(-1)).reshape(*taps.shape, -1))
    rows = taps[:, None].expand_as(weights).reshape(-1, taps.shape[1])
    sums = F.embedding_bag(rows, table, per_sample_weights=weights.reshape(rows.shape), mode="sum")
    return sums.reshape(*weights.shape[:2], -1)


def inside_buffer(grid: Grid, points: Float[Tensor, "points dim"]) -> Bool[Tensor, " points"]:
    """Whether each point is in an image's buffer: continuous indices from -0.5 up to, not including, size - 0.5."""
    index = grid.world_to_index(points)
    size = torch.tensor(grid.size, dtype=index.dtype, device=index.device)
    return ((index >= -0.5) & (index < size - 0.5)).all(dim=1)


def held_inside(grid: Grid, points: Float[Tensor, "points dim"]) -> Float[Tensor, "points dim"]:
    """The points moved to the box between the outermost voxel centres, so that linear interpolation goes on constant
    beyond it.

    That is the border of `itk::LinearInterpolateImageFunction`, where an `Interpolant` mirrors.
    """
    index = grid.world_to_index(points)
    last = torch.tensor(grid.size, dtype=index.dtype, device=index.device) - 1
    return grid.index_to_world(torch.where(index > last, last, index.clamp(min=0)))


def _mirror(values: Tensor, rim: int) -> Tensor:
    """Values [*space, channel] with `rim` more voxels on every side of space, mirrored about the outermost voxels."""
    space = values.shape[:-1]
    padded = values.new_empty(*(n + 2 * rim for n in space), values.shape[-1])
    padded[tuple(slice(rim, rim + n) for n in space)] = values
    for axis, n in enumerate(space):
        period = max(2 * (n - 1), 1)
        for index in (*range(-rim, 0), *range(n, n + rim)):
            folded = abs(index) % period
            folded = period - folded if folded >= n else folded
            padded.select(axis, rim + index).copy_(padded.select(axis, rim + folded))
    return padded
