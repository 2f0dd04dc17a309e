"""Windows and what they do to cuts."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from impactreg.models.blending import gaussian, raised_cosine
from impactreg.models.tiling import Cut


@given(st.integers(1, 150), st.integers(4, 40), st.integers(0, 20), st.sampled_from([1, 2, 4]))
def test_gaussian_weights_of_every_place_add_up_to_one(size, tile, overlap, alignment):
    cut = Cut.of(size, tile, alignment, min(overlap, tile - 1))
    total = torch.zeros(cut.starts[-1] + tile, dtype=torch.float64)
    for start, weight in cut.weights(1.0, 0.0, tile, 2.0, gaussian).items():
        total[start : start + tile] += weight
    torch.testing.assert_close(total, torch.ones_like(total))


def test_the_gaussian_has_an_eighth_of_the_tile_as_its_width():
    position = torch.tensor([15.5, 19.5])
    weight = gaussian(position, torch.full((2,), 10.0), 32, 0.0)
    assert weight.tolist() == pytest.approx([1.0, 0.6065], abs=1e-4)


@pytest.mark.parametrize("window", [gaussian, raised_cosine])
def test_next_to_nothing_is_left_in_the_margin(window):
    weight = window(torch.arange(4.0), torch.tensor([0.5, 1.5, 2.5, 9.5]), 20, 2.0)
    assert (weight > 0).all()
    assert weight[:2].max() < 1e-8 < weight[2]


def test_an_overlap_that_is_asked_for_is_kept_or_widened():
    assert Cut.of(100, 32, 1, 8).starts == (0, 24, 48, 68)
    assert Cut.of(100, 32, 4, 7).overlap == 8
    assert Cut.of(100, 32, 1, 8).margin(3.0) == 3.0
    assert Cut.of(100, 32, 1, 8).margin(4.0) == 0.0
