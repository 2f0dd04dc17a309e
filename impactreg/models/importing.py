"""Python modules to be exported: by `package.module:Name`, or a built-in one by the name of its file."""

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib import import_module
from inspect import isclass, isroutine
from pathlib import Path

import torch
from torch import Tensor, nn

from impactreg.errors import ModelError
from impactreg.models.mind import MIND, example, variants


def module_named(written: str) -> nn.Module:
    """The module that `package.module:Name` or `MIND/R1D2_3D` means.

    `Name` is a module, a class or function without arguments that makes one, or a path of attributes to these. The
    package is imported, from the current folder, too: its code runs. Raises `ModelError` where there is none such.
    """
    if ":" not in written:
        return _built_in(written)
    package, _, name = written.partition(":")
    with _from_here():
        try:
            found: object = import_module(package)
        except Exception as error:
            raise ModelError(f"{written}: {package} cannot be imported: {type(error).__name__}: {error}") from None
    for part in name.split("."):
        if not hasattr(found, part):
            raise ModelError(f"{written}: {package} has no {name}; name a module, a class or a function")
        found = getattr(found, part)
    return _made(written, found)


def example_of(written: str, shape: Sequence[int] | None) -> Tensor:
    """An input for a module to be exported: of the shape batch, channels, z, y, x; a built-in module has its own."""
    if shape is None:
        name = _variant(written)
        if name is None:
            raise ModelError(f"{written}: tell the shape of its input with --example, such as 1,1,32,32,32")
        return example(variants()[name][0])
    if len(shape) not in (4, 5) or min(shape) < 1:
        raise ModelError(f"{written}: an input has the shape batch,channels,z,y,x or batch,channels,y,x, not {shape}")
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0))


def with_weights(module: nn.Module, file: Path) -> nn.Module:
    """The module with the weights of a file of `torch.save(module.state_dict())`.

    Nothing but tensors is unpickled. Raises `ModelError` where they do not fit.
    """
    try:
        weights = torch.load(file, map_location="cpu", weights_only=True)
        module.load_state_dict(weights)
    except Exception as error:
        # Hostile files make the unpickler fail in many ways; none of them needs more than a line.
        raise ModelError(f"{file}: these weights cannot be used: {' '.join(str(error).split())[:300]}") from None
    return module


def _built_in(written: str) -> nn.Module:
    name = _variant(written)
    if name is None:
        raise ModelError(f"{written}: name a module as package.module:Name, or one of {', '.join(sorted(variants()))}")
    return MIND(*variants()[name])


def _variant(written: str) -> str | None:
    name = f"{written.removesuffix('.pt')}.pt"
    return name if name in variants() else None


def _made(written: str, found: object) -> nn.Module:
    if (isclass(found) or isroutine(found)) and not isinstance(found, nn.Module):
        try:
            found = found()
        except Exception as error:
            raise ModelError(f"{written}: it cannot be made: {type(error).__name__}: {error}") from None
    if not isinstance(found, nn.Module):
        raise ModelError(f"{written}: it is a {type(found).__name__}; a torch.nn.Module is needed")
    return found


@contextmanager
def _from_here() -> Iterator[None]:
    """Lets modules of the current folder be imported, as `python -m` does."""
    here = str(Path.cwd())
    sys.path.insert(0, here)
    try:
        yield
    finally:
        sys.path.remove(here)
