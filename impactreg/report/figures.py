"""The pictures of a page: for each plane the slices of both images, of the deformation and of the features."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from jaxtyping import Float
from torch import Tensor

from impactreg.images.image import Image
from impactreg.report.deformation import Deformation, PlaneField
from impactreg.report.feature_maps import Colours
from impactreg.report.planes import LETTERS, THROUGH, Indices, Plane, Stack, sampled, slices_of
from impactreg.report.sprites import Sprite, quality_for, sprite
from impactreg.report.windows import Window

PIXELS, PIXELS_2D = 256, 512
OCTAVES = 2.0
"""The determinants of the map run from 2^-2 to 2^2; beyond, the colour stays."""
FEATURE_QUALITY = 80


@dataclass(frozen=True, eq=False)
class Images:
    """What is compared, as scalar images of finite numbers; `result` is None where the transform has to make it."""

    fixed: Image
    moving: Image
    result: Image | None

    @cached_property
    def windows(self) -> tuple[Window, Window]:
        """That of the fixed and that of the moving image, which the result shares."""
        return Window.of(self.fixed), Window.of(self.moving)


def pictures(
    deformation: Deformation, images: Images | None, colours: Sequence[Colours]
) -> tuple[list[dict[str, object]], int]:
    """For each plane what the page's script draws from, and how many bytes that takes."""
    stacks = [_stacks(images, field) for field in deformation.fields] if images else []
    quality = quality_for([stack for each in stacks for stack in each.values()]) if stacks else 0
    found, size = [], 0
    for number, field in enumerate(deformation.fields):
        sprites = {name: sprite(stack, quality) for name, stack in stacks[number].items()} if stacks else {}
        maps = _maps(deformation, field)
        features = [[sprite(each, FEATURE_QUALITY) for each in colour.pictures(field)] for colour in colours]
        told = {**_geometry(field.plane), "images": {n: s.told() for n, s in sprites.items()}}
        told |= {name: {**s.told(), "range": most} for name, (s, most) in maps.items()}
        told["features"] = [{"fixed": a.told(), "moving": b.told()} for a, b in features]
        every = (*sprites.values(), *(s for s, _ in maps.values()), *(s for pair in features for s in pair))
        size += sum(len(each.uri) for each in every)
        found.append(told)
    return found, size


def grid_step(deformation: Deformation) -> float:
    """A round number of mm between the lines of the deformation grid: about 20 lines along the longest side."""
    grid = deformation.fields[0].plane.grid
    wanted = max(n * step for n, step in zip(grid.size, grid.spacing, strict=True)) / 20
    power = 10.0 ** math.floor(math.log10(wanted))
    return next(m * power for m in (1, 2, 5, 10) if m * power >= 0.99 * wanted)


def _geometry(plane: Plane) -> dict[str, object]:
    limit = PIXELS if len(plane.axes) > 2 else PIXELS_2D
    columns, rows = plane.size(limit)
    width = plane.grid.size[plane.axes[0]] * plane.grid.spacing[plane.axes[0]]
    return {
        "name": plane.name,
        "w": columns,
        "h": rows,
        "pixel": width / columns,
        "slices": len(plane.slices),
        "start": len(plane.slices) // 2,
        "positions": plane.positions(),
        "axis": LETTERS[THROUGH[plane.name]] if plane.name in THROUGH else ("", ""),
    }


def _stacks(images: Images, field: PlaneField) -> dict[str, Tensor]:
    """The slices of fixed, moving and result as grey levels."""
    plane = field.plane
    limit = PIXELS if len(plane.axes) > 2 else PIXELS_2D
    of_fixed, of_moving = images.windows
    fixed = slices_of(images.fixed, plane, limit, of_fixed.low)
    moving = slices_of(images.moving, plane, limit, of_moving.low)
    if images.result is None:
        result = _warped(images.moving, field.moved_at(*plane.size(limit)), of_moving.low)
    else:
        result = slices_of(images.result, plane, limit, of_moving.low)
    return {"fixed": of_fixed.bytes(fixed), "moving": of_moving.bytes(moving), "result": of_moving.bytes(result)}


def _warped(moving: Image, moved: Indices, background: float) -> Stack:
    values, inside = sampled(moving, moved)
    return torch.where(inside, values[0], background)


def _maps(deformation: Deformation, field: PlaneField) -> dict[str, tuple[Sprite, float]]:
    """The deformation as numbers in pictures, each with the largest number in it (0 to 255 in the picture).

    `field`: red and green are the displacement without its affine part to the right and down, 127.5 being none, blue
    the length of the whole displacement, in shares of `length`. `jacobian`: 0 is folded, 1 to 255 is log2 of the
    determinant from -2 to 2.
    """
    beyond = deformation.beyond_affine(field)
    aside = torch.stack([beyond @ field.plane.direction(number) for number in (0, 1)])
    most = max(float(aside.abs().max()), 1e-6)
    longest = max(float(deformation.displacement.max()), 1e-6)
    length = (field.moved - field.points).norm(dim=-1) / longest * 255
    rgb = torch.stack([*(aside / most * 127.5 + 127.5), length], dim=-1).clamp(0, 255).round().to(torch.uint8)
    octaves = field.determinant.clamp_min(1e-6).log2().clamp(-OCTAVES, OCTAVES)
    grey = _levels((octaves + OCTAVES) / (2 * OCTAVES))
    folded = torch.where(field.determinant <= 0, torch.zeros_like(grey), grey)
    return {"field": (sprite(rgb), most), "jacobian": (sprite(folded), OCTAVES)}


def _levels(share: Float[Tensor, "slice row column"]) -> Tensor:
    return (1 + share * 254).round().to(torch.uint8)
