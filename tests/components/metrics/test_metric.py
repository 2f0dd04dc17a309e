"""What all metrics share: names, settings, which points count, pieces."""

import pytest
import torch

from impactreg.components.component import available
from impactreg.components.metrics import metric as metrics
from impactreg.components.metrics.metric import ImageMetric, ImageMetricSettings, Metric, in_pieces
from impactreg.components.samplers import Samples
from impactreg.errors import ParameterError
from impactreg.parameters import ParameterMap


def test_metrics_are_found_by_elastix_names():
    assert {"Impact", "AdvancedMeanSquares"} <= set(available("Metric"))
    assert issubclass(Metric.named("AdvancedMeanSquares"), ImageMetric)


def test_the_required_ratio_defaults_to_a_quarter_and_may_differ_from_metric_to_metric():
    given = ParameterMap.from_dict({"RequiredRatioOfValidSamples": 0.1, "Metric1RequiredRatioOfValidSamples": 0.5})
    assert ImageMetricSettings.read(ParameterMap.from_dict({})).required_ratio_of_valid_samples == 0.25
    read = [ImageMetricSettings.read(given, label=f"Metric{i}").required_ratio_of_valid_samples for i in (0, 1)]
    assert read == [0.1, 0.5]


@pytest.mark.parametrize("ratio", [-0.1, 1.1, "half"])
def test_a_ratio_that_is_none_is_refused(ratio):
    with pytest.raises(ParameterError, match="RequiredRatioOfValidSamples"):
        ImageMetricSettings.read(ParameterMap.from_dict({"RequiredRatioOfValidSamples": ratio}))


def test_pieces_hold_every_sample_once_and_in_order(monkeypatch):
    monkeypatch.setattr(metrics, "POINTS_AT_ONCE", 4)
    samples = Samples(torch.arange(20.0).double().reshape(10, 2), torch.arange(10.0).double())
    pieces = list(in_pieces(samples))
    assert [len(p) for p in pieces] == [4, 4, 2]
    assert torch.equal(torch.cat([p.points for p in pieces]), samples.points)
    assert torch.equal(torch.cat([p.values for p in pieces]), samples.values)
