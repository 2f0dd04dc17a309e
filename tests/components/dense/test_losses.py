"""Distances with a weight for each point."""

import pytest
import torch

from impactreg.components.dense.losses import JOINT, POINTWISE, size_of
from impactreg.components.metrics.distances import DISTANCES


def features(generator, points=40, channels=5):
    fixed, moving = torch.randn(2, points, channels, generator=generator, dtype=torch.float64)
    return fixed + 0.3, moving + 0.3


def test_there_are_all_distances_of_the_metric():
    assert {*POINTWISE, *JOINT} == set(DISTANCES)


@pytest.mark.parametrize("name", sorted(POINTWISE))
def test_the_mean_and_its_derivative_are_those_of_the_metric(name, generator):
    fixed, moving = features(generator)
    moving[3] = 0
    value, slope = POINTWISE[name](fixed, moving)
    expected, derivative = DISTANCES[name](fixed, moving)
    torch.testing.assert_close(value.mean(), expected)
    torch.testing.assert_close(slope / len(fixed), derivative)


def test_correlation_with_equal_weights_is_that_of_the_metric(generator):
    fixed, moving = features(generator)
    found = JOINT["NCC"](fixed, moving, torch.ones(len(fixed), dtype=torch.float64))
    torch.testing.assert_close(found, DISTANCES["NCC"](fixed, moving))


def test_points_without_weight_do_not_count_in_a_correlation(generator):
    fixed, moving = features(generator)
    weights = (torch.arange(len(fixed)) % 3 > 0).double()
    value, slope = JOINT["NCC"](fixed, moving, weights)
    kept = weights > 0
    expected, derivative = DISTANCES["NCC"](fixed[kept], moving[kept])
    torch.testing.assert_close(value, expected)
    torch.testing.assert_close(slope[kept], derivative)
    assert not slope[~kept].any()


@pytest.mark.parametrize("name", ["L1", "L2", "DotProduct"])
def test_a_distance_over_its_size_does_not_know_the_unit_of_the_features(name, generator):
    fixed, moving = features(generator)
    values = []
    for unit in (1.0, 1000.0):
        f, m = fixed * unit, moving * unit
        values.append(float(POINTWISE[name](f, m)[0].mean()) / size_of(name, f))
    assert values[0] == pytest.approx(values[1])


def test_a_channel_that_is_constant_but_for_rounding_correlates_by_zero(generator):
    fixed, moving = torch.randn(2, 5000, 3, generator=generator)
    fixed[:, 1], moving[:, 2] = 0.7, 0.3
    value, slope = JOINT["NCC"](fixed, moving, (torch.arange(5000) % 3 > 0).float())
    assert abs(float(value)) < 0.1
    assert not slope[:, 1:].any()
