"""Displacements of every voxel, against the published method written out, and where they are known."""

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from impactreg.components.dense import coarse
from impactreg.components.dense.coarse import Comparison, check_memory, coarse_displacement, in_cells, upsampled
from impactreg.components.dense.search import Search
from impactreg.errors import RegistrationError

COUPLINGS = (0.003, 0.01, 0.03, 0.1, 0.3, 1.0)


def smooth(*shape: int, seed: int = 0) -> Tensor:
    values = torch.randn(*shape, generator=torch.Generator().manual_seed(seed))
    pool = functional.avg_pool3d if len(shape) == 4 else functional.avg_pool2d
    for _ in range(2):
        values = pool(values[None], 5, 1, 2)[0]
    return 10 * values


def published(fixed: Tensor, moving: Tensor, spacing: int, half: int, *, normalize: bool = True) -> Tensor:
    """The whole cost volume at once and `avg_pool` throughout, with inverse consistency."""
    n = fixed.dim() - 1
    pool = functional.avg_pool3d if n == 3 else functional.avg_pool2d
    pooled = [pool(each[None], spacing, spacing)[0] for each in (fixed, moving)]
    weight = 1 / float((pooled[0] - pooled[1]).square().mean()) if normalize else float(len(fixed))
    shifts = torch.cartesian_prod(*[torch.arange(-half, half + 1.0)] * n)

    def solved(one: Tensor, other: Tensor) -> Tensor:
        padded = functional.pad(other[None], [half] * 2 * n, mode="replicate")[0]
        costs = []
        for shift in shifts.long().tolist():
            window = tuple(slice(half + s, half + s + size) for s, size in zip(shift, one.shape[1:], strict=True))
            squares = (one - padded[(slice(None), *window)]).square().mean(0)[None, None]
            costs.append(weight * pool(pool(squares, 3, 1, 1), 3, 1, 1)[0, 0])
        cost = torch.stack(costs)
        field = pool(shifts[cost.argmin(0)].movedim(-1, 0)[None], 3, 1, 1)[0]
        for coupling in COUPLINGS:
            way = (shifts.T.reshape(n, -1, *[1] * n) - field[:, None]).square().sum(0)
            field = pool(shifts[(cost + coupling * way).argmin(0)].movedim(-1, 0)[None], 3, 1, 1)[0]
        return field

    fields = solved(*pooled), solved(pooled[1], pooled[0])
    scale = torch.tensor([(size - 1) / 2 for size in fields[0].shape[1:]]).view(-1, *[1] * n)
    one, two = ((field / scale).flip(0)[None] for field in fields)
    identity = functional.affine_grid(torch.eye(n, n + 1)[None], [1, 1, *one.shape[2:]], align_corners=True)

    def at(values: Tensor, where: Tensor) -> Tensor:
        places = identity + where.movedim(1, -1)
        return functional.grid_sample(values, places, padding_mode="border", align_corners=True)

    for _ in range(15):
        one, two = (one - at(two, one)) / 2, (two - at(one, two)) / 2
    field = one[0].flip(0) * scale * spacing
    exact = [size * spacing for size in field.shape[1:]]
    mode = "trilinear" if n == 3 else "bilinear"
    fine = functional.interpolate(field[None], size=exact, mode=mode, align_corners=False)
    missing = [m for a, b in zip(reversed(exact), reversed(fixed.shape[1:]), strict=True) for m in (0, b - a)]
    return functional.pad(fine, missing, mode="replicate")[0]


@pytest.mark.parametrize("shape", [(26, 31, 29), (52, 45)])
@pytest.mark.parametrize("normalize", [True, False])
def test_the_field_is_that_of_the_published_method(shape: tuple[int, ...], normalize: bool) -> None:
    fixed, moving = smooth(3, *shape), smooth(3, *shape, seed=1)
    found = coarse_displacement([fixed], [moving], grid_spacing=4, half_width=2, normalize_losses=normalize)
    torch.testing.assert_close(found, published(fixed, moving, 4, 2, normalize=normalize), atol=1e-4, rtol=0)


def test_a_shift_is_found_in_voxels() -> None:
    moving = smooth(1, 40, 44, 48)
    fixed = moving.roll((-3, 0, 6), (1, 2, 3))
    found = coarse_displacement([fixed], [moving], grid_spacing=3, half_width=3)[:, 12:28, 12:30, 14:32]
    expected = torch.tensor([3.0, 0.0, -6.0])[:, None, None, None]
    assert (found - expected).abs().mean() < 0.1


def test_intensities_of_any_unit_give_the_same_field() -> None:
    fixed, moving = smooth(1, 24, 24, 24), smooth(1, 24, 24, 24, seed=1)
    found = coarse_displacement([fixed], [moving], half_width=2)
    torch.testing.assert_close(coarse_displacement([1000 * fixed], [1000 * moving], half_width=2), found)


