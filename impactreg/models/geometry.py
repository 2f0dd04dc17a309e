"""Where the samples of a model's layers lie on its input: measured once for each model file by its own gradients."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from math import inf
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from impactreg.errors import ModelError
from impactreg.models.extractor import Extractor
from impactreg.models.measurements import recall

Matrix = tuple[tuple[float, ...], ...]
Numbers = tuple[float, ...]
Size = tuple[int, ...]

# So many channels, over all draws, show every voxel that a max pooling could have chosen.
SHOWN = 32
# Draws of random images: at most, and for a centre that can only be estimated; strides above COARSE need no such care,
# for their usual places are far from each other.
MOST, ESTIMATED, COARSE = 8, 4, 4
# A probe image leaves the same remainder as the image when divided by this: strides that divide it end alike.
PHASE = 32
# A gradient below this share of the strongest plane's energy is nothing; one below so many times the energy at the ends
# of the image is what a normalisation over the whole image spreads everywhere.
NOTHING, BACKGROUND = 1e-12, 10.0


@dataclass(frozen=True)
class Layer:
    """Sample k of a layer lies at input voxel `offset` + k * `stride`; numbers along the tensor axes (z, y, x).

    `reach` is how many voxels to each side of that place the sample depends on (infinite: on the whole input).
    """

    channels: int
    stride: Numbers
    offset: Numbers
    reach: Numbers
    differentiable: bool


class _Centre(NamedTuple):
    """Where along one axis a sample looks, how far, and whether that is exact or an estimate."""

    place: float
    reach: float
    exact: bool


class _Response(NamedTuple):
    """A layer of `size` samples, and for each axis where its middle sample looks; no centres without gradients."""

    size: Size
    centres: tuple[_Centre, ...]

    @property
    def clear(self) -> bool:
        """Whether the samples are so many, or so well placed, that they leave no doubt about the stride."""
        if not self.centres:
            return min(self.size) > 3
        return all(count > (1 if centre.exact else 3) for count, centre in zip(self.size, self.centres, strict=True))


def measure(
    extractor: Extractor, shape: Size, layers: Sequence[Tensor], channels: int, direction: Matrix
) -> tuple[Layer, ...]:
    """The geometry of `layers`, which a model made of an input of this shape (z, y, x; `channels` input channels).

    The stride along an axis is the whole number that explains the layer's size for this input and for a small probe
    image; a layer that is resized to fit has the real stride input size / layer size. The offset is where the
    gradient of a sample in the middle is centred, rounded to what networks do: the first voxel (strided
    convolutions), the middle of a stride (pooling, patches), or the same from the last voxel (a model that turns the
    image to its own orientation, for which it reads `direction`). A layer without gradients starts at the first
    voxel. Raises `ModelError` where the model fails.
    """
    seen = direction if extractor.arguments > 3 else identity(len(shape))
    probe, responses = _suitable_probe(extractor, shape, channels, layers, seen)
    return tuple(_layer(shape, layer, probe, found) for layer, found in zip(layers, responses, strict=True))


def identity(dimension: int) -> Matrix:
    """The direction matrix of an image that is not turned."""
    return tuple(tuple(float(row == column) for column in range(dimension)) for row in range(dimension))


@lru_cache(maxsize=128)
def independent(extractor: Extractor, shape: Size, channels: int, number_of_layers: int, direction: Matrix) -> bool:
    """Whether a batch of two very different images of this shape gives what each of them gives alone."""
    question = f"independent {shape} {channels} {number_of_layers} {direction}"
    asked = (extractor, shape, channels, number_of_layers, direction)
    return recall(extractor, question, lambda: _independent(*asked), bool)


def _independent(extractor: Extractor, shape: Size, channels: int, number_of_layers: int, direction: Matrix) -> bool:
    small = tuple(min(size, PHASE + size % PHASE) for size in shape)
    first, second = _noise((1, channels, *small), 0), 100 * _noise((1, channels, *small), 1)
    second[..., : small[-1] // 2] *= 1e-4
    inputs = torch.cat([first, second]), first, second
    spread = _statistics(inputs[0])
    try:
        with torch.no_grad():
            both, *alone = [extractor.layers(x, number_of_layers, spread, direction) for x in inputs]
    except ModelError:
        return False
    apart = [torch.cat(pair) for pair in zip(*alone, strict=True)]
    return all(_equal(a, b) for a, b in zip(both, apart, strict=True))


def _suitable_probe(
    extractor: Extractor, shape: Size, channels: int, layers: Sequence[Tensor], direction: Matrix
) -> tuple[Size, tuple[_Response, ...]]:
    """What the model answers to the smallest probe that it takes and that leaves no doubt about the strides."""
    near = tuple(size if size < 2 * PHASE else PHASE + size % PHASE for size in shape)
    further = [tuple(least + size % PHASE for size in shape) for least in (PHASE, 2 * PHASE)]
    for probe, enough in ((near, False), (further[0], False), (further[1], True), (shape, True)):
        try:
            responses = _responses(extractor, probe, channels, len(layers), direction)
        except ModelError:
            continue
        if enough or all(found.clear for found in responses):
            return probe, responses
    # The model made its layers, so it only fails where gradients are asked for.
    return shape, tuple(_Response(tuple(layer.shape[2:]), ()) for layer in layers)


@lru_cache(maxsize=128)
def _responses(
    extractor: Extractor, shape: Size, channels: int, number: int, direction: Matrix
) -> tuple[_Response, ...]:
    question = f"responses {shape} {channels} {number} {direction}"
    return recall(extractor, question, lambda: _measured(extractor, shape, channels, number, direction), _read)


def _read(kept: Any) -> tuple[_Response, ...]:
    return tuple(_Response(tuple(map(int, size)), tuple(_Centre(*centre) for centre in each)) for size, each in kept)


def _measured(
    extractor: Extractor, shape: Size, channels: int, number: int, direction: Matrix
) -> tuple[_Response, ...]:
    energies: list[list[Tensor]] = [[] for _ in range(number)]
    draws, sizes = [1] * number, [shape] * number
    for draw in range(MOST):
        x = _noise((1, channels, *shape), draw).requires_grad_(True)
        # A copy, because a model may change its input in place, which autograd forbids for x itself.
        layers = extractor.layers(x.clone(), number, _statistics(x), direction)
        for position, layer in enumerate(layers):
            if draw < draws[position]:
                energies[position].extend(_gradient_energy(layer, x, draw))
                draws[position] = _draws_needed(layer, energies[position], shape)
                sizes[position] = tuple(layer.shape[2:])
        if draw + 1 >= max(draws):
            break
    return tuple(_Response(size, _centres(energy)) for size, energy in zip(sizes, energies, strict=True))


def _draws_needed(layer: Tensor, energies: list[Tensor], shape: Size) -> int:
    if not energies:
        return 1
    shown = min(MOST, -(-SHOWN // layer.shape[1]))
    strides = [voxels / count for voxels, count in zip(shape, layer.shape[2:], strict=True)]
    fine = any(1 < stride < COARSE + 1 for stride in strides)
    return max(shown, ESTIMATED) if fine and not all(centre.exact for centre in _centres(energies)) else shown


def _gradient_energy(layer: Tensor, x: Tensor, draw: int) -> list[Float[Tensor, "*space"]]:
    """The squared gradient of a random mixture of the middle sample's channels; nothing where there is no gradient."""
    if not layer.requires_grad:
        return []
    sample = layer[0]
    for size in layer.shape[2:]:
        sample = sample[:, size // 2]
    mixture = (sample * _noise(tuple(sample.shape), -1 - draw).to(sample)).sum()
    try:
        gradients: tuple[Tensor | None, ...] = torch.autograd.grad(mixture, x, retain_graph=True, allow_unused=True)
    except RuntimeError:
        return []
    (gradient,) = gradients
    return [] if gradient is None else [gradient.double().square().sum((0, 1)).cpu()]


def _centres(energies: list[Float[Tensor, "*space"]]) -> tuple[_Centre, ...]:
    energy = sum(energies, torch.zeros(()))
    if not float(energy.sum()) > 0:
        return ()
    axes = range(energy.ndim)
    return tuple(_centre(energy.sum([other for other in axes if other != axis])) for axis in axes)


def _centre(profile: Float[Tensor, " voxels"]) -> _Centre:
    """The middle of the voxels that matter, exact for convolutions and pooling; the centroid where all matter."""
    last = len(profile) - 1
    ends = float(torch.maximum(profile[0], profile[-1]))
    first, final = _support(profile, NOTHING * float(profile.max()))
    if first > 0 and final < last:
        return _Centre((first + final) / 2, (final - first) / 2, True)
    first, final = _support(profile, BACKGROUND * ends)
    if 0 < first <= final < last:
        return _Centre((first + final) / 2, (final - first) / 2, False)
    index = torch.arange(last + 1, dtype=profile.dtype)
    return _Centre(float((profile * index).sum() / profile.sum()), inf, False)


def _support(profile: Tensor, least: float) -> tuple[int, int]:
    voxels = torch.nonzero(profile > least)
    return (int(voxels.min()), int(voxels.max())) if len(voxels) else (0, 0)


def _layer(shape: Size, layer: Tensor, probe: Size, found: _Response) -> Layer:
    size = tuple(layer.shape[2:])
    centres = found.centres or (None,) * len(shape)
    axes = [_Axis(*axis) for axis in zip(shape, size, probe, found.size, centres, strict=True)]
    strides = tuple(axis.stride() for axis in axes)
    offsets = tuple(axis.offset(stride) for axis, stride in zip(axes, strides, strict=True))
    reaches = tuple(centre.reach if centre else inf for centre in centres)
    return Layer(layer.shape[1], strides, offsets, reaches, bool(found.centres))


@dataclass(frozen=True)
class _Axis:
    """One axis of a layer: voxels and samples of the image and of the probe, and the measured place of the middle."""

    size: int
    samples: int
    probe: int
    probe_samples: int
    centre: _Centre | None

    def stride(self) -> float:
        """The whole stride that explains both sizes and the measured centre; else the ratio of sizes."""
        ratio = self.size / self.samples
        both = (self.size, self.samples), (self.probe, self.probe_samples)
        whole = range(1, max(self.size, self.probe) + 1)
        fitting = [step for step in whole if all(_fits(*pair, step) for pair in both)]
        if not fitting:
            # Convolutions without padding lose the same few voxels at every size.
            step = max(1, round(ratio))
            lost = [voxels - step * count for voxels, count in both]
            return float(step) if min(lost) >= step and abs(lost[0] - lost[1]) < step else ratio
        if self.centre is not None and self.centre.exact:
            best = min(fitting, key=self._gap)
            return float(best) if self._gap(best) <= 0.5 else ratio
        same = [step for step in fitting if all(voxels == step * count for voxels, count in both)]
        doubled = [step for step in fitting if step & (step - 1) == 0]
        return float(min(same or doubled or fitting, key=lambda step: abs(step - ratio)))

    def offset(self, stride: float) -> float:
        """Where the first sample lies: the usual place nearest to what was measured."""
        if self.centre is None:
            return 0.0
        if stride == int(stride) and not _fits(self.probe, self.probe_samples, stride):
            return round(2 * self._measured(stride)) / 2
        return min(self._usual(stride), key=lambda pair: abs(pair[0] - self._measured(stride)))[1]

    def _measured(self, stride: float) -> float:
        return (self.centre.place if self.centre else 0.0) - stride * (self.probe_samples // 2)

    def _gap(self, stride: float) -> float:
        return min(abs(place - self._measured(stride)) for place, _ in self._usual(stride))

    def _usual(self, stride: float) -> list[tuple[float, float]]:
        """Where the first sample may lie in probe and image: by the first or last voxel, or half a stride from it."""
        half = (stride - 1) / 2
        probe_end = self.probe - 1 - stride * (self.probe_samples - 1)
        end = self.size - 1 - stride * (self.samples - 1)
        return [(0.0, 0.0), (half, half), (probe_end, end), (probe_end - half, end - half)]


def _fits(size: int, samples: int, stride: int | float) -> bool:
    return size // stride <= samples <= -(-size // stride)


def _equal(first: Tensor, second: Tensor) -> bool:
    scale = float(second.abs().max())
    return torch.allclose(first, second, rtol=1e-4, atol=1e-5 * scale)


def _noise(shape: Size, seed: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def _statistics(x: Tensor) -> list[float]:
    values = x.detach()
    return [float(values.min()), float(values.max()), float(values.mean()), float(values.std())]
