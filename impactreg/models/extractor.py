"""Extractor: a TorchScript file that turns images into layers of feature maps, and the contract that it keeps."""

import inspect
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from copy import deepcopy
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple, final

import torch
from jaxtyping import Float
from torch import Tensor, nn

from impactreg.errors import ModelError
from impactreg.models.archives import check_torchscript

ARGUMENTS = ("an image", "a number of layers", "image statistics", "a direction matrix")
AXES = {4: "[batch, channel, y, x]", 5: "[batch, channel, z, y, x]"}


@final
@dataclass(frozen=True, eq=False)
class Extractor:
    """A loaded TorchScript feature extractor, as the IMPACT metric of elastix (`ImpactModelsPath`) uses them.

    `forward` takes an image [batch, channel, z, y, x] (2D: [batch, channel, y, x]) and, as far as it has more
    arguments, the number of layers wanted (int16 scalar), [minimum, maximum, mean, sigma] of the whole image
    (float32) and the image's rounded direction matrix (int16). It returns a list of layers [batch, channel, *space].
    The model normalises its input itself. The three last arguments stay on the CPU whatever the device, which is
    where elastix leaves them.
    """

    module: nn.Module
    name: str
    arguments: int
    path: Path | None
    device: torch.device

    @classmethod
    def load(cls, path: Path, device: "torch.device | str" = "cpu", *, name: str | None = None) -> "Extractor":
        """The model of a TorchScript file, loaded once per process, file version and device.

        `name` is its name in messages. Nothing is ever unpickled. Raises `ModelError` where the file is missing,
        damaged or something else than TorchScript.
        """
        try:
            state = path.stat()
        except OSError as error:
            raise ModelError(f"{path}: the model cannot be read: {error.strerror or error}") from None
        version = _FileVersion(path.resolve(), state.st_mtime_ns, state.st_size, state.st_ino)
        return _load(version, str(torch.device(device)), name or path.name)

    @classmethod
    def of(cls, module: nn.Module, *, name: str | None = None, frozen: bool = True) -> "Extractor":
        """A module that keeps the contract, as an extractor on the device where the module is; it has no path.

        Of further arguments with defaults, a Python module is only passed those whose default is a tensor. `frozen`
        takes a copy in evaluation mode whose weights get no gradient; else the module itself is used as it is.
        """
        known = name or type(module).__name__
        arguments = _number_of_arguments(module, known)
        used = deepcopy(module).eval().requires_grad_(False) if frozen else module
        weight = next(chain(used.parameters(), used.buffers()), torch.empty(0, device="cpu"))
        return cls(used, known, arguments, None, weight.device)

    @property
    def dtype(self) -> torch.dtype | None:
        """The floating point type that the model computes in; None for a model without weights, which takes any."""
        held = chain(self.module.parameters(), self.module.buffers())
        return next((weight.dtype for weight in held if weight.is_floating_point()), None)

    def on(self, device: torch.device) -> "Extractor":
        """The same model on a device: loaded again, or a copy of the module."""
        if device == self.device:
            return self
        if self.path is not None:
            return Extractor.load(self.path, device, name=self.name)
        return replace(self, module=deepcopy(self.module).to(device), device=device)

    def layers(
        self,
        x: Float[Tensor, "batch channel *space"],
        number_of_layers: int,
        statistics: "Sequence[float] | Tensor",
        direction: "Sequence[Sequence[float]] | Tensor",
        *,
        mixed_precision: bool = False,
        check_values: bool = True,
    ) -> list[Tensor]:
        """The first `number_of_layers` layers [batch, channel, *space] of an input that already is on the model's grid.

        Differentiable where the model is. With `mixed_precision` a CUDA device computes in float16 where that is safe
        and the layers come back as float32; a CPU has nothing to gain from it and computes as ever. A layer of whole
        numbers, such as the segmentation that ends the published TotalSegmentator models, becomes float32. Raises
        `ModelError` where the model fails or returns something else than enough layers of finite real numbers;
        without `check_values` the numbers are not looked at, for which a CUDA device would have to be waited.
        """
        x = x.to(self.device)
        output = self.answer(x, number_of_layers, statistics, direction, mixed_precision=mixed_precision)
        if not isinstance(output, list) or not all(isinstance(layer, Tensor) for layer in output):
            raise ModelError(f"{self.name}: the model returns {_described(output)}; a list of tensors is needed")
        if len(output) < number_of_layers:
            returned = f"{len(output)} layer{'' if len(output) == 1 else 's'}"
            raise ModelError(f"{self.name}: the model returns {returned}; {number_of_layers} are asked for")
        for number, layer in enumerate(output[:number_of_layers]):
            self._check(layer, f"layer {number + 1} of {len(output)}", x, check_values)
        layers = output[:number_of_layers]
        return [layer.float() if mixed_precision or not layer.is_floating_point() else layer for layer in layers]

    def answer(
        self,
        x: Float[Tensor, "batch channel *space"],
        number_of_layers: int,
        statistics: "Sequence[float] | Tensor",
        direction: "Sequence[Sequence[float]] | Tensor",
        *,
        mixed_precision: bool = False,
    ) -> object:
        """What the model returns when so many layers are asked for, as it is; raises `ModelError` where it fails."""
        extras = (
            torch.tensor(number_of_layers, dtype=torch.int16, device="cpu"),
            torch.as_tensor(statistics, dtype=torch.float32, device="cpu"),
            rounded_direction(direction),
        )
        return self._forward((x.to(self.device), *extras)[: self.arguments], mixed_precision)

    def __reduce__(self) -> tuple[Any, ...]:
        if self.path is None:
            return Extractor, (self.module, self.name, self.arguments, None, self.device)
        return _reload, (self.path, str(self.device), self.name)

    def _forward(self, arguments: tuple[Tensor, ...], mixed_precision: bool) -> object:
        cuda = mixed_precision and self.device.type == "cuda"
        precision = torch.autocast("cuda", torch.float16) if cuda else nullcontext()
        try:
            # The profiling executor compiles anew for every new shape: seconds that a few passes never earn back.
            with torch.jit.optimized_execution(False), precision:  # type: ignore[attr-defined]
                return self.module(*arguments)
        except torch.OutOfMemoryError:
            shape = list(arguments[0].shape)
            raise ModelError(
                f"{self.name}: {self.device} has too little memory for an input of {shape}; use patches"
            ) from None
        except (RuntimeError, torch.jit.Error) as error:
            shape = list(arguments[0].shape)
            raise ModelError(f"{self.name}: the model cannot take an input of {shape}: {_last_line(error)}") from None

    def _check(self, layer: Tensor, which: str, x: Tensor, check_values: bool) -> None:
        shape = list(layer.shape)
        if layer.ndim != x.ndim or shape[0] != x.shape[0] or 0 in shape:
            needed = f"{AXES.get(x.ndim, '[batch, channel, *space]')} with batch {x.shape[0]}"
            raise ModelError(
                f"{self.name}: {which} has the shape {shape}; {needed} is needed for an input of {list(x.shape)}"
            )
        if layer.is_complex() or layer.is_quantized:
            raise ModelError(f"{self.name}: {which} has the type {layer.dtype}; real numbers are needed")
        if check_values and not _finite(layer):
            cause = "" if _finite(x) else ", as has its input"
            raise ModelError(f"{self.name}: {which} has values that are not finite numbers{cause}")


