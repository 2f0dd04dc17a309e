from __future__ import annotations

import torch

from impactreg.images import Image
from impactreg.report.windows import LUNG, SOFT_TISSUE, Window, shown


def test_single_bright_voxels_do_not_darken_the_rest() -> None:
    values = torch.rand(30, 30, 30) * 100
    values[0, 0, 0] = 1e6
    window = Window.of(Image.of(values))
    assert (window.low, 95 < window.high < 101) == (0.0, True)


def test_ct_gets_a_customary_window() -> None:
    abdomen = torch.full((20, 20, 20), -1000.0)
    abdomen[5:15] = 40.0
    abdomen[7] = 900.0
    assert (Window.of(Image.of(abdomen)).low, Window.of(Image.of(abdomen)).high) == SOFT_TISSUE
    lung = abdomen.clone()
    lung[8:13] = -850.0
    assert (Window.of(Image.of(lung)).low, Window.of(Image.of(lung)).high) == LUNG


def test_padding_does_not_count() -> None:
    values = torch.full((20, 20, 20), -3000.0)
    values[5:15] = 100 + torch.rand(10, 20, 20)
    assert Window.of(Image.of(values)).low >= 100


def test_a_constant_image_is_grey() -> None:
    window = Window.of(Image.of(torch.full((4, 4), 7.0)))
    assert window.bytes(torch.tensor([7.0])).tolist() == [128]


def test_what_is_not_a_number_is_shown_as_the_least() -> None:
    image = shown(Image.of(torch.tensor([[1.0, float("nan")], [float("inf"), 3.0]])))
    assert image.data.flatten().tolist() == [1.0, 1.0, 1.0, 3.0]


def test_vectors_become_lengths() -> None:
    flat = Image.of(torch.zeros(2, 2))
    assert shown(flat.with_data(torch.tensor([3.0, 4.0]).reshape(2, 1, 1).expand(2, 2, 2))).data.unique().tolist() == [
        5
    ]
