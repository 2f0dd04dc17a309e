"""Periods of networks."""

import pytest
import torch
from torch import Tensor, nn

from impactreg.models import equivariance
from impactreg.models.contract import listed
from impactreg.models.equivariance import periods
from impactreg.models.extractor import Extractor
from impactreg.models.geometry import measure

AXES = ((1.0, 0.0), (0.0, 1.0))


class Mean(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x - x.mean([2, 3], keepdim=True)


class Strided(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.only = nn.Conv2d(1, 2, 3, stride=2, padding=1)

    def forward(self, x: Tensor) -> list[Tensor]:
        return [self.only(x)]


def found(module: nn.Module) -> tuple[int | None, ...]:
    extractor = listed(Extractor.of(module))
    with torch.no_grad():
        layers = extractor.layers(torch.randn(1, 1, 64, 64), 1, (0, 1, 0, 1), AXES)
    return periods(extractor, (64, 64), 1, measure(extractor, (64, 64), layers, 1, AXES), AXES)


@pytest.mark.parametrize(
    ("module", "period"),
    [
        (nn.Conv2d(1, 2, 3, padding=1), 1),
        (nn.Conv2d(1, 2, 3, stride=2, padding=1), 2),
        (nn.Sequential(nn.Conv2d(1, 4, 2, stride=2), nn.ConvTranspose2d(4, 1, 2, stride=2)), 2),
        (nn.Sequential(nn.AvgPool2d(8), nn.Upsample(scale_factor=8.0)), 8),
        (Mean(), None),
    ],
)
def test_the_period_is_the_step_of_the_coarsest_grid(module, period):
    assert found(module) == (period,)


def test_the_period_of_a_model_file_is_measured_once(load, fresh_cache, monkeypatch):
    extractor = load(Strided())
    layers = extractor.layers(torch.randn(1, 1, 64, 64), 1, (0, 1, 0, 1), AXES)
    asked = (extractor, (64, 64), 1, measure(extractor, (64, 64), layers, 1, AXES), AXES)
    assert periods(*asked) == (2,)
    periods.cache_clear()
    monkeypatch.setattr(equivariance, "_periods", None)
    assert periods(*asked) == (2,)
