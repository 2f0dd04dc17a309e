"""Descents against trajectories computed by hand and against PyTorch's Adam."""

import logging

import pytest
import torch

from impactreg.components.optimizers import Adam, RegularStepGradientDescent, StandardGradientDescent
from impactreg.errors import ParameterError
from impactreg.parameters import ParameterMap

START = torch.tensor([1.0, -2.0], dtype=torch.float64)


def optimizer(kind, level=0, **keys):
    """An optimizer from the keys of a parameter file."""
    values = {key: [str(v) for v in (value if isinstance(value, list) else [value])] for key, value in keys.items()}
    return kind(kind.Settings.read(ParameterMap.from_dict(values), level=level, label="Optimizer0", dimension=2))


def test_standard_descent_follows_the_decaying_gain(landscape, finish):
    field = landscape(curvature=[1.0, 4.0])
    asked = optimizer(StandardGradientDescent, SP_a=2, SP_A=3, SP_alpha=0.5, MaximumNumberOfIterations=6)
    taken, reason = finish(asked.steps(field, START))
    mu = START.clone()
    for k, step in enumerate(taken):
        gradient = torch.tensor([1.0, 4.0]).double() * mu
        size = 2 / (3 + k + 1) ** 0.5
        assert step.value == pytest.approx(float(0.5 * (mu**2 @ torch.tensor([1.0, 4.0]).double())))
        assert step.gradient_norm == pytest.approx(float(gradient.norm()))
        assert step.columns["3:StepSize"] == pytest.approx(size)
        mu = mu - size * gradient
        assert torch.allclose(step.parameters, mu, rtol=1e-12)
    assert len(taken) == 6
    assert reason == "Maximum number of iterations has been reached"


def test_standard_descent_has_the_defaults_of_elastix():
    settings = optimizer(StandardGradientDescent).settings
    assert (settings.gain, settings.gain_offset, settings.gain_decay) == (400, 50, 0.602)
    assert (settings.maximum_number_of_iterations, settings.maximum_number_of_sampling_attempts) == (500, 0)
    assert not settings.new_samples_every_iteration


def test_scales_are_a_change_of_variables(landscape, finish):
    scales = torch.tensor([100.0, 0.25]).double()
    plain = landscape(curvature=torch.tensor([1.0, 4.0]) / scales)
    scaled = landscape(curvature=[1.0, 4.0], scales=scales)
    asked = {"SP_a": 0.3, "SP_A": 2, "MaximumNumberOfIterations": 5}
    for kind, extra in ((StandardGradientDescent, asked), (Adam, {"MaximumNumberOfIterations": 5})):
        ys = finish(optimizer(kind, **extra).steps(plain, START * scales.sqrt()))[0]
        mus = finish(optimizer(kind, **extra).steps(scaled, START))[0]
        assert len(ys) == 5
        for y, mu in zip(ys, mus, strict=True):
            assert torch.allclose(y.parameters, mu.parameters * scales.sqrt(), rtol=1e-10)
            assert y.gradient_norm == pytest.approx(mu.gradient_norm)


@pytest.mark.parametrize("kind", [StandardGradientDescent, Adam])
def test_samples_are_drawn_as_the_settings_say(landscape, kind, finish):
    field = landscape(failures=[1])
    asked = {"NewSamplesEveryIteration": "true", "MaximumNumberOfSamplingAttempts": 1, "MaximumNumberOfIterations": 3}
    finish(optimizer(kind, **asked).steps(field, START))
    assert field.draws == 1 + 2


def test_regular_steps_have_a_length_that_halves_when_the_gradient_turns(landscape, finish):
    field = landscape(curvature=[1.0, 0.0])
    asked = optimizer(
        RegularStepGradientDescent, MaximumStepLength=1, MinimumStepLength=0.2, MaximumNumberOfIterations=50
    )
    taken, reason = finish(asked.steps(field, torch.tensor([1.6, 0.0]).double()))
    # 1.6 -> 0.6 -> -0.4, turn, -> 0.1, turn, -> -0.15, and the next turn makes the step 0.125 < 0.2.
    assert [float(step.parameters[0]) for step in taken] == pytest.approx([0.6, -0.4, 0.1, -0.15])
    assert [step.columns["3:StepSize"] for step in taken] == pytest.approx([1, 1, 0.5, 0.25])
    assert [step.gradient_norm for step in taken] == pytest.approx([1.6, 0.6, 0.4, 0.1])
    assert reason == "Minimum step size has been reached"


def test_regular_steps_divide_by_squared_scales_and_report_the_gradient_as_it_is(landscape, finish):
    field = landscape(curvature=[0.0, 0.0], slope=[3.0, 8.0], scales=[1.0, 2.0])
    taken, _ = finish(optimizer(RegularStepGradientDescent, MaximumNumberOfIterations=1).steps(field, START))
    assert torch.allclose(taken[0].parameters, START - 16 * torch.tensor([0.6, 0.8]).double())
    assert taken[0].gradient_norm == pytest.approx(73**0.5)


