"""Half precision on a CPU is used where it was measured to be faster, and nowhere else."""

import pytest
import torch
from torch import nn

from impactreg.models import precision
from impactreg.models.batches import View, batch_layers
from impactreg.models.extractor import Extractor

UPRIGHT = ((1.0, 0.0), (0.0, 1.0))


@pytest.fixture(autouse=True)
def nothing_timed(fresh_cache):
    precision.pays.cache_clear()


@pytest.fixture
def timed(monkeypatch):
    """Sets how long single and half precision take, and counts how often that is asked."""

    def times(single, half):
        asked = []

        def seconds(extractor, x, layers, in_half):
            asked.append(in_half)
            return half if in_half else single

        monkeypatch.setattr(precision, "_seconds", seconds)
        return asked

    return times


def layer(model, wanted=True):
    x = torch.rand(1, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    with precision.reduced(model, wanted, 2, 1, 1):
        return model.layers(x, 1, [0, 1, 0, 1], UPRIGHT, mixed_precision=wanted)[0]


@pytest.mark.parametrize(("single", "half", "differs"), [(2.0, 1.0, True), (1.0, 1.0, False), (1.0, 3.0, False)])
def test_half_precision_is_used_where_it_is_faster(model, timed, single, half, differs):
    timed(single, half)
    found, known = layer(model), layer(model, wanted=False)
    assert found.dtype == torch.float32
    assert bool((found != known).any()) == differs
    torch.testing.assert_close(found, known, atol=0.02, rtol=0.02)


def test_it_is_measured_once_for_a_model(model, timed):
    asked = timed(2.0, 1.0)
    layer(model)
    precision.pays.cache_clear()
    layer(model)
    assert len(asked) == 2 * precision.REPETITIONS


def test_nothing_is_measured_unless_it_is_asked_for(model, timed):
    asked = timed(2.0, 1.0)
    layer(model, wanted=False)
    assert asked == []


def test_a_model_in_memory_is_never_run_to_be_timed(blur, timed):
    asked = timed(2.0, 1.0)
    layer(Extractor.of(blur))
    assert asked == []


def test_a_model_that_cannot_take_the_image_is_not_faster(load):
    class Fails(nn.Module):
        def forward(self, x):
            assert x.shape[-1] < 9
            return [x]

    assert not precision.pays(load(Fails()), 2, 1, 1)


def test_the_clock_tells_of_both_precisions(model):
    x = torch.rand(1, 1, 16, 16)
    assert all(precision._seconds(model, x, 1, half) >= 0 for half in (False, True))


def test_batches_are_reduced_too(model, timed):
    timed(2.0, 1.0)
    x = torch.rand(1, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    half, single = (batch_layers(model, x, View((True,), mixed_precision=mixed))[0] for mixed in (True, False))
    assert half.dtype == torch.float32
    assert (half != single).any()
