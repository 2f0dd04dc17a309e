"""From what a caller hands in to a checked `Case`: device, images, masks."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from pydantic import Field
from torch import Tensor

from impactreg.errors import ImageError, PointsError, RegistrationError
from impactreg.images import Image, Mask, as_image
from impactreg.images.files import check_finite
from impactreg.images.grid import Grid
from impactreg.images.points import PointSet, read_points
from impactreg.parameters import ParameterMap, RunSettings, Settings
from impactreg.registration.case import Case, Further

logger = logging.getLogger(__name__)


class DeviceSettings(Settings):
    """Where a parameter map wants to run, whatever its metrics are."""

    index: int = Field(-1, ge=-1, alias="ImpactGPU", description="Number of the CUDA device; -1 is the CPU.")


def choose_device(asked: str | torch.device | None, maps: Sequence[ParameterMap], *, warn: bool = True) -> torch.device:
    """The device that is asked for, else the GPU that `ImpactGPU` names, else the CPU.

    A GPU of the parameter map that is not there is warned of; one that the caller asks for raises
    `RegistrationError`.
    """
    if asked is not None:
        return _checked(asked)
    index = max((DeviceSettings.read(m).index for m in maps), default=-1)
    if index < 0:
        return torch.device("cpu")
    if index < torch.cuda.device_count():
        return torch.device("cuda", index)
    if warn:
        logger.warning("(ImpactGPU %d): there is no such CUDA device; the registration runs on the CPU", index)
    return torch.device("cpu")


@dataclass(frozen=True)
class Inputs:
    """What a caller hands in: each image or mask alone, or a list of them, and corresponding points."""

    fixed: Any
    moving: Any
    fixed_mask: Any = None
    moving_mask: Any = None
    fixed_points: Any = None
    moving_points: Any = None


def make_case(
    inputs: Inputs,
    maps: Sequence[ParameterMap],
    device: torch.device,
    seed: int | None,
    model_folders: tuple[Path, ...],
    *,
    keeps_device: bool = False,
) -> Case:
    """Reads and checks images, masks and points; raises `ImageError` or `PointsError` where they do not fit each other
    or the maps.
    """
    fixed, moving = _images(inputs.fixed, "fixed image"), _images(inputs.moving, "moving image")
    for name, image in (*fixed.items(), *moving.items()):
        if image.dimension != fixed["fixed image"].dimension:
            raise ImageError(
                f"the fixed image has {fixed['fixed image'].dimension} dimensions and the {name} {image.dimension}; "
                "all must have two, or all three: give the volume or the slice that goes with the others"
            )
    for parameter_map in maps:
        _check_dimension(parameter_map, fixed["fixed image"].dimension)
    fixed_masks = _masks(inputs.fixed_mask, "fixed mask", list(fixed.values()), device)
    moving_masks = _masks(inputs.moving_mask, "moving mask", list(moving.values()), device)
    first_fixed, *more_fixed = (i.to(device=device, dtype=torch.float32) for i in fixed.values())
    first_moving, *more_moving = (i.to(device=device, dtype=torch.float32) for i in moving.values())
    points = (
        _points(inputs.fixed_points, "fixed points", first_fixed.grid),
        _points(inputs.moving_points, "moving points", first_moving.grid),
    )
    return Case(
        first_fixed,
        first_moving,
        fixed_masks[0] if fixed_masks else None,
        moving_masks[0] if moving_masks else None,
        seed,
        model_folders,
        keeps_device=keeps_device,
        further=Further(
            tuple(more_fixed),
            tuple(more_moving),
            tuple(fixed_masks[1:]),
            tuple(moving_masks[1:]),
            None if points[0] is None else points[0].points.to(device),
            None if points[1] is None else points[1].points.to(device),
            tuple(each is not None and each.indexed for each in points),
        ),
    )


def device_of_level(parameter_map: ParameterMap, level: int, otherwise: torch.device) -> torch.device:
    """The device that `ImpactGPU` names for a resolution; `otherwise` where it names none, and the CPU where that GPU
    is not there, which `choose_device` has warned of.
    """
    if "ImpactGPU" not in parameter_map:
        return otherwise
    index = DeviceSettings.read(parameter_map, level=level).index
    return torch.device("cuda", index) if 0 <= index < torch.cuda.device_count() else torch.device("cpu")


def _checked(asked: str | torch.device) -> torch.device:
    try:
        device = torch.device(asked)
    except (RuntimeError, TypeError):
        raise RegistrationError(f"device {asked!r}: use cpu, cuda or cuda:N") from None
    if device.type not in ("cpu", "cuda"):
        raise RegistrationError(f"device {asked!r}: use cpu, cuda or cuda:N")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise RegistrationError(f"device {asked!r}: PyTorch sees {torch.cuda.device_count()} CUDA devices; use cpu")
    return device


def _images(given: Any, name: str) -> dict[str, Image]:
    """Images by what messages call them: `fixed image`, then `fixed image 1` and so on."""
    several = given if isinstance(given, list) else [given]
    if not several:
        raise ImageError(f"{name}: at least one is needed, but the list is empty")
    return {called: _image(each, called) for called, each in zip(_names(name, len(several)), several, strict=True)}


def _image(given: Any, name: str) -> Image:
    image = check_finite(as_image(given, name=name), name)
    if image.channels != 1:
        raise ImageError(
            f"{name}: an image of one value per voxel is needed, but it has {image.channels}; give one of its channels"
        )
    return image


def _masks(given: Any, name: str, images: Sequence[Image], device: torch.device) -> list[Mask]:
    several = [] if given is None else given if isinstance(given, list) else [given]
    if len(several) > 1 and len(images) not in (1, len(several)):
        raise ImageError(f"{name}: there are {len(several)} for {len(images)} images; give one, or one for each image")
    grids = [image.grid for image in images] if len(images) > 1 else [images[0].grid] * len(several)
    return [
        Mask.of(as_image(each, name=called), name=called, on=grid).to(device)
        for called, each, grid in zip(_names(name, len(several)), several, grids, strict=False)
    ]


def _names(name: str, number: int) -> list[str]:
    return [name if i == 0 else f"{name} {i}" for i in range(number)]


def _points(given: Any, name: str, grid: Grid) -> PointSet | None:
    """World points (mm) from a point file, a `PointSet`, or an array or tensor."""
    if given is None:
        return None
    if isinstance(given, (str, Path)):
        return read_points(given, grid=grid)
    points = given if isinstance(given, PointSet) else PointSet(_rows(given, name))
    if points.dimension != grid.dimension:
        raise PointsError(
            f"{name}: they have {points.dimension} coordinates, but the images {grid.dimension}; "
            f"give points of {grid.dimension} coordinates, in world mm"
        )
    return points


def _rows(given: Any, name: str) -> Tensor:
    try:
        return torch.as_tensor(given, dtype=torch.float64)
    except (TypeError, ValueError, RuntimeError):
        raise PointsError(
            f"{name}: a {type(given).__name__} of numbers is needed, a row of coordinates (world mm) for each point"
        ) from None


def _check_dimension(parameter_map: ParameterMap, dimension: int) -> None:
    run = RunSettings.read(parameter_map)
    dimensions = {"FixedImageDimension": run.fixed_image_dimension, "MovingImageDimension": run.moving_image_dimension}
    for key, written in dimensions.items():
        if written not in (None, dimension):
            where = parameter_map.where(key)
            raise ImageError(
                f"{where}: ({key} {written}), but the images have {dimension} dimensions; write {dimension}, or take a "
                f"map for {dimension}D images"
            )
