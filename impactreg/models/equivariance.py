"""By how many voxels an image may be shifted so that a model's layers only shift with it."""

from collections.abc import Sequence
from functools import lru_cache
from math import inf
from typing import Any

import torch
from torch import Tensor

from impactreg.errors import ModelError
from impactreg.models.extractor import Extractor
from impactreg.models.geometry import Layer, Matrix
from impactreg.models.measurements import recall

PERIODS = (1, 2, 4, 8, 16, 32)
PROBE = 64
"""Axes of the image that is shifted, unless the model only takes the size of its tiles."""
TOLERANCE = 1e-5


@lru_cache(maxsize=64)
def periods(
    extractor: Extractor, tile: tuple[int, ...], channels: int, layers: tuple[Layer, ...], direction: Matrix
) -> tuple[int | None, ...]:
    """For each layer the smallest shift along all axes at once after which it shows the same, where it sees no border.

    A network that goes down to a coarser grid and up again has a full-resolution output that still depends on where the
    image starts, modulo the coarser grid's step; tiles must start at multiples of it to agree. None for a layer whose
    samples see all of the image, or more of it than can be tried.
    """
    question = f"periods {tile} {channels} {layers} {direction}"
    return recall(extractor, question, lambda: _found(extractor, tile, channels, layers, direction), _read)


def _read(kept: Any) -> tuple[int | None, ...]:
    return tuple(None if each is None else int(each) for each in kept)


def _found(
    extractor: Extractor, tile: tuple[int, ...], channels: int, layers: tuple[Layer, ...], direction: Matrix
) -> tuple[int | None, ...]:
    for shape in ((PROBE,) * len(tile), tile):
        try:
            return _periods(extractor, shape, channels, layers, direction)
        except ModelError:
            continue
    return (None,) * len(layers)


def _periods(
    extractor: Extractor, shape: tuple[int, ...], channels: int, layers: tuple[Layer, ...], direction: Matrix
) -> tuple[int | None, ...]:
    generator = torch.Generator().manual_seed(0)
    image = torch.randn((1, channels, *(size + PERIODS[-1] for size in shape)), generator=generator)
    found: list[int | None] = [None] * len(layers)
    here: Sequence[Tensor] = ()
    for shift in (0, *PERIODS):
        open_ones = [n for n, layer in enumerate(layers) if found[n] is None and _can_be_tried(layer, shape, shift)]
        if not open_ones:
            continue
        part = image
        for axis, size in enumerate(shape, start=2):
            part = part.narrow(axis, shift, size)
        there = extractor.layers(part.clone(), len(layers), (-4.0, 4.0, 0.0, 1.0), direction)
        here = here or there
        for n in open_ones:
            if shift and _same(layers[n], here[n], there[n], shift):
                found[n] = shift
    return tuple(found)


def _can_be_tried(layer: Layer, shape: tuple[int, ...], shift: int) -> bool:
    """Whether samples are left that see no border, and the shift leads to samples."""
    axes = zip(shape, layer.stride, layer.reach, strict=True)
    return all(
        reach < inf and shift % stride == 0 and (size - shift) / stride > 2 * _border(stride, reach)
        for size, stride, reach in axes
    )


def _border(stride: float, reach: float) -> int:
    # a sample elsewhere in the period sees further to one side
    return int(2 * (reach + stride) / stride) + 1


def _same(layer: Layer, first: Tensor, second: Tensor, shift: int) -> bool:
    for axis, (stride, reach) in enumerate(zip(layer.stride, layer.reach, strict=True), start=2):
        steps, border = round(shift / stride), _border(stride, reach)
        count = first.shape[axis] - steps - 2 * border
        if count < 1:
            return False
        first, second = first.narrow(axis, border + steps, count), second.narrow(axis, border, count)
    gap, scale = float((first - second).abs().max()), float(first.abs().max())
    return gap <= TOLERANCE * max(scale, 1e-30)
