"""The features at the centre of small patches, and the cheaper ways to find the same features, held against the patch.

The Jacobian mode of the IMPACT metric shows a model one patch for every sample and compares, of each selected layer,
the sample at index size // 2 of every axis. Where a part of the patch gives the same features, it is enough to show
that; where shifted patches see what one larger tile sees, many samples can share a tile. Neither is derived from what
a network is supposed to do: both are tried, on images of very uneven contrast, and used only where the features agree.
"""

from functools import lru_cache
from math import inf
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from impactreg.errors import ModelError
from impactreg.models.extractor import Extractor
from impactreg.models.measurements import recall

Index = tuple[int, ...]
Matrix = tuple[tuple[float, ...], ...]

PERIODS = (1, 2, 4, 8, 16, 32)
"""By how many voxels a patch may have to be shifted for a model to see the same: the product of its strides."""
TRIED = 16
"""Patches on which two ways are compared."""
AGREEMENT = 1e-5
"""By how much they may differ, as a share of the largest feature: what the order of a sum in float32 can do."""
LARGEST = {2: 256, 3: 64}
"""Voxels along an axis of the largest image in which a field of view is looked for."""


class Patch(NamedTuple):
    """What a model is shown for one sample: `shape` (tensor order), with so many channels; `layers_mask` says which of
    its layers are compared, `direction` is the image's direction matrix.
    """

    extractor: Extractor
    shape: Index
    channels: int
    layers_mask: tuple[bool, ...]
    direction: Matrix

    def layers(
        self,
        x: Float[Tensor, "batch channel *space"],
        statistics: "Tensor | None" = None,
        *,
        mixed_precision: bool = False,
        check_values: bool = True,
    ) -> list[Tensor]:
        """The selected layers [batch, feature, *space] of some patches, or parts of patches, or tiles; by default with
        their own statistics.

        Differentiable. Raises `ModelError` where the model breaks its contract.
        """
        if statistics is None:
            statistics = _statistics(x.detach())
        found = self.extractor.layers(
            x if self.extractor.dtype is None else x.to(self.extractor.dtype),
            len(self.layers_mask),
            statistics,
            self.direction,
            mixed_precision=mixed_precision,
            check_values=check_values,
        )
        return [layer for layer, wanted in zip(found, self.layers_mask, strict=True) if wanted]


class View(NamedTuple):
    """A part of every patch that gives its features: where it starts and its shape (tensor order); `centres` is where
    the compared sample lies in each layer made of it.
    """

    start: Index
    shape: Index
    centres: tuple[Index, ...]
    strides: tuple[Index, ...]


class Whole(NamedTuple):
    """A model's answer to whole patches: the view of all of it, and how many channels each selected layer has."""

    view: View
    channels: tuple[int, ...]


def at(layer: Float[Tensor, "batch feature *space"], place: Index) -> Float[Tensor, "batch feature"]:
    """The sample of a layer at an index (tensor order)."""
    for index in reversed(place):
        layer = layer[..., index]
    return layer


