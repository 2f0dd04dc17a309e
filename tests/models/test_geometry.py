"""Strides and offsets of layers, against networks whose geometry is known."""

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from impactreg.models.geometry import independent, measure

EYE = ((1.0, 0.0), (0.0, 1.0))
INFINITE = float("inf")


class Layers(nn.Module):
    """Each stage of a sequence as a layer."""

    def __init__(self, *stages: nn.Module) -> None:
        super().__init__()
        self.stages = nn.ModuleList(stages)

    def forward(self, x: Tensor) -> list[Tensor]:
        found: list[Tensor] = []
        for stage in self.stages:
            x = stage(x)
            found.append(x)
        return found


class Turned(nn.Module):
    """Flips the last axis when the direction says so, as models do that were trained in one orientation."""

    def __init__(self) -> None:
        super().__init__()
        self.strided = nn.Conv2d(1, 4, 3, stride=2, padding=1)

    def forward(self, x: Tensor, number: Tensor, statistics: Tensor, direction: Tensor) -> list[Tensor]:
        if int(direction[0, 0]) < 0:
            return [self.strided(x.flip(3)).flip(3)]
        return [self.strided(x)]


class Labels(nn.Module):
    def forward(self, x: Tensor) -> list[Tensor]:
        return [(functional.max_pool2d(x, 2) > 0).float()]


class Resized(nn.Module):
    def forward(self, x: Tensor) -> list[Tensor]:
        return [functional.adaptive_avg_pool2d(x, [7, 7])]


class Changing(nn.Module):
    """Changes its input in place."""

    def forward(self, x: Tensor) -> list[Tensor]:
        x -= 0.5
        return [functional.avg_pool2d(x, 2)]


class Standardised(nn.Module):
    def forward(self, x: Tensor) -> list[Tensor]:
        return [(x - x.mean()) / x.std()]


def geometry(extractor, *shape, direction=EYE):
    x = torch.randn(1, 1, *shape)
    number = len(extractor.module(x)) if extractor.arguments == 1 else 1
    layers = extractor.layers(x, number, [0.0, 1.0, 0.5, 0.1], direction)
    return measure(extractor, shape, layers, 1, direction)


def convolution(channels=(1, 4), stride=2, padding=1):
    return nn.Conv2d(*channels, 3, stride=stride, padding=padding)


@pytest.mark.parametrize("size", [24, 33, 35, 70])
def test_strided_convolutions_start_at_the_first_voxel(load, size):
    extractor = load(Layers(convolution(stride=1), nn.Sequential(nn.ReLU(), convolution((4, 8))), convolution((8, 8))))
    found = geometry(extractor, size, 30)
    assert [layer.stride for layer in found] == [(1, 1), (2, 2), (4, 4)]
    assert [layer.offset for layer in found] == [(0, 0)] * 3
    assert [layer.reach for layer in found][:2] == [(1, 1), (2, 2)]
    assert [layer.channels for layer in found] == [4, 8, 8]


@pytest.mark.parametrize("size", [24, 33, 35, 70])
def test_pooled_layers_lie_in_the_middle_of_their_voxels(load, size):
    stages = nn.Sequential(convolution(stride=1), nn.ReLU(), nn.MaxPool2d(2)), nn.AvgPool2d(2)
    found = geometry(load(Layers(*stages)), size, 30)
    assert [(layer.stride, layer.offset) for layer in found] == [((2, 2), (0.5, 0.5)), ((4, 4), (1.5, 1.5))]


def test_patches_of_any_size_lie_in_the_middle_of_their_voxels(load):
    (found,) = geometry(load(Layers(nn.Conv2d(1, 8, 14, stride=14))), 70, 56)
    assert (found.stride, found.offset) == ((14, 14), (6.5, 6.5))


def test_strides_may_differ_between_axes(load):
    (found,) = geometry(load(Layers(nn.Conv2d(1, 4, 3, stride=(1, 2), padding=1))), 20, 30)
    assert (found.stride, found.offset) == ((1, 2), (0, 0))


def test_normalisation_over_the_image_does_not_hide_the_place(load):
    stage = nn.Sequential(convolution(stride=1), nn.InstanceNorm2d(4), nn.ReLU(), convolution((4, 8)))
    (found,) = geometry(load(Layers(stage)), 64, 64)
    assert (found.stride, found.offset) == ((2, 2), (0, 0))


def test_convolutions_without_padding_move_the_layer(load):
    found = geometry(load(Layers(convolution(stride=1, padding=0), convolution((4, 4), 1, 0))), 20, 30)
    assert [(layer.stride, layer.offset) for layer in found] == [((1, 1), (1, 1)), ((1, 1), (2, 2))]


@pytest.mark.parametrize(("size", "offset"), [(24, 1), (33, 0)])
def test_a_model_that_flips_the_image_is_placed_by_its_last_voxel(load, size, offset):
    extractor = load(Turned())
    (flipped,) = geometry(extractor, 20, size, direction=((-1.0, 0.0), (0.0, 1.0)))
    (straight,) = geometry(extractor, 20, size)
    assert (flipped.offset, straight.offset) == ((0, offset), (0, 0))


def test_a_layer_without_gradients_starts_at_the_first_voxel(load):
    (found,) = geometry(load(Labels()), 20, 30)
    assert (found.stride, found.offset, found.differentiable) == ((2, 2), (0, 0), False)
    assert found.reach == (INFINITE, INFINITE)


def test_a_layer_that_is_resized_has_a_real_stride(load):
    (found,) = geometry(load(Resized()), 60, 100)
    assert found.stride == (60 / 7, 100 / 7)


def test_a_model_that_changes_its_input_is_measured_too(load):
    (found,) = geometry(load(Changing()), 20, 30)
    assert (found.offset, found.differentiable) == ((0.5, 0.5), True)


def test_an_image_smaller_than_the_probe_is_measured_as_it_is(load):
    (found,) = geometry(load(Layers(convolution())), 5, 6)
    assert (found.stride, found.offset) == ((2, 2), (0, 0))


def test_models_that_mix_a_batch_are_told_from_those_that_do_not(load):
    assert independent(load(Layers(convolution())), (20, 20), 1, 1, EYE)
    assert not independent(load(Standardised()), (20, 20), 1, 1, EYE)
