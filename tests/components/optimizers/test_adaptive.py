"""Adaptive stochastic gradient descent: the passing of time, by hand, and what a parameter file can ask of it."""

import logging
from itertools import pairwise
from math import exp, log

import pytest
import torch

from impactreg.components.optimizers import AdaptiveStochasticGradientDescent
from impactreg.errors import ParameterError
from impactreg.parameters import ParameterMap

START = torch.tensor([1.0, -2.0], dtype=torch.float64)
BY_HAND = {
    "AutomaticParameterEstimation": "false",
    "SP_a": 3,
    "SP_A": 4,
    "SP_alpha": 0.7,
    "MaximumNumberOfIterations": 12,
}


def optimizer(level=0, **keys):
    values = {key: [str(v) for v in (value if isinstance(value, list) else [value])] for key, value in keys.items()}
    kind = AdaptiveStochasticGradientDescent
    return kind(kind.Settings.read(ParameterMap.from_dict(values), level=level, label="Optimizer0", dimension=2))


def test_time_passes_as_gradients_agree(landscape, finish):
    # Steep enough to overshoot at first, so that time moves on, and then back along the flat axis.
    curvature, omega = torch.tensor([3.5, 0.05]).double(), 0.001
    field = landscape(curvature=curvature, scales=[2.0, 1.0])
    sigmoid = {"SigmoidMax": 1.5, "SigmoidMin": -0.5, "SigmoidScale": omega, "SigmoidInitialTime": 0.25}
    taken, reason = finish(optimizer(**{**BY_HAND, **sigmoid, "MaximumNumberOfIterations": 30}).steps(field, START))
    mu, time, previous = START.clone(), 0.25, None
    roots = torch.tensor([2.0, 1.0]).double().sqrt()
    for step in taken:
        gradient = curvature * mu
        scaled = gradient / roots
        size = 3 / (4 + time + 1) ** 0.7
        assert step.columns["3a:Time"] == pytest.approx(time, abs=1e-12)
        assert step.columns["3b:StepSize"] == pytest.approx(size)
        assert step.gradient_norm == pytest.approx(float(scaled.norm()))
        mu = mu - size * scaled / roots
        assert torch.allclose(step.parameters, mu, rtol=1e-10, atol=1e-14)
        if previous is not None:
            argument = -float(scaled @ previous) - omega * log(1.5 / 0.5)
            time = max(0.0, time - 0.5 + 2.0 / (1 + exp(-argument / omega)))
        previous = scaled
    assert len(taken) == 30
    assert reason == "Maximum number of iterations has been reached"
    times = [step.columns["3a:Time"] for step in taken]
    moves = [after - before for before, after in pairwise(times)]
    assert moves[0] == 0
    assert max(moves) > 1
    assert min(moves) < -0.1


def test_time_is_never_negative(landscape, finish):
    field = landscape(curvature=[0.0, 0.0], slope=[1.0, 1.0])
    taken, _ = finish(optimizer(**BY_HAND).steps(field, START))
    assert {step.columns["3a:Time"] for step in taken} == {0.0}


def test_time_passes_evenly_without_adaptive_steps(landscape, finish):
    for key in ("UseAdaptiveStepSizes", "UseCruzAcceleration"):
        keys = {**BY_HAND, key: "false", "SigmoidInitialTime": 2, "SigmoidMax": 1, "SigmoidMin": -0.5}
        taken, _ = finish(optimizer(**keys).steps(landscape(), START))
        assert [step.columns["3a:Time"] for step in taken[:4]] == [2, 2.25, 2.5, 2.75]


def test_the_newer_name_of_a_key_wins():
    assert optimizer().settings.adapts
    assert optimizer(UseCruzAcceleration="false", UseAdaptiveStepSizes="true").settings.adapts
    assert not optimizer(UseCruzAcceleration="true", UseAdaptiveStepSizes="false").settings.adapts


def test_constant_steps_have_the_gain_of_time_zero(landscape, finish):
    keys = {**BY_HAND, "UseConstantStep": "true", "UseAdaptiveStepSizes": "false", "SigmoidInitialTime": 5}
    taken, _ = finish(optimizer(**keys).steps(landscape(), START))
    assert {step.columns["3b:StepSize"] for step in taken} == {3 / 5**0.7}
    assert taken[0].columns["3a:Time"] == 5


def test_nothing_is_estimated_where_the_file_says_so(landscape):
    field = landscape()
    next(optimizer(**BY_HAND).steps(field, START))
    assert field.asked_for == []
    assert field.evaluations == 1


