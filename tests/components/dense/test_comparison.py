"""One compared layer on its lattice."""

import pytest
import torch

from impactreg.components.dense.comparison import Comparison, MovingMask
from impactreg.components.dense.warp import FeatureMap
from impactreg.images import Grid, Image

GRID = Grid.of((8, 7, 6), (1.0, 1.0, 1.0))
SLOPES = torch.tensor([[1.0, 2.0, -1.0], [0.5, 0.0, 3.0]])
TURN = torch.tensor([[0.5, 0.0, 0.1], [0.0, 1.0, 0.0], [0.0, 0.2, 2.0]])
INNER = GRID.indices().float()[((GRID.indices() > 1.5) & (GRID.indices() < 4.5)).all(dim=1)]


def compared(displacement, distance="L2", **more):
    """A ramp of two channels, compared with itself at inner points under a displacement and a turn."""
    ramp = Image((GRID.indices().float() @ SLOPES.T).T.reshape(2, *GRID.shape), GRID)
    comparison = Comparison(distance, 2.0, INNER @ SLOPES.T, FeatureMap.of(ramp), INNER.T, TURN, **more)
    moved = torch.as_tensor(displacement, dtype=torch.float32)[:, None].expand(3, len(INNER)).contiguous()
    return comparison.at(moved, curved=True)


def test_squares_of_ramps_their_derivative_and_curvature_are_those_of_the_formula():
    displacement = torch.tensor([0.3, -0.4, 0.2])
    found, matrix, count = compared(displacement), SLOPES @ TURN, len(INNER)
    off = matrix @ displacement
    assert float(found.value) == pytest.approx(2 * float(off.square().mean()), rel=1e-4)
    torch.testing.assert_close(
        found.gradient, (2 * matrix.T @ off / count)[:, None].expand(3, count), rtol=1e-3, atol=1e-5
    )
    torch.testing.assert_close(found.curvature[:, :, 0], 2 * matrix.T @ matrix / count, rtol=1e-3, atol=1e-5)


def test_points_that_are_not_chosen_have_no_derivative():
    chosen = torch.tensor([0, 3])
    ramp = Image((GRID.indices().float() @ SLOPES.T).T.reshape(2, *GRID.shape), GRID)
    few = Comparison("L2", 1.0, INNER[chosen] @ SLOPES.T, FeatureMap.of(ramp), INNER[chosen].T, torch.eye(3), chosen)
    found = few.at(torch.full((3, len(INNER)), 0.5))
    assert found.gradient.abs().sum(dim=0).nonzero().flatten().tolist() == chosen.tolist()


def test_points_outside_do_not_count_or_have_features_of_zero():
    assert not compared([100.0, 0, 0]).value.isfinite()
    zero = compared([100.0, 0, 0], outside_counts=True)
    assert float(zero.value) == pytest.approx(2 * float((INNER @ SLOPES.T).square().mean()), rel=1e-4)
    assert not zero.gradient.any()


def test_points_that_fall_outside_the_moving_mask_do_not_count():
    inside = torch.zeros(GRID.shape, dtype=torch.bool)
    inside[:, :, 3:] = True
    mask = MovingMask(inside, torch.eye(3), torch.zeros(3, 1))
    counted = compared([0.0, 0, 0], "L1", mask=mask)
    assert mask.contains(INNER.T).tolist() == (INNER[:, 0] > 2.5).tolist()
    assert float(counted.value) == pytest.approx(0.0, abs=1e-5)


def test_a_random_choice_of_channels_is_drawn_by_the_generator():
    values = [
        float(compared([0.3, 0, 0.2], subset=1, generator=torch.Generator().manual_seed(seed)).value)
        for seed in (0, 0, 1, 2, 3, 4)
    ]
    assert values[0] == values[1]
    assert len({round(v, 4) for v in values}) == 2
