"""Mutual information of the fixed and the moving intensities, estimated with Parzen windows.

A joint histogram of the samples gives the value. Its derivative to one moving intensity is a sum over the few bins
under it, which the interpolator and the transform pull back to the parameters; nothing of bins times parameters is
built.
"""

import math
from abc import abstractmethod
from dataclasses import dataclass
from typing import cast

import torch
from jaxtyping import Float, Int
from pydantic import Field
from torch import Tensor

from impactreg.components.component import AnySettings
from impactreg.components.metrics.collective import CollectiveMetric
from impactreg.components.metrics.metric import POINTS_AT_ONCE, ImageMetricSettings, Scene
from impactreg.components.metrics.parzen_windows import Bins, Range, Values, bins_under, gathered, joint_histogram
from impactreg.images import quick, sums
from impactreg.parameters import Refused

Table = Float[Tensor, "fixed_bins moving_bins"]

EMPTY = 1e-16
"""Probabilities up to which elastix takes a bin for empty."""


class HistogramSettings(ImageMetricSettings):
    """What metrics of a joint histogram read."""

    number_of_histogram_bins: int = Field(32, ge=2, description="Number of bins for either image.")
    number_of_fixed_histogram_bins: int | None = Field(
        None, ge=2, description="Number of bins for the fixed image, where it is another."
    )
    number_of_moving_histogram_bins: int | None = Field(
        None, ge=2, description="Number of bins for the moving image, where it is another."
    )
    fixed_kernel_b_spline_order: int = Field(
        0,
        ge=0,
        le=3,
        alias="FixedKernelBSplineOrder",
        description="Order of the B-spline that spreads a fixed intensity over the bins, 0 to 3.",
    )
    moving_kernel_b_spline_order: int = Field(
        3,
        ge=0,
        le=3,
        alias="MovingKernelBSplineOrder",
        description="Order of the B-spline that spreads a moving intensity over the bins, 0 to 3; 2 and 3 are smooth.",
    )
    fixed_limit_range_ratio: float = Field(
        0.01, ge=0, description="How far the fixed bins go beyond the intensities, as a share of their range."
    )
    moving_limit_range_ratio: float = Field(
        0.01, ge=0, description="How far the moving bins go beyond the intensities, as a share of their range."
    )

    @property
    def bins(self) -> tuple[int, int]:
        """How many bins there are for the fixed and for the moving image."""
        both = self.number_of_histogram_bins
        return self.number_of_fixed_histogram_bins or both, self.number_of_moving_histogram_bins or both

    def check(self) -> None:
        """Splines must fit into the bins."""
        super().check()
        fixed, moving = self.fixed_kernel_b_spline_order, self.moving_kernel_b_spline_order
        given = self.number_of_fixed_histogram_bins, self.number_of_moving_histogram_bins
        # the rim of the moving bins is a share of a fixed bin
        orders = max(fixed, moving), moving
        for side, number, own, order in zip(("fixed", "moving"), self.bins, given, orders, strict=True):
            if number < Bins.least(order):
                name = f"number_of_{side}_histogram_bins" if own else "number_of_histogram_bins"
                raise Refused(name, f"at least {Bins.least(order)} are needed for kernels of order {order}")


class MattesSettings(HistogramSettings):
    """What `AdvancedMattesMutualInformation` reads."""

    use_fast_and_low_memory_version: bool = Field(
        True, description="Read and ignored: both versions of elastix give the same, and this one is always fast."
    )
    use_jacobian_preconditioning: bool = Field(
        False, description="Whether the derivative is preconditioned by the Jacobian; refused when true."
    )
    finite_difference_derivative: bool = Field(
        False, description="Whether the derivative is taken by finite differences; refused when true."
    )

    def check(self) -> None:
        """What is left to elastix is refused."""
        super().check()
        for name in ("use_jacobian_preconditioning", "finite_difference_derivative"):
            if getattr(self, name):
                raise Refused(name, "only false runs here, with an exact derivative; for true take --engine elastix")


@dataclass(frozen=True)
class _Pairs:
    """Pairs of a fixed and a moving intensity: their shares in the bins under them.

    `slopes` are the derivatives of the moving shares to the moving intensity.
    """

    under: Int[Tensor, " points_taps_taps"]
    fixed: Float[Tensor, "points fixed_taps"]
    moving: Float[Tensor, "points moving_taps"]
    slopes: Float[Tensor, "points moving_taps"]


