"""The cost of every displacement in every cell, against the definition written out."""

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from impactreg.components.dense import cost_volume
from impactreg.components.dense.cost_volume import CostVolume, Side, memory_needed, number_type
from impactreg.components.dense.search import Search


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed))


def boxed(values: Tensor, dimension: int) -> Tensor:
    """Two box filters over [z, y, x]."""
    flat = dimension == 2
    for _ in range(2):
        padded = functional.pad(values[None, None], (1, 1, 1, 1, *((0, 0) if flat else (1, 1))))
        values = functional.avg_pool3d(padded, (1 if flat else 3, 3, 3), 1)[0, 0]
    return values


def by_definition(fixed: Tensor, moving: Tensor, weights: Tensor, search: Search) -> Tensor:
    """The costs [shift, z, y, x], one shift after the other."""
    hz, hy, hx = search.half_width
    padded = functional.pad(moving[None], (hx, hx, hy, hy, hz, hz), mode="replicate")[0]
    costs = []
    for shift in search.shifts().long().tolist():
        start = [half + step for half, step in zip(search.half_width, shift, strict=True)]
        seen = padded[(slice(None), *(slice(s, s + n) for s, n in zip(start, fixed.shape[1:], strict=True)))]
        costs.append(boxed(((fixed - seen) ** 2 * weights[:, None, None, None]).sum(0), search.dimension))
    return torch.stack(costs)


def costs_of(volume: CostVolume) -> Tensor:
    """All costs [shift, z, y, x] of a volume."""
    planes = [(plane.excess + plane.least).reshape(-1, *volume.shape[1:]) for plane in volume.planes()]
    return torch.stack(planes, 1)


@pytest.mark.parametrize(("dimension", "shape"), [(3, (5, 4, 6)), (3, (1, 3, 4)), (2, (1, 7, 5))])
def test_costs_are_filtered_squares_of_differences(dimension: int, shape: tuple[int, ...]) -> None:
    search = Search.of((1.0,) * dimension, 1, 2)
    fixed, moving, weights = random(3, *shape), random(3, *shape, seed=1), torch.tensor([1.0, 0.5, 2.0])
    volume = CostVolume(Side(fixed), Side(moving), search, weights)
    torch.testing.assert_close(costs_of(volume), by_definition(fixed, moving, weights, search))


def test_axes_may_have_windows_of_their_own() -> None:
    search = Search(3, (1, 4, 4), (1, 2, 3))
    fixed, moving, weights = random(2, 4, 5, 6), random(2, 4, 5, 6, seed=1), torch.ones(2)
    volume = CostVolume(Side(fixed), Side(moving), search, weights)
    torch.testing.assert_close(costs_of(volume), by_definition(fixed, moving, weights, search))


def test_equal_images_cost_nothing_at_rest_and_ties_are_exact() -> None:
    fixed = random(2, 4, 4, 4)
    fixed[:, :, :, :2] = 0.7
    volume = CostVolume(Side(fixed), Side(fixed), Search.of((1.0, 1.0, 1.0), 1, 1), torch.ones(2))
    assert costs_of(volume)[13].abs().max() == 0
    flat = torch.full((1, 5, 5, 5), 3.0)
    assert costs_of(CostVolume(Side(flat), Side(flat), Search.of((1.0,) * 3, 1, 1), torch.ones(1))).abs().max() == 0


def test_a_volume_that_is_not_held_gives_the_same_costs_at_every_look() -> None:
    search = Search.of((1.0, 1.0, 1.0), 1, 1)
    sides = Side(random(2, 4, 4, 4)), Side(random(2, 4, 4, 4, seed=1))
    held, made_anew = (CostVolume(*sides, search, torch.ones(2), hold=hold) for hold in (True, False))
    first = costs_of(held)
    for _ in range(2):
        assert torch.equal(costs_of(made_anew), first)
        assert torch.equal(costs_of(held), first)


def test_large_volumes_are_kept_in_half_precision_with_the_cheapest_exact(monkeypatch: pytest.MonkeyPatch) -> None:
    search = Search.of((1.0, 1.0, 1.0), 1, 1)
    fixed, moving, weights = random(2, 4, 4, 4), random(2, 4, 4, 4, seed=1), torch.ones(2)
    monkeypatch.setattr(cost_volume, "SMALL", 0)
    assert number_type(search, (4, 4, 4)) == torch.float16
    found = costs_of(CostVolume(Side(fixed), Side(moving), search, weights))
    exact = by_definition(fixed, moving, weights, search)
    torch.testing.assert_close(found, exact, rtol=1e-3, atol=1e-4)
    assert torch.equal(found.argmin(0), exact.argmin(0))


def test_the_scale_divides_costs() -> None:
    search = Search.of((1.0, 1.0, 1.0), 1, 1)
    sides = Side(random(2, 3, 3, 3)), Side(random(2, 3, 3, 3, seed=1))
    plain, scaled = (CostVolume(*sides, search, torch.ones(2), scale=scale) for scale in (1.0, 4.0))
    torch.testing.assert_close(costs_of(plain), 4 * costs_of(scaled))


def test_weights_make_a_weighted_mean_of_the_window() -> None:
    search = Search.of((1.0, 1.0, 1.0), 1, 1)
    fixed, moving, weights = random(2, 5, 5, 5), random(2, 5, 5, 5, seed=1), torch.ones(2)
    share = (random(5, 5, 5, seed=2) > 0.5).float()
    found = costs_of(CostVolume(Side(fixed, share), Side(moving), search, weights))
    seen = functional.pad(moving[None], (1,) * 6, mode="replicate")[0][:, 1:-1, 1:-1, 2:]
    squares = ((fixed - seen) ** 2).sum(0)
    torch.testing.assert_close(found[14], boxed(squares * share, 3) / boxed(share, 3))


def test_what_lies_outside_the_moving_mask_attracts_nothing() -> None:
    search = Search.of((1.0, 1.0, 1.0), 1, 1)
    fixed, moving = random(1, 3, 3, 9), random(1, 3, 3, 9, seed=1)
    moving[..., 5:] = fixed[..., 5:]
    inside = torch.zeros(3, 3, 9)
    inside[..., :2] = 1
    found = costs_of(CostVolume(Side(fixed), Side(moving, inside), search, torch.ones(1)))
    assert found[:, 1, 1, 8].tolist() == [0.0] * 27
    without = torch.tensor([step[2] == 1 for step in search.shifts().tolist()])
    assert (found[without, 1, 1, 4] == found[:, 1, 1, 4].max()).all()


def test_memory_is_told_beforehand() -> None:
    search = Search.of((1.0, 1.0, 1.0), 4, 3)
    working, volume = memory_needed(search, (40, 48, 56), 12)
    assert volume == 343 * 40 * 48 * 56 * 4
    assert working < volume / 2
    assert memory_needed(search, (128, 128, 128), 12)[1] == 343 * 128**3 * 2
