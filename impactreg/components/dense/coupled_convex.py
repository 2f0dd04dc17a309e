"""Coupled convex optimisation: a displacement for each cell that costs little and is much like those around it.

In turn, each cell chooses the displacement that is cheapest when its distance to a smooth field is paid for as well,
and the choices are smoothed to the next field; the price of the distance rises from one pass to the next.
M. P. Heinrich et al., "Non-parametric Discrete Registration with Convex Optimisation", WBIR 2014; H. Siebert et al.,
"ConvexAdam", IEEE Transactions on Medical Imaging 2024.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from impactreg.components.dense.cost_volume import CostVolume, Plane

COUPLINGS = (0.003, 0.01, 0.03, 0.1, 0.3, 1.0)
"""What a squared distance of one cell costs in each pass after the first, as published."""
FIXED_POINT_PASSES = 15
"""How often two fields are brought nearer to each other's inverse, as published."""

Field = Float[Tensor, "zyx z y x"]


@dataclass(frozen=True, eq=False)
class Pass:
    """What one pass has led to: the smoothed field in cells (components z, y, x), the price `coupling` of a squared
    distance, and the mean `cost` of the displacements chosen, before they were smoothed.
    """

    field: Field
    coupling: float
    cost: float


def passes(
    volume: CostVolume, couplings: tuple[float, ...] = COUPLINGS, *, initial_coupling: float = 0.0
) -> Iterator[Pass]:
    """The passes over a cost volume: the first without a field before it, then one for each of `couplings`.

    `initial_coupling` is what a squared distance of one cell to no displacement costs in the first pass. By 0 the first
    of several cheapest displacements is taken, in the order z, y, x from the most negative on, as published; where
    images are flat, a little more keeps the field still.
    """
    field = torch.zeros(3, *volume.shape, device=volume.device)
    for coupling in (initial_coupling, *couplings):
        chosen, cost = _choose(volume, field, coupling)
        field = smoothed(chosen, volume.search.dimension)
        yield Pass(field, coupling, cost)


def smoothed(field: Field, dimension: int) -> Field:
    """The mean over boxes of three cells along each axis of the image, with zeros outside."""
    around = (1, 1, 1, 1) if dimension == 2 else (1,) * 6
    # Padded beforehand, since pooling refuses what is smaller than its box.
    return functional.avg_pool3d(functional.pad(field[None], around), (1 if dimension == 2 else 3, 3, 3), 1)[0]


def mutually_inverse(forward: Field, backward: Field) -> Field:
    """The forward field after both were drawn together until each all but undoes the other.

    Both are in cells. Each pass replaces a field by half of itself minus the other where it leads to; positions beyond
    the outermost cells take the value there.
    """
    shape = forward.shape[1:]
    half = torch.tensor([(n - 1) / 2 or 1.0 for n in shape]).to(forward)[:, None, None, None]
    place = torch.stack(
        torch.meshgrid(*[torch.linspace(-1, 1, n) if n > 1 else torch.zeros(1) for n in shape], indexing="ij")
    ).to(forward)
    one, two = forward / half, backward / half
    for _ in range(FIXED_POINT_PASSES):
        one, two = 0.5 * (one - _at(two, place + one)), 0.5 * (two - _at(one, place + two))
    return one * half


def _choose(volume: CostVolume, field: Field, coupling: float) -> tuple[Field, float]:
    """The cheapest displacement of each cell, with the way to `field` paid for, and the mean cost without the way."""
    shifts = volume.search.shifts(field.device)
    stretch = torch.tensor(volume.search.stretch, device=field.device)
    ways, price = shifts * stretch, coupling / volume.scale
    toll = torch.cat([price * ways.square().sum(1, keepdim=True), -2 * price * ways], 1)
    chosen, costs = torch.empty_like(field), torch.empty_like(field[0])
    for z, plane in enumerate(volume.planes()):
        here = field[:, z].flatten(1) * stretch[:, None]
        best, cost = _cheapest(plane, toll, here)
        chosen[:, z] = shifts[best].T.reshape(chosen[:, z].shape)
        costs[z] = cost.reshape(costs[z].shape)
    return chosen, float(costs.mean(dtype=torch.float64)) * volume.scale


def _cheapest(plane: Plane, toll: Float[Tensor, "shift four"], field: Tensor) -> tuple[Tensor, Tensor]:
    """The cheapest shift [cell] under cost + price |shift - field|^2, and its cost alone.

    `toll` has price |shift|^2 and -2 price shift for each shift; |field|^2 is the same for all of them and left out.
    """
    there = torch.cat([torch.ones_like(field[:1]), field])
    plane.excess.addmm_(toll, there)
    coupled, best = plane.excess.min(0)
    return best, plane.least + coupled - (toll[best].T * there).sum(0)


def _at(values: Field, places: Field) -> Field:
    """A field at places from -1 (the first cell) to 1 (the last), in tensor order."""
    grid = places.flip(0).movedim(0, -1)[None]
    sampled = functional.grid_sample(values[None], grid, mode="bilinear", padding_mode="border", align_corners=True)
    return sampled[0]
