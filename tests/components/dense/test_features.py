"""Feature maps of the dense stages."""

import pytest
import torch

from impactreg.components.dense.features import DenseModelSettings, feature_images, layer_pairs
from impactreg.errors import ModelError, ParameterError
from impactreg.images import Grid, Image
from impactreg.models import reduction
from impactreg.parameters import ParameterMap

GRID = Grid.of((14, 12, 10), (2.0, 2.5, 3.0), (5.0, -3.0, 7.0))


def made(grid, shift=0.0):
    x, y, z = grid.points().unbind(1)
    values = torch.sin((x - shift) / 5) + torch.cos(y / 4) * torch.sin(z / 6)
    return Image(values.reshape(1, *grid.shape).float(), grid)


def settings(**keys):
    return DenseModelSettings.read(ParameterMap.from_dict({f"Impact{key}": value for key, value in keys.items()}))


def test_without_a_model_the_intensities_are_the_features():
    image = made(GRID)
    asked = settings()
    (features,) = feature_images(image, "fixed", asked)
    assert features.grid == GRID
    assert torch.equal(features.data, image.data)
    assert [each.distance for each in asked.compared] == ["L2"]


def test_a_model_sees_the_image_with_its_own_spacing_unless_a_voxel_size_is_given():
    (own,) = feature_images(made(GRID), "fixed", settings(ModelsPath0="MIND/R1D1_3D.pt"))
    assert own.grid.same_as(GRID)
    assert own.channels == 12
    (coarse,) = feature_images(made(GRID), "fixed", settings(ModelsPath0="MIND/R1D1_3D.pt", VoxelSize0=[4, 4, 4]))
    assert coarse.grid.spacing == (4.0, 4.0, 4.0)
    assert coarse.grid.size == (7, 8, 8)


def test_each_image_has_models_of_its_own():
    asked = settings(FixedModelsPath0="MIND/R1D1_3D.pt", MovingModelsPath0="MIND/R1D2_3D.pt")
    (pair,) = layer_pairs(made(GRID), made(GRID), asked)
    assert not torch.equal(pair.fixed.data, pair.moving.data)


def test_principal_components_are_those_of_the_fixed_features():
    asked = settings(ModelsPath0="MIND/R1D1_3D.pt", PCA0=4)
    fixed, moving = made(GRID), made(GRID, 3.0)
    (pair,) = layer_pairs(fixed, moving, asked)
    (raw,) = feature_images(fixed, "fixed", asked)
    (other,) = feature_images(moving, "moving", asked)
    basis = reduction.fit(raw.data, 4)
    torch.testing.assert_close(pair.moving.data, reduction.project(other.data, basis))
    assert pair.fixed.channels == 4
    torch.testing.assert_close(pair.with_moving(other).moving.data, pair.moving.data)


def test_several_models_give_their_layers_one_after_the_other():
    asked = settings(
        ModelsPath0=["MIND/R1D1_3D.pt", "MIND/R1D2_3D.pt"], LayersWeight0=[1, 0.5], Distance0=["L1", "NCC"]
    )
    pairs = layer_pairs(made(GRID), made(GRID), asked)
    assert [(p.settings.weight, p.settings.distance) for p in pairs] == [(1.0, "L1"), (0.5, "NCC")]


def test_jacobian_mode_and_a_model_for_one_image_alone_are_refused():
    with pytest.raises(ParameterError, match="Static"):
        settings(Mode="Jacobian")
    with pytest.raises(ParameterError, match="ImpactModelsPath for both"):
        settings(FixedModelsPath0="MIND/R1D1_3D.pt")


def test_more_principal_components_than_channels_are_refused():
    asked = settings(ModelsPath0="MIND/R1D1_3D.pt", PCA0=20)
    with pytest.raises(ModelError, match="PCA can keep"):
        layer_pairs(made(GRID), made(GRID), asked)
