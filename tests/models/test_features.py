"""Feature maps of whole images: grids, tiles, slices, errors."""

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from impactreg.errors import ModelError
from impactreg.images.grid import Grid
from impactreg.images.image import Image
from impactreg.models.extractor import Extractor
from impactreg.models.features import extract, sampling_grid, statistics

OBLIQUE = np.array([[0.0, -1.0, 0.0], [0.8, 0.0, -0.6], [0.6, 0.0, 0.8]])


class Convolutions(nn.Module):
    """A first layer at full resolution, a second one of stride 2 that starts at the first voxel."""

    def __init__(self, dimension: int = 3, channels: int = 1) -> None:
        super().__init__()
        kind = {2: nn.Conv2d, 3: nn.Conv3d}[dimension]
        self.first = kind(channels, 4, 3, padding=1)
        self.second = kind(4, 6, 3, stride=2, padding=1)

    def forward(self, x: Tensor) -> list[Tensor]:
        first = torch.tanh(self.first(x))
        return [first, self.second(first)]


class Pooled(nn.Module):
    def forward(self, x: Tensor) -> list[Tensor]:
        return [functional.avg_pool3d(x, 2)]


class Standardised(nn.Module):
    """Uses its own statistics: each tile must be alone in its batch."""

    def forward(self, x: Tensor) -> list[Tensor]:
        return [x - x.mean()]


class Given(nn.Module):
    def forward(self, x: Tensor, number: Tensor, statistics: Tensor, direction: Tensor) -> list[Tensor]:
        return [(x - statistics[2]) / statistics[3], x * 0 + direction[1, 0]]


class Gap(nn.Module):
    def forward(self, x: Tensor) -> list[Tensor]:
        return [x, torch.log(x)]


def image(*size, spacing=None, direction=None):
    values = torch.randn(size[::-1])
    return Image.of(values, spacing, tuple(range(5, 5 + len(size))), direction)


def run(extractor, given, patch=(0, 0, 0), mask=(True, True), channels=1):
    return extract(
        extractor,
        given,
        model_dimension=len(patch),
        channels=channels,
        patch_size=patch,
        layers_mask=mask,
        statistics=statistics(given),
    )


def interior(found, margin):
    return found.data[(slice(None), *[slice(margin, size - margin) for size in found.grid.shape])]


def test_the_sampling_grid_has_exactly_the_voxel_size_and_keeps_origin_and_direction():
    grid = Grid.of((10, 11, 7), (1.0, 0.7, 3.0), (4.0, 5.0, 6.0), OBLIQUE)
    found = sampling_grid(grid, (2.0, 1.5, 2.0))
    assert found.size == (5, 5, 11)  # 5, 5.13 and 10.5, halves up
    assert found.spacing == (2.0, 1.5, 2.0)
    assert (found.origin, found.direction) == (grid.origin, grid.direction)


def test_the_sampling_grid_has_at_least_one_point_per_axis():
    assert sampling_grid(Grid.of((4, 4)), (100.0, 1.0)).size == (1, 4)


@pytest.mark.parametrize("voxel", [(1.0, 1.0), (1.0, 1.0, 0.0), (1.0, 1.0, float("nan"))])
def test_a_voxel_size_of_other_numbers_is_refused(voxel):
    with pytest.raises(ModelError, match=r"3 positive numbers \(mm\)"):
        sampling_grid(Grid.of((4, 4, 4)), voxel)


def test_statistics_are_those_of_itk():
    found = statistics(Image.of(torch.tensor([[1.0, 2.0], [3.0, 6.0]])))
    assert found == pytest.approx((1.0, 6.0, 3.0, (14 / 3) ** 0.5))
    assert statistics(Image.of(torch.ones(1, 1)))[3] == 0


def test_a_strided_layer_of_the_reference_has_exactly_twice_the_spacing_and_the_same_origin(shared):
    extractor = Extractor.load(shared / "reference/impact_elastix/inputs/toy_2_layers.pt")
    given = image(24, 28, 28, spacing=(2.0, 2.0, 2.0))
    full, strided = run(extractor, given)
    assert full.grid == given.grid
    assert strided.grid == Grid.of((12, 14, 14), (4.0, 4.0, 4.0), given.grid.origin)
    assert (full.channels, strided.channels) == (4, 6)


def test_an_odd_size_keeps_the_true_spacing(load):
    _, strided = run(load(Convolutions()), image(33, 21, 12, spacing=(2.0, 1.0, 1.5)))
    assert strided.grid == Grid.of((17, 11, 6), (4.0, 2.0, 3.0), (5.0, 6.0, 7.0))


@pytest.mark.parametrize("patch", [(0, 0, 0), (8, 8, 8)])
def test_a_pooled_layer_lies_where_its_values_come_from(load, patch):
    grid = Grid.of((14, 12, 10), (2.0, 1.0, 1.5), (5.0, 6.0, 7.0), OBLIQUE)
    places = grid.points()[:, 0].reshape(1, *grid.shape).float()
    (found,) = run(load(Pooled()), Image(places, grid), patch, (True,))
    assert found.grid.spacing == (4.0, 2.0, 3.0)
    torch.testing.assert_close(found.data.double().flatten(), found.grid.points()[:, 0], rtol=0, atol=1e-4)


@pytest.mark.parametrize("patch", [(16, 16, 16), (24, 0, 17), (12, 60, 14)])
def test_blended_tiles_equal_the_whole_image(load, patch):
    extractor, given = load(Convolutions()), image(44, 40, 33)
    for whole, tiled in zip(run(extractor, given), run(extractor, given, patch), strict=True):
        assert whole.grid == tiled.grid
        torch.testing.assert_close(interior(tiled, 3), interior(whole, 3), rtol=0, atol=1e-5)


