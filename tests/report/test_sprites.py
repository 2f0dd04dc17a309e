from __future__ import annotations

import base64
import io

import numpy as np
import pytest
import torch
from PIL import Image as Picture

from impactreg.errors import MissingExtra
from impactreg.report.sprites import BUDGET, QUALITIES, Sprite, package, quality_for, sprite


def opened(found: Sprite) -> np.ndarray:
    return np.asarray(Picture.open(io.BytesIO(base64.b64decode(found.uri.partition(",")[2]))))


def cut(found: Sprite, number: int) -> np.ndarray:
    row, column = divmod(number, found.columns)
    x, y = column * found.tile[0], row * found.tile[1]
    return opened(found)[y : y + found.height, x : x + found.width]


@pytest.mark.parametrize("channels", [(), (3,)])
def test_numbers_come_back_as_they_were(channels: tuple[int, ...]) -> None:
    tiles = torch.randint(0, 256, (8, 5, 7, *channels), dtype=torch.uint8)
    found = sprite(tiles)
    for number, tile in enumerate(tiles):
        np.testing.assert_array_equal(cut(found, number), tile.numpy())


def test_neighbours_do_not_shine_into_a_picture() -> None:
    tiles = torch.zeros(4, 13, 11, dtype=torch.uint8)
    tiles[1::2] = 255
    found = sprite(tiles, 80)
    assert found.tile == (16, 16)
    for number in range(4):
        assert np.abs(cut(found, number).astype(int) - tiles[number].numpy()).max() <= 2


def test_the_best_quality_is_taken_where_there_is_room_and_a_lower_one_where_not() -> None:
    small = torch.zeros(2, 32, 32, dtype=torch.uint8)
    assert quality_for([small]) == QUALITIES[0]
    noise = torch.randint(0, 256, (12, 256, 256), dtype=torch.uint8)
    assert len(sprite(noise, QUALITIES[0]).uri) * 20 > BUDGET
    assert quality_for([noise] * 20) < QUALITIES[0]


def test_a_missing_package_names_the_extra() -> None:
    with pytest.raises(MissingExtra, match=r"needs nothing-like-it: pip install impactreg\[report\]"):
        package("nothing_like_it", "nothing-like-it")
