"""Sample regions: boxes of voxels, the masks in them, and interpolation at their indices."""

import pytest
import torch

from impactreg.components.interpolators import Interpolant
from impactreg.components.pyramid_filters import resampled_grid, shrunken_grid
from impactreg.components.sample_regions import LinearCells, MaskLookup, Region
from impactreg.errors import ImpactregError
from impactreg.images.grid import Grid
from impactreg.images.image import Image
from impactreg.images.masks import Mask

OBLIQUE = ((0.6, -0.8), (0.8, 0.6))


def mask_of(first, last, grid):
    inside = torch.zeros(grid.shape, dtype=torch.bool)
    inside[tuple(slice(a, b + 1) for a, b in zip(first[::-1], last[::-1], strict=True))] = True
    return Mask(inside, grid)


@pytest.mark.parametrize("factors", [(1, 1), (2, 3), (4, 1)])
def test_all_voxels_of_a_level_lie_in_the_full_image(factors):
    full = Grid.of((23, 17), (0.7, 1.9), (-40.1, 13.7), OBLIQUE)
    for level in (resampled_grid(full, factors), shrunken_grid(full, factors)[0]):
        assert Region.at_level(full, level) == Region.of(level)


def test_voxels_beyond_the_full_image_are_left_out():
    assert Region.at_level(Grid.of((5, 5)), Grid.of((9, 3), origin=(-2.5, 1.0))) == Region((3, 0), (4, 3))


def test_a_mask_crops_to_its_box_rounded_outwards():
    grid = Grid.of((20, 20))
    region = Region.of(grid).within(mask_of((4, 6), (9, 12), grid), grid)
    assert region == Region((3, 5), (8, 9))
    assert region.last == (10, 13)


def test_a_mask_outside_the_region_is_an_error():
    grid = Grid.of((20, 20))
    far = mask_of((0, 0), (3, 3), Grid.of((4, 4), origin=(100.0, 0.0)))
    with pytest.raises(ImpactregError, match=r"outside|out of the fixed image"):
        Region.of(grid).within(far, grid)
    with pytest.raises(ImpactregError, match="lies entirely out of the fixed image"):
        Region((0, 0), (4, 4)).within(mask_of((10, 10), (12, 12), grid), grid)


def test_voxels_of_a_step_are_in_the_middle_and_x_runs_fastest():
    found = Region((10, 20), (7, 5)).every((3, 2))
    assert found.tolist() == [[x, y] for y in (20, 22, 24) for x in (10, 13, 16)]
    assert Region((0,) * 2, (8, 9)).every((5, 4)).tolist() == [[x, y] for y in (0, 4, 8) for x in (1, 6)]


@pytest.mark.parametrize(("wanted", "step"), [(10**9, 1), (1000, 2), (1, 20), (216, 3)])
def test_the_step_gives_about_the_wanted_number(wanted, step):
    assert Region((0, 0, 0), (20, 20, 20)).step_for(wanted) == (step,) * 3


@pytest.mark.parametrize("other_grid", [False, True])
def test_the_nearest_voxel_decides_whether_an_index_is_inside(other_grid):
    image = Image.of(torch.zeros(6, 8), (2.0, 1.0), (3.0, 4.0), OBLIQUE)
    grid = image.grid if not other_grid else Grid.of((8, 6), (2.0, 1.0), (3.0, 4.0), ((0.6, -0.8), (0.8, 0.6000001)))
    lookup = MaskLookup(mask_of((2, 1), (7, 5), grid), image)
    index = torch.tensor([[1.49, 1.51, 7.0, 7.4, 7.6, 5.0], [3.0, 3.0, 5.0, 0.6, 3.0, 0.4]]).double()
    assert lookup.contains(index).tolist() == [False, True, True, True, False, False]


def test_the_share_of_a_mask_is_bounded():
    image = Image.of(torch.zeros(10, 10))
    lookup = MaskLookup(mask_of((0, 0), (4, 9), image.grid), image)
    assert lookup.share(Region.of(image.grid), least=0.1) == pytest.approx(0.5)
    assert lookup.share(Region((0, 0), (5, 10)), least=0.1) == 1
    assert lookup.share(Region.of(image.grid), least=0.7) == 0.7


@pytest.mark.parametrize("shape", [(6, 7), (5, 6, 7), (1, 6, 7), (6, 1, 1)])
def test_linear_values_are_those_of_the_linear_interpolant(shape):
    image = Image.of(torch.rand(*shape, dtype=torch.float64))
    last = torch.tensor(image.grid.size, dtype=torch.float64)[:, None] - 1
    index = torch.cat([torch.rand(len(shape), 50, dtype=torch.float64) * last, last, torch.zeros_like(last)], dim=1)
    expected = Interpolant.of(image, 1).values(image.grid.index_to_world(index.T.contiguous()))[:, 0]
    assert torch.allclose(LinearCells(image.scalar).values(index), expected)


def test_linear_values_beyond_the_border_are_those_of_the_border():
    cells = LinearCells(torch.tensor([[1.0, 3.0], [5.0, 7.0]]))
    assert cells.values(torch.tensor([[-0.4, 1.4, 0.5], [0.5, 1.0, 7.0]]).double()).tolist() == [3.0, 7.0, 6.0]
