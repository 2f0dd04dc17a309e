"""Whether a model keeps the contract: the same answer twice, whole batches, fewer layers, gradients, odd inputs."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal, final

import torch
from torch import Tensor

from impactreg.errors import ModelError
from impactreg.models.cards import CardFile
from impactreg.models.extractor import ARGUMENTS
from impactreg.models.geometry import Size, identity, independent
from impactreg.models.inspection import CENTRED, Description, noise

Verdict = Literal["good", "note", "wrong"]

FLAT = 40.0
"""The value of a patch of nothing but background."""


@final
@dataclass(frozen=True)
class Finding:
    """One thing that was looked at: what it is about, whether it is as it should be, and what was found."""

    about: str
    verdict: Verdict
    said: str


def check(described: Description, card: CardFile | None = None) -> Iterator[Finding]:
    """Everything that Static and Jacobian mode of the IMPACT metric need of a model, tried on small inputs.

    What a mode cannot do without is "wrong" where it fails; what only costs time or limits the use is a "note".
    """
    for about, look in _LOOKS.items():
        try:
            yield from (Finding(about, verdict, said) for verdict, said in look(described))
        except ModelError as error:
            yield Finding(about, "wrong", str(error))
    if card is not None:
        yield _as_its_card(described, card)


Said = Iterator[tuple[Verdict, str]]


def _arguments(described: Description) -> Said:
    number = described.extractor.arguments
    yield "good", f"{number}: {', '.join(ARGUMENTS[:number])}"
    if number == 1 and len(described.layers) > 1:
        yield "note", f"all {len(described.layers)} layers are computed, however few are used"


def _same_twice(described: Description) -> Said:
    x = _image(described, 1)
    same = all(map(torch.equal, _layers(described, x), _layers(described, x)))
    yield ("good", "the same input gives the same layers") if same else ("wrong", "another answer the second time")


def _finite(described: Description) -> Said:
    for scale in (1.0, 30.0):
        _layers(described, scale * _image(described, 2))
    yield "good", "finite numbers, also far outside the usual range"


def _flat(described: Description) -> Said:
    _layers(described, torch.full_like(_image(described, 0), FLAT))
    yield "good", "finite numbers where all voxels have one value"


def _fewer_layers(described: Description) -> Said:
    x = _image(described, 3)
    whole = _layers(described, x)
    for number in range(1, len(whole)):
        fewer = _layers(described, x, number)
        if not all(_close(a, b) for a, b in zip(fewer, whole, strict=False)):
            yield "wrong", f"the first {number} layers are others when no more are asked for"
            return
    yield "good", f"{len(whole)} in all; the first ones are the same, however many are asked for"


def _batches(described: Description) -> Said:
    shape, channels = described.shape, described.input_channels
    # Normalised over a few samples, or turned into labels, rounding errors look like influences.
    if independent(described.extractor, shape, channels, described.measured, identity(len(shape))):
        yield "good", "the images of a batch do not see each other"
    else:
        yield "note", "the images of a batch change each other: patches are run one by one"


def _other_sizes(described: Description) -> Said:
    sizes: Size = tuple(side + 3 * axis + 1 for axis, side in enumerate(described.shape))
    shown = " x ".join(map(str, reversed(sizes)))
    try:
        _layers(described, noise((1, described.input_channels, *sizes), 4))
        yield "good", f"takes {shown}, too"
    except ModelError:
        yield "note", f"does not take {shown}: give a patch size that it takes"


def _gradients(described: Description) -> Said:
    x = _image(described, 5).requires_grad_(True)
    flowing = [_has_gradient(layer, x) for layer in _layers(described, x)]
    without = [str(number) for number, flows in enumerate(flowing, 1) if not flows]
    if not without:
        yield "good", "every layer has one: Static and Jacobian"
    elif len(without) == len(flowing):
        yield "note", "no layer has one: Static only"
    else:
        yield "note", f"layer {', '.join(without)} has none: Static only; the others Jacobian, too"


def _direction(described: Description) -> Said:
    if described.extractor.arguments < 4:
        return
    x = _image(described, 6)
    turned = tuple(tuple(-entry for entry in row) for row in identity(described.dimension))
    plain, other = _layers(described, x), described.extractor.layers(x, len(described.layers), CENTRED, turned)
    same = all(_close(a, b) for a, b in zip(plain, other, strict=True))
    yield "good", "the image is taken as it comes" if same else "the image is turned to the model's own orientation"


_LOOKS: dict[str, Callable[[Description], Said]] = {
    "arguments": _arguments,
    "same twice": _same_twice,
    "finite": _finite,
    "flat input": _flat,
    "layers": _fewer_layers,
    "batches": _batches,
    "other sizes": _other_sizes,
    "gradients": _gradients,
    "direction": _direction,
}


def _as_its_card(described: Description, card: CardFile) -> Finding:
    channels = [layer.channels for layer in described.layers]
    known = [layer.channels for layer in card.layers]
    # Older files make the first few of the layers.
    if channels == known[: len(channels)]:
        return Finding("card", "good", f"{len(channels)} of the {len(known)} layers of {card.path}, with its channels")
    return Finding("card", "wrong", f"the layers have {channels} channels, but those of {card.path} {known}")


def _image(described: Description, seed: int) -> Tensor:
    return noise((1, described.input_channels, *described.shape), seed)


def _layers(described: Description, x: Tensor, number: int | None = None) -> list[Tensor]:
    with torch.set_grad_enabled(x.requires_grad):
        return described.extractor.layers(x, number or len(described.layers), CENTRED, identity(x.ndim - 2))


def _has_gradient(layer: Tensor, x: Tensor) -> bool:
    if not layer.requires_grad:
        return False
    try:
        found: tuple[Tensor | None, ...] = torch.autograd.grad(
            layer.square().sum(), x, retain_graph=True, allow_unused=True
        )
    except RuntimeError:
        return False
    (gradient,) = found
    return gradient is not None and bool(torch.isfinite(gradient).all()) and bool(gradient.any())


def _close(first: Tensor, second: Tensor) -> bool:
    if first.shape != second.shape:
        return False
    return torch.allclose(first, second, rtol=1e-4, atol=1e-5 * float(second.abs().max()))
