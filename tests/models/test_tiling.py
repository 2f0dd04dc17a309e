"""Cuts, their weights, and mosaics of tiles."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from impactreg.models.geometry import Layer
from impactreg.models.tiling import Cut, Mosaic


@given(st.integers(1, 200), st.integers(1, 64), st.sampled_from([1, 2, 4, 8]))
def test_tiles_cover_the_axis_on_one_lattice_and_hardly_leave_it(size, tile, alignment):
    tile = max(tile, alignment)
    cut = Cut.of(size, tile, alignment)
    covered = {voxel for start in cut.starts for voxel in range(start, start + tile)}
    assert set(range(size)) <= covered
    assert all(start % alignment == 0 for start in cut.starts)
    assert cut.starts[-1] + tile < max(size, tile) + alignment
    assert len(set(cut.starts)) == len(cut.starts)


@given(st.integers(1, 120), st.integers(4, 40), st.sampled_from([1, 2, 4]), st.sampled_from([0.0, 1.0, 3.0, 99.0]))
def test_the_weights_of_every_place_add_up_to_one(size, tile, stride, reach):
    cut = Cut.of(size, tile, stride)
    per_tile = -(-tile // stride)
    total = torch.zeros(cut.starts[-1] // stride + per_tile, dtype=torch.float64)
    for start, weight in cut.weights(float(stride), 0.0, per_tile, reach).items():
        assert (weight > 0).all()
        total[start // stride : start // stride + per_tile] += weight
    torch.testing.assert_close(total, torch.ones_like(total))


def test_a_tile_counts_for_nothing_where_it_sees_its_border():
    weights = Cut.of(100, 32, 1).weights(1.0, 0.0, 32, 5.0)
    assert weights[16][:5].max() < 1e-6
    assert weights[16][-5:].max() < 1e-6
    assert weights[0][0] == 1


@pytest.mark.parametrize(("size", "offset", "samples"), [(33, 0.0, 17), (33, 0.5, 16), (34, 0.5, 17), (33, 1.0, 16)])
def test_a_padded_layer_has_the_samples_of_an_unpadded_pass(size, offset, samples):
    assert Cut.of(size, 16, 2).samples(2.0, offset, 8) == samples
    assert Cut.of(size, 64, 2).samples(2.0, offset, 32) == samples


def test_past_the_image_its_last_voxel_is_repeated():
    values = torch.arange(5.0)[None]
    assert Cut.of(5, 8, 1).take(values, 1, 0).tolist() == [[0, 1, 2, 3, 4, 4, 4, 4]]
    assert Cut.of(5, 2, 2).take(values, 1, 4).tolist() == [[4, 4]]


def test_a_mosaic_of_the_pieces_of_a_map_is_that_map():
    whole = torch.randn(3, 2, 20, 30)
    cuts = [Cut.of(20, 8, 1), Cut.of(30, 10, 1)]
    mosaic = Mosaic(cuts, Layer(3, (1.0, 1.0), (0.0, 0.0), (2.0, 1.0), True), (8, 10), 2)
    for frame in range(2):
        for y in cuts[0].starts:
            for x in cuts[1].starts:
                mosaic.add(frame, (y, x), whole[:, frame, y : y + 8, x : x + 10])
    torch.testing.assert_close(mosaic.map, whole)


def test_a_mosaic_without_tiles_has_no_map():
    mosaic = Mosaic([Cut.of(4, 4, 1)], Layer(1, (1.0,), (0.0,), (0.0,), True), (4,), 1)
    with pytest.raises(ValueError, match="without tiles"):
        mosaic.map  # noqa: B018