class HistogramMetric(CollectiveMetric):
    """A metric of the joint histogram of the samples (`itk::ParzenWindowHistogramImageToImageMetric`); abstract."""

    Settings = HistogramSettings

    def __init__(self, settings: AnySettings, scene: Scene) -> None:
        super().__init__(settings, scene)
        given = cast(HistogramSettings, settings)
        fixed, moving = self._shape = given.bins
        self._fixed_range = Range.of(scene.fixed, scene.fixed_mask, given.fixed_limit_range_ratio)
        self._moving_range = Range.of(scene.moving, scene.moving_mask, given.moving_limit_range_ratio)
        self._fixed_bins = Bins.of(self._fixed_range, fixed, given.fixed_kernel_b_spline_order)
        # elastix takes the rim of the moving bins from the number of the fixed ones
        self._moving_bins = Bins.of(self._moving_range, moving, given.moving_kernel_b_spline_order, rim_of=fixed)

    def compare(self, fixed: Values, moving: Values) -> tuple[float, Values]:
        """The value of the joint histogram, and its derivative to the moving intensities."""
        intensities = list(zip(fixed.split(POINTS_AT_ONCE), moving.split(POINTS_AT_ONCE), strict=True))
        histogram = fixed.new_zeros(self._shape)
        for piece in intensities:
            pairs = self._pairs(*piece)
            histogram += joint_histogram(pairs.under, pairs.fixed, pairs.moving, self._shape)
        value, table = self.measure(histogram / len(fixed))
        table = table / len(fixed)
        # shares take much more memory than intensities, and little time
        all_pairs = [pairs] if len(intensities) == 1 else (self._pairs(*piece) for piece in intensities)
        return value, torch.cat([gathered(table, p.under, p.fixed, p.slopes) for p in all_pairs])

    @staticmethod
    @abstractmethod
    def measure(joint: Table) -> tuple[float, Table]:
        """The value for joint probabilities, and its derivative to them.

        The derivative may be off by a number for each fixed bin: moving intensities never change how much is in it.
        """

    def _pairs(self, fixed: Values, moving: Values) -> _Pairs:
        fixed_window = self._fixed_bins.window(self._fixed_range.clipped(fixed))
        bent, bend = self._moving_range.bent(moving)
        moving_window, slopes = self._moving_bins.sloped(bent)
        under = bins_under(fixed_window, moving_window, self._shape[1])
        return _Pairs(under, fixed_window.shares, moving_window.shares, slopes * bend[:, None])


class AdvancedMattesMutualInformation(HistogramMetric, name="AdvancedMattesMutualInformation"):
    """Minus the mutual information (`itk::ParzenWindowMutualInformationImageToImageMetric`), in nats.

    Exact for moving kernels of order 1 and 2 too, where the derivative of elastix is wrong: with order 1 it points
    uphill (`itk::BSplineDerivativeKernelFunction2` takes the distance to a bin with the wrong sign). For order 0, whose
    derivative is zero, that of order 1 is taken.
    """

    Settings = MattesSettings

    @staticmethod
    def measure(joint: Table) -> tuple[float, Table]:
        """Minus the sum of p log(p / (p_fixed p_moving))."""
        fixed, moving = joint.sum(dim=1), joint.sum(dim=0)
        share = torch.where(joint > EMPTY, _log(joint) - _log(moving), 0.0)
        value = sums.dot(fixed, _log(fixed)) - sums.total(joint * share)
        return float(value), -share


class NormalizedMutualInformation(HistogramMetric, name="NormalizedMutualInformation"):
    """Minus the sum of both entropies over the joint entropy (Studholme et al. 1999, Pattern Recognition 32, 71-86;
    `itk::ParzenWindowNormalizedMutualInformationImageToImageMetric`): -1 for independent images, -2 for equal ones.

    What is said of orders 0 to 2 of `AdvancedMattesMutualInformation` holds here.
    """

    @staticmethod
    def measure(joint: Table) -> tuple[float, Table]:
        """Minus (H_fixed + H_moving) / H_joint; -1 where nothing varies."""
        marginals = _log(joint.sum(dim=1))[:, None] + _log(joint.sum(dim=0))
        logarithm = _log(joint)
        entropy = -float(sums.total(joint * logarithm))
        if math.isclose(entropy, 0, abs_tol=EMPTY):
            return -1.0, torch.zeros_like(joint)
        ratio = -float(sums.total(joint * marginals)) / entropy
        slope = torch.where(joint > EMPTY, marginals - ratio * logarithm, 0.0) / entropy
        return -ratio, slope


def _log(probabilities: Tensor) -> Tensor:
    """The logarithm, of what is not next to nothing."""
    return quick.log(probabilities.clamp(min=EMPTY))