def test_regular_steps_stop_where_the_gradient_vanishes(landscape, finish):
    taken, reason = finish(optimizer(RegularStepGradientDescent).steps(landscape(valley=START), START))
    assert taken == []
    assert reason == "Minimum gradient magnitude has been reached"


def test_a_vanished_gradient_without_tolerance_is_no_step(landscape, finish):
    asked = optimizer(RegularStepGradientDescent, MinimumGradientMagnitude=0, MaximumNumberOfIterations=2)
    taken, reason = finish(asked.steps(landscape(valley=START), START))
    assert torch.equal(taken[-1].parameters, START)
    assert reason == "Maximum number of iterations has been reached"


def test_regular_steps_start_shorter_at_each_resolution(landscape, finish):
    for level in range(3):
        field = landscape(curvature=[0.0, 0.0], slope=[1.0, 0.0], level=level)
        taken, _ = finish(optimizer(RegularStepGradientDescent, MaximumNumberOfIterations=1).steps(field, START))
        assert taken[0].columns["3:StepSize"] == 16 / 2**level


def test_regular_steps_keep_their_samples(landscape, caplog, finish):
    field = landscape()
    asked = optimizer(RegularStepGradientDescent, NewSamplesEveryIteration="true", MaximumNumberOfIterations=3)
    with caplog.at_level(logging.WARNING):
        finish(asked.steps(field, START))
    assert field.draws == 0
    assert "NewSamplesEveryIteration has no effect" in caplog.text


def test_adam_is_the_adam_of_pytorch(landscape, finish):
    scales = torch.tensor([9.0, 0.5]).double()
    field = landscape(curvature=[[2.0, 0.5], [0.5, 1.0]], valley=[0.3, -0.7], scales=scales)
    asked = optimizer(
        Adam, AdamLearningRate=0.2, AdamBeta1=0.8, AdamBeta2=0.95, AdamEpsilon=1e-3, MaximumNumberOfIterations=40
    )
    taken, reason = finish(asked.steps(field, START))
    y = (START * scales.sqrt()).requires_grad_()
    theirs = torch.optim.Adam([y], lr=0.2, betas=(0.8, 0.95), eps=1e-3)
    for step in taken:
        theirs.zero_grad()
        offset = y / scales.sqrt() - field.valley
        (0.5 * offset @ field.curvature @ offset).backward()
        assert step.gradient_norm == pytest.approx(float(y.grad.norm()))
        theirs.step()
        assert torch.allclose(step.parameters, y.detach() / scales.sqrt(), rtol=1e-10)
        assert step.columns["3:StepSize"] == 0.2
    assert len(taken) == 40
    assert reason == "Maximum number of iterations has been reached"


def test_adam_finds_the_valley(landscape, finish):
    field = landscape(curvature=[3.0, 0.5], valley=[4.0, 5.0])
    taken, _ = finish(optimizer(Adam, MaximumNumberOfIterations=400).steps(field, START))
    assert torch.allclose(taken[-1].parameters, field.valley, atol=0.02)


def test_an_optimizer_serves_several_runs(landscape, finish):
    for kind in (StandardGradientDescent, RegularStepGradientDescent, Adam):
        asked = optimizer(kind, MaximumNumberOfIterations=4)
        first, again = (finish(asked.steps(landscape(), START))[0] for _ in range(2))
        assert all(torch.equal(a.parameters, b.parameters) for a, b in zip(first, again, strict=True))


def test_settings_are_read_for_the_resolution_and_by_the_label(landscape):
    keys = {"MaximumNumberOfIterations": [10, 20], "SP_a": 3, "Optimizer0SP_a": [5, 6]}
    assert optimizer(StandardGradientDescent, level=1, **keys).settings.maximum_number_of_iterations == 20
    assert optimizer(StandardGradientDescent, level=1, **keys).settings.gain == 6
    assert optimizer(StandardGradientDescent, level=2, **keys).settings.maximum_number_of_iterations == 10


@pytest.mark.parametrize(
    ("kind", "keys", "named"),
    [
        (StandardGradientDescent, {"MaximumNumberOfIterations": "many"}, "MaximumNumberOfIterations"),
        (StandardGradientDescent, {"MaximumNumberOfIterations": -1}, "MaximumNumberOfIterations"),
        (StandardGradientDescent, {"SP_a": "-1"}, "SP_a"),
        (RegularStepGradientDescent, {"RelaxationFactor": 1}, "RelaxationFactor"),
        (RegularStepGradientDescent, {"MaximumStepLength": 0}, "MaximumStepLength"),
        (Adam, {"AdamBeta1": 1}, "AdamBeta1"),
        (Adam, {"AdamLearningRate": "fast"}, "AdamLearningRate"),
    ],
)
def test_a_wrong_setting_is_named(kind, keys, named):
    with pytest.raises(ParameterError, match=named):
        optimizer(kind, **keys)
