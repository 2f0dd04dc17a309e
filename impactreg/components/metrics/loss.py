"""ImpactLoss: the distance between deep features of two batches of images, to train networks with."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from difflib import get_close_matches
from math import isfinite
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional

from impactreg.components.metrics.distances import DISTANCES
from impactreg.components.metrics.feature_distance import feature_distance
from impactreg.errors import ImageError, ModelError, ParameterError
from impactreg.models.batches import Images, View, batch_layers
from impactreg.models.catalogue import locate
from impactreg.models.extractor import Extractor

Model = str | Path | Extractor | nn.Module


class ImpactLoss(nn.Module):
    """The weighted sum over the layers of pretrained networks of a distance between the features of two images.

    >>> loss = ImpactLoss("MIND/R1D2_3D.pt", distance="L2")
    >>> fixed, moving = torch.rand(2, 1, 1, 24, 24, 24)
    >>> value = loss(fixed, moving.requires_grad_())
    >>> value.backward()
    >>> moving.grad.shape
    torch.Size([1, 1, 24, 24, 24])

    `model` is a TorchScript file, a name such as "MIND/R1D2_3D.pt" (looked for as `ImpactModelsPath` is, also in
    `folders`), an `Extractor`, or any module that returns a list of feature maps [batch, channel, *space]; several
    are given as a list. Images come as [batch, channel, *space] with two or three axes of space, in the intensities and
    at the voxel size that the models were made for: models normalise by themselves, and nothing is resampled here.
    The value is that of the `Impact` metric of a registration on all voxels, but for the division by the first value.

    `layers_mask`, one text a model or one for all, holds 1 or 0 for each output of the model. `distance` (L1, L2, NCC,
    Cosine, L1Cosine, DotProduct, Dice), `weights` and `subset_features` (how many channels each call draws by
    PyTorch's random numbers; 0 is all) are one for each layer that the masks select, or one for all. `channels`
    repeats images of one channel for a model that takes more. A model of `dimension` 2 sees images of three axes slice
    by slice along `axis` (0 is the first axis of space), `slices_at_once` at a time. What lies between is then computed
    again for the gradient: it takes the memory of one batch of slices, besides the features of all.

    Models run on the device of the images and are frozen: copies without gradient, no parameters of the loss and not in
    its `state_dict`. With `trainable`, modules are used as they are and belong to the loss. `mixed_precision` lets
    models compute in float16 on CUDA devices; distances are never computed in less than single precision.

    V. Boussot et al., "IMPACT: A Generic Semantic Loss for Multimodal Medical Image Registration", arXiv:2503.24121.
    """

    def __init__(
        self,
        model: Model | Sequence[Model],
        *,
        layers_mask: str | Sequence[str] = "1",
        distance: str | Sequence[str] = "L2",
        weights: float | Sequence[float] = 1.0,
        subset_features: int | Sequence[int] = 0,
        dimension: int | Sequence[int | None] | None = None,
        channels: int | Sequence[int | None] | None = None,
        axis: int = 0,
        slices_at_once: int | None = None,
        mixed_precision: bool = False,
        trainable: bool = False,
        folders: Sequence[str | Path] = (),
    ) -> None:
        super().__init__()
        models = [model] if isinstance(model, str) or not isinstance(model, Sequence) else list(model)
        if not models:
            raise ParameterError("ImpactLoss needs at least one model")
        self._extractors = tuple(_extractor(each, trainable, folders) for each in models)
        self.trained = nn.ModuleList(each.module for each in self._extractors) if trainable else None
        columns = zip(*(_each(v, len(models), "model") for v in (layers_mask, dimension, channels)), strict=True)
        self._views = tuple(
            _checked(View(_mask(mask), size, repeated, axis, slices_at_once, mixed_precision))
            for mask, size, repeated in columns
        )
        count = sum(sum(view.layers_mask) for view in self._views)
        lists = (_each(v, count, "selected layer") for v in (distance, weights, subset_features))
        self._layers = tuple(_Layer(*values) for values in zip(*lists, strict=True))
        self._placed: dict[tuple[int, torch.device], Extractor] = {}

    def forward(
        self,
        fixed: Images,
        moving: Images,
        mask: Tensor | None = None,
        *,
        fixed_statistics: Sequence[float] | Tensor | None = None,
        moving_statistics: Sequence[float] | Tensor | None = None,
        direction: Sequence[Sequence[float]] | Tensor | None = None,
    ) -> Float[Tensor, ""]:
        """The loss of a batch: the mean of the losses of its pairs, differentiable in both images.

        `mask` [batch or 1, 1, *space] is not 0 where voxels count; a layer takes the nearest voxels of it. For models
        that ask for them: `*_statistics`, [minimum, maximum, mean, sigma] of the image or one row for each image of
        the batch, by default those of the given images, and `direction`, the direction cosines, by default the axes.
        Raises `ImageError` where images or mask do not fit each other and `ModelError` where a model does not.
        """
        if fixed.shape != moving.shape or fixed.device != moving.device:
            first, second = (f"{list(each.shape)} on {each.device}" for each in (fixed, moving))
            raise ImageError(f"fixed and moving images need the same shape and device, not {first} and {second}")
        if mask is not None and mask.shape[2:] != fixed.shape[2:]:
            raise ImageError(
                f"the mask has the shape {list(mask.shape)}, which does not fit images of {list(fixed.shape)}"
            )
        return self.compare(
            self.features(fixed, statistics=fixed_statistics, direction=direction),
            self.features(moving, statistics=moving_statistics, direction=direction),
            mask,
        )

    def features(
        self,
        images: Images,
        *,
        statistics: Sequence[float] | Tensor | None = None,
        direction: Sequence[Sequence[float]] | Tensor | None = None,
    ) -> list[Float[Tensor, "batch channel *space"]]:
        """The selected layers of all models: those of a fixed image can be kept for many calls of `compare`."""
        return [
            layer
            for number, view in enumerate(self._views)
            for layer in batch_layers(
                self._extractor_on(number, images.device), images, view, statistics=statistics, direction=direction
            )
        ]

    def compare(
        self, fixed: Sequence[Tensor], moving: Sequence[Tensor], mask: Tensor | None = None
    ) -> Float[Tensor, ""]:
        """The loss of features that `features` made."""
        if not len(fixed) == len(moving) == len(self._layers):
            count = len(self._layers)
            raise ModelError(f"{count} layers are compared, not {len(fixed)} fixed and {len(moving)} moving ones")
        layers = zip(self._layers, fixed, moving, strict=True)
        return torch.stack([layer.compare(f, m, mask) for layer, f, m in layers]).sum()

    def extra_repr(self) -> str:
        """The models with their masks, and how their layers are compared."""
        models = zip(self._extractors, self._views, strict=True)
        masks = (f"{each.name} {''.join(str(int(wanted)) for wanted in view.layers_mask)}" for each, view in models)
        return ", ".join([*masks, *(f"{layer.weight:g} {layer.distance}" for layer in self._layers)])

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_placed": {}}

    def _extractor_on(self, number: int, device: torch.device) -> Extractor:
        extractor = self._extractors[number]
        if self.trained is not None:
            # A replica of the loss, as data parallel training makes them, has modules of its own.
            return replace(extractor, module=self.trained[number], device=device)
        key = number, device
        if key not in self._placed:
            self._placed[key] = extractor.on(device)
        return self._placed[key]


@dataclass(frozen=True)
class _Layer:
    distance: str
    weight: float
    subset_features: int

    def __post_init__(self) -> None:
        if self.distance not in DISTANCES:
            near = get_close_matches(self.distance, DISTANCES, 1, 0.0)[0]
            raise ParameterError(
                f"{self.distance} is no distance of ImpactLoss; there are {', '.join(DISTANCES)}; did you mean {near}?"
            )
        if not isfinite(self.weight) or self.subset_features < 0:
            raise ParameterError(
                "a layer has a finite weight and a subset of 0 (all) or more channels in ImpactLoss, not "
                f"{self.weight} and {self.subset_features}"
            )

    def compare(self, fixed: Tensor, moving: Tensor, mask: Tensor | None) -> Float[Tensor, ""]:
        """The weighted mean of the distances of all pairs of a batch."""
        if fixed.shape != moving.shape:
            raise ModelError(f"layers of equal shape are needed, not {list(fixed.shape)} and {list(moving.shape)}")
        if 0 < self.subset_features < fixed.shape[1]:
            chosen = torch.randperm(fixed.shape[1])[: self.subset_features].to(fixed.device)
            fixed, moving = fixed.index_select(1, chosen), moving.index_select(1, chosen)
        pairs: Iterator[tuple[Tensor, Tensor]] = zip(fixed.flatten(2), moving.flatten(2), strict=True)
        if mask is not None:
            kept = _selected(mask, fixed)
            pairs = ((f.index_select(1, at), m.index_select(1, at)) for (f, m), at in zip(pairs, kept, strict=True))
        values = [feature_distance(self.distance, f, m) for f, m in pairs]
        return torch.stack(values).mean() * self.weight


def _extractor(model: Model, trainable: bool, folders: Sequence[str | Path]) -> Extractor:
    if isinstance(model, nn.Module):
        return Extractor.of(model, frozen=not trainable)
    if trainable:
        raise ModelError(f"{model}: ImpactLoss can only train modules; load the file with torch.jit.load and give that")
    if isinstance(model, Extractor):
        return model
    if not isinstance(model, str | Path):
        raise ModelError(f"ImpactLoss takes paths, names, extractors or modules as models, not {type(model).__name__}")
    return Extractor.load(locate(str(model), search=[Path(each) for each in folders]), name=str(model))


def _checked(view: View) -> View:
    counts = (view.channels, view.slices_at_once)
    if view.dimension not in (None, 2, 3) or any(count is not None and count < 1 for count in counts):
        raise ParameterError(
            "ImpactLoss takes models of dimension 2 or 3, channels and slices_at_once of at least 1, "
            f"not {view.dimension}, {view.channels} and {view.slices_at_once}"
        )
    if view.axis not in (0, 1, 2):
        raise ParameterError(f"ImpactLoss takes slices along axis 0, 1 or 2 of space, not {view.axis}")
    return view


def _mask(written: str) -> tuple[bool, ...]:
    if not written or set(written) - {"0", "1"} or "1" not in written:
        raise ParameterError(f"layers_mask {written!r}: a text of 1 and 0 with at least one 1 is needed")
    return tuple(digit == "1" for digit in written)


def _each(values: Any, count: int, what: str) -> Sequence[Any]:
    if isinstance(values, str) or not isinstance(values, Sequence):
        return [values] * count
    if len(values) != count:
        raise ParameterError(f"{list(values)}: ImpactLoss needs one value, or {count}: one for each {what}")
    return values


def _selected(mask: Tensor, layer: Tensor) -> list[Int[Tensor, " kept"]]:
    """For each image of a batch where a layer counts, as indices of its voxels in a row."""
    if mask.ndim != layer.ndim or mask.shape[1] != 1 or mask.shape[0] not in (1, len(layer)):
        raise ImageError(f"a mask [{len(layer)} or 1, 1, *space] of voxels is needed, not of {list(mask.shape)}")
    nonzero = (mask != 0).to(layer.device)
    if mask.shape[2:] != layer.shape[2:]:
        nonzero = functional.interpolate(nonzero.float(), size=layer.shape[2:], mode="nearest-exact") != 0
    kept = [row.nonzero()[:, 0] for row in nonzero.flatten(1)]
    for number, voxels in enumerate(kept):
        if not len(voxels):
            raise ImageError(f"mask {number + 1} of the batch has no voxel in a layer of {list(layer.shape[2:])}")
    return kept * len(layer) if len(kept) < len(layer) else kept
