"""Image: a tensor that fits its grid."""

import numpy as np
import pytest
import torch

from impactreg.errors import ImageError
from impactreg.images import Grid, Image


def test_an_array_in_z_y_x_order_makes_an_image_of_its_reversed_size() -> None:
    image = Image.of(np.zeros((4, 5, 6), np.float32), [1.0, 2.0, 3.0])
    assert list(image.grid.size) == [6, 5, 4]
    assert image.data.shape == (1, 4, 5, 6)
    assert repr(image) == "Image(6 x 5 x 4 voxels of 1 x 2 x 3 mm, 1 channel, torch.float32)"


def test_values_that_do_not_fit_the_grid_are_an_image_error() -> None:
    with pytest.raises(ImageError, match="do not fit"):
        Image(torch.zeros(1, 4, 5), Grid.of([4, 5]))


def test_channels_come_last_in_arrays_and_several_are_no_scalar_image() -> None:
    image = Image(torch.zeros(3, 4, 5), Grid.of([5, 4]))
    assert image.numpy().shape == (4, 5, 3)
    with pytest.raises(ImageError, match="3 channels"):
        _ = image.scalar


def test_with_data_and_to_keep_the_grid() -> None:
    image = Image.of(torch.ones(2, 3), [2.0, 2.0])
    assert image.to(dtype=torch.float64).grid is image.grid
    assert image.with_data(torch.zeros(4, 2, 3)).channels == 4
