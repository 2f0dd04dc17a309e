"""Orientation: letters, and images of all 48 orientations that a network sees as one."""

from itertools import permutations, product

import pytest
import torch
from torch import Tensor

from impactreg.models.extractor import rounded_direction
from impactreg.models.orientation import FROM, Orientation, network_axes

CODES = ["".join(order) for sides in product("RL", "AP", "IS") for order in permutations(sides)]


def direction(letters: str) -> Tensor:
    """The direction cosines of an image whose axes x, y, z come from there; columns are axes."""
    return torch.tensor([FROM[letter] for letter in letters], dtype=torch.float64).T


def stored(canonical: Tensor, letters: str) -> Tensor:
    """An image [batch, channel, z, y, x] of orientation RAI (axes along LPS) as it is stored in another one."""
    bodily = ["RL", "AP", "IS"]
    order, flips = [], []
    for dim, letter in enumerate(reversed(letters)):
        axis = next(number for number, pair in enumerate(bodily) if letter in pair)
        order.append(4 - axis)
        if letter != "RAI"[axis]:
            flips.append(dim + 2)
    return canonical.permute(0, 1, *order).flip(flips)


def test_there_are_48_orientations() -> None:
    assert len(set(CODES)) == len({str(direction(code)) for code in CODES}) == 48


def test_rpi_is_what_nibabel_calls_las() -> None:
    nibabel = pytest.importorskip("nibabel")
    affine = torch.eye(4, dtype=torch.float64)
    affine[:3, :3] = torch.diag(torch.tensor([-1.0, -1.0, 1.0], dtype=torch.float64)) @ direction("RPI")
    assert "".join(nibabel.aff2axcodes(affine.numpy())) == "LAS"


@pytest.mark.parametrize("code", CODES)
def test_images_of_all_orientations_look_alike_to_the_network_and_maps_come_back(code: str) -> None:
    canonical = torch.randn(1, 1, 3, 4, 5)
    module = Orientation("RPI", (1, 0, 2))
    expected = stored(canonical, "RPI").permute(0, 1, 3, 2, 4)
    image = stored(canonical, code)
    turn = module.turn(rounded_direction(direction(code)))
    seen = module(image, turn)
    assert torch.equal(seen, expected)
    assert torch.equal(module.back(seen, turn), image)


def test_oblique_images_are_turned_to_the_nearest_axes() -> None:
    module = Orientation("RPI", (0, 1, 2))
    angle = torch.tensor(0.5, dtype=torch.float64)
    tilt = torch.eye(3, dtype=torch.float64)
    tilt[:2, :2] = torch.tensor([[angle.cos(), -angle.sin()], [angle.sin(), angle.cos()]])
    image = torch.randn(1, 1, 3, 4, 5)
    turn = module.turn(rounded_direction(tilt @ direction("ASR")))
    assert torch.equal(module(image, turn), module(image, module.turn(rounded_direction(direction("ASR")))))
    corner = torch.tensor(torch.pi / 4, dtype=torch.float64)
    tilt[:2, :2] = torch.tensor([[corner.cos(), -corner.sin()], [corner.sin(), corner.cos()]])
    order, _ = module.turn(rounded_direction(tilt @ direction("RPI")))
    assert sorted(order) == [0, 1, 2]


def test_without_a_direction_only_the_order_of_the_training_is_restored() -> None:
    image = torch.randn(1, 1, 3, 4, 5)
    for letters in ("RPI", None):
        module = Orientation(letters, (2, 0, 1))
        assert torch.equal(module(image, module.turn(torch.tensor([]))), image.permute(0, 1, 4, 2, 3))
    unknown = Orientation(None, (0, 1, 2))
    assert torch.equal(unknown(image, unknown.turn(rounded_direction(direction("ASR")))), image)


def test_slices_are_turned_within_their_plane_only() -> None:
    module = Orientation("RPI", (1, 2))
    image = torch.randn(1, 1, 4, 5)
    assert torch.equal(module(image, module.turn(direction("LPI"))), image.flip(3))
    assert torch.equal(module(image, module.turn(direction("PRI"))), image.transpose(2, 3))
    assert torch.equal(module(image, module.turn(direction("LPI")[:2, :2])), image.flip(3))
    assert torch.equal(module(image, module.turn(direction("RIP"))), image)
    assert torch.equal(module(image, module.turn(torch.tensor([]))), image)


def test_a_networks_axes_are_those_of_the_transposed_image() -> None:
    assert network_axes("RPI", (0, 1, 2)) == (FROM["I"], FROM["P"], FROM["R"])
    assert network_axes(None, (2, 0, 1)) == ((1, 0, 0), (0, 0, 1), (0, 1, 0))
