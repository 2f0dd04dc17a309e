"""What both modes share: how a layer is compared, and where keys stand."""

import pytest
import torch

from impactreg.components.metrics.impact_mode import Comparison
from impactreg.components.metrics.metric import Metric
from impactreg.errors import ParameterError
from impactreg.parameters import LayerSettings, ParameterMap


def features(seed):
    return torch.randn(20, 5, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("distance", ["L1", "L2"])
def test_relative_distances_start_at_their_weight_and_keep_the_norm(distance):
    layer = Comparison(LayerSettings(0, 0, 0.5, distance))
    assert layer.compare(features(0), features(1))[0] == pytest.approx(0.5)
    assert layer.compare(features(0), features(0))[0] == 0
    norm = layer.norm
    layer.compare(features(0), features(2))
    assert layer.norm == norm


@pytest.mark.parametrize("noise", [0, 1e-7])
def test_features_that_differ_by_rounding_start_at_nothing(noise):
    layer = Comparison(LayerSettings(0, 0, 1.0, "L1"))
    assert layer.compare(features(0), features(0) + noise)[0] < 1e-6
    assert layer.norm == 1


def test_channels_are_chosen_when_fewer_are_wanted_than_there_are(generator):
    assert Comparison(LayerSettings(0, 0, 1.0, "L2")).chosen(5, generator) is None
    assert Comparison(LayerSettings(9, 0, 1.0, "L2")).chosen(5, generator) is None
    chosen = Comparison(LayerSettings(3, 0, 1.0, "L2")).chosen(5, generator)
    assert len(set(chosen.tolist())) == 3


def test_a_key_is_told_where_this_resolution_takes_it_from(metric, pair, tmp_path):
    text = """(ImpactModelsPath "any.pt")
(ImpactModelsPath1 "one.pt")
(ImpactVoxelSize0 2)
(ImpactMovingVoxelSize0 3)
(ImpactPatchSize0 5)
"""
    (tmp_path / "map.txt").write_text(text, encoding="utf-8")
    given = ParameterMap.read(tmp_path / "map.txt")

    def where(level, *key):
        made = metric("AdvancedMeanSquares", *pair, changes={"level": level, "parameter_map": given})
        impact = Metric.named("Impact")
        return impact(impact.Settings.read(given, level=level), made.scene).mode.where(*key).rpartition(":")[2]

    assert [where(level, "ModelsPath", "Fixed") for level in (0, 1, 2)] == ["1", "2", "1"]
    assert where(0, "VoxelSize", "Moving") == "4"
    assert where(0, "VoxelSize", "Fixed") == "3"
    assert where(0, "LayersMask").endswith("map.txt")


def test_layers_of_different_width_are_told(metric, pair):
    given = metric("Impact", *pair, ImpactModelsPath0="net.pt", ImpactVoxelSize0=2)
    given.mode.check_widths([1, 2], [1, 2])
    with pytest.raises(ParameterError, match=r"layer 2 of the fixed models has 2 channels and its moving .* 3"):
        given.mode.check_widths([1, 2], [1, 3])
