"""Masks: inside, box, erosion and what is no mask for an image."""

from itertools import product

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from impactreg.errors import ImageError
from impactreg.images import Grid, Image, Mask


def block(size: int = 12, first: int = 3, last: int = 8) -> Mask:
    values = torch.zeros(size, size)
    values[first : last + 1, first : last + 1] = 1
    return Mask.of(Image.of(values, [2.0, 2.0], [10.0, 20.0]))


def test_a_point_is_inside_where_its_nearest_voxel_is() -> None:
    mask = block()
    index = torch.tensor(
        [[3.0, 3.0], [2.49, 3.0], [2.5, 3.0], [8.49, 8.0], [8.5, 8.0], [-1.0, 5.0], [40.0, 5.0]], dtype=torch.float64
    )
    inside = mask.contains(mask.grid.index_to_world(index))
    assert inside.tolist() == [True, False, True, True, False, False, False]


def test_fractions_below_one_are_outside_as_elastix_reads_them() -> None:
    assert Mask.of(Image.of(torch.tensor([[0.9, 1.0], [-1.0, 0.0]]))).inside.tolist() == [[False, True], [True, False]]


def test_the_box_is_rounded_outwards_on_another_grid() -> None:
    mask = block()  # inside from 15 to 27 mm along x, from 25 to 37 mm along y
    assert mask.bounding_box(mask.grid) == ((2, 2), (9, 9))
    assert mask.bounding_box(Grid.of([8, 40], [5.0, 1.0], [10.0, 20.0])) == ((1, 5), (4, 17))
    with pytest.raises(ImageError, match="entirely outside"):
        mask.bounding_box(Grid.of([5, 5], [1.0, 1.0], [100.0, 0.0]))


@given(st.integers(0, 10_000), st.sampled_from([(0, 0, 0), (1, 1, 1), (1, 2, 0), (4, 1, 1)]), st.booleans())
def test_erosion_removes_what_has_background_within_its_box(seed: int, factors: tuple[int, ...], moving: bool) -> None:
    inside = torch.rand(7, 8, 9, generator=torch.Generator().manual_seed(seed)) > 0.01
    mask = Mask(inside, Grid.of([9, 8, 7]))
    reach = [(2 * f if moving else f) + 1 for f in factors][::-1]
    expected = inside.clone()
    for hole in torch.nonzero(~inside).tolist():
        box = tuple(slice(max(0, h - r), h + r + 1) for h, r in zip(hole, reach, strict=True))
        expected[box] = False
    if expected.any():
        assert torch.equal(mask.eroded(factors, moving=moving).inside, expected)
    else:
        with pytest.raises(ImageError, match="leaves no mask"):
            mask.eroded(factors, moving=moving)


@pytest.mark.parametrize(("factor", "moving"), list(product([0, 1, 2, 4], [False, True])))
def test_a_straight_edge_moves_by_the_radius_of_elastix(factor: int, moving: bool) -> None:
    mask = Mask(torch.arange(40)[None, :].repeat(3, 1) >= 5, Grid.of([40, 3]))
    eroded = mask.eroded((factor, factor), moving=moving)
    assert int(eroded.inside[1].sum()) == 35 - ((2 * factor if moving else factor) + 1)


def test_a_mask_on_a_finer_grid_than_its_image_fits() -> None:
    image = Grid.of([4, 4], [10.0, 10.0])
    fine = Image.of(torch.ones(8, 8), [0.5, 0.5], [11.0, 11.0])
    coarse = Image.of(torch.ones(1, 1), [100.0, 100.0], [-20.0, -20.0])
    assert Mask.of(fine, on=image).name == "mask"
    assert Mask.of(coarse, on=image).name == "mask"


@pytest.mark.parametrize(
    ("image", "reason"),
    [
        (Image.of(torch.zeros(4, 4)), "empty"),
        (Image(torch.ones(2, 4, 4), Grid.of([4, 4])), "one value a voxel"),
        (Image.of(torch.ones(3, 4, 4)), "3 dimensions, but the image has 2"),
        (Image.of(torch.ones(4, 4), origin=[500.0, 0.0]), "no voxel in common"),
    ],
)
def test_what_cannot_mask_an_image_is_an_image_error(image: Image, reason: str) -> None:
    with pytest.raises(ImageError, match=f"^fixed mask: .*{reason}"):
        Mask.of(image, name="fixed mask", on=Grid.of([4, 4]))
