from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch

from impactreg.images import Grid, Image
from impactreg.report.planes import SLICES, planes_of, sampled, slices_of

AXES = list(itertools.permutations(range(3)))
SIGNS = list(itertools.product((1, -1), repeat=3))


def corner(direction: np.ndarray, name: str) -> tuple[float, float]:
    """Where (mm, from the centre) the top left pixel of a plane lies along the axes that it shows."""
    grid = Grid.of((9, 9, 9), (1, 1, 1), (0, 0, 0), direction)
    plane = next(each for each in planes_of(grid) if each.name == name)
    first = plane.points(9, 9)[4, 0, 0] - torch.tensor(grid.centre, dtype=torch.float64)
    shown = {"Axial": (0, 1), "Coronal": (0, 2), "Sagittal": (1, 2)}[name]
    return float(first[shown[0]].round()), float(first[shown[1]].round())


@pytest.mark.parametrize("order", AXES)
@pytest.mark.parametrize("signs", SIGNS)
def test_the_patients_right_is_on_the_left_whatever_the_order_of_axes(
    order: tuple[int, ...], signs: tuple[int, ...]
) -> None:
    direction = np.zeros((3, 3))
    direction[range(3), order] = signs
    # LPS: right is negative x, anterior negative y, superior positive z
    assert corner(direction, "Axial") == (-4, -4)
    assert corner(direction, "Coronal") == (-4, 4)
    assert corner(direction, "Sagittal") == (-4, 4)


def test_edges_are_named_as_in_radiology() -> None:
    edges = {plane.name: plane.edges for plane in planes_of(Grid.of((4, 5, 6)))}
    assert edges == {"Axial": ("R", "L", "A", "P"), "Coronal": ("R", "L", "S", "I"), "Sagittal": ("A", "P", "S", "I")}


def test_slices_go_from_foot_to_head() -> None:
    axial = planes_of(Grid.of((4, 5, 6), direction=np.diag([1, 1, -1])))[0]
    assert axial.positions() == sorted(axial.positions())
    assert len(axial.positions()) == 6


def test_pixels_are_square_whatever_the_voxels() -> None:
    coronal = planes_of(Grid.of((100, 80, 20), (1, 1, 5)))[1]
    assert coronal.size(256) == (100, 100)
    assert coronal.size(50) == (50, 50)


def test_there_are_no_more_slices_than_voxels_and_none_without_contents() -> None:
    values = torch.zeros(60, 10, 10)
    values[20:24, 3:6, 3:6] = 5.0
    axial = planes_of(Grid.of((10, 10, 60)), Image.of(values))[0]
    assert axial.slices == (20, 21, 22, 23)
    assert len(planes_of(Grid.of((10, 10, 60)))[0].slices) == SLICES


def test_slices_on_the_own_grid_are_the_voxels() -> None:
    values = torch.rand(6, 7, 8)
    image = Image.of(values, direction=[[-1, 0, 0], [0, 1, 0], [0, 0, 1]])
    axial = planes_of(image.grid)[0]
    torch.testing.assert_close(slices_of(image, axial, 256, 0.0), values.flip(2))


def test_slices_of_another_grid_are_interpolated_and_have_a_background() -> None:
    index = torch.arange(10.0)
    ramp = index[None, None, :].expand(10, 10, 10).clone()
    image = Image.of(ramp, origin=(0.5, 0, 0))
    axial = planes_of(Grid.of((12, 10, 10)))[0]
    found = slices_of(image, axial, 256, -7.0)
    torch.testing.assert_close(found[0, 0, 1:10], index[:9] + 0.5)
    assert float(found[0, 0, 11]) == -7.0


def test_sampling_is_linear_and_tells_what_lies_outside() -> None:
    image = Image.of(torch.arange(12.0).reshape(3, 4), spacing=(2, 1))
    values, inside = sampled(image, torch.tensor([[1.0, 1.0], [6.0, 2.0], [9.0, 0.0]], dtype=torch.float64))
    torch.testing.assert_close(values[0, :2], torch.tensor([4.5, 11.0]))
    assert inside.tolist() == [True, True, False]