def test_the_first_step_moves_points_by_the_step_length(landscape):
    keys = {"ASGDParameterEstimationMethod": "DisplacementDistribution", "NoiseCompensation": "false"}
    step = next(optimizer(**keys, MaximumStepLength=0.5).steps(landscape(), START))
    assert float((step.parameters - START).norm()) == pytest.approx(0.5)


@pytest.mark.parametrize("method", ["Original", "OriginalButSigmoidToDefault", "DisplacementDistribution"])
def test_every_estimation_finds_the_valley_through_noise(landscape, method, finish):
    field = landscape(valley=[6.0, -3.0], error=[0.5, -0.5])
    noise = torch.Generator().manual_seed(3)
    exact = field.gradient
    field.approximate_gradient = lambda p: exact(p) + torch.randn(2, generator=noise).double()
    evaluate = field.evaluate

    def noisy(parameters):
        seen = evaluate(parameters)
        return type(seen)(seen.value, seen.gradient + torch.randn(2, generator=noise).double(), seen.columns)

    field.evaluate = noisy
    keys = {
        "ASGDParameterEstimationMethod": method,
        "NewSamplesEveryIteration": "true",
        "MaximumNumberOfIterations": 600,
    }
    taken, _ = finish(optimizer(**keys).steps(field, START))
    assert torch.allclose(taken[-1].parameters, field.valley, atol=0.5)


def test_a_run_can_be_repeated(landscape, finish):
    keys = {"NewSamplesEveryIteration": "true", "MaximumNumberOfIterations": 5}
    asked = optimizer(**keys)
    first, again = (finish(asked.steps(landscape(error=[1.0, 0.0]), START))[0] for _ in range(2))
    assert all(torch.equal(a.parameters, b.parameters) for a, b in zip(first, again, strict=True))


def test_small_random_boxes_turn_adaptive_steps_off(landscape, caplog, finish):
    keys = {"NewSamplesEveryIteration": "true", "MaximumNumberOfIterations": 3, "SigmoidInitialTime": 1}
    with caplog.at_level(logging.WARNING):
        boxed, _ = finish(optimizer(**keys).steps(landscape(random_sample_region=True), START))
    assert "UseAdaptiveStepSizes is turned off" in caplog.text
    times = [step.columns["3a:Time"] for step in boxed]
    # Without noise the estimated sigmoid reaches from -0.01 to 1.
    assert times == pytest.approx([1, 1 + 0.495, 1 + 0.99])


def test_small_random_boxes_do_not_matter_where_no_noise_is_measured(landscape, caplog):
    with caplog.at_level(logging.WARNING):
        next(optimizer(NewSamplesEveryIteration="true", **BY_HAND).steps(landscape(random_sample_region=True), START))
    assert caplog.text == ""


def test_samples_are_drawn_as_the_settings_say(landscape, finish):
    field = landscape(failures=[1])
    keys = {"NewSamplesEveryIteration": "true", "MaximumNumberOfSamplingAttempts": 1}
    finish(optimizer(**{**BY_HAND, "MaximumNumberOfIterations": 3}, **keys).steps(field, START))
    assert field.draws == 1 + 2


def test_the_schedule_is_logged_in_the_words_of_elastix(landscape, caplog):
    with caplog.at_level(logging.INFO):
        next(optimizer(**BY_HAND).steps(landscape(level=2), START))
    assert "Settings of AdaptiveStochasticGradientDescent in resolution 2:\n( SP_a 3.000000 )\n( SP_A" in caplog.text
    assert caplog.records[0].name.startswith("impactreg.")


def test_the_defaults_are_those_of_elastix():
    settings = optimizer().settings
    assert (settings.gain, settings.gain_offset, settings.gain_decay) == (400, 20, 0.602)
    assert (settings.sigmoid_max, settings.sigmoid_min, settings.sigmoid_scale) == (1, -0.8, 1e-8)
    assert settings.automatic_parameter_estimation
    assert settings.asgd_parameter_estimation_method == "Original"
    assert settings.number_of_samples_for_exact_gradient == 100000


@pytest.mark.parametrize(
    "keys", [{"SigmoidMax": -1}, {"SigmoidMin": 0.1}, {"SigmoidScale": 0}, {"SigmoidInitialTime": -1}, {"SP_A": "x"}]
)
def test_a_wrong_setting_is_named(keys):
    with pytest.raises(ParameterError, match=next(iter(keys))):
        optimizer(**keys)
