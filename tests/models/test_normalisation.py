"""Normalisation: nnU-Net's schemes, with and without the statistics of the whole image."""

import numpy as np
import pytest
import torch
from torch import Tensor

from impactreg.models.extractor import torchscript
from impactreg.models.normalisation import Normalise
from impactreg.models.plans import ChannelIntensities, Normalisation

CT = ChannelIntensities(mean=50.0, std=200.0, percentile_00_5=-100.0, percentile_99_5=300.0)
NONE = torch.tensor([])


def image(*channels: int) -> Tensor:
    return torch.randn(2, *(channels or (1,)), 5, 6, 7) * 300


def normalised(x: Tensor, stats: Tensor, *schemes: Normalisation) -> Tensor:
    with torchscript():
        scripted = torch.jit.script(Normalise(schemes))
    found: Tensor = scripted(x, stats)
    assert torch.equal(found, Normalise(schemes)(x, stats))
    return found


def statistics(x: Tensor) -> Tensor:
    return torch.stack([x.min(), x.max(), x.mean(), x.std()])


@pytest.mark.parametrize("stats", ["known", "unknown"])
def test_ct_is_clipped_and_scaled_as_nnunet_does(stats: str) -> None:
    x = image()
    found = normalised(x, statistics(x) if stats == "known" else NONE, Normalisation("CTNormalization", False, CT))
    expected = (np.clip(x.numpy(), -100, 300) - 50) / 200
    assert np.allclose(found.numpy(), expected, atol=1e-5)


def test_what_is_clipped_keeps_a_little_of_its_gradient() -> None:
    x = torch.tensor([-500.0, 0.0, 900.0]).reshape(1, 1, 1, 1, 3).requires_grad_()
    normalised(x, NONE, Normalisation("CTNormalization", False, CT)).sum().backward()
    assert x.grad is not None
    assert torch.allclose(x.grad.flatten() * 200, torch.tensor([1e-3, 1.0, 1e-3]))


def test_z_score_uses_the_whole_image_or_each_image_alone() -> None:
    x = image()
    known = normalised(x, torch.tensor([0.0, 1.0, 7.0, 4.0]), Normalisation("ZScoreNormalization"))
    assert torch.allclose(known, (x - 7) / 4)
    own = normalised(x, NONE, Normalisation("ZScoreNormalization"))
    for one, seen in zip(x.numpy(), own.numpy(), strict=True):
        assert np.allclose(seen, (one - one.mean()) / one.std(), atol=1e-4)


def test_z_score_inside_a_mask_leaves_nothing_where_nothing_is() -> None:
    x = image()
    x[:, :, :2] = 0
    own = normalised(x, NONE, Normalisation("ZScoreNormalization", inside_mask=True))
    for one, seen in zip(x.numpy(), own.numpy(), strict=True):
        inside = one[one != 0]
        assert np.allclose(seen[one != 0], (inside - inside.mean()) / inside.std(), atol=1e-4)
    known = normalised(x, statistics(x), Normalisation("ZScoreNormalization", inside_mask=True))
    assert not own[:, :, :2].any()
    assert not known[:, :, :2].any()


def test_ranges_go_from_0_to_1() -> None:
    x = image()
    known = normalised(x, statistics(x), Normalisation("RescaleTo01Normalization"))
    assert (float(known.min()), float(known.max())) == (0, 1)
    own = normalised(x, NONE, Normalisation("RescaleTo01Normalization"))
    assert torch.equal(own.flatten(1).amax(1), torch.ones(2))
    assert torch.allclose(normalised(x, NONE, Normalisation("RGBTo01Normalization")), x / 255)
    assert torch.equal(normalised(x, NONE, Normalisation("NoNormalization")), x)


def test_channels_have_their_own_schemes() -> None:
    x = image(2)
    found = normalised(x, NONE, Normalisation("CTNormalization", False, CT), Normalisation("NoNormalization"))
    assert torch.equal(found[:, 1], x[:, 1])
    assert float(found[:, 0].abs().max()) <= 1.25
    with pytest.raises(RuntimeError, match="another number of channels"):
        Normalise([Normalisation("NoNormalization")])(x, NONE)


def test_a_flat_image_stays_finite() -> None:
    x = torch.full((1, 1, 3, 3), 5.0)
    for scheme in ("ZScoreNormalization", "RescaleTo01Normalization"):
        for stats in (NONE, torch.tensor([5.0, 5.0, 5.0, 0.0])):
            assert torch.isfinite(normalised(x, stats, Normalisation(scheme))).all()
