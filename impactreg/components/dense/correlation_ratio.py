"""Correlation ratio: how well moving intensities follow from the fixed ones by any function, with its derivative.

The function is a step function of the fixed intensity, and in every evaluation the best one for the moving intensities
as they are. So it knows no monotony, and where images are of two modalities it learns how one looks in the other
(Roche et al. 1998, doi:10.1007/BFb0056301).
"""

import torch
from jaxtyping import Float, Int
from torch import Tensor

Values = Float[Tensor, " points"]


class CorrelationRatio:
    """The mean squared rest of the moving values, over the `variance` of the moving image.

    `fixed` are the fixed values of the points, of which each of `bins` equal ranges between the extremes gets one
    value of the function.
    """

    def __init__(self, fixed: Values, bins: int, variance: float) -> None:
        low, high = fixed.min(), fixed.max()
        # divided before it is multiplied: an image of one value must stay finite, all of it in the first range
        scaled = (fixed - low) / (high - low).clamp(min=torch.finfo(fixed.dtype).tiny) * bins
        self._bin: Int[Tensor, " points"] = scaled.long().clamp_(max=bins - 1)
        self._bins = bins
        self._variance = variance or 1.0

    def __call__(self, moving: Values, weights: Values) -> tuple[Tensor, Values, Values]:
        """The value, its derivative to the moving values, and its second derivative with the function kept.

        The derivative is exact: the function is the best there is, so that its own change does not count.
        """
        total = weights.sum()
        counts = self._summed(weights).clamp_(min=torch.finfo(moving.dtype).tiny)
        rest = moving - (self._summed(weights * moving) / counts).index_select(0, self._bin)
        share = weights / (total * self._variance)
        return (share * rest.square()).sum(), 2 * share * rest, 2 * share

    def _summed(self, values: Tensor) -> Float[Tensor, " bins"]:
        return values.new_zeros(self._bins).index_add_(0, self._bin, values)
