"""Feature maps at displaced points."""

import pytest
import torch
from torch.nn import functional

from impactreg.components.dense.warp import FeatureMap
from impactreg.images import Grid, Image


def made(channels, *shape, seed=0, dtype=torch.float64):
    data = torch.randn(channels, *shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)
    return Image(data, Grid.of(shape[::-1]))


def places(image, count=200, margin=2.0, seed=1):
    size = torch.tensor(image.grid.size, dtype=image.data.dtype)[:, None]
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(len(size), count, generator=generator, dtype=image.data.dtype) * (size - 1 + 2 * margin) - margin


@pytest.mark.parametrize("shape", [(6, 5), (5, 6, 4), (1, 6, 4)])
@pytest.mark.parametrize("channels", [1, 3])
def test_values_are_those_of_grid_sample_with_zeros_outside(shape, channels):
    image = made(channels, *shape)
    index = places(image)
    padded = functional.pad(image.data[None], [3] * 2 * len(shape))
    size = torch.tensor([n + 6.0 for n in image.grid.size], dtype=torch.float64)[:, None]
    unit = (2 * (index + 3) + 1) / size - 1
    where = unit.T.reshape(1, *[1] * (len(shape) - 1), -1, len(shape))
    expected = functional.grid_sample(padded, where, align_corners=False).reshape(channels, -1).T
    torch.testing.assert_close(FeatureMap.of(image).at(index).values, expected)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("shape", [(6, 5), (5, 6, 4)])
def test_slopes_are_the_derivatives_of_values(shape, channels):
    image = made(channels, *shape)
    features, index = FeatureMap.of(image), places(image, margin=3.0)
    found, step = features.at(index), 1e-6
    for axis, slope in enumerate(found.slopes):
        shift = torch.zeros_like(index)
        shift[axis] = step
        ahead, behind = (features.at(index + sign * shift, slopes=False).values for sign in (1, -1))
        torch.testing.assert_close(slope, (ahead - behind) / (2 * step), atol=1e-8, rtol=1e-6)


def test_points_far_outside_have_neither_value_nor_slope():
    features = FeatureMap.of(made(2, 4, 5, 6))
    found = features.at(torch.tensor([[-9.0, 20.0], [2.0, 2.0], [2.0, 2.0]], dtype=torch.float64))
    assert not found.values.any()
    assert not any(slope.any() for slope in found.slopes)
    assert not found.inside.any()


def test_inside_is_between_the_outermost_voxel_centres():
    features = FeatureMap.of(made(1, 4, 5))
    index = torch.tensor([[0.0, 4.0, -0.01, 4.01, 2.0], [0.0, 3.0, 1.0, 1.0, 3.2]], dtype=torch.float64)
    assert features.at(index).inside.tolist() == [True, True, False, False, False]


def test_some_channels_are_those_of_the_whole():
    image = made(4, 5, 6, 4)
    chosen, index = torch.tensor([2, 0]), places(image)
    features = FeatureMap.of(image)
    torch.testing.assert_close(features.of_channels(chosen).at(index).values, features.at(index).values[:, chosen])
