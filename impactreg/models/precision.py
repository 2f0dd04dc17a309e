"""Half precision on a CPU: only where it was measured to be faster, once for each model file and computer."""

import time
from contextlib import AbstractContextManager, nullcontext
from functools import lru_cache

import torch
from torch import Tensor

from impactreg.errors import ModelError
from impactreg.models.extractor import Extractor
from impactreg.models.measurements import recall

Size = tuple[int, ...]

VOXELS = 1 << 15
"""Voxels of the images on which both precisions are timed."""
REPETITIONS = 3
GAIN = 1.1
"""How many times as fast half precision must be: what the clock of a busy computer may be off by."""


def reduced(
    extractor: Extractor, wanted: bool, dimension: int, channels: int, layers: int
) -> AbstractContextManager[object]:
    """A block in which a model on a CPU computes in bfloat16, if `wanted` and faster; layers come as float32 anyway.

    `dimension` and `channels` are those of its input, `layers` how many are asked for. On a GPU nothing is changed, for
    `Extractor.layers` chooses there; nor is it for a model that is no file, which may be changed by being timed.
    """
    if (
        wanted
        and extractor.path is not None
        and extractor.device.type == "cpu"
        and pays(extractor, dimension, channels, layers)
    ):
        return torch.autocast("cpu", torch.bfloat16)
    return nullcontext()


@lru_cache(maxsize=64)
def pays(extractor: Extractor, dimension: int, channels: int, layers: int) -> bool:
    """Whether a model is clearly faster in bfloat16, values and gradient, on the CPU."""
    question = f"bfloat16 pays {dimension} {channels} {layers}"
    return recall(extractor, question, lambda: _pays(extractor, dimension, channels, layers), bool)


def _pays(extractor: Extractor, dimension: int, channels: int, layers: int) -> bool:
    side = round(VOXELS ** (1 / dimension))
    x = torch.randn(1, channels, *[side] * dimension, generator=torch.Generator().manual_seed(0))
    try:
        best = [min(_seconds(extractor, x, layers, half) for _ in range(REPETITIONS)) for half in (False, True)]
    except (ModelError, RuntimeError):
        return False
    return best[0] > GAIN * best[1]


@torch.enable_grad()
def _seconds(extractor: Extractor, x: Tensor, layers: int, half: bool) -> float:
    shown = x.clone().requires_grad_(True)
    statistics = [float(x.min()), float(x.max()), float(x.mean()), float(x.std())]
    began = time.process_time()
    with torch.autocast("cpu", torch.bfloat16, enabled=half):
        found = extractor.layers(shown.clone(), layers, statistics, torch.eye(x.ndim - 2))
    differentiable = [layer.float().sum() for layer in found if layer.requires_grad]
    if differentiable:
        torch.autograd.grad(torch.stack(differentiable).sum(), shown, allow_unused=True)
    return time.process_time() - began