def rounded_direction(direction: "Sequence[Sequence[float]] | Tensor") -> Tensor:
    """ITK direction cosines [D, D] as the int16 matrix of the contract: rounded, halves away from zero."""
    matrix = torch.as_tensor(direction, dtype=torch.float64, device="cpu")
    return (matrix.sign() * (matrix.abs() + 0.5).floor()).to(torch.int16)


@contextmanager
def torchscript() -> Iterator[None]:
    """Silences that PyTorch calls TorchScript deprecated, while it is loaded or made: elastix reads no other format."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", category=DeprecationWarning, message=r".*torch\.jit")
        warnings.filterwarnings("ignore", category=FutureWarning, message=r".*torch\.jit")
        yield


class _FileVersion(NamedTuple):
    path: Path
    changed: int
    size: int
    node: int


@lru_cache(maxsize=16)
def _load(version: _FileVersion, device: str, name: str) -> Extractor:
    path = version.path
    check_torchscript(path, name)
    try:
        with torchscript():
            module: torch.jit.ScriptModule = torch.jit.load(str(path), map_location="cpu")
    except (RuntimeError, ValueError, OSError) as error:
        raise ModelError(f"{name}: the TorchScript file {path} is damaged: {_last_line(error)}") from None
    try:
        # A model without weights would move anywhere, even to a device that is not there.
        torch.empty(0, device=device)
        module.to(device)
    except (RuntimeError, AssertionError) as error:
        raise ModelError(f"{name}: the model cannot be moved to {device}: {_last_line(error)}") from None
    module.eval()
    for parameter in module.parameters():
        parameter.requires_grad_(False)
    return Extractor(module, name, _number_of_arguments(module, name), path, torch.device(device))


def _reload(path: Path, device: str, name: str) -> Extractor:
    return Extractor.load(path, device, name=name)


def _number_of_arguments(module: nn.Module, name: str) -> int:
    if not isinstance(module, torch.jit.ScriptModule):
        return _number_of_python_arguments(module, name)
    if not module._c._has_method("forward"):
        raise ModelError(f"{name}: the TorchScript module has no forward method")
    arguments = module._c._get_method("forward").schema.arguments[1:]
    passed = arguments[:4]
    needed = f"1 to 4 tensors are needed: {', '.join(ARGUMENTS)}"
    if not passed or any(not argument.has_default_value() for argument in arguments[4:]):
        raise ModelError(f"{name}: forward takes {len(arguments)} arguments; {needed}")
    wrong = [f"{argument.name}: {argument.type}" for argument in passed if str(argument.type) != "Tensor"]
    if wrong:
        raise ModelError(f"{name}: forward takes ({', '.join(wrong)}); {needed}")
    return len(passed)


def _number_of_python_arguments(module: nn.Module, name: str) -> int:
    kinds = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    given = [p for p in inspect.signature(module.forward).parameters.values() if p.kind in kinds]
    wanted = [p for p in given if p.default is inspect.Parameter.empty or isinstance(p.default, Tensor)]
    if not wanted or len(wanted) > 4 or wanted != given[: len(wanted)]:
        raise ModelError(f"{name}: forward takes {len(given)} arguments; 1 to 4 are needed: {', '.join(ARGUMENTS)}")
    return len(wanted)


def _finite(values: Tensor) -> bool:
    low, high = torch.aminmax(values.detach())
    return bool(torch.isfinite(low) & torch.isfinite(high))


def _described(output: object) -> str:
    if isinstance(output, list | tuple):
        kinds = sorted({type(entry).__name__ for entry in output})
        return f"a {type(output).__name__} of {' and '.join(kinds) or 'nothing'}"
    return f"a {type(output).__name__}"


def _last_line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip(" ~^<-")]
    return lines[-1].removeprefix("RuntimeError: ") if lines else type(error).__name__
