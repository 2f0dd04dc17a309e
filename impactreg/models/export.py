"""A PyTorch module becomes a TorchScript file that keeps the contract, checked against the module itself."""

import hashlib
import inspect
import io
from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.jit.frontend import FrontendError

from impactreg.errors import ModelError
from impactreg.images.whole import whole_file
from impactreg.models.extractor import Extractor, torchscript
from impactreg.models.geometry import Layer, identity, measure

Method = Literal["script", "trace"]

TOLERANCE = 1e-5


@dataclass(frozen=True)
class ExportReport:
    """What was exported: the file and its SHA-256, how, how many arguments `forward` takes, and the layers it makes."""

    path: Path
    sha256: str
    method: Method
    arguments: int
    layers: tuple[Layer, ...]

    @property
    def differentiable(self) -> bool:
        """Whether every layer has a gradient with respect to the image, which `(ImpactMode "Jacobian")` needs."""
        return all(layer.differentiable for layer in self.layers)


def export(
    module: nn.Module,
    path: Path,
    *,
    example: Float[Tensor, "batch channel *space"],
    name: str,
    method: Method = "script",
    layers: tuple[Layer, ...] | None = None,
) -> ExportReport:
    """Writes a module as a TorchScript file, whole or not at all, and tells what it holds.

    The saved file is loaded again and compared with the module (1e-5 of each layer's range): for `example` and for an
    input twice as large along each axis, for every number of layers, and with as few arguments as its defaults allow.
    "script" keeps the choices that the module makes; "trace" is for modules that cannot be scripted, and fixes them.
    `layers` tells where the layers lie, if that is known; measuring it can take minutes for a large network.
    Raises `ModelError` where the module cannot be compiled, breaks the contract or differs from its file, and
    `OutputError` where `path` cannot be written.
    """
    original, example = deepcopy(module).cpu().eval(), example.detach().cpu()
    with torch.no_grad(), torchscript():
        content = _saved(_compiled(original, example, name, method))
    with whole_file(path, what="the model", parents=True) as draft:
        draft.write_bytes(content)
        extractor = Extractor.load(draft, name=name)
        _check(original, extractor, example, method)
        found = layers or _measured(original, extractor, example)
    return ExportReport(path, hashlib.sha256(content).hexdigest(), method, extractor.arguments, found)


def _compiled(module: nn.Module, example: Tensor, name: str, method: Method) -> torch.jit.ScriptModule:
    if method not in ("script", "trace"):
        raise ModelError(f"{name}: a module is exported by method 'script' or 'trace', not {method!r}")
    try:
        if method == "script":
            return torch.jit.script(module)
        given = _arguments(example, _largest(module, example))
        parameters = inspect.signature(module.forward).parameters
        traced: torch.jit.ScriptModule = torch.jit.trace(
            module, given[: len(parameters)], check_trace=False, strict=False
        )
        return traced
    except (RuntimeError, TypeError, ValueError, OSError, FrontendError, torch.jit.Error) as error:
        reason = next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
        raise ModelError(f"{name}: the module cannot be exported by method '{method}': {reason}") from None


def _saved(module: torch.jit.ScriptModule) -> bytes:
    # Saving to a path writes the path into the file; a buffer gives the same bytes each time.
    buffer = io.BytesIO()
    torch.jit.save(module, buffer)
    return buffer.getvalue()


def _check(module: nn.Module, extractor: Extractor, example: Tensor, method: Method) -> None:
    larger = example.repeat(1, 1, *[2] * (example.ndim - 2))
    with torch.no_grad():
        number = _largest(module, example)
        for x in (example, larger):
            for wanted in range(1, number + 1):
                given = _arguments(x, wanted)[: extractor.arguments]
                extractor.layers(x, wanted, *_arguments(x, wanted)[2:])
                _compare(module, extractor, given, wanted, method)
        for count in _fewer_arguments(extractor):
            _compare(module, extractor, _arguments(example, number)[:count], 1, method)


def _measured(module: nn.Module, extractor: Extractor, example: Tensor) -> tuple[Layer, ...]:
    with torch.no_grad():
        number = _largest(module, example)
        layers = extractor.layers(example, number, *_arguments(example, number)[2:])
    shape = tuple(example.shape[2:])
    return measure(extractor, shape, layers, example.shape[1], identity(len(shape)))


def _compare(module: nn.Module, extractor: Extractor, given: Sequence[Tensor], wanted: int, method: Method) -> None:
    expected, found = module(*given), extractor.module(*given)
    advice = "; tracing fixes sizes and choices, scripting keeps them" if method == "trace" else ""
    for number in range(min(len(expected), max(wanted, 1))):
        first, second = expected[number], found[number] if number < len(found) else None
        if second is None or first.shape != second.shape:
            shape = "missing" if second is None else list(second.shape)
            difference = f"is {shape}, but the module's is {list(first.shape)}"
        else:
            gap, scale = float((first - second).abs().max()), max(1.0, float(first.abs().max()))
            if gap <= TOLERANCE * scale:
                continue
            difference = f"differs from the module's by up to {gap:.3g}"
        raise ModelError(
            f"{extractor.name}: the exported layer {number + 1} {difference} for {len(given)} arguments and "
            f"an input of {list(given[0].shape)}{advice}"
        )


def _fewer_arguments(extractor: Extractor) -> list[int]:
    """With how few arguments `forward` can be called: its schema tells which of them have defaults."""
    scripted: Any = extractor.module
    arguments: list[Any] = scripted._c._get_method("forward").schema.arguments[1:]
    return [count for count in range(1, len(arguments)) if all(a.has_default_value() for a in arguments[count:])]


def _largest(module: nn.Module, example: Tensor) -> int:
    """How many layers the module can make: more are asked for until no more come."""
    parameters = len(inspect.signature(module.forward).parameters)
    number = 0
    while True:
        try:
            found = module(*_arguments(example, number + 1)[:parameters])
        except (RuntimeError, IndexError, torch.jit.Error):
            if number == 0:
                raise
            return number
        if not isinstance(found, list | tuple) or len(found) <= number:
            return max(number, 1)
        number = len(found)


def _arguments(x: Tensor, number_of_layers: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    values = torch.stack([x.min(), x.max(), x.mean(), x.std()]).float()
    direction = torch.eye(x.ndim - 2, dtype=torch.int16)
    return x, torch.tensor(number_of_layers, dtype=torch.int16), values, direction
