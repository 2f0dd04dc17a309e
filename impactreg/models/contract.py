"""What a model takes and makes, found by asking it; and models that give one output instead of a list."""

from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import product

import torch
from torch import Tensor, nn

from impactreg.errors import ModelError
from impactreg.models.extractor import Extractor, torchscript

SIZES = {2: (32, 64, 224), 3: (32, 64)}
"""Sizes of the images with which a model is asked; the last one of 2D is what vision transformers expect."""

MOST = 64
"""More layers than any model has."""


@dataclass(frozen=True)
class Contract:
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

    Tried are the image's own dimension before 2, and its own channels before 3 equal ones. Raises `ModelError` where
    the model takes nothing of these.
    """
    if dimension not in (None, 2, 3) or (channels is not None and channels < 1):
        raise ModelError(f"{extractor.name}: a model has dimension 2 or 3, not {dimension}, and channels from 1 on")
    if dimension and channels and layers:
        return Contract(dimension, channels, layers)
    dimensions = [dimension] if dimension else sorted({image_dimension, 2}, reverse=True)
    counts = [channels] if channels else [image_channels, *([3] if image_channels == 1 else [])]
    said = ""
    for each, count in product(dimensions, counts):
        for size in SIZES[each]:
            try:
                return Contract(each, count, layers or _number_of_layers(extractor, each, count, size))
            except ModelError as error:
                said = said or str(error).removeprefix(f"{extractor.name}: ")
    tried = " or ".join(f"{each}D" for each in dimensions), " or ".join(map(str, counts))
    raise ModelError(
        f"{extractor.name}: no {tried[0]} image of {tried[1]} channels is taken: {said}; tell dimension and channels"
    )


def _number_of_layers(extractor: Extractor, dimension: int, channels: int, size: int) -> int:
    """How many layers the model makes: more are asked for until no more come."""
    x = torch.rand((1, channels, *[size] * dimension), generator=torch.Generator().manual_seed(0))
    statistics, direction = (0.0, 1.0, 0.5, 0.3), torch.eye(dimension)
    with torch.no_grad():
        for known in range(MOST):
            try:
                extractor.layers(x.clone(), known + 1, statistics, direction)
            except ModelError:
                if known == 0:
                    raise
                return known
    return MOST
