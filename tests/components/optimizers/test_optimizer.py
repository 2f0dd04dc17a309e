"""The loop that every descent shares: new samples, further attempts, early ends, and metrics that are not numbers."""

import logging

import pytest
import torch

from impactreg.components.component import available
from impactreg.components.optimizers import Evaluation, Optimizer
from impactreg.components.optimizers.optimizer import Move, SamplingSettings, descend
from impactreg.errors import ParameterError, RegistrationError

START = torch.tensor([1.0, -2.0], dtype=torch.float64)


def downhill(gradient):
    return Move(-0.5 * gradient, float(gradient.norm()), {"3:StepSize": 0.5})


def sampling(**asked):
    return SamplingSettings(**asked)


def test_optimizers_are_found_by_their_elastix_names():
    names = {"StandardGradientDescent", "RegularStepGradientDescent", "AdaptiveStochasticGradientDescent", "Adam"}
    assert names <= set(available("Optimizer"))


def test_a_misspelt_optimizer_is_answered_with_the_nearest_name():
    with pytest.raises(ParameterError, match="did you mean 'StandardGradientDescent'"):
        Optimizer.named("StandardGradientDecent", "a.txt:3")


def test_a_row_tells_the_value_before_the_step_and_the_parameters_after_it(landscape, finish):
    taken, reason = finish(descend(downhill, landscape(), START, 3))
    assert reason == "Maximum number of iterations has been reached"
    assert [step.iteration for step in taken] == [0, 1, 2]
    assert [step.value for step in taken] == pytest.approx([2.5, 2.5 / 4, 2.5 / 16])
    assert [step.gradient_norm for step in taken] == pytest.approx([5**0.5, 5**0.5 / 2, 5**0.5 / 4])
    assert torch.equal(taken[1].parameters, START / 4)
    assert taken[0].columns == {"3:StepSize": 0.5, "Extra": 2.5}


def test_no_iterations_are_no_steps(landscape, finish):
    taken, reason = finish(descend(downhill, landscape(), START, 0))
    assert taken == []
    assert reason == "Maximum number of iterations has been reached"


def test_the_start_is_left_as_it_was(landscape, finish):
    start = START.clone()
    finish(descend(downhill, landscape(), start, 2))
    assert torch.equal(start, START)


def test_new_samples_are_drawn_between_iterations_where_asked_for(landscape, finish):
    asked, not_asked = landscape(), landscape()
    finish(descend(downhill, asked, START, 4, sampling(new_samples_every_iteration=True)))
    finish(descend(downhill, not_asked, START, 4, sampling()))
    assert (asked.draws, not_asked.draws) == (3, 0)


def test_a_law_may_stop_the_run(landscape, finish):
    taken, reason = finish(descend(lambda _: "enough", landscape(), START, 4))
    assert (taken, reason) == ([], "enough")


def test_closing_the_generator_ends_the_run(landscape):
    field = landscape()
    steps = descend(downhill, field, START, 100)
    next(steps)
    steps.close()
    assert field.evaluations == 1
    with pytest.raises(StopIteration):
        next(steps)


def test_an_iteration_is_tried_again_with_new_samples(landscape, caplog, finish):
    field = landscape(failures=[2, 3])
    with caplog.at_level(logging.WARNING):
        taken, _ = finish(descend(downhill, field, START, 3, sampling(maximum_number_of_sampling_attempts=2)))
    assert len(taken) == 3
    assert (field.evaluations, field.draws) == (5, 2)
    assert "attempt 2 of 2" in caplog.text


def test_every_iteration_has_all_its_attempts(landscape, finish):
    field = landscape(failures=[1, 3])
    assert len(finish(descend(downhill, field, START, 2, sampling(maximum_number_of_sampling_attempts=1)))[0]) == 2


def test_one_failure_too_many_is_an_error(landscape):
    field = landscape(failures=[2, 3, 4])
    steps = descend(downhill, field, START, 3, sampling(maximum_number_of_sampling_attempts=2))
    next(steps)
    with pytest.raises(RegistrationError, match="Too many samples"):
        next(steps)
    assert field.draws == 2


def test_without_attempts_the_first_failure_is_an_error(landscape, finish):
    field = landscape(failures=[1])
    with pytest.raises(RegistrationError, match="Too many samples"):
        finish(descend(downhill, field, START, 3, sampling()))
    assert field.draws == 0


@pytest.mark.parametrize(
    "evaluation",
    [
        Evaluation(float("nan"), torch.zeros(2).double()),
        Evaluation(0.0, torch.tensor([float("inf"), 0.0]).double()),
    ],
)
def test_a_metric_that_is_not_a_number_is_an_error(landscape, evaluation, finish):
    field = landscape(level=2)
    field.evaluate = lambda _: evaluation
    with pytest.raises(RegistrationError, match=r"resolution 2, iteration 0: the metric is .* smaller steps"):
        finish(descend(downhill, field, START, 3))
