"""Displacements that are cheap and like their neighbours'."""

import torch
from torch import Tensor

from impactreg.components.dense.cost_volume import CostVolume, Side
from impactreg.components.dense.coupled_convex import COUPLINGS, mutually_inverse, passes, smoothed
from impactreg.components.dense.search import Search

SEARCH = Search.of((1.0, 1.0, 1.0), 1, 2)


def smooth(*shape: int, seed: int = 0) -> Tensor:
    values = torch.randn(*shape, generator=torch.Generator().manual_seed(seed))
    return torch.nn.functional.avg_pool3d(values[None], 3, 1, 1)[0]


def volume_of(fixed: Tensor, moving: Tensor, scale: float = 1.0, search: Search = SEARCH) -> CostVolume:
    return CostVolume(Side(fixed), Side(moving), search, torch.ones(len(fixed)), scale=scale)


def test_a_shift_of_whole_cells_is_found_inside() -> None:
    moving = smooth(4, 12, 13, 14)
    fixed = moving.roll((-1, 2, -2), (1, 2, 3))
    *_, last = passes(volume_of(fixed, moving))
    torch.testing.assert_close(last.field[:, 6, 6, 6], torch.tensor([1.0, -2.0, 2.0]))


def test_there_is_a_pass_without_a_field_and_one_for_each_coupling() -> None:
    found = list(passes(volume_of(smooth(1, 5, 5, 5), smooth(1, 5, 5, 5, seed=1))))
    assert [each.coupling for each in found] == [0.0, *COUPLINGS]
    costs = [each.cost for each in found]
    assert costs[0] == min(costs)


def test_a_pass_takes_the_cheapest_when_the_way_to_the_field_is_paid_for() -> None:
    volume = volume_of(smooth(2, 5, 6, 7), smooth(2, 5, 6, 7, seed=1))
    cost = torch.stack([(p.excess + p.least).reshape(-1, 6, 7) for p in volume.planes()], 1)
    first, second = list(passes(volume, (0.1,)))
    shifts = SEARCH.shifts()
    way = (shifts.T[:, :, None, None, None] - first.field[:, None]).square().sum(0)
    best = (cost + 0.1 * way).argmin(0)
    torch.testing.assert_close(second.field, smoothed(shifts[best].movedim(-1, 0), 3))
    chosen = cost.gather(0, best[None]).mean()
    torch.testing.assert_close(second.cost, float(chosen), rtol=1e-5, atol=1e-6)


def test_the_scale_of_storage_changes_nothing() -> None:
    fixed, moving = smooth(2, 5, 5, 5), smooth(2, 5, 5, 5, seed=1)
    *_, plain = passes(volume_of(fixed, moving))
    *_, scaled = passes(volume_of(fixed, moving, scale=8.0))
    torch.testing.assert_close(plain.field, scaled.field)
    torch.testing.assert_close(plain.cost, scaled.cost)


def test_flat_images_stay_at_rest_with_an_initial_coupling_only() -> None:
    flat = torch.zeros(1, 15, 15, 15)
    *_, published = passes(volume_of(flat, flat))
    assert published.field[:, 7, 7, 7].tolist() == [-2.0, -2.0, -2.0]
    *_, still = passes(volume_of(flat, flat), initial_coupling=1e-3)
    assert still.field.abs().max() == 0


def test_longer_cells_make_the_way_along_them_dearer() -> None:
    fixed, moving = smooth(1, 6, 6, 6), smooth(1, 6, 6, 6, seed=1)
    lengths = []
    for stretch in ((1.0, 1.0, 1.0), (3.0, 1.0, 1.0)):
        volume = volume_of(fixed, moving, search=Search(3, (1, 1, 1), (2, 2, 2), stretch))
        (first,) = passes(volume, (), initial_coupling=1e-4)
        lengths.append(float(first.field[0].abs().mean()))
    assert 0 < lengths[1] < lengths[0]


def test_a_field_in_2d_is_not_smoothed_across_its_one_plane() -> None:
    field = torch.zeros(3, 1, 5, 5)
    field[1:, 0, 2, 2] = 9.0
    assert smoothed(field, 2)[1, 0, 1:4, 1:4].tolist() == [[1.0] * 3] * 3


def test_two_constant_fields_are_drawn_to_each_others_inverse() -> None:
    forward = torch.zeros(3, 7, 8, 9)
    forward[2] = 1.0
    torch.testing.assert_close(mutually_inverse(forward, -forward), forward)
    torch.testing.assert_close(mutually_inverse(forward, torch.zeros_like(forward)), forward / 2, atol=1e-4, rtol=0)


def test_fields_of_one_cell_can_be_drawn_together() -> None:
    field = torch.ones(3, 1, 1, 4)
    assert mutually_inverse(field, -field).isfinite().all()


def test_a_displacement_from_one_of_two_cells_leads_to_the_other() -> None:
    forward, backward = torch.zeros(2, 3, 1, 1, 2)
    forward[2, 0, 0, 0], backward[2, 0, 0, 1] = 1.0, -1.0
    assert float(mutually_inverse(forward, backward)[2, 0, 0, 0]) == 1.0
