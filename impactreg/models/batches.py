"""Layers of a batch of images on one grid, differentiable in the images: in one pass, or slice by slice."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import prod

import torch
from jaxtyping import Float, Shaped
from torch import Tensor
from torch.utils.checkpoint import checkpoint, set_checkpoint_early_stop

from impactreg.errors import ImageError, ModelError
from impactreg.images import sums
from impactreg.models.extractor import Extractor, rounded_direction
from impactreg.models.geometry import Matrix, independent
from impactreg.models.passes import BATCH_LIMIT, BATCH_VOXELS
from impactreg.models.precision import reduced

Images = Shaped[Tensor, "batch channel *space"]


@dataclass(frozen=True)
class View:
    """How a model sees images.

    `layers_mask` tells which outputs are used. `dimension` and `channels` of the model's input; None is what the images
    have. A model of two dimensions sees images of three slice by slice along `axis` of space, so many slices at once.
    """

    layers_mask: tuple[bool, ...]
    dimension: int | None = None
    channels: int | None = None
    axis: int = 0
    slices_at_once: int | None = None
    mixed_precision: bool = False


def batch_layers(
    extractor: Extractor,
    images: Images,
    view: View,
    *,
    statistics: Sequence[float] | Tensor | None = None,
    direction: Sequence[Sequence[float]] | Tensor | None = None,
) -> list[Float[Tensor, "batch layer_channel *layer_space"]]:
    """The layers that the view selects, on the device of the extractor.

    `statistics` [4] or [batch, 4] (minimum, maximum, mean, sigma) are those of the images unless given, and never
    differentiated; `direction` holds the direction cosines, by default the axes. What lies between is computed again
    for the gradient where slices come in several batches. Images of a batch do not see each other, unless a model
    held in memory lets them: files are probed for it. Raises `ImageError` for tensors that are no such batch, and
    `ModelError` where the model does not fit them or breaks its contract.
    """
    _check(extractor, images, view)
    known = _statistics_for(extractor, images, statistics)
    turned = _direction_for(images, direction)
    frames, axis = images, 2 + view.axis
    sliced = view.dimension is not None and view.dimension < images.ndim - 2
    if sliced:
        frames = images.movedim(axis, 1).flatten(0, 1)
    one_pass = _Pass(extractor, view, frames, sliced, len(frames) // len(images), known, turned)
    layers = one_pass.layers()
    return [layer.unflatten(0, (len(images), -1)).movedim(1, axis) for layer in layers] if sliced else layers


def batch_statistics(images: Images) -> Float[Tensor, "batch 4"]:
    """Minimum, maximum, mean and sigma (N - 1) of each image, over its channels, on the CPU."""
    rows = []
    for image in images.detach():
        values = image.double()
        sigma = sums.deviation(values) if values.numel() > 1 else values.new_zeros(())
        rows.append(torch.stack([*torch.aminmax(values), sums.mean(values), sigma]))
    return torch.stack(rows).to("cpu", torch.float32)


@dataclass(frozen=True)
class _Pass:
    """One model over frames, `per_image` of them from each image: the images themselves or their slices."""

    extractor: Extractor
    view: View
    frames: Tensor
    sliced: bool
    per_image: int
    statistics: Float[Tensor, "batch 4"]
    direction: Tensor

    def layers(self) -> list[Tensor]:
        batches = list(self._batches())
        again = self.sliced and len(batches) > 1 and torch.is_grad_enabled() and self._differentiated
        parts = [self._again(*batch) if again else self._run(*batch) for batch in batches]
        return [part[0] if len(part) == 1 else torch.cat(part) for part in zip(*parts, strict=True)]

    @property
    def _differentiated(self) -> bool:
        weights = self.extractor.module.parameters()
        return self.frames.requires_grad or any(weight.requires_grad for weight in weights)

    def _batches(self) -> Iterator[tuple[Tensor, Tensor]]:
        """Frames that are seen together, with their statistics: several images only if these are the same."""
        alone = self.extractor.arguments > 2 and bool((self.statistics != self.statistics[0]).any())
        block = self.per_image if alone else len(self.frames)
        at_once = self._at_once(block)
        for start in range(0, len(self.frames), block):
            for frames in self.frames[start : start + block].split(at_once):
                yield frames, self.statistics[start // self.per_image]

    def _at_once(self, block: int) -> int:
        channels = self.view.channels or self.frames.shape[1]
        shape = tuple(self.frames.shape[2:])
        if self.sliced:
            bounded = max(1, min(BATCH_LIMIT, BATCH_VOXELS // (channels * prod(shape))))
            block = min(block, self.view.slices_at_once or bounded)
        if block == 1 or self.extractor.path is None:
            return block
        direction: Matrix = tuple(map(tuple, rounded_direction(self.direction).double().tolist()))
        number = len(self.view.layers_mask)
        return block if independent(self.extractor, shape, channels, number, direction) else 1

    def _again(self, frames: Tensor, statistics: Tensor) -> list[Tensor]:
        random = self.extractor.module.training
        # Left early, a model would seem to have failed.
        with set_checkpoint_early_stop(False):
            layers: list[Tensor] = checkpoint(
                self._run, frames, statistics, use_reentrant=False, preserve_rng_state=random
            )
        return layers

    def _run(self, frames: Tensor, statistics: Tensor) -> list[Tensor]:
        kind = self.extractor.dtype or (frames.dtype if frames.dtype == torch.float64 else torch.float32)
        repeated = frames.expand(-1, self.view.channels or -1, *frames.shape[2:])
        # A copy, because a model may change its input in place.
        x = repeated.to(kind, copy=True, memory_format=torch.contiguous_format)
        mask, precision = self.view.layers_mask, self.view.mixed_precision
        with reduced(self.extractor, precision, x.ndim - 2, x.shape[1], len(mask)):
            layers = self.extractor.layers(x, len(mask), statistics, self.direction, mixed_precision=precision)
        return [layer for layer, wanted in zip(layers, mask, strict=True) if wanted]


def _check(extractor: Extractor, images: Images, view: View) -> None:
    if images.ndim not in (4, 5) or 0 in images.shape or images.is_complex():
        raise ImageError(
            "images [batch, channel, y, x] or [batch, channel, z, y, x] of real numbers are needed, not "
            f"{list(images.shape)} of {images.dtype}"
        )
    space = images.ndim - 2
    if view.dimension is not None and view.dimension > space:
        raise ModelError(f"{extractor.name}: a {view.dimension}D model cannot take {space}D images")
    if view.channels is not None and images.shape[1] not in (1, view.channels):
        raise ModelError(
            f"{extractor.name}: the model takes {view.channels} channels, but the images have {images.shape[1]}"
        )


def _statistics_for(
    extractor: Extractor, images: Images, given: Sequence[float] | Tensor | None
) -> Float[Tensor, "batch 4"]:
    if given is None:
        return batch_statistics(images) if extractor.arguments > 2 else torch.zeros(len(images), 4)
    rows = torch.as_tensor(given, dtype=torch.float32, device="cpu").detach()
    if tuple(rows.shape) not in ((4,), (1, 4), (len(images), 4)):
        raise ImageError(
            f"statistics are [minimum, maximum, mean, sigma], once or for each of {len(images)} images, "
            f"not of the shape {list(rows.shape)}"
        )
    return rows.expand(len(images), 4)


def _direction_for(images: Images, given: Sequence[Sequence[float]] | Tensor | None) -> Tensor:
    space = images.ndim - 2
    direction = torch.eye(space) if given is None else torch.as_tensor(given, device="cpu")
    if tuple(direction.shape) != (space, space):
        raise ImageError(f"direction is a matrix [{space}, {space}], not of the shape {list(direction.shape)}")
    return direction
