"""Control grids of a dense field."""

import pytest
import torch
from torch.nn import functional

from impactreg.components.dense.expansion import ControlGrid, smoothed
from impactreg.components.dense.lattices import pooled
from impactreg.images import Grid, Image

GRID = Grid.of((12, 10, 8), (1.0, 2.0, 3.0), (4.0, -2.0, 7.0), [[0, -1, 0], [1, 0, 0], [0, 0, 1]])
LIKE = torch.zeros(1, dtype=torch.float64)


def test_as_many_control_points_as_voxels_are_the_voxels():
    control = ControlGrid.of(GRID, [1, 1, 1], "Linear")
    assert control.size == GRID.shape
    assert control.expansion(GRID, GRID, LIKE).matrices == (None, None, None)


def test_linear_control_points_are_the_centres_of_pooled_cells():
    control = ControlGrid.of(GRID, [2, 2, 2], "Linear")
    lattice = pooled(Image(torch.zeros(1, *GRID.shape), GRID), control.size).grid
    assert control.expansion(GRID, lattice, LIKE).matrices == (None, None, None)


def test_linear_displacements_between_control_points_are_interpolated(generator):
    field = torch.randn(3, 4, 5, 6, generator=generator, dtype=torch.float64)
    found = ControlGrid.of(GRID, [2, 2, 2], "Linear").expansion(GRID, GRID, LIKE)(field)
    expected = functional.interpolate(field[None], size=GRID.shape, mode="trilinear", align_corners=False)[0]
    torch.testing.assert_close(found, expected)


def test_splines_show_affine_fields_exactly():
    control = ControlGrid.of(GRID, [3, 4, 5], "BSpline")
    expansion = control.expansion(GRID, GRID, LIKE)
    index = GRID.indices().T.reshape(3, *GRID.shape)
    field = torch.stack([2 * index[0] - index[2], index[1] + 0.5, index.sum(0)])
    torch.testing.assert_close(expansion(expansion.fit(field)), field, atol=1e-9, rtol=1e-9)


@pytest.mark.parametrize("interpolation", ["Linear", "BSpline"])
def test_the_adjoint_is_the_transposed_way(interpolation, generator):
    expansion = ControlGrid.of(GRID, [2, 3, 4], interpolation).expansion(GRID, GRID, LIKE)
    control = torch.randn(3, *[m.shape[1] for m in expansion.matrices], generator=generator, dtype=torch.float64)
    lattice = torch.randn(3, *GRID.shape, generator=generator, dtype=torch.float64)
    left, right = (expansion(control) * lattice).sum(), (expansion.adjoint(lattice) * control).sum()
    assert float(left) == pytest.approx(float(right))


def test_smoothing_is_average_pooling_and_its_own_adjoint(generator):
    one, other = torch.randn(2, 3, 5, 6, 4, generator=generator, dtype=torch.float64)
    expected = functional.avg_pool3d(functional.avg_pool3d(one, 3, 1, 1), 3, 1, 1)
    torch.testing.assert_close(smoothed(one, 2), expected)
    assert float((smoothed(one, 2) * other).sum()) == pytest.approx(float((one * smoothed(other, 2)).sum()))


def test_control_points_from_corner_to_corner_are_fitted_and_expanded_as_pytorch_does(generator):
    control = ControlGrid.of(GRID, [2, 2, 2], "Corners")
    field = torch.randn(3, *GRID.shape, generator=generator, dtype=torch.float64)
    small = functional.interpolate(field[None], size=control.size, mode="trilinear", align_corners=True)
    torch.testing.assert_close(control.fit(GRID, field), small[0])
    large = functional.interpolate(small, size=GRID.shape, mode="trilinear", align_corners=True)
    torch.testing.assert_close(control.expansion(GRID, GRID, LIKE)(small[0]), large[0])