def test_tiles_that_fit_the_image_equal_the_whole_image_up_to_its_border(load):
    extractor, given = load(Convolutions()), image(48, 40, 32)
    for whole, tiled in zip(run(extractor, given), run(extractor, given, (16, 16, 16)), strict=True):
        torch.testing.assert_close(tiled.data, whole.data, rtol=0, atol=1e-5)


def test_tiles_of_a_model_with_a_large_view_are_blended_without_seams(load):
    given = image(40, 6, 6)
    smooth = given.with_data(torch.linspace(0, 1, 40).expand(1, 6, 6, 40))
    (found,) = run(load(Standardised()), smooth, (16, 0, 0), (True,))
    steps = found.data[0, 3, 3].diff()
    assert float(steps.abs().max()) < 0.1  # a cut between tiles would be a step of 0.2


def test_a_patch_larger_than_the_image_continues_its_border(load):
    extractor, given = load(Convolutions()), image(12, 11, 10)
    whole, padded = run(extractor, given)[1], run(extractor, given, (16, 16, 16))[1]
    assert padded.grid == whole.grid
    torch.testing.assert_close(interior(padded, 2), interior(whole, 2), rtol=0, atol=1e-5)


def test_the_mask_selects_layers(load):
    extractor, given = load(Convolutions()), image(12, 12, 12)
    (second,) = run(extractor, given, mask=(False, True))
    torch.testing.assert_close(second.data, run(extractor, given)[1].data)
    assert run(extractor, given, mask=(False, False)) == []


def test_one_channel_is_repeated_for_a_model_of_three(load):
    extractor, given = load(Convolutions(channels=3)), image(8, 8, 8)
    three = given.with_data(given.data.repeat(3, 1, 1, 1))
    once, repeated = run(extractor, given, channels=3)[0], run(extractor, three, channels=3)[0]
    torch.testing.assert_close(once.data, repeated.data)


@pytest.mark.parametrize("patch", [(0, 0), (12, 12)])
def test_a_2d_model_sees_a_3d_image_slice_by_slice(load, patch):
    extractor, given = load(Convolutions(dimension=2)), image(24, 20, 7, spacing=(1.0, 1.0, 4.0), direction=OBLIQUE)
    full, strided = run(extractor, given, patch)
    expected = extractor.module(given.data.movedim(0, 1))
    for found, layer in zip((full, strided), expected, strict=True):
        torch.testing.assert_close(found.data, layer.movedim(0, 1), rtol=0, atol=1e-5)
    assert full.grid == given.grid
    assert strided.grid == Grid.of((12, 10, 7), (2.0, 2.0, 4.0), given.grid.origin, OBLIQUE)


def test_a_2d_image_that_is_not_square_keeps_its_axes(load):
    given = image(20, 12)
    full, strided = run(load(Convolutions(dimension=2)), given, (0, 0))
    assert (full.grid, strided.grid.size) == (given.grid, (10, 6))


def test_slices_of_a_model_that_mixes_batches_are_seen_one_by_one(load):
    given = image(6, 5, 4)
    (found,) = run(load(Standardised()), given, (0, 0), (True,))
    torch.testing.assert_close(found.data, given.data - given.data.mean((2, 3), keepdim=True))


def test_statistics_and_rounded_direction_reach_the_model(load):
    given = image(5, 6, 7, direction=OBLIQUE)
    scaled, turned = run(load(Given()), given)
    torch.testing.assert_close(scaled.data, (given.data - given.data.mean()) / given.data.std())
    assert torch.equal(turned.data, torch.ones_like(given.data))


def test_whole_number_images_become_float32_features(load):
    given = image(6, 6, 6)
    whole = given.with_data((given.data * 100).to(torch.int16))
    assert run(load(Convolutions()), whole)[0].data.dtype == torch.float32


def test_features_hold_no_gradient_graph(load):
    assert not run(load(Convolutions()), image(6, 6, 6))[0].data.requires_grad


def test_features_that_are_not_numbers_name_model_and_layer(load):
    with pytest.raises(ModelError, match=r"^net\.pt: layer 2 of 2 has values that are not finite numbers$"):
        run(load(Gap()), image(6, 6, 6))


def test_too_small_an_image_is_told_with_its_size(load):
    with pytest.raises(ModelError, match=r"net\.pt: the model cannot take an input of \[1, 1, 1, 1, 1\]: ") as error:
        run(load(Pooled()), image(1, 1, 1), mask=(True,))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("size", "patch", "channels", "message"),
    [
        ((6, 6), (0, 0, 0), 1, r"net\.pt: a 3D model cannot take a 2D image"),
        ((6, 6, 6), (0, 0, -1), 1, r"net\.pt: a patch size of 3 numbers from 0 on is needed, not 0 0 -1"),
        ((6, 6, 6), (1, 0, 0), 1, r"net\.pt: layers of stride 1, 2 cannot be put together from patches of 1 voxels"),
    ],
)
def test_what_does_not_fit_the_model_is_told(load, size, patch, channels, message):
    with pytest.raises(ModelError, match=message):
        run(load(Convolutions()), image(*size), patch, channels=channels)


def test_an_image_of_other_channels_is_told(load):
    given = image(6, 6, 6)
    with pytest.raises(ModelError, match="the model takes 3 channels, but the image has 2"):
        run(load(Convolutions(channels=3)), given.with_data(given.data.repeat(2, 1, 1, 1)), channels=3)
