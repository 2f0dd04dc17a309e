"""Tiles: every sample finds its own patch in the tiles that it shares with others."""

import pytest
import torch

from impactreg.components.boxes import Boxes
from impactreg.components.metrics.tiles import Lattice, Tiles, candidates, shared
from impactreg.images import Grid
from impactreg.models.patches import View

GRID = Grid.of((30, 28, 26), (1.0, 2.0, 1.5), (-4, 3, 5))
VIEW = View((0, 0, 0), (3, 4, 5), ((1, 2, 2),), ((1, 1, 1),))


def patches(times=1.0, between=0.0, count=90):
    index = torch.randint(4, 20, (count, 3), generator=torch.Generator().manual_seed(0)).double() + between
    axes = torch.diag(torch.tensor(GRID.spacing, dtype=torch.float64)) * times
    return Boxes(GRID.index_to_world(index), axes[None], VIEW.shape)


def seen(tiles):
    """The points of every sample's patch, cut out of its tile."""
    points = tiles.boxes.points.reshape(len(tiles.boxes), *tiles.boxes.shape, 3)
    found = []
    for tile, start in zip(tiles.tile_of.tolist(), tiles.starts.tolist(), strict=True):
        cut = tuple(slice(a, a + n) for a, n in zip(start, tiles.view.shape, strict=True))
        found.append(points[tile][cut])
    return tiles.in_sample_order(torch.stack(found).reshape(len(found), -1, 3))


@pytest.mark.parametrize("times", [0.5, 1, 2, 3])
@pytest.mark.parametrize("period", [1, 2, 4])
@pytest.mark.parametrize("side", [1, 2, 8])
def test_every_patch_lies_in_its_tile(times, period, side):
    given = patches(times)
    tiles = shared(given, Lattice.of(given, GRID), VIEW, period, side)
    torch.testing.assert_close(seen(tiles), given.points.reshape(len(given), -1, 3))
    assert int((tiles.starts % period).max()) == 0
    assert tiles.boxes.shape == tuple(n + (side - 1) * period for n in VIEW.shape)


def test_larger_tiles_are_fewer():
    given = patches()
    numbers = [len(tiles.boxes) for _, tiles in candidates(given, Lattice.of(given, GRID), VIEW, 1)]
    assert numbers == sorted(numbers, reverse=True)
    assert numbers[-1] < numbers[0] <= len(given)


def test_lattices_are_shared_by_patches_on_voxels_alone():
    assert Lattice.of(patches(2), GRID).shared
    anywhere = torch.rand(90, 3, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    assert not Lattice.of(patches(1, anywhere), GRID).shared
    turned = Boxes(patches().corners, torch.rand(1, 3, 3).double(), VIEW.shape)
    assert Lattice.of(turned, GRID) is None


@pytest.mark.parametrize("at_once", [1, 3, 1000])
def test_features_and_checks_in_batches_are_those_of_each_patch(at_once):
    given = patches()
    tiles = shared(given, Lattice.of(given, GRID), VIEW, 1, 4)
    own = Tiles(given, VIEW)
    for each in (tiles, own):
        features, held = [], []
        for batch in each.batches(at_once):
            points = each.boxes[batch.tiles].points
            layer = points.reshape(-1, *each.boxes.shape, 3).movedim(-1, 1)
            features.append(each.features(batch, [layer])[0])
            held.append(each.all_of_patch(batch, points[:, 0] < 8))
        found = each.in_sample_order(torch.cat(features))
        box = given.points.reshape(-1, *VIEW.shape, 3)
        torch.testing.assert_close(found, box[:, 1, 2, 2])
        expected = (box[..., 0] < 8).flatten(1).all(dim=1)
        assert torch.equal(each.in_sample_order(torch.cat(held)), expected)
        assert 0 < int(expected.sum()) < len(given)


def test_the_order_of_tiles_and_that_of_samples_undo_each_other():
    given = patches()
    tiles = shared(given, Lattice.of(given, GRID), VIEW, 1, 4)
    values = torch.arange(len(given))
    assert torch.equal(tiles.in_sample_order(tiles.in_tile_order(values)), values)
    assert torch.equal(Tiles(given, VIEW).in_tile_order(values), values)


@pytest.mark.parametrize("side", [None, 1, 4])
def test_some_samples_keep_their_order_and_the_tiles_that_they_need(side):
    given = patches()
    tiles = Tiles(given, VIEW) if side is None else shared(given, Lattice.of(given, GRID), VIEW, 1, side)
    kept = torch.rand(len(given), generator=torch.Generator().manual_seed(1)) < 0.3
    few = tiles.only(kept)
    expected = given.points.reshape(len(given), -1, 3)[kept]
    found = few.boxes.points.reshape(len(expected), -1, 3) if side is None else seen(few)
    torch.testing.assert_close(found, expected)
    assert few.samples == int(kept.sum())
    assert len(few.boxes) < len(tiles.boxes)
    assert tiles.only(torch.ones_like(kept)) is tiles
