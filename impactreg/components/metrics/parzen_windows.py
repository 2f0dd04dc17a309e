"""Parzen windows: intensities held to a range, and spread over the bins of a histogram by B-splines.

Ranges and bins are those of `itk::ParzenWindowHistogramImageToImageMetric` (Thevenaz and Unser 2000, IEEE TIP 9,
2083-2099; Mattes et al. 2003, IEEE TMI 22, 120-128) and of elastix's limiters.
"""

from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple, Self

import torch
from jaxtyping import Float, Int
from torch import Tensor

from impactreg.components import splines
from impactreg.components.metrics.metric import extrema
from impactreg.images import quick
from impactreg.images.image import Image
from impactreg.images.masks import Mask

Values = Float[Tensor, " points"]

NO_ROOM = 1e-10
"""Differences of intensity that elastix takes for none."""
RIM = 0.001
"""What a histogram has beyond its range on either side, as a share of a bin."""


@dataclass(frozen=True)
class Range:
    """The intensities `minimum` to `maximum` of an image, and the wider bounds `lower` to `upper` that none may leave.

    Interpolated values overshoot those of the voxels; they are brought back between the bounds.
    """

    minimum: float
    maximum: float
    lower: float
    upper: float

    @classmethod
    def of(cls, image: Image, mask: Mask | None, ratio: float) -> Self:
        """The range of an image inside a mask; bounds lie farther out by `ratio` times its width.

        Raises `RegistrationError` where no voxel is inside.
        """
        minimum, maximum = extrema(image, mask)
        # in the precision of the image, as elastix has it
        room = ratio * float(maximum - minimum)
        return cls(float(minimum), float(maximum), float(minimum) - room, float(maximum) + room)

    def clipped(self, values: Values) -> Values:
        """The values with what is out of bounds put on the bound (`itk::HardLimiterFunction`)."""
        return values.clamp(self.lower, self.upper)

    def bent(self, values: Values) -> tuple[Values, Values]:
        """The values with what is out of range bent towards the bound, and the slope of that at each value.

        The bend is an exponential that goes on smoothly where the range ends (`itk::ExponentialLimiterFunction`);
        without room between range and bound it is a cut.
        """
        inside = values.clamp(self.minimum, self.maximum)
        beyond = values - inside
        if not bool((beyond.abs() > NO_ROOM).any()):
            return values, torch.ones_like(values)
        room = torch.where(beyond > 0, self.upper - self.maximum, self.minimum - self.lower)
        slope = torch.where(room > NO_ROOM, quick.exp(-beyond.abs() / room.clamp(min=NO_ROOM)), 0.0)
        outside = beyond.abs() > NO_ROOM
        bent = inside + beyond.sign() * room * (1 - slope)
        return torch.where(outside, bent, values), torch.where(outside, slope, 1.0)


class Window(NamedTuple):
    """For each value the first bin under its B-spline, and its share in every bin from there on."""

    start: Int[Tensor, " points"]
    shares: Float[Tensor, "points taps"]


