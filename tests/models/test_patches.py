"""Patches: what lies in the field of view, and what tiles may be shared."""

import pytest
import torch
from torch import Tensor, nn

from impactreg.errors import ModelError
from impactreg.models import MIND
from impactreg.models.extractor import Extractor
from impactreg.models.patches import (
    Patch,
    field_of_view,
    has_more_layers,
    independent,
    period_of,
    shares_tiles,
    smallest,
    whole,
)

UPRIGHT = ((1.0, 0.0), (0.0, 1.0))


class Chain(nn.Module):
    """Convolutions of 3 x 3 voxels; a layer of every one, each at every `stride`-th voxel of the one before."""

    def __init__(self, *strides: int) -> None:
        super().__init__()
        torch.manual_seed(0)
        widths = [1, *(n + 2 for n in range(len(strides)))]
        pairs = zip(widths, widths[1:], strides, strict=False)
        self.steps = nn.ModuleList(nn.Conv2d(a, b, 3, padding=1, stride=s) for a, b, s in pairs)

    def forward(self, x: Tensor) -> list[Tensor]:
        found: list[Tensor] = []
        for step in self.steps:
            x = torch.tanh(step(x))
            found.append(x)
        return found


class OverBatch(nn.Module):
    """Over the mean of the whole batch."""

    def forward(self, x: Tensor) -> list[Tensor]:
        return [x / x.abs().mean()]


class Signs(nn.Module):
    """Has no gradient."""

    def forward(self, x: Tensor) -> list[Tensor]:
        return [(x > 0).float()]


def patch(module, *shape, mask=None, channels=1):
    layers = len(module.steps) if isinstance(module, Chain) else 1
    return Patch(Extractor.of(module), shape, channels, mask or (True,) * layers, UPRIGHT)


def test_the_compared_sample_lies_in_the_middle_of_each_layer():
    found = whole(patch(Chain(1, 2, 2), 9, 14))
    assert found.view.shape == (9, 14)
    assert found.view.centres == ((4, 7), (2, 3), (1, 2))
    assert found.view.strides == ((1, 1), (2, 2), (3, 4))
    assert found.channels == (2, 3, 4)


@pytest.mark.parametrize(
    ("strides", "mask", "seen"), [((1,), (True,), 3), ((1, 1), (False, True), 5), ((2, 2), None, 7)]
)
def test_the_field_of_view_is_measured_whatever_the_size_of_the_patch(strides, mask, seen):
    for size in (4, 8, 16, 24):
        assert field_of_view(patch(Chain(*strides), size, size, mask=mask)) == (seen, seen)


def test_a_model_that_sees_everything_has_an_infinite_field_of_view():
    assert field_of_view(patch(OverBatch(), 8, 8)) == (float("inf"),) * 2


def test_the_field_of_view_is_all_that_is_shown():
    given = patch(Chain(1, 1), 11, 9)
    part = smallest(given)
    assert (part.start, part.shape, part.centres) == ((3, 2), (5, 5), ((2, 2), (2, 2)))
    assert smallest(patch(Chain(1, 1), 4, 4)).shape == (4, 4)


def test_a_part_starts_where_a_stride_does():
    given = patch(Chain(1, 2), 15, 15)
    part = smallest(given)
    assert all(a % 2 == 0 for a in part.start)
    x = torch.randn(3, 1, 15, 15, generator=torch.Generator().manual_seed(9))
    cut = x[:, :, part.start[0] :, part.start[1] :][:, :, : part.shape[0], : part.shape[1]]
    layers = zip(given.layers(x), given.layers(cut), whole(given).view.centres, part.centres, strict=True)
    for full, less, centre, there in layers:
        torch.testing.assert_close(less[(..., *there)], full[(..., *centre)])


@pytest.mark.parametrize(("strides", "period"), [((1, 1), 1), ((1, 2), 2), ((2, 2), 4)])
def test_tiles_are_shared_at_the_product_of_the_strides(strides, period):
    given = patch(Chain(*strides), 9, 9)
    view = whole(given).view
    if strides == (2, 2):
        # layers of 5 and 3 samples: their strides are not told by their sizes
        given = patch(Chain(*strides), 12, 12)
        view = whole(given).view
    assert period_of(given, view) == period
    assert shares_tiles(given, view, period, (20, 24))
    if period > 1:
        assert not shares_tiles(given, view, 1, (20, 24))


def test_nothing_is_shared_below_the_field_of_view_or_with_what_normalises():
    for given in (patch(Chain(1, 1), 4, 4), patch(OverBatch(), 5, 5), patch(MIND(2, 1, 1), 9, 9)):
        assert period_of(given, smallest(given)) is None
        assert smallest(given).shape == given.shape


def test_patches_of_a_batch_are_independent_of_each_other_or_not():
    assert independent(patch(Chain(1, 1), 5, 5))
    assert independent(patch(MIND(2, 1, 1), 7, 7))
    assert not independent(patch(OverBatch(), 5, 5))


def test_layers_that_are_not_asked_for_are_noticed():
    assert has_more_layers(patch(Chain(1, 1), 5, 5, mask=(True,)))
    assert not has_more_layers(patch(Chain(1, 1), 5, 5))


def test_a_model_without_gradients_is_refused():
    with pytest.raises(ModelError, match="Signs: a selected layer has no gradient to the image"):
        smallest(patch(Signs(), 5, 5))
