"""What a model takes and makes, found by asking it; and models that give one output instead of a list."""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from functools import lru_cache
from itertools import product
from typing import NamedTuple

import torch
from torch import Tensor, nn

from impactreg.errors import ModelError
from impactreg.models.extractor import Extractor, torchscript
from impactreg.models.geometry import identity
from impactreg.models.measurements import recall

SIZES = {2: (32, 64, 224), 3: (32, 64)}
"""Sizes of the images with which a model is asked; the last one of 2D is what vision transformers expect."""

MOST = 64
"""More layers than any model has."""


class Contract(NamedTuple):
    """A model of images of `dimension` with `channels`, which makes so many layers."""

    dimension: int
    channels: int
    layers: int


class Listed(nn.Module):
    """A module whose single tensor, tuple or dictionary of tensors becomes the list of layers of the contract."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, *given: Tensor) -> object:
        """The output as a list where it is made of tensors."""
        output = self.module(*given)
        if isinstance(output, Tensor):
            return [output]
        if isinstance(output, dict):
            return list(output.values())
        return list(output) if isinstance(output, tuple) else output


@lru_cache(maxsize=8)
def listed(extractor: Extractor) -> Extractor:
    """The same model, also where it gives a single tensor instead of a list, as networks that make an image do.

    TorchScript is frozen: weights become constants, and normalisations part of convolutions, where it allows that.
    """
    return replace(extractor, module=Listed(_frozen(extractor.module)))


def _frozen(module: nn.Module) -> nn.Module:
    if not isinstance(module, torch.jit.ScriptModule) or module.training:
        return module
    try:
        with torchscript():
            frozen: nn.Module = torch.jit.freeze(module)
    except RuntimeError:
        # Frozen or not, it is the same model; some change their own attributes while they run.
        return module
    return frozen


@lru_cache(maxsize=64)
def ask(
    extractor: Extractor,
    image_dimension: int,
    image_channels: int,
    *,
    dimension: int | None = None,
    channels: int | None = None,
    layers: int | None = None,
) -> Contract:
    """The contract that fits an image; dimension and channels of the model's input, and layers are found unless given.

    Tried are the image's own dimension before 2, and its own channels before 3 equal ones; a model file is asked once,
    not in every process. Raises `ModelError` where the model takes nothing of these.
    """
    if dimension not in (None, 2, 3) or (channels is not None and channels < 1):
        raise ModelError(f"{extractor.name}: a model has dimension 2 or 3, not {dimension}, and channels from 1 on")
    if dimension and channels and layers:
        return Contract(dimension, channels, layers)
    dimensions = (dimension,) if dimension else tuple(sorted({image_dimension, 2}, reverse=True))
    counts = (channels,) if channels else (image_channels, *([3] if image_channels == 1 else []))
    question = f"contract {dimensions} {counts}"
    found = recall(extractor, question, lambda: _asked(extractor, dimensions, counts), lambda kept: Contract(*kept))
    return found._replace(layers=layers or found.layers)


def taken(extractor: Extractor, inputs: Iterable[Tensor], statistics: Sequence[float]) -> tuple[Tensor, int]:
    """The first input that the model takes, or a larger one of its kind from which it makes more layers; and how many.

    Raises the `ModelError` of the first input where the model takes none.
    """
    best: tuple[Tensor, int] | None = None
    error: ModelError | None = None
    for x in inputs:
        if best is not None and (x.shape[1] != best[0].shape[1] or x.ndim != best[0].ndim):
            continue
        try:
            number, whole = count(extractor, x, statistics)
        except ModelError as raised:
            error = error or raised
            continue
        if best is None or number > best[1]:
            best = x, number
        if whole or x.shape[-1] > best[0].shape[-1]:
            return best
    if best is None:
        raise error or ModelError(f"{extractor.name}: an input of this size is too large to be tried")
    return best


@torch.no_grad()
def count(extractor: Extractor, x: Tensor, statistics: Sequence[float]) -> tuple[int, bool]:
    """How many layers a model makes of an input, and whether it made all that it has: nothing failed.

    Raises `ModelError` where it does not even make one.
    """
    direction = identity(x.ndim - 2)
    # A copy each time, for a model may change its input. What breaks the contract is told by whom it concerns.
    extractor.layers(x.clone(), 1, statistics, direction)
    try:
        # Most models make all that they have when they are asked for too many.
        found = extractor.answer(x.clone(), MOST, statistics, direction)
        return min(len(found) if isinstance(found, list) else 1, MOST), True
    except ModelError:
        pass
    for number in range(1, MOST):
        try:
            extractor.layers(x.clone(), number + 1, statistics, direction, check_values=False)
        except ModelError:
            return number, False
    return MOST, True


def _asked(extractor: Extractor, dimensions: Sequence[int], counts: Sequence[int]) -> Contract:
    generator = torch.Generator().manual_seed(0)
    kinds = ((each, number, size) for each, number in product(dimensions, counts) for size in SIZES[each])
    inputs = (torch.rand((1, number, *[size] * each), generator=generator) for each, number, size in kinds)
    try:
        x, layers = taken(extractor, inputs, (0.0, 1.0, 0.5, 0.3))
    except ModelError as error:
        name, said = extractor.name, str(error).removeprefix(f"{extractor.name}: ")
        tried = " or ".join(f"{each}D" for each in dimensions), " or ".join(map(str, counts))
        raise ModelError(
            f"{name}: no {tried[0]} image of {tried[1]} channels is taken: {said}; tell dimension and channels"
        ) from None
    return Contract(x.ndim - 2, x.shape[1], layers)
