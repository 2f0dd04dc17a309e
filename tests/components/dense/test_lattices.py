"""Coarser grids of feature maps."""

import torch

from impactreg.components.dense.lattices import alike, axes_in, looked_up, pooled, stretched, thinned
from impactreg.images import Grid, Image

TURNED = [[0.8, -0.6, 0], [0.6, 0.8, 0], [0, 0, 1]]
GRID = Grid.of((12, 9, 8), (2.0, 2.5, 3.0), (-20.0, 10.0, 5.0), TURNED)


def coordinates():
    """Each voxel's own place as three channels, in world millimetres."""
    return Image(GRID.points().T.reshape(3, *GRID.shape), GRID)


def places(image):
    return image.data.flatten(1).T


def test_pooled_features_lie_at_the_middle_of_what_they_are_the_mean_of():
    found = pooled(coordinates(), (4, 3, 6))
    torch.testing.assert_close(places(found), found.grid.points())
    assert pooled(found, found.grid.shape) is found


def test_thinned_features_are_voxels_of_the_map():
    found = thinned(coordinates(), [2, 3, 4])
    assert found.grid.shape == (4, 3, 3)
    torch.testing.assert_close(places(found), found.grid.points())


def test_stretched_points_reach_from_corner_to_corner():
    found = stretched(torch.zeros(1, 4, 3, 1), GRID).grid
    ends = found.world_to_index(GRID.index_to_world(torch.tensor([[5.5, 0, 0], [5.5, 8, 7]]).double()))
    torch.testing.assert_close(ends, torch.tensor([[0.0, 0, 0], [0, 2, 3]]).double())


def test_a_map_becomes_as_coarse_as_a_lattice():
    lattice = pooled(coordinates(), (4, 3, 6)).grid
    assert alike(coordinates(), lattice).grid.shape == (4, 3, 6)
    cornered = pooled(coordinates(), (4, 3, 6), corners=True).grid
    assert alike(coordinates(), cornered, corners=True).grid.same_as(cornered)


def test_millimetres_along_the_fixed_axes_become_moving_voxels():
    moving = Grid.of((20, 20, 20), (1.5, 2.0, 4.0), (-30.0, 0.0, 0.0))
    linear = torch.tensor([[1.0, 0.1, 0], [0, 1, 0.2], [0.3, 0, 1]], dtype=torch.float64)
    step = torch.tensor([[1.0, -2.0, 3.0]], dtype=torch.float64)
    points = GRID.points()[:5]
    moved = points + step @ torch.tensor(GRID.direction, dtype=torch.float64).T
    apart = looked_up(moved @ linear.T, moving) - looked_up(points @ linear.T, moving)
    expected = axes_in(GRID, moving, linear) @ step.T
    torch.testing.assert_close(apart, expected.expand(3, 5).float(), atol=1e-5, rtol=0)
