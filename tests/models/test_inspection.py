"""What a model takes and makes, found out by running it, and the lines that use it."""

import math

import pytest
import torch
from torch import Tensor, nn

from impactreg.errors import ModelError
from impactreg.models.cards import CardFile, known
from impactreg.models.extractor import torchscript
from impactreg.models.inspection import describe, parameter_lines
from impactreg.models.mind import MIND, NO_TENSOR, ONE_LAYER
from impactreg.parameters import ParameterMap
from impactreg.parameters.impact_settings import ImpactSettings

THREE = torch.tensor([3])


class Encoder(nn.Module):
    """Three layers with fields of view of 3, 5 and everything, the last without a gradient; early exit."""

    def __init__(self, channels: int = 1) -> None:
        super().__init__()
        self.first = nn.Conv3d(channels, 4, 3, padding=1)
        self.second = nn.Conv3d(4, 6, 3, stride=2, padding=1)
        self.deep = nn.Conv3d(6, 8, 16, stride=16)

    def forward(
        self, x: Tensor, number: Tensor = THREE, statistics: Tensor = NO_TENSOR, direction: Tensor = NO_TENSOR
    ) -> list[Tensor]:
        layers = [self.first(x)]
        if int(number) > 1:
            layers.append(self.second(layers[0]))
        if int(number) > 2:
            layers.append(self.deep(layers[1]).argmax(1, keepdim=True))
        return layers


class Flat(nn.Module):
    """A 2D model for three channels that takes patches of 14 alone."""

    def __init__(self) -> None:
        super().__init__()
        self.only = nn.Conv2d(3, 5, 14)

    def forward(self, x: Tensor) -> list[Tensor]:
        if x.size(2) != 14:
            raise RuntimeError("patches of 14 are needed")
        return [self.only(x)]


class Nothing(nn.Module):
    def forward(self, x: Tensor, number: Tensor = ONE_LAYER) -> list[Tensor]:
        if x.size(0) > 0:
            raise RuntimeError("this model takes nothing")
        return [x]


@pytest.fixture
def file(tmp_path):
    def write(module, name="net.pt"):
        with torchscript():
            torch.jit.script(module.eval()).save(str(tmp_path / name))
        return tmp_path / name

    return write


def test_layers_strides_and_fields_of_view_are_found(file):
    found = describe(file(Encoder()))
    assert (found.dimension, found.input_channels, found.shape) == (3, 1, (32, 32, 32))
    assert [layer.channels for layer in found.layers] == [4, 6, 1]
    assert [layer.stride for layer in found.layers] == [(1, 1, 1), (2, 2, 2), (32, 32, 32)]
    assert found.field_of_view == ((3, 3, 3), (5, 5, 5), (math.inf,) * 3)
    assert [layer.differentiable for layer in found.layers] == [True, True, False]
    assert found.shapes == ((32, 32, 32), (16, 16, 16), (1, 1, 1))
    assert found.measured == 2
    assert found.parameters == sum(p.numel() for p in Encoder().parameters())
    assert found.sha256 is not None


def test_channels_and_dimension_are_found(file):
    found = describe(file(Flat()))
    assert (found.dimension, found.input_channels, found.shape) == (2, 3, (14, 14))
    assert describe(file(Encoder(3), "rgb.pt")).input_channels == 3


def test_a_card_or_the_user_says_what_is_tried(file):
    assert describe(file(MIND(2)), card=known("MIND/R1D2_2D")[1]).dimension == 2
    assert describe(file(Encoder(2), "two.pt"), channels=2, side=40).shape == (40, 40, 40)
    with pytest.raises(ModelError, match="cannot take an input of"):
        describe(file(Encoder(), "one.pt"), channels=3)


@pytest.mark.parametrize("given", [{"side": 0}, {"side": -1}, {"channels": 0}, {"channels": -2}])
def test_an_input_that_cannot_be_is_refused(file, given):
    with pytest.raises(ModelError, match="channels and sides from 1 on, not less"):
        describe(file(Encoder()), **given)


def test_a_model_that_takes_nothing_is_told_in_its_own_words(file):
    with pytest.raises(ModelError, match="this model takes nothing") as error:
        describe(file(Nothing()))
    assert "\n" not in str(error.value)


def test_the_lines_are_understood_by_the_settings(file, tmp_path):
    found = describe(file(Encoder()))
    lines = parameter_lines(found, "nets/net.pt", mask="011", voxel_size=2.5, level=1)
    assert '(ImpactMode "Static")' in lines
    settings = ImpactSettings.read_level(ParameterMap.read(_written(tmp_path / "map.txt", lines)), 1, 3)
    (model,) = settings.fixed
    assert (model.path, model.dimension, model.channels, model.patch_size) == ("nets/net.pt", 3, 1, (0, 0, 0))
    assert model.layers_mask == (False, True, True)
    assert [layer.subset_features for layer in settings.layers] == [6, 1]
    assert model.voxel_size == (2.5, 2.5, 2.5)
    assert "// ImpactVoxelSize1 in mm is needed, too" in parameter_lines(found, "nets/net.pt", level=1)


def _written(path, lines):
    path.write_text("\n".join(lines))
    return path


def test_the_patch_of_jacobian_mode_is_the_field_of_view_of_the_deepest_layer(file):
    found = describe(file(Encoder()))
    assert "(ImpactPatchSize0 3 3 3)" in parameter_lines(found, "a.pt", jacobian=True)
    assert "(ImpactPatchSize0 5 5 5)" in parameter_lines(found, "a.pt", mask="11", jacobian=True)


def test_a_card_tells_what_cannot_be_measured(file):
    found = describe(file(Encoder()))
    layers = [{"channels": 4}, {"channels": 6}, {"channels": 1, "field_of_view": [40, 41, 42]}]
    card = CardFile.model_validate({"path": "F/a.pt", "dimension": 3, "layers": layers, "voxel_size": 1.5})
    lines = parameter_lines(found, "F/a.pt", mask="001", card=card, jacobian=True)
    assert "(ImpactPatchSize0 40 41 42)" in lines
    assert "(ImpactVoxelSize0 1.5 1.5 1.5)" in lines
    assert any(
        "no field of view was found" in line for line in parameter_lines(found, "F/a.pt", mask="001", jacobian=True)
    )


class Two(nn.Module):
    def forward(self, x: Tensor) -> list[Tensor]:
        return [x, x * 2]


def test_a_model_of_one_argument_gets_a_digit_for_each_layer(file):
    assert '(ImpactLayersMask0 "10")' in parameter_lines(describe(file(Two())), "a.pt")


@pytest.mark.parametrize("voxel_size", [0.0, -1.0, math.nan, math.inf])
def test_a_voxel_size_that_cannot_be_is_refused(file, voxel_size):
    with pytest.raises(ModelError, match=r"a\.pt: a voxel size is a positive number \(mm\), not"):
        parameter_lines(describe(file(Two())), "a.pt", voxel_size=voxel_size)


def test_voxel_sizes_keep_their_digits(file):
    lines = parameter_lines(describe(file(Two())), "a.pt", voxel_size=0.8203125)
    assert "(ImpactVoxelSize0 0.8203125 0.8203125 0.8203125)" in lines


@pytest.mark.parametrize("mask", ["0", "2", "1111", "x"])
def test_a_mask_that_cannot_be_is_refused(file, mask):
    found = describe(file(Encoder()))
    with pytest.raises(ModelError, match="up to 3 digits 0 and 1"):
        parameter_lines(found, "a.pt", mask=mask)
