"""Label images through transforms."""

import pytest
import torch

from impactreg.components.labels import warp_labels
from impactreg.components.transforms.linear import AffineTransform, TranslationTransform
from impactreg.components.warping import warp
from impactreg.errors import ImageError
from impactreg.images import Grid, Image

GRID = Grid.of((20, 22, 24), (3, 3, 3), (-28.5, -31.5, -34.5))
FINE = Grid.of((60, 60, 60), (1, 1, 1), (-29.5, -29.5, -29.5))


def shift(*by):
    return TranslationTransform(torch.tensor(by, dtype=torch.float64), torch.zeros(len(by)).double())


def sphere(grid, transform=None, radius=18.0, label=1, dtype=torch.uint8):
    points = grid.points()
    moved = points if transform is None else transform(points)
    inside = moved.norm(dim=1) <= radius
    return Image((inside.to(dtype) * label).reshape(1, *grid.shape), grid)


def dice(one, other):
    both = int(((one.data != 0) & (other.data != 0)).sum())
    return 2 * both / (int((one.data != 0).sum()) + int((other.data != 0).sum()))


def test_labels_on_their_own_grid_stay_as_they_are(generator):
    labels = Image(torch.randint(0, 50, (1, *GRID.shape), generator=generator), GRID)
    result = warp_labels(labels, shift(0, 0, 0), GRID)
    assert result.data.dtype == torch.int64
    assert torch.equal(result.data, labels.data)


def test_a_warped_sphere_is_nearer_to_the_true_one_than_the_nearest_voxel_makes_it():
    turned = torch.linalg.matrix_exp(torch.tensor([[0, -0.4, 0.2], [0.4, 0, 0.3], [-0.2, -0.3, 0]]).double())
    numbers = torch.cat([(1.1 * turned).reshape(-1), torch.tensor([2.2, -1.3, 3.1]).double()])
    transform = AffineTransform(numbers, torch.zeros(3).double())
    truth, given = sphere(FINE, transform), sphere(GRID)
    nearest = dice(warp(given, transform, FINE, order=0), truth)
    ours = dice(warp_labels(given, transform, FINE), truth)
    assert ours > 0.96
    assert 1 - ours < 0.7 * (1 - nearest)


def test_no_label_comes_up_that_was_not_there(generator):
    values = torch.tensor([0, 7, 2**31 - 1, -5, 2**53 + 1])
    labels = Image(values[torch.randint(0, 5, (1, *GRID.shape), generator=generator)], GRID)
    result = warp_labels(labels, shift(1.1, -0.7, 0.4), FINE)
    assert result.data.unique().tolist() == sorted(values.tolist())


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int16, torch.int32, torch.int64, torch.float32])
def test_the_number_type_stays(dtype):
    result = warp_labels(sphere(GRID, label=100, dtype=dtype), shift(1, 2, 3), FINE)
    assert result.data.dtype == dtype
    assert result.data.unique().tolist() == [0, 100]


def test_outside_the_image_is_the_default():
    result = warp_labels(sphere(GRID), shift(1000, 0, 0), GRID, default=9)
    assert bool((result.data == 9).all())


def test_of_equals_the_lowest_label_wins():
    labels = Image(torch.tensor([[[5, 3, 5]]]), Grid.of((3, 1)))
    assert warp_labels(labels, shift(0.5, 0), labels.grid).data.tolist() == [[[3, 3, 0]]]


def test_each_label_is_interpolated_on_its_own():
    """Label 2 has three quarters of a voxel in all; a mean of the numbers would make it 1."""
    labels = Image(torch.tensor([[[0, 2], [2, 2]]]), Grid.of((2, 2)))
    assert warp_labels(labels, shift(0.5, 0.5), labels.grid).data[0, 0, 0] == 2


def test_colours_are_no_labels():
    with pytest.raises(ImageError, match="labels have one value a voxel, but this image has 3"):
        warp_labels(Image(torch.zeros(3, 4, 4), Grid.of((4, 4))), shift(0, 0), Grid.of((4, 4)))


def test_a_label_that_is_not_a_number_is_refused():
    with pytest.raises(ImageError, match="labels: 1 of 4 values are not finite"):
        warp_labels(Image.of(torch.tensor([[0.0, 1.0], [float("nan"), 0.0]])), shift(0, 0), Grid.of((2, 2)))
