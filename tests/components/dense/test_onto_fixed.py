"""Images on the fixed grid, and fields on top of an earlier transform."""

import pytest
import torch

from impactreg.components import warping
from impactreg.components.dense.onto_fixed import field_on_top, mask_seen_from, seen_from
from impactreg.components.transforms.linear import TranslationTransform
from impactreg.components.transforms.rotating import EulerTransform
from impactreg.images import Grid, Image
from impactreg.images.masks import Mask

GRID = Grid.of((6, 5, 4), (2.0, 1.5, 3.0), (-3.0, 2.0, 1.0), [[0.8, -0.6, 0], [0.6, 0.8, 0], [0, 0, 1]])
TURN = EulerTransform(torch.tensor([0.1, -0.2, 0.15, 1, -2, 0.5]).double(), torch.tensor([1.0, 2, 3]).double())
SHIFT = TranslationTransform(torch.tensor([2.0, 0.0, 0.0]).double(), torch.zeros(3).double())


@pytest.mark.parametrize("transform", [None, TURN])
@pytest.mark.parametrize("at_once", [7, 1 << 13])
def test_a_field_on_top_is_the_transform_of_displaced_points(transform, at_once, generator, monkeypatch):
    monkeypatch.setattr(warping, "VOXELS_AT_ONCE", at_once)
    voxels = torch.randn(3, *GRID.shape, generator=generator)
    moved = GRID.index_to_world(GRID.indices() + voxels.flip(0).flatten(1).T)
    expected = (moved if transform is None else transform(moved)) - GRID.points()
    found = field_on_top(voxels, GRID, transform)
    assert found.data.dtype == torch.float32
    torch.testing.assert_close(found.data.flatten(1).T.double(), expected, atol=1e-5, rtol=0)


def test_an_image_seen_from_another_grid_goes_on_beyond_its_border():
    image = Image(torch.tensor([[[1.0, 2.0, 3.0]]]), Grid.of((3, 1)))
    assert seen_from(image, image.grid) is image
    wide = Grid.of((5, 1), origin=(-1.0, 0.0))
    assert seen_from(image, wide).scalar.tolist() == [[1.0, 1.0, 2.0, 3.0, 3.0]]


def test_a_mask_is_seen_where_the_transform_goes():
    inside = torch.zeros(1, 1, 5, dtype=torch.bool)
    inside[0, 0, 3] = True
    mask = Mask(inside, Grid.of((5, 1, 1)))
    assert mask_seen_from(None, mask.grid) is None
    assert mask_seen_from(mask, mask.grid) is inside
    assert mask_seen_from(mask, mask.grid, SHIFT).flatten().tolist() == [False, True, False, False, False]