@lru_cache(maxsize=64)
def whole(patch: Patch) -> Whole:
    """The view that is the patch itself; raises `ModelError` where the model cannot take it."""
    with torch.no_grad():
        layers = patch.layers(_uneven(patch, patch.shape, 2))
    sizes = [tuple(layer.shape[2:]) for layer in layers]
    strides = [tuple(round(n / m) for n, m in zip(patch.shape, size, strict=True)) for size in sizes]
    centres = tuple(tuple(n // 2 for n in size) for size in sizes)
    view = View((0,) * len(patch.shape), patch.shape, centres, tuple(strides))
    return Whole(view, tuple(layer.shape[1] for layer in layers))


@lru_cache(maxsize=64)
def smallest(patch: Patch) -> View:
    """The smallest part of the patch that gives the features at its centre: what lies in the field of view.

    Raises `ModelError` where a selected layer has no gradient to the image.
    """
    return recall(patch.extractor, _question("smallest", patch), lambda: _smallest(patch), _view)


def _smallest(patch: Patch) -> View:
    view = whole(patch).view
    first, last = _support(patch, patch.shape)
    for period in PERIODS:
        start = tuple(a // period * period for a in first)
        end = tuple(min(n, -(-(b + 1) // period) * period) for b, n in zip(last, patch.shape, strict=True))
        part = _part(view, start, tuple(b - a for a, b in zip(start, end, strict=True)))
        if part is not None and part.shape != patch.shape and _same_features(patch, part):
            return part
    return view


@lru_cache(maxsize=64)
def field_of_view(patch: Patch) -> tuple[float, ...]:
    """How many voxels along each axis the compared features depend on; infinite where that is more than was tried.

    Measured by gradients, on the patch itself if it is larger than that, else on larger images.
    """
    question = _question("field of view", patch)
    return recall(patch.extractor, question, lambda: _field_of_view(patch), lambda kept: tuple(map(float, kept)))


def _field_of_view(patch: Patch) -> tuple[float, ...]:
    shape = patch.shape
    while True:
        try:
            first, last = _support(patch, shape)
        except ModelError:
            return (inf,) * len(shape)
        if all(a > 0 and b < n - 1 for a, b, n in zip(first, last, shape, strict=True)):
            return tuple(float(b - a + 1) for a, b in zip(first, last, strict=True))
        larger = tuple(2 * n for n in shape)
        if max(larger) > LARGEST[len(shape)]:
            reached = zip(first, last, shape, strict=True)
            return tuple(float(b - a + 1) if a > 0 and b < n - 1 else inf for a, b, n in reached)
        shape = larger


@lru_cache(maxsize=256)
def shares_tiles(patch: Patch, view: View, period: int, tile: Index) -> bool:
    """Whether parts of patches that start at multiples of `period` in a tile have the features that the tile has there;
    `view` is which part.
    """
    question = _question("shares tiles", patch, tuple(view), period, tile)
    return recall(patch.extractor, question, lambda: _shares_tiles(patch, view, period, tile), bool)


def _shares_tiles(patch: Patch, view: View, period: int, tile: Index) -> bool:
    if any(period % step for strides in view.strides for step in strides):
        return False
    starts = _starts(period, tile, view.shape)
    x = _uneven(patch, tile, 2)
    statistics = _statistics(x)
    parts = torch.stack([_cut(x[i % 2], start, view.shape) for i, start in enumerate(starts)])
    try:
        with torch.no_grad():
            together, apart = patch.layers(x, statistics), patch.layers(parts, statistics)
    except ModelError:
        return False
    for dense, alone, centre, strides in zip(together, apart, view.centres, view.strides, strict=True):
        places = [tuple(a // s + c for a, s, c in zip(start, strides, centre, strict=True)) for start in starts]
        if any(p >= n for place in places for p, n in zip(place, dense.shape[2:], strict=True)):
            return False
        found = torch.stack([at(dense, place)[i % 2] for i, place in enumerate(places)])
        if not _agree(found, at(alone, centre)):
            return False
    return True


@lru_cache(maxsize=64)
def period_of(patch: Patch, view: View) -> int | None:
    """The least shift after which a model sees the same in tiles as in patches; None where there is none."""
    for period in PERIODS:
        tile = tuple(n + 2 * period for n in view.shape)
        if shares_tiles(patch, view, period, tile):
            return period
    return None


@lru_cache(maxsize=64)
def has_more_layers(patch: Patch) -> bool:
    """Whether a model that is not told how many layers are wanted gives more of them than the mask knows."""
    if patch.extractor.arguments > 1:
        return False
    try:
        with torch.no_grad():
            patch._replace(layers_mask=(*patch.layers_mask, True)).layers(_uneven(patch, patch.shape, 1))
    except ModelError:
        return False
    return True


@lru_cache(maxsize=64)
def independent(patch: Patch) -> bool:
    """Whether the features of a patch are the same whatever other patches go through the model with it."""
    return recall(patch.extractor, _question("independent", patch), lambda: _independent(patch), bool)


def _independent(patch: Patch) -> bool:
    x = _uneven(patch, patch.shape, 4)
    statistics = _statistics(x)
    with torch.no_grad():
        together = patch.layers(x, statistics)
        alone = [patch.layers(one[None], statistics) for one in x]
    return all(_agree(layer, torch.cat(each)) for layer, *each in zip(together, *alone, strict=True))


def _question(what: str, patch: Patch, *further: object) -> str:
    return " ".join(map(str, (what, *patch[1:], *further)))


def _view(kept: Any) -> View:
    start, shape, *both = kept
    return View(tuple(start), tuple(shape), *(tuple(map(tuple, each)) for each in both))


def _part(view: View, start: Index, shape: Index) -> View | None:
    """The view of a part of the patch; None where its start is between samples of a layer."""
    if any(a % s for strides in view.strides for a, s in zip(start, strides, strict=True)):
        return None
    centres = tuple(
        tuple(c - a // s for c, a, s in zip(centre, start, strides, strict=True))
        for centre, strides in zip(view.centres, view.strides, strict=True)
    )
    return View(start, shape, centres, view.strides)


def _same_features(patch: Patch, part: View) -> bool:
    view = whole(patch).view
    x = _uneven(patch, patch.shape, TRIED)
    statistics = _statistics(x)
    cut = torch.stack([_cut(one, part.start, part.shape) for one in x])
    try:
        with torch.no_grad():
            known, found = patch.layers(x, statistics), patch.layers(cut, statistics)
    except ModelError:
        return False
    for layer, other, centre, there in zip(known, found, view.centres, part.centres, strict=True):
        if any(not 0 <= p < n for p, n in zip(there, other.shape[2:], strict=True)):
            return False
        if not _agree(at(other, there), at(layer, centre)):
            return False
    return True


@torch.enable_grad()
def _support(patch: Patch, shape: Index) -> tuple[Index, Index]:
    """The first and the last voxel along each axis that the features in the middle of an image of a shape depend on."""
    x = _uneven(patch, shape, 2, contrast=1.0).requires_grad_(True)
    # a copy, because a model may change its input in place, which autograd forbids for x itself
    layers = patch.layers(x.clone())
    mixtures = []
    for number, layer in enumerate(layers):
        if not layer.requires_grad:
            raise ModelError(
                f"{patch.extractor.name}: a selected layer has no gradient to the image, which the Jacobian mode needs"
            )
        middle = at(layer, tuple(n // 2 for n in layer.shape[2:]))
        mixtures.append((middle * _noise(tuple(middle.shape), -1 - number).to(middle)).sum())
    (gradient,) = torch.autograd.grad(torch.stack(mixtures).sum(), x)
    energy = gradient.double().square().sum(dim=(0, 1))
    ends = []
    for axis in range(energy.ndim):
        profile = energy.sum([other for other in range(energy.ndim) if other != axis])
        seen = profile.nonzero()
        ends.append((int(seen.min()), int(seen.max())) if len(seen) else (0, len(profile) - 1))
    return tuple(a for a, _ in ends), tuple(b for _, b in ends)


def _starts(period: int, tile: Index, shape: Index) -> list[Index]:
    """Some places where a part of a shape may start in a tile: both ends, and random ones."""
    room = [(n - m) // period for n, m in zip(tile, shape, strict=True)]
    generator = torch.Generator().manual_seed(0)
    picked = [[int(torch.randint(r + 1, (1,), generator=generator)) for r in room] for _ in range(TRIED - 2)]
    return [tuple(p * period for p in each) for each in ([0] * len(room), room, *picked)]


def _statistics(x: Tensor) -> Tensor:
    return torch.stack([x.min(), x.max(), x.mean(), x.std(correction=0)])


def _cut(x: Float[Tensor, "channel *space"], start: "Index | list[int]", shape: Index) -> Tensor:
    return x[(slice(None), *(slice(a, a + n) for a, n in zip(start, shape, strict=True)))]


def _agree(found: Tensor, known: Tensor) -> bool:
    return float((found - known).abs().max()) <= AGREEMENT * float(known.abs().max())


def _uneven(patch: Patch, shape: Index, count: int, contrast: float = 1e-3) -> Float[Tensor, "batch channel *space"]:
    """Noise of which a part has next to no contrast, so that what a model normalises by far voxels shows itself: one
    half of every second image, and all but one face of the others.
    """
    x = _noise((count, patch.channels, *shape), 0)
    generator = torch.Generator().manual_seed(1)
    for number, one in enumerate(x):
        axis = int(torch.randint(len(shape), (1,), generator=generator))
        kept = shape[axis] // 2 if number % 2 else 1
        one.narrow(axis + 1, 0, shape[axis] - kept).mul_(contrast)
    return x.to(patch.extractor.device)


def _noise(shape: Index, seed: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))