@dataclass(frozen=True)
class Bins:
    """The bins of one axis of a histogram: `number` of them, each `size` wide, bin 0 around `first` bins from zero.

    A value goes to the bins under a B-spline of `order` around it. `padding` bins at both ends are never its middle,
    so that no spline sticks out.
    """

    number: int
    order: int
    size: float
    first: float

    @classmethod
    def of(cls, span: Range, number: int, order: int, rim_of: int | None = None) -> Self:
        """Bins for all values of a range; `rim_of` is the number of bins that the rim is a share of, if another.

        The rim keeps values on the bounds clear of the outermost bins.
        """
        padding = order // 2
        width = span.upper - span.lower
        rim = RIM * width / ((rim_of or number) - 2 * padding - 1)
        size = min(max((width + 2 * rim) / (number - 2 * padding - 1), 1e-10), 1e10)
        return cls(number, order, size, (span.lower - rim) / size - padding)

    @staticmethod
    def least(order: int) -> int:
        """How many bins a B-spline of this order needs."""
        return 2 * (order // 2) + 2

    @property
    def padding(self) -> int:
        """How many bins at either end are only reached by the skirts of the splines."""
        return self.order // 2

    def window(self, values: Values) -> Window:
        """The share of each value in each bin; shares of a value add up to 1."""
        if self.order == 0:
            nearest = (self._places(values) + 0.5).long()
            return Window(nearest, torch.ones_like(values)[:, None])
        return self.sloped(values)[0]

    def sloped(self, values: Values) -> tuple[Window, Float[Tensor, "points taps"]]:
        """The share of each value in each bin, and the derivatives of the shares to the value.

        Shares of order 0 jump from bin to bin; in their stead those of order 1 are differentiated, which is what
        `itk::ParzenWindowHistogramImageToImageMetric::InitializeKernels` intends.
        """
        order = max(self.order, 1)
        places = self._places(values) - (order - 1) / 2
        start = quick.floor(places)
        part = places - start
        powers = [torch.ones_like(part), part]
        for _ in range(order - 1):
            powers.append(powers[-1] * part)
        both = torch.stack(powers, dim=1) @ _polynomials(order, values.device)
        shares, slopes = both[:, : order + 1], both[:, order + 1 :]
        if self.order == 0:
            shares = torch.stack([part < 0.5, part >= 0.5], dim=1).to(values.dtype)
        return Window(start.long(), shares), slopes / self.size

    def _places(self, values: Values) -> Values:
        """Where on the axis of bins each value is."""
        places = values / self.size - self.first
        # rounding must not push a spline over the end
        return places.clamp(self.padding, self.number - 1 - self.padding - 1e-9)


def bins_under(fixed: Window, moving: Window, row: int) -> Int[Tensor, " points_taps_taps"]:
    """Raster index of every bin under every pair of values, in a joint histogram whose rows (fixed bins) have `row`
    moving bins.
    """
    rows, columns = (
        window.start[:, None] + torch.arange(window.shares.shape[1], device=window.start.device)
        for window in (fixed, moving)
    )
    return (rows[:, :, None] * row + columns[:, None, :]).reshape(-1)


def joint_histogram(
    under: Int[Tensor, " points_taps_taps"], fixed: Tensor, moving: Tensor, shape: tuple[int, int]
) -> Float[Tensor, "fixed_bins moving_bins"]:
    """The sum over all pairs of values of the products of their shares [points, taps] in each pair of bins."""
    shares = (fixed[:, :, None] * moving[:, None, :]).reshape(-1)
    return torch.bincount(under, shares, minlength=shape[0] * shape[1]).reshape(shape)


def gathered(
    table: Float[Tensor, "fixed_bins moving_bins"],
    under: Int[Tensor, " points_taps_taps"],
    fixed: Tensor,
    moving: Tensor,
) -> Values:
    """For each pair of values the sum of a table over the bins under it, times the products of `fixed` and `moving`
    [points, taps] there.
    """
    shares = (fixed[:, :, None] * moving[:, None, :]).reshape(len(fixed), -1)
    return (table.reshape(-1).index_select(0, under).reshape(shares.shape) * shares).sum(dim=1)


@lru_cache(maxsize=8)
def _polynomials(order: int, device: torch.device) -> Float[Tensor, "powers taps_and_slopes"]:
    """What powers of the distance into a bin are multiplied by to give all weights of a B-spline and their slopes.

    One product with this is several times faster than a formula for each weight.
    """
    part = torch.linspace(0, 0.9, order + 1, dtype=torch.float64)
    _, weights, slopes = splines.weights_and_derivatives(order, part + (order - 1) / 2)
    powers = torch.stack([part**k for k in range(order + 1)], dim=1)
    matrix: Tensor = torch.linalg.solve(powers, torch.cat([weights, slopes], dim=1))
    return matrix.to(device)
