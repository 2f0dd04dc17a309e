"""Stationary velocity fields: their flow by scaling and squaring, which is invertible, and its derivative.

Fields are displacements on a lattice of control cells, in the unit of the cells' distances (Arsigny et al. 2006,
doi:10.1007/11866565_113).
"""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

Field = Float[Tensor, "dim *space"]


def flow(velocity: Field, steps: Sequence[float], squarings: int) -> Field:
    """The displacement after the flow along a velocity field for the time 1; differentiable by PyTorch.

    `steps` (z, y, x) are the distances of the lattice points. The field is halved `squarings` times and then composed
    with itself as often. The flow of the negative velocity is its inverse. Beyond the lattice the border goes on.
    """
    displacement: Tensor = velocity / 2**squarings
    lookup = _Lookup(velocity, steps)
    for _ in range(squarings):
        displacement = displacement + lookup(displacement, displacement)
    return displacement


class _Lookup:
    """A field at displaced lattice points, linearly interpolated."""

    def __init__(self, like: Field, steps: Sequence[float]) -> None:
        axes = [(torch.arange(n, dtype=like.dtype, device=like.device) * 2 + 1) / n - 1 for n in like.shape[1:]]
        self._points = torch.stack(list(reversed(torch.meshgrid(*axes, indexing="ij"))), dim=-1)
        spans = [2 / (n * step) for n, step in zip(like.shape[1:], steps, strict=True)]
        self._to_unit = torch.tensor(spans[::-1], dtype=like.dtype, device=like.device)

    def __call__(self, field: Field, displacement: Field) -> Field:
        places = self._points + displacement.movedim(0, -1) * self._to_unit
        found: Tensor = functional.grid_sample(field[None], places[None], padding_mode="border", align_corners=False)
        return found[0]
