"""The checks of a model: what is good, what is worth a note, and what is wrong."""

import pytest
import torch
from torch import Tensor, nn

from impactreg.models.cards import CardFile, known
from impactreg.models.checking import check
from impactreg.models.extractor import torchscript
from impactreg.models.inspection import describe
from impactreg.models.mind import MIND, NO_TENSOR, ONE_LAYER

TWO = torch.tensor([2])


class Whole(nn.Module):
    """Normalises over the whole batch."""

    def forward(self, x: Tensor) -> list[Tensor]:
        return [(x - x.mean()) / x.std(), x * 2]


class Restless(nn.Module):
    def forward(self, x: Tensor) -> list[Tensor]:
        return [x + torch.rand_like(x)]


class NoFlat(nn.Module):
    def forward(self, x: Tensor) -> list[Tensor]:
        return [(x - x.amin([1, 2, 3, 4], keepdim=True)) / (x - x.mean([1, 2, 3, 4], keepdim=True)).abs().amax()]


class Moody(nn.Module):
    """Makes another first layer when no more are asked for."""

    def forward(self, x: Tensor, number: Tensor = TWO) -> list[Tensor]:
        return [x] if int(number) == 1 else [x * 2, x]


class Labels(nn.Module):
    def forward(self, x: Tensor) -> list[Tensor]:
        return [(x > 0).long()]


class Turning(nn.Module):
    def forward(
        self, x: Tensor, number: Tensor = ONE_LAYER, statistics: Tensor = NO_TENSOR, direction: Tensor = NO_TENSOR
    ) -> list[Tensor]:
        return [x.flip(2) if direction.numel() > 0 and bool(direction[0, 0] < 0) else x]


class Even(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.down = nn.Conv3d(1, 2, 2, stride=2)
        self.up = nn.ConvTranspose3d(2, 1, 2, stride=2)

    def forward(self, x: Tensor) -> list[Tensor]:
        return [x + self.up(self.down(x))]


@pytest.fixture
def findings(tmp_path):
    def found(module, card=None, **options):
        with torchscript():
            torch.jit.script(module.eval()).save(str(tmp_path / "net.pt"))
        return list(check(describe(tmp_path / "net.pt", side=12, **options), card))

    return found


def said(findings, verdict):
    return {finding.about: finding.said for finding in findings if finding.verdict == verdict}


def test_nothing_is_wrong_with_mind(findings):
    found = findings(MIND(3), known("MIND/R1D2_3D")[1])
    assert not said(found, "wrong")
    assert not said(found, "note")
    assert said(found, "good")["gradients"] == "every layer has one: Static and Jacobian"
    assert said(found, "good")["card"].startswith("1 of the 1 layers of MIND/R1D2_3D.pt")


def test_a_batch_that_is_normalised_together_is_noted(findings):
    found = findings(Whole())
    assert "one by one" in said(found, "note")["batches"]
    assert "all 2 layers are computed" in said(found, "note")["arguments"]


@pytest.mark.parametrize(
    ("module", "about", "text"),
    [
        (Restless(), "same twice", "another answer the second time"),
        (NoFlat(), "flat input", "net.pt: layer 1 of 1 has values that are not finite numbers"),
        (Moody(), "layers", "the first 1 layers are others when no more are asked for"),
    ],
)
def test_what_cannot_be_relied_on_is_wrong(findings, module, about, text):
    assert text in said(findings(module), "wrong")[about]


def test_a_model_without_gradients_is_for_static_mode(findings):
    assert said(findings(Labels()), "note")["gradients"] == "no layer has one: Static only"


def test_a_model_that_turns_the_image_is_told(findings):
    assert "own orientation" in said(findings(Turning()), "good")["direction"]


def test_sizes_that_are_not_taken_are_noted(findings):
    assert "does not take 19 x 16 x 13" in said(findings(Even()), "note")["other sizes"]


def test_other_channels_than_its_card_says_are_wrong(findings):
    card = CardFile.model_validate({"path": "F/a.pt", "dimension": 3, "layers": [{"channels": 7}]})
    assert "the layers have [12] channels, but those of F/a.pt [7]" in said(findings(MIND(3), card), "wrong")["card"]
