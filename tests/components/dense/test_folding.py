"""Folding, where it is known."""

import math

import pytest
import torch

from impactreg.components.dense.folding import folding
from impactreg.images import Grid, Image

TURNED = [[0.0, -1.0, 0.0], [1.0, 0.0, 0.0], [0.0, 0.0, 1.0]]


def field_of(matrix: torch.Tensor, grid: Grid) -> Image:
    points = grid.points()
    moved = points @ (matrix.double() - torch.eye(grid.dimension, dtype=torch.float64)).T
    return Image(moved.T.reshape(grid.dimension, *grid.shape).float(), grid)


@pytest.mark.parametrize("direction", [None, TURNED])
def test_a_linear_field_has_one_determinant_and_no_spread(direction: list[list[float]] | None) -> None:
    grid = Grid.of((6, 7, 40), (1.0, 2.0, 0.5), (3.0, 4.0, 5.0), direction)
    found = folding(field_of(torch.tensor([[1.2, 0.3, 0.0], [0.0, 0.9, 0.1], [0.2, 0.0, 1.1]]), grid))
    assert found.fraction == 0
    assert found.sd_log_jacobian == pytest.approx(0, abs=1e-4)


def test_a_mirrored_image_is_folded_everywhere() -> None:
    grid = Grid.of((5, 5), (1.0, 2.0))
    assert folding(field_of(torch.tensor([[-1.0, 0.0], [0.0, 1.0]]), grid)).fraction == 1


def test_the_spread_of_two_halves_is_half_the_difference_of_their_logarithms() -> None:
    grid = Grid.of((41, 4, 40), (2.0, 1.0, 1.0))
    x = grid.points()[:, 0].reshape(grid.shape) - 40.0
    data = torch.zeros(3, *grid.shape)
    data[0] = torch.where(x > 0, 0.5 * x, -0.2 * x)
    found = folding(Image(data, grid))
    middle = math.log(1.15)
    logs = torch.tensor([math.log(0.8)] * 20 + [middle] + [math.log(1.5)] * 20, dtype=torch.float64)
    assert found.fraction == 0
    assert found.sd_log_jacobian == pytest.approx(float(logs.std(correction=0)), rel=1e-4)


def test_one_pulled_voxel_folds_its_neighbourhood() -> None:
    grid = Grid.of((9, 9))
    data = torch.zeros(2, *grid.shape)
    data[0, 4, 4] = -5.0
    found = folding(Image(data, grid))
    assert found.fraction == pytest.approx(1 / 81)
    assert "folded" in str(found)
