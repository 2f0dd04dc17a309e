"""Asking models what they take."""

import pytest
import torch
from torch import Tensor, nn

from impactreg.errors import ModelError
from impactreg.models import contract
from impactreg.models.contract import Contract, ask, listed
from impactreg.models.extractor import Extractor

THREE = torch.tensor(3)


class Counting(nn.Module):
    """Makes as many of its three layers as are asked for."""

    def forward(self, x: Tensor, number: Tensor = THREE) -> list[Tensor]:
        return [x, x + 1, x + 2][: int(number)]


class Named(nn.Module):
    def forward(self, x: Tensor) -> dict[str, Tensor]:
        return {"out": x, "other": 2 * x}


class Deep(nn.Module):
    """Its third layer is made of images of 64 voxels alone; more layers than three are an error."""

    def forward(self, x: Tensor, number: Tensor = THREE) -> list[Tensor]:
        if int(number) > (2 if x.size(2) < 64 else 3):
            raise RuntimeError("too small")
        return [x, x + 1, x + 2][: int(number)]


def test_the_number_of_layers_is_found_by_asking_for_more():
    assert ask(Extractor.of(Counting()), 3, 1) == Contract(3, 1, 3)


def test_a_model_of_colour_slices_is_found():
    assert ask(listed(Extractor.of(nn.Conv2d(3, 1, 1))), 3, 1) == Contract(2, 3, 1)


def test_layers_that_a_small_image_is_too_small_for_are_found():
    assert ask(Extractor.of(Deep()), 3, 1, dimension=2) == Contract(2, 1, 3)


def test_the_dimension_is_found_where_the_layers_are_told():
    assert ask(listed(Extractor.of(nn.Conv2d(1, 2, 1))), 3, 1, layers=1) == Contract(2, 1, 1)


def test_a_model_file_is_asked_once(load, fresh_cache, monkeypatch):
    extractor = load(Counting())
    assert ask(extractor, 3, 1) == Contract(3, 1, 3)
    ask.cache_clear()
    monkeypatch.setattr(contract, "taken", None)
    assert ask(extractor, 3, 1) == Contract(3, 1, 3)
    assert ask(extractor, 3, 1, layers=2) == Contract(3, 1, 2)


def test_what_is_told_is_not_asked():
    assert ask(Extractor.of(nn.Linear(1, 1)), 3, 1, dimension=2, channels=1, layers=2) == Contract(2, 1, 2)


@pytest.mark.parametrize("kind", [Named(), nn.Identity()])
def test_dictionaries_and_single_tensors_become_lists(kind):
    x = torch.rand(1, 1, 4, 4)
    output = listed(Extractor.of(kind)).module(x)
    assert torch.equal(output[0], x)


def test_a_model_that_takes_nothing_is_told():
    with pytest.raises(ModelError, match=r"no 3D image of 2 channels is taken: .*; tell dimension and channels$"):
        ask(listed(Extractor.of(nn.Conv3d(1, 1, 1))), 3, 2, dimension=3)
