"""The weighted sum of metrics: weights by elastix's rules, columns, samples drawn anew."""

import pytest
import torch

from impactreg.components.metrics.metric import MetricValue
from impactreg.components.samplers import Sampler
from impactreg.components.transforms.linear import TranslationTransform
from impactreg.components.transforms.transform import Combination
from impactreg.images import Image
from impactreg.parameters import ParameterMap
from impactreg.registration.objective import ResolutionObjective, Term, WeightSettings

IMAGE = Image.of(torch.rand(9, 11, generator=torch.Generator().manual_seed(0)), (2, 3))
TWO = torch.zeros(2, dtype=torch.float64)


class Bowl:
    """A metric without an image: a multiple of |parameters - bottom|^2, which remembers what it was given."""

    needs_fixed_values = True

    def __init__(self, bottom, factor=1.0):
        self.bottom = torch.tensor(bottom, dtype=torch.float64)
        self.factor = factor
        self.seen = []

    def evaluate(self, transform, samples, *, gradient=True):
        self.seen.append(samples)
        away = transform.parameters - self.bottom
        return MetricValue(self.factor * float(away @ away), 2 * self.factor * away if gradient else None)


def sampler(name="RandomCoordinate", **keys):
    kind = Sampler.named(name)
    settings = kind.Settings.read(ParameterMap.from_dict({"NumberOfSpatialSamples": 20, **keys}), dimension=2)
    return kind(settings, IMAGE, None, torch.Generator().manual_seed(1))


def objective(*bowls, samplers=None, scales=None, **weights):
    samplers = samplers or [sampler()] * len(bowls)
    parameters = ParameterMap.from_dict(weights)
    settings = (WeightSettings.read(parameters, label=f"Metric{i}") for i in range(len(bowls)))
    terms = [Term(*each) for each in zip(bowls, samplers, settings, strict=True)]
    transform = Combination(TranslationTransform(TWO, TWO))
    scales = torch.ones(2).double() if scales is None else scales
    return ResolutionObjective(transform, terms, scales, 0, IMAGE, None, IMAGE, IMAGE, torch.Generator())


def test_one_metric_is_itself_and_has_no_columns():
    found = objective(Bowl([3.0, 4.0])).evaluate(TWO)
    assert found.value == 25
    assert found.gradient.tolist() == [-6, -8]
    assert found.columns == {}


def test_several_metrics_count_alike_by_default():
    found = objective(Bowl([3.0, 4.0]), Bowl([1.0, 0.0])).evaluate(TWO)
    assert found.value == (25 + 1) / 2
    assert found.gradient.tolist() == [-4, -4]


def test_weights_multiply_values_and_gradients():
    found = objective(Bowl([3.0, 4.0]), Bowl([1.0, 0.0]), Metric0Weight=2, Metric1Weight=-1).evaluate(TWO)
    assert found.value == 49
    assert found.gradient.tolist() == [-10, -16]


def test_columns_tell_each_metric_the_length_of_its_unscaled_gradient_and_its_time():
    scales = torch.tensor([4.0, 1.0]).double()
    found = objective(Bowl([3.0, 4.0]), Bowl([1.0, 0.0]), scales=scales, Metric0Weight=9).evaluate(TWO)
    times = [found.columns.pop(f"Time{i}[ms]") for i in range(2)]
    assert all(time > 0 for time in times)
    assert found.columns == {"2:Metric0": 25, "2:Metric1": 1, "4:||Gradient0||": 10, "4:||Gradient1||": 2}


def test_ten_metrics_have_columns_of_two_digits():
    found = objective(*[Bowl([1.0, 0.0])] * 10).evaluate(TWO)
    assert {"2:Metric00", "2:Metric09"} <= set(found.columns)


def test_a_metric_that_is_not_used_is_only_told():
    found = objective(Bowl([3.0, 4.0]), Bowl([1.0, 0.0]), Metric0Weight=1, Metric1Weight=1, Metric1Use=False)
    evaluation = found.evaluate(TWO)
    assert evaluation.value == 25
    assert evaluation.columns["2:Metric1"] == 1


def test_relative_weights_even_out_the_gradients():
    keys = {"UseRelativeWeights": True, "Metric0RelativeWeight": 1, "Metric1RelativeWeight": 0.5}
    found = objective(Bowl([3.0, 4.0]), Bowl([1.0, 0.0], factor=100), **keys).evaluate(TWO)
    # gradients of length 10 and 200: the second is brought to half the length of the first
    assert found.value == pytest.approx(25 + 0.5 * 10 / 200 * 100)
    assert found.gradient.tolist() == pytest.approx([-6 - 5, -8])


def test_a_relative_weight_of_a_gradient_of_zero_is_the_weight():
    found = objective(Bowl([1.0, 0.0]), Bowl([0.0, 0.0]), UseRelativeWeights=True).evaluate(TWO)
    # by default each counts 1 over the number of metrics
    assert found.gradient.tolist() == [-1, 0]


def test_random_samples_stay_until_they_are_drawn_anew():
    bowl = Bowl([1.0, 0.0])
    given = objective(bowl)
    assert given.random_sampling
    given.evaluate(TWO)
    given.evaluate(TWO)
    given.draw_samples()
    given.evaluate(TWO)
    first, again, anew = (samples.points for samples in bowl.seen)
    assert first is again
    assert not torch.equal(first, anew)


def test_metrics_of_one_sampler_see_the_same_samples():
    first, second, third = (Bowl([1.0, 0.0]) for _ in range(3))
    shared, own = sampler(), sampler("Full")
    given = objective(first, second, third, samplers=[shared, shared, own])
    given.evaluate(TWO)
    assert first.seen[0] is second.seen[0]
    assert len(third.seen[0]) == 99
    assert given.random_sampling


def test_a_full_sampler_is_not_random():
    given = objective(Bowl([1.0, 0.0]), samplers=[sampler("Full")])
    assert not given.random_sampling
    assert not given.random_sample_region


def test_the_exact_gradient_is_over_a_regular_grid_and_the_approximate_one_over_fresh_samples():
    bowl = Bowl([1.0, 0.0])
    given = objective(bowl)
    assert given.exact_gradient(TWO, 1000).tolist() == [-2, 0]
    assert len(bowl.seen[0]) == 99
    assert given.approximate_gradient(TWO).tolist() == [-2, 0]
    given.evaluate(TWO)
    assert not torch.equal(bowl.seen[1].points, bowl.seen[2].points)


def test_points_are_mapped_with_the_parameters_given():
    points = IMAGE.grid.points()
    by = torch.tensor([2.0, -1.0]).double()
    assert torch.equal(objective(Bowl([1.0, 0.0])).mapped(points, by).points, points + by)


def test_values_are_drawn_only_for_metrics_that_need_them():
    bowl = Bowl([1.0, 0.0])
    bowl.needs_fixed_values = False
    given = objective(bowl, Bowl([0.0, 0.0]))
    given.evaluate(TWO)
    assert bool(bowl.seen[0].values.isfinite().all())
