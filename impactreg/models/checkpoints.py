"""The weights of an nnU-Net checkpoint, read without running anything that it holds."""

import re
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from impactreg.errors import ModelError
from impactreg.models.archives import listed_where_told

# What PyTorch itself does not load but nnU-Net writes beside the weights: single numbers of numpy, in a log of losses.
# Names of both numpy 1 and 2, for a checkpoint holds that of the numpy that wrote it.
KINDS = ("float64", "float32", "float16", "int64", "int32", "int16", "int8", "uint8", "bool")
SCALAR = "multiarray.scalar"
PREFIXES = ("module.", "_orig_mod.")
"""What training on several devices, and compiling, put before a parameter's name."""
COPIES = re.compile(r"(^|\.)all_modules\.|^decoder\.encoder\.")
"""Second names of parameters that nnU-Net's modules hold twice."""
HELD = re.compile(r"(?:nsupported global: GLOBAL|nsupported GLOBAL|nsupported class|instantiate objects of type) (\S+)")
"""How PyTorch says what it would have to import."""


def network_weights(path: Path) -> dict[str, Tensor]:
    """The parameters of a `checkpoint_final.pth` by the names that `UNet` gives them, as float32 on the CPU.

    Raises `ModelError` where the file is no checkpoint of nnU-Net, is damaged, or holds more than tensors and numbers.
    """
    _check_archive(path)
    checkpoint = _loaded(path)
    weights = checkpoint.get("network_weights") if isinstance(checkpoint, dict) else None
    if not isinstance(weights, Mapping):
        raise ModelError(f"{path}: there are no network_weights; a checkpoint of nnU-Net 2 is needed")
    found = {_plain(str(name)): value for name, value in weights.items() if not COPIES.search(_plain(str(name)))}
    for name, value in found.items():
        if not _is_whole(value):
            raise ModelError(f"{path}: {name} is no whole tensor of numbers; the checkpoint is damaged")
    return found


def fill(network: nn.Module, weights: Mapping[str, Tensor], where: str) -> None:
    """Gives a network, which may have been built on the meta device, the weights of a checkpoint.

    The heads of coarser scales, `decoder.seg_layers`, may be missing. Raises `ModelError` for other names, or shapes.
    """
    needed = network.state_dict()
    last = max((name for name in needed if ".seg_layers." in name), key=_number, default="")
    spare = {name for name in needed if ".seg_layers." in name and _number(name) != _number(last)}
    missing = [name for name in needed if name not in weights and name not in spare]
    unknown = [name for name in weights if name not in needed]
    if missing or unknown:
        what = f"{missing[0]} is missing" if missing else f"{unknown[0]} is not among its parameters"
        raise ModelError(f"{where}: the weights are not those of the network in plans.json: {what}")
    for name, value in weights.items():
        if value.shape != needed[name].shape:
            raise ModelError(
                f"{where}: {name} has the shape {list(value.shape)}, but plans.json and dataset.json say "
                f"{list(needed[name].shape)}; the checkpoint belongs to another network"
            )
    filled = {name: weights[name].to(own.dtype) for name, own in needed.items() if name in weights}
    filled.update((name, torch.zeros(needed[name].shape)) for name in spare if name not in weights)
    network.load_state_dict(filled, assign=True)


def _check_archive(path: Path) -> None:
    """A checkpoint is a zip whose members are stored as they are: what is compressed could unpack to anything.

    So could what PyTorch finds where zipfile finds something else.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
        clear = listed_where_told(path)
    except FileNotFoundError:
        raise ModelError(f"{path}: there is no such file") from None
    except (OSError, zipfile.BadZipFile, ValueError, NotImplementedError) as error:
        raise ModelError(f"{path}: this is no checkpoint of nnU-Net 2, or a truncated one: {error}") from None
    stored = all(one.compress_type == zipfile.ZIP_STORED and one.file_size == one.compress_size for one in members)
    if not clear or not stored or sum(one.file_size for one in members) > path.stat().st_size:
        raise ModelError(f"{path}: the checkpoint is compressed, which PyTorch does not do; it is refused")


def _loaded(path: Path) -> Any:
    try:
        with torch.serialization.safe_globals(_numbers()):
            return torch.load(path, map_location="cpu", weights_only=True)
    # A file made to do harm can make PyTorch's reader fail in any way.
    except Exception as error:
        if held := HELD.search(str(error)):
            raise ModelError(
                f"{path}: the checkpoint holds {held[1]}, which is neither a tensor nor a number and could run code; "
                "it is refused"
            ) from None
        # PyTorch's advice to load it all the same is not passed on.
        said = str(error).rpartition("WeightsUnpickler error: ")[2].strip() or type(error).__name__
        raise ModelError(f"{path}: the checkpoint is damaged: {said.splitlines()[0]:.200}") from None


def _numbers() -> list[Any]:
    scalar = np.array(0.0)[()].__reduce__()[0]
    names = [(scalar, f"numpy.{package}.{SCALAR}") for package in ("core", "_core")]
    return [*names, np.dtype, *(type(np.dtype(kind)) for kind in KINDS)]


def _plain(name: str) -> str:
    while (prefix := next((one for one in PREFIXES if name.startswith(one)), None)) is not None:
        name = name.removeprefix(prefix)
    return name


def _is_whole(value: object) -> bool:
    """Whether a tensor holds a number for each element: one of a few numbers repeated could be of any size."""
    if not isinstance(value, Tensor) or value.layout != torch.strided or value.is_complex() or value.is_quantized:
        return False
    return value.untyped_storage().nbytes() >= value.numel() * value.element_size()


def _number(name: str) -> int:
    return int(name.partition(".seg_layers.")[2].partition(".")[0] or 0)
