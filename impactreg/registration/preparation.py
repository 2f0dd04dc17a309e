"""From what a caller hands in to a checked `Case`: device, images, masks."""

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import torch
from pydantic import Field

from impactreg.errors import ImageError, RegistrationError
from impactreg.images import Image, Mask, as_image
from impactreg.images.files import check_finite
from impactreg.parameters import Once, ParameterMap, RunSettings, Settings
from impactreg.registration.case import Case

logger = logging.getLogger(__name__)


class DeviceSettings(Settings):
    """Where a parameter map wants to run, whatever its metrics are."""

    index: Annotated[int, Once] = Field(
        -1, ge=-1, alias="ImpactGPU", description="Number of the CUDA device; -1 is the CPU."
    )


def choose_device(asked: str | torch.device | None, maps: Sequence[ParameterMap]) -> torch.device:
    """The device that is asked for, else the GPU that `ImpactGPU` names, else the CPU.

    A GPU of the parameter map that is not there is warned of once; one that the caller asks for raises
    `RegistrationError`.
    """
    if asked is not None:
        return _checked(asked)
    index = max((DeviceSettings.read(m).index for m in maps), default=-1)
    if index < 0:
        return torch.device("cpu")
    if index < torch.cuda.device_count():
        return torch.device("cuda", index)
    logger.warning("(ImpactGPU %d): there is no such CUDA device; the registration runs on the CPU", index)
    return torch.device("cpu")


def make_case(
    fixed: Any,
    moving: Any,
    fixed_mask: Any,
    moving_mask: Any,
    maps: Sequence[ParameterMap],
    device: torch.device,
    seed: int | None,
    model_folders: tuple[Path, ...],
) -> Case:
    """Reads and checks images and masks; raises `ImageError` where they do not fit each other or the maps."""
    images = _image(fixed, "fixed image"), _image(moving, "moving image")
    if images[0].dimension != images[1].dimension:
        raise ImageError(
            f"the fixed image has {images[0].dimension} dimensions and the moving image {images[1].dimension}"
        )
    for parameter_map in maps:
        _check_dimension(parameter_map, images[0].dimension)
    fixed_inside, moving_inside = (
        None if given is None else Mask.of(as_image(given, name=name), name=name, on=image.grid).to(device)
        for given, name, image in zip((fixed_mask, moving_mask), ("fixed mask", "moving mask"), images, strict=True)
    )
    on_device, moving_on_device = (i.to(device=device, dtype=torch.float32) for i in images)
    return Case(on_device, moving_on_device, fixed_inside, moving_inside, seed, model_folders)


def _checked(asked: str | torch.device) -> torch.device:
    try:
        device = torch.device(asked)
    except RuntimeError:
        raise RegistrationError(f"device {asked!r}: use cpu, cuda or cuda:N") from None
    if device.type not in ("cpu", "cuda"):
        raise RegistrationError(f"device {asked!r}: use cpu, cuda or cuda:N")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise RegistrationError(f"device {asked!r}: PyTorch sees {torch.cuda.device_count()} CUDA devices; use cpu")
    return device


def _image(given: Any, name: str) -> Image:
    image = check_finite(as_image(given, name=name), name)
    if image.channels != 1:
        raise ImageError(f"{name}: an image of one value per voxel is needed, but it has {image.channels}")
    return image


def _check_dimension(parameter_map: ParameterMap, dimension: int) -> None:
    run = RunSettings.read(parameter_map)
    dimensions = {"FixedImageDimension": run.fixed_image_dimension, "MovingImageDimension": run.moving_image_dimension}
    for key, written in dimensions.items():
        if written not in (None, dimension):
            where = parameter_map.where(key)
            raise ImageError(f"{where}: ({key} {written}), but the images have {dimension} dimensions")
