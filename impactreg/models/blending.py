"""Windows: how much a tile counts at each place of an axis, from its cuts to its middle."""

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

Window = Callable[
    [Float[Tensor, " samples"], Float[Tensor, " samples"], float, float],
    Float[Tensor, " samples"],
]
"""The weights of a tile's samples, by their positions in the tile and their distances from its nearest cut (voxels),
for the tile's length and the margin (voxels) from a cut in which the tile counts for nothing. No weight is 0: a place
that no tile sees well still gets a value."""

SIGMA = 1 / 8
"""The standard deviation of the Gaussian window, as a share of the tile."""
NOTHING = 1e-9
"""The weight in the margin, as a share of what it were without one."""


def raised_cosine(
    position: Float[Tensor, " samples"], distance: Float[Tensor, " samples"], tile: float, margin: float
) -> Float[Tensor, " samples"]:
    """Nothing in the margin, all in the middle of the tile, a raised cosine between."""
    del position
    ramp = max(tile / 2 - 2 * margin, 1.0)
    rise = ((distance - margin) / ramp).clamp(0, 1)
    return (0.5 - 0.5 * torch.cos(torch.pi * rise)).clamp(min=NOTHING)


def gaussian(
    position: Float[Tensor, " samples"], distance: Float[Tensor, " samples"], tile: float, margin: float
) -> Float[Tensor, " samples"]:
    """A Gaussian around the middle of the tile, of an eighth of its length (nnU-Net's choice), beyond the margin.

    F. Isensee et al., "nnU-Net: a self-configuring method for deep learning-based biomedical image segmentation",
    Nature Methods 18 (2021).
    """
    weight = torch.exp(-0.5 * ((position - (tile - 1) / 2) / (SIGMA * tile)) ** 2)
    return torch.where(distance > margin, weight, NOTHING * weight)
