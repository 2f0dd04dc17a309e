"""The coarse dense registration: features of two images in, a displacement for every voxel out."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn import functional

from impactreg.components.dense import coupled_convex
from impactreg.components.dense.cost_volume import CostVolume, Side, memory_needed
from impactreg.components.dense.coupled_convex import COUPLINGS, Field, Pass
from impactreg.components.dense.search import Search
from impactreg.components.memory import free_memory
from impactreg.errors import RegistrationError

Maps = Sequence[Float[Tensor, "_ ..."]]
Displacement = Float[Tensor, "dim *space"]


@torch.no_grad()
def coarse_displacement(
    fixed_features: Maps,
    moving_features: Maps,
    *,
    shape: tuple[int, ...] | None = None,
    spacing: tuple[float, ...] | None = None,
    grid_spacing: int = 4,
    half_width: int = 3,
    inverse_consistency: bool = True,
    layer_weights: Sequence[float] = (),
    normalize_losses: bool = True,
    initial_coupling: float = 0.0,
    fixed_mask: Bool[Tensor, "*space"] | None = None,
    moving_mask: Bool[Tensor, "*space"] | None = None,
) -> Displacement:
    """The displacement of every voxel, in voxels (components z, y, x), by discrete search and convex coupling.

    Both lists hold the same layers of feature maps [channel, *space] (2D or 3D) of two images on one grid of `shape`
    (tensor order; by default that of the first layer) and `spacing` (mm, x first; by default equal); coarser layers
    cover the same field of view. The moving image at x + displacement(x) is like the fixed one at x.
    Cells have `grid_spacing` voxels along the finest axis, and displacements go `half_width` cells each way. Costs are
    squared differences, summed over the channels of each layer, times `layer_weights` (default 1), and with
    `normalize_losses` each layer is 1 at no displacement. `inverse_consistency` also searches from the moving to the
    fixed features and draws both fields together. `initial_coupling` is as in `coupled_convex.passes`; masks are of
    `shape`.

    Raises `RegistrationError` where memory has no room for the search or images are smaller than a cell.
    After `itk::ImpactCoarseRegistration`; H. Siebert et al., "ConvexAdam", IEEE Transactions on Medical Imaging 2024.
    """
    shape = tuple(fixed_features[0].shape[1:]) if shape is None else shape
    search = Search.of(spacing or (1.0,) * len(shape), grid_spacing, half_width)
    sides = (
        in_cells(fixed_features, shape, search, fixed_mask),
        in_cells(moving_features, shape, search, moving_mask),
    )
    comparison = Comparison(*sides, search, tuple(layer_weights), normalize_losses)
    forward = _last(comparison.passes(initial_coupling=initial_coupling))
    if inverse_consistency:
        backward = _last(comparison.passes(backward=True, initial_coupling=initial_coupling))
        forward = coupled_convex.mutually_inverse(forward, backward)
    return upsampled(forward, search, shape)


@dataclass(frozen=True, eq=False)
class LayeredSide:
    """The layers of one image in cells [channel, z, y, x] each, and each cell's share of the mask."""

    layers: tuple[Float[Tensor, "_ z y x"], ...]
    weight: Float[Tensor, "z y x"] | None = None

    @cached_property
    def side(self) -> Side:
        """All channels one after the other."""
        return Side(torch.cat(self.layers), self.weight)


def in_cells(
    maps: Maps, shape: tuple[int, ...], search: Search, mask: Bool[Tensor, "*space"] | None = None
) -> LayeredSide:
    """Feature maps of an image of `shape` averaged over each cell; of a mask, only what lies in it counts.

    Maps of another shape cover the same field of view and are pooled adaptively, so that none is made finer. Raises
    `RegistrationError` where the image is smaller than a cell.
    """
    cells = whole_cells(shape, search)
    share = None if mask is None else mask.to(maps[0].dtype)[None]
    layers = tuple(_pooled_inside(each, share, shape, cells, search.factors) for each in maps)
    weight = None if share is None else _pooled(share, shape, cells, search.factors)[0]
    in_3d = search.in_3d(cells)
    return LayeredSide(
        tuple(layer.reshape(-1, *in_3d) for layer in layers), None if weight is None else weight.reshape(in_3d)
    )


