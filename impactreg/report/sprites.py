"""Stacks of small pictures as one picture file inside the page: JPEG for images, PNG for numbers."""

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import Any

import numpy as np
import torch.nn.functional as F  # noqa: N812
from jaxtyping import UInt8
from torch import Tensor

from impactreg.errors import MissingExtra

QUALITIES = (82, 65, 45, 25)
BUDGET = 2_600_000
"""Most bytes that the images of a page may take."""
COLUMNS = 6


@dataclass(frozen=True)
class Sprite:
    """Tiles of `width` x `height` pixels in rows of `columns`, each padded to `tile` pixels, as a data URI."""

    uri: str
    width: int
    height: int
    tile: tuple[int, int]
    columns: int

    def told(self) -> dict[str, object]:
        """For the page's script."""
        return {"uri": self.uri, "w": self.width, "h": self.height, "tile": self.tile, "columns": self.columns}


def sprite(tiles: UInt8[Tensor, "tile row column *channel"], quality: int | None = None) -> Sprite:
    """Tiles as one picture: grey, or with three channels in colour. Without a `quality` every value stays as it is."""
    rows, columns = tiles.shape[1:3]
    padded = tiles if quality is None else _padded(tiles)
    sheet = np.ascontiguousarray(_sheet(padded))
    return Sprite(_uri(sheet, quality), columns, rows, (padded.shape[2], padded.shape[1]), min(COLUMNS, len(tiles)))


def quality_for(stacks: Sequence[Tensor]) -> int:
    """The best quality at which some stacks of tiles stay within the budget, judged by the first of them."""
    share = stacks[0].numel() / sum(stack.numel() for stack in stacks)
    sizes = ((quality, len(sprite(stacks[0], quality).uri)) for quality in QUALITIES)
    return next((quality for quality, size in sizes if size / share <= BUDGET), QUALITIES[-1])


def package(name: str, distribution: str) -> Any:
    """A module of the extra `report`; raises `MissingExtra` where it is not installed."""
    try:
        return import_module(name)
    except ImportError:
        raise MissingExtra(f"the report needs {distribution}: pip install impactreg[report]") from None


def check_extra() -> None:
    """Raises `MissingExtra` where a package of the extra `report` is not installed."""
    for name, distribution in (("jinja2", "jinja2"), ("PIL.Image", "pillow")):
        package(name, distribution)


def _padded(tiles: UInt8[Tensor, "tile row column *channel"]) -> Tensor:
    """Tiles of whole JPEG blocks, so that none shines into its neighbour; their borders are repeated."""
    rows, columns = tiles.shape[1:3]
    down, right = -rows % 8, -columns % 8
    if not down and not right:
        return tiles
    planes = tiles.reshape(*tiles.shape[:3], -1).movedim(-1, 1).float()
    grown = F.pad(planes, (0, right, 0, down), mode="replicate").movedim(1, -1).to(tiles.dtype)
    return grown.reshape(len(tiles), rows + down, columns + right, *tiles.shape[3:])


def _sheet(tiles: Tensor) -> Any:
    """All tiles side by side, `COLUMNS` in a row."""
    values = tiles.numpy()
    count, height, width = values.shape[:3]
    columns = min(COLUMNS, count)
    rows = -(-count // columns)
    sheet = np.zeros((rows * height, columns * width, *values.shape[3:]), np.uint8)
    for number, tile in enumerate(values):
        row, column = divmod(number, columns)
        sheet[row * height : (row + 1) * height, column * width : (column + 1) * width] = tile
    return sheet


def _uri(sheet: Any, quality: int | None) -> str:
    picture = package("PIL.Image", "pillow").fromarray(sheet)
    file = io.BytesIO()
    if quality is None:
        picture.save(file, "PNG")
    else:
        picture.save(file, "JPEG", quality=quality, subsampling=0)
    kind = "png" if quality is None else "jpeg"
    return f"data:image/{kind};base64,{base64.b64encode(file.getvalue()).decode('ascii')}"