def test_layers_add_up_by_their_weights() -> None:
    fixed, moving = smooth(2, 24, 24, 24), smooth(2, 24, 24, 24, seed=1)
    noise = smooth(1, 24, 24, 24, seed=2), smooth(1, 24, 24, 24, seed=3)
    alone = coarse_displacement([fixed], [moving], half_width=2)
    weighed = coarse_displacement([fixed, noise[0]], [moving, noise[1]], half_width=2, layer_weights=(1.0, 0.0))
    both = coarse_displacement([fixed, noise[0]], [moving, noise[1]], half_width=2)
    assert (weighed - alone).abs().mean() < 1e-3
    assert (both - alone).abs().mean() > 0.1


def test_coarser_layers_are_pooled_onto_the_same_cells() -> None:
    fine = smooth(2, 24, 16, 20)
    coarser = functional.avg_pool3d(fine[None], 2)[0]
    search = Search.of((1.0, 1.0, 1.0), 4, 1)
    sides = in_cells([fine, coarser], (24, 16, 20), search)
    torch.testing.assert_close(sides.layers[0], sides.layers[1])


def test_with_a_mask_cells_have_the_mean_of_what_lies_in_it() -> None:
    values, mask = smooth(1, 8, 8, 8), torch.zeros(8, 8, 8, dtype=torch.bool)
    mask[:2] = True
    side = in_cells([values], (8, 8, 8), Search.of((1.0,) * 3, 4, 1), mask)
    assert side.weight is not None
    assert side.weight[:, 0, 0].tolist() == [0.5, 0.0]
    torch.testing.assert_close(side.layers[0][0, 0, 0, 0], values[0, :2, :4, :4].mean())


def test_what_a_mask_leaves_out_has_no_say() -> None:
    moving = smooth(1, 40, 40, 40)
    fixed = moving.roll(-4, 1)
    spoiled = fixed.clone()
    spoiled[:, :, :, 28:] = 30 * smooth(1, 40, 40, 12, seed=5)
    mask = torch.ones(40, 40, 40, dtype=torch.bool)
    mask[:, :, 28:] = False
    found = coarse_displacement([spoiled], [moving], half_width=2, fixed_mask=mask, inverse_consistency=False)
    assert (found[0, 12:28, 12:28, 12:28] - 4).abs().mean() < 0.2


def test_identical_images_do_not_divide_by_their_cost() -> None:
    image = smooth(1, 16, 16, 16)
    assert coarse_displacement([image], [image], half_width=1).isfinite().all()


def test_voxels_behind_the_last_cell_continue_the_field() -> None:
    field = torch.randn(3, 2, 2, 2)
    fine = upsampled(field, Search.of((1.0, 1.0, 1.0), 4, 1), (9, 8, 11))
    assert fine.shape == (3, 9, 8, 11)
    assert torch.equal(fine[:, 8], fine[:, 7])
    assert torch.equal(fine[..., 10], fine[..., 7])
    torch.testing.assert_close(fine[:, 0, 0, 0], 4 * field[:, 0, 0, 0])


def test_an_image_smaller_than_a_cell_is_refused() -> None:
    image = smooth(1, 16, 16, 16)[:, :3]
    with pytest.raises(
        RegistrationError, match=r"16 x 16 x 3 voxels is smaller than a cell of 4 x 4 x 4: .*GridSpacing"
    ):
        coarse_displacement([image], [image])


def test_what_memory_has_no_room_for_is_refused_with_what_to_change(monkeypatch: pytest.MonkeyPatch) -> None:
    search = Search.of((1.0, 1.0, 1.0), 4, 10)
    monkeypatch.setattr(coarse, "free_memory", lambda _: 1 << 28)
    with pytest.raises(
        RegistrationError, match=r"9261 displacements in 128 x 128 x 128 cells needs .* GiB, and 0.2 GiB"
    ):
        check_memory(search, (128, 128, 128), 12, torch.device("cpu"))
    assert not check_memory(search, (20, 20, 20), 12, torch.device("cpu"))


def test_a_volume_that_memory_has_no_room_for_gives_the_same_field(monkeypatch: pytest.MonkeyPatch) -> None:
    fixed, moving = smooth(2, 20, 20, 20), smooth(2, 20, 20, 20, seed=1)
    held = coarse_displacement([fixed], [moving], half_width=2)
    monkeypatch.setattr(coarse, "check_memory", lambda *_: False)
    assert torch.equal(coarse_displacement([fixed], [moving], half_width=2), held)


def test_passes_can_be_looked_at_one_by_one() -> None:
    search = Search.of((1.0, 1.0, 1.0), 4, 1)
    sides = [in_cells([smooth(1, 16, 16, 16, seed=seed)], (16, 16, 16), search) for seed in (0, 1)]
    passes = list(Comparison(*sides, search).passes())
    assert [each.coupling for each in passes] == [0.0, *COUPLINGS]