def whole_cells(shape: tuple[int, ...], search: Search) -> tuple[int, ...]:
    """How many whole cells an image of `shape` has along each axis; raises `RegistrationError` where there are none."""
    cells = tuple(n // c for n, c in zip(shape, search.factors, strict=True))
    if min(cells) < 1:
        size, cell = (" x ".join(map(str, reversed(each))) for each in (shape, search.factors))
        raise RegistrationError(
            f"an image of {size} voxels is smaller than a cell of {cell}: use a smaller ImpactGridSpacing"
        )
    return cells


@dataclass(frozen=True, eq=False)
class Comparison:
    """Both images in cells and how their layers count: the costs of all displacements, either way."""

    fixed: LayeredSide
    moving: LayeredSide
    search: Search
    layer_weights: tuple[float, ...] = ()
    normalize: bool = True

    def passes(
        self, *, backward: bool = False, couplings: tuple[float, ...] = COUPLINGS, initial_coupling: float = 0.0
    ) -> Iterator[Pass]:
        """The passes of the coupled convex search from the fixed to the moving image, or `backward`."""
        sides = (self.moving, self.fixed) if backward else (self.fixed, self.moving)
        return coupled_convex.passes(self._volume(*sides), couplings, initial_coupling=initial_coupling)

    def _volume(self, reference: LayeredSide, moving: LayeredSide) -> CostVolume:
        weights = self.channel_weights
        cells = tuple(self.fixed.layers[0].shape[1:])
        hold = check_memory(self.search, cells, len(weights), weights.device)
        return CostVolume(reference.side, moving.side, self.search, weights, scale=self.scale, hold=hold)

    @cached_property
    def channel_weights(self) -> Float[Tensor, " channel"]:
        """The weight of each channel: that of its layer, which is divided by the cost at no displacement if asked."""
        weights = []
        for place, (fixed, cost) in enumerate(zip(self.fixed.layers, self._costs_at_rest, strict=True)):
            weight = self.layer_weights[place] if place < len(self.layer_weights) else 1.0
            weight /= len(fixed) * cost if self.normalize and cost > 0 else 1.0
            weights.append(torch.full((len(fixed),), weight).to(fixed))
        return torch.cat(weights)

    @cached_property
    def scale(self) -> float:
        """The cost at no displacement, by which costs are stored."""
        sizes = [len(layer) for layer in self.fixed.layers]
        of_layers = [float(each.sum()) for each in self.channel_weights.split(sizes)]
        cost = sum(weight * at_rest for weight, at_rest in zip(of_layers, self._costs_at_rest, strict=True))
        return cost if cost > 0 else 1.0

    @cached_property
    def _costs_at_rest(self) -> tuple[float, ...]:
        """The mean squared difference of each layer at no displacement."""
        weight = torch.ones_like(self.fixed.layers[0][0])
        for each in (self.fixed.weight, self.moving.weight):
            weight = weight if each is None else weight * each
        costs = []
        for fixed, moving in zip(self.fixed.layers, self.moving.layers, strict=True):
            squares = (fixed - moving).square().mean(0) * weight
            costs.append(float(squares.sum(dtype=torch.float64) / weight.sum(dtype=torch.float64).clamp(min=1e-12)))
        return tuple(costs)


def check_memory(search: Search, cells: tuple[int, ...], channels: int, device: torch.device) -> bool:
    """Whether memory has room for the whole cost volume; raises `RegistrationError` where it has none for the search
    at all.
    """
    working, volume = memory_needed(search, cells, channels)
    free = free_memory(device)
    if working > free:
        raise RegistrationError(
            f"the search for {search.count} displacements in {' x '.join(map(str, reversed(cells)))} cells needs "
            f"{working / 2**30:.1f} GiB, and {free / 2**30:.1f} GiB are free: use a smaller "
            "ImpactDisplacementHalfWidth or a larger ImpactGridSpacing"
        )
    return working + volume < free / 2


def upsampled(field: Field, search: Search, shape: tuple[int, ...]) -> Displacement:
    """A field in cells as displacements in voxels, for every voxel of an image of `shape`.

    Linear between the centres of cells, constant beyond them and in the voxels behind the last whole cell.
    """
    cells = field[-search.dimension :, 0] if search.dimension == 2 else field
    factors = search.factors
    stretched = cells * torch.tensor(factors).to(field).view(-1, *[1] * search.dimension)
    exact = [n * factor for n, factor in zip(cells.shape[1:], factors, strict=True)]
    mode = "bilinear" if search.dimension == 2 else "trilinear"
    fine = functional.interpolate(stretched[None], size=exact, mode=mode, align_corners=False)
    missing = [n for have, want in zip(reversed(exact), reversed(shape), strict=True) for n in (0, want - have)]
    return (functional.pad(fine, missing, mode="replicate") if any(missing) else fine)[0]


def _last(passes: Iterator[Pass]) -> Field:
    *_, last = passes
    return last.field


def _pooled_inside(
    values: Tensor, share: Tensor | None, shape: tuple[int, ...], cells: tuple[int, ...], factors: tuple[int, ...]
) -> Tensor:
    """The mean of each cell over what lies in the mask, and 0 where nothing does."""
    if share is None:
        return _pooled(values, shape, cells, factors)
    if values.shape[1:] != share.shape[1:]:
        share = _adaptive(share.dim())(share, values.shape[1:])
    inside = _pooled(share, shape, cells, factors)
    return torch.where(inside > 0, _pooled(values * share, shape, cells, factors) / inside, 0.0)


def _pooled(values: Tensor, shape: tuple[int, ...], cells: tuple[int, ...], factors: tuple[int, ...]) -> Tensor:
    if tuple(values.shape[1:]) != tuple(shape):
        return _adaptive(values.dim())(values, cells)
    pool = functional.avg_pool2d if len(shape) == 2 else functional.avg_pool3d
    return pool(values[None], factors, factors)[0]


def _adaptive(dimensions: int) -> Callable[..., Tensor]:
    return functional.adaptive_avg_pool2d if dimensions == 3 else functional.adaptive_avg_pool3d
