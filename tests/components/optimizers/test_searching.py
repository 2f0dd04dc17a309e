"""What optimizers with a line search share: their rows, what ends them, new samples, and errors of the metric."""

import logging

import pytest
import torch

from impactreg.components.optimizers import ConjugateGradient, QuasiNewtonLBFGS
from impactreg.errors import ParameterError, RegistrationError
from impactreg.parameters import ParameterMap

START = torch.tensor([1.0, -2.0], dtype=torch.float64)
BOTH = pytest.mark.parametrize("kind", [QuasiNewtonLBFGS, ConjugateGradient])
COLUMNS = {
    "1a:SrchDirNr",
    "1b:LineItNr",
    "2:Metric",
    "3:StepLength",
    "4a:||Gradient||",
    "4b:||SearchDir||",
    "4c:DirGradient",
    "5:Phase",
    "6a:Wolfe1",
    "6b:Wolfe2",
    "7:LinSrchStopCondition",
}


@pytest.fixture
def bowl(landscape):
    return lambda **said: landscape(**{"valley": [6.0, -3.0], "curvature": [1.0, 30.0], **said})


def optimizer(kind, level=0, **keys):
    values = {key: [str(v) for v in (value if isinstance(value, list) else [value])] for key, value in keys.items()}
    return kind(kind.Settings.read(ParameterMap.from_dict(values), level=level, label="Optimizer0", dimension=2))


@BOTH
@pytest.mark.parametrize("scales", [[1.0, 1.0], [100.0, 0.5]])
def test_a_bowl_is_solved_in_few_directions(bowl, finish, kind, scales):
    field = bowl(scales=scales)
    tight = {"LineSearchGradientTolerance": 0.1, "GradientMagnitudeTolerance": 1e-8, "ValueTolerance": 0}
    if kind is QuasiNewtonLBFGS:
        del tight["ValueTolerance"]
    taken, reason = finish(optimizer(kind, StepLength=0.01, **tight).steps(field, START))
    assert reason == "The gradient magnitude has (nearly) vanished"
    assert len(taken) < 20
    assert torch.allclose(taken[-1].parameters, field.valley, atol=1e-6)


@BOTH
def test_scales_are_a_change_of_variables(landscape, finish, kind):
    scales = torch.tensor([100.0, 0.25]).double()
    plain = landscape(curvature=torch.tensor([1.0, 4.0]) / scales)
    scaled = landscape(curvature=[1.0, 4.0], scales=scales)
    ys, mus = (
        finish(optimizer(kind, MaximumNumberOfIterations=4).steps(field, start))[0]
        for field, start in ((plain, START * scales.sqrt()), (scaled, START))
    )
    for y, mu in zip(ys, mus, strict=True):
        assert torch.allclose(y.parameters, mu.parameters * scales.sqrt(), rtol=1e-9)
        assert y.gradient_norm == pytest.approx(mu.gradient_norm)


@BOTH
def test_a_row_has_the_columns_of_elastix(bowl, finish, kind):
    taken, _ = finish(optimizer(kind, MaximumNumberOfIterations=2).steps(bowl(), START))
    assert set(taken[0].row) == {*COLUMNS, "Extra"}
    assert [step.row["1a:SrchDirNr"] for step in taken] == [0, 1]
    assert {step.row["5:Phase"] for step in taken} == {"Main"}
    assert taken[0].row["7:LinSrchStopCondition"] == "WolfeSatisfied"
    assert taken[0].row["6a:Wolfe1"] == taken[0].row["6b:Wolfe2"] == "true"


@BOTH
def test_line_searches_have_rows_of_their_own_where_asked_for(bowl, finish, kind):
    keys = {"StepLength": 0.01, "MaximumNumberOfIterations": 2}
    plain, _ = finish(optimizer(kind, **keys).steps(bowl(), START))
    taken, _ = finish(optimizer(kind, GenerateLineSearchIterations="true", **keys).steps(bowl(), START))
    rows = [step.row for step in taken]
    assert [step.iteration for step in taken] == list(range(len(taken)))
    assert [row for row in rows if row["5:Phase"] == "Main"] == [step.row for step in plain]
    start, first = rows[:2]
    assert (start["1b:LineItNr"], start["3:StepLength"], start["7:LinSrchStopCondition"]) == ("start", 0, "---")
    assert (first["1b:LineItNr"], first["3:StepLength"], first["5:Phase"]) == (0, 0.01, "LineOptimizing")
    assert start["4c:DirGradient"] < 0
    # until a search has ended, the optimizer stays where it was
    assert torch.equal(taken[1].parameters, START)


@BOTH
@pytest.mark.parametrize(("asked", "directions"), [(0, 0), (1, 0), (2, 2), (3, 3)])
def test_directions_are_counted_as_elastix_counts_them(bowl, finish, kind, asked, directions):
    taken, reason = finish(optimizer(kind, MaximumNumberOfIterations=asked, StepLength=1e-6).steps(bowl(), START))
    assert reason == "Maximum number of iterations has been reached"
    assert len(taken) == directions


@BOTH
def test_nothing_is_searched_in_the_valley(bowl, finish, kind):
    field = bowl(valley=START)
    taken, reason = finish(optimizer(kind).steps(field, START))
    assert (taken, reason) == ([], "The gradient magnitude has (nearly) vanished")
    assert field.evaluations == 1


@BOTH
def test_a_search_without_a_good_step_ends_the_resolution(bowl, finish, kind):
    keys = {"MaximumNumberOfLineSearchIterations": 2, "StepLength": 1e-6}
    taken, reason = finish(optimizer(kind, **keys).steps(bowl(), START))
    assert reason == "Wolfe conditions are not satisfied"
    assert taken[-1].row["7:LinSrchStopCondition"] == "MaxNrIterations"
    more, _ = finish(optimizer(kind, StopIfWolfeNotSatisfied="false", **keys).steps(bowl(), START))
    assert len(more) > len(taken)


@BOTH
def test_an_error_within_a_search_ends_the_resolution_where_the_search_began(bowl, finish, kind, caplog):
    field = bowl(failures=[4])
    with caplog.at_level(logging.ERROR):
        taken, reason = finish(
            optimizer(kind, GenerateLineSearchIterations="true", StepLength=1e-5).steps(field, START)
        )
    assert reason == "Error in LineSearch"
    assert "Too many samples map outside" in caplog.text
    assert torch.equal(taken[-1].parameters, START)


@BOTH
def test_an_error_at_the_start_is_an_error(bowl, finish, kind):
    with pytest.raises(RegistrationError, match="Too many samples"):
        finish(optimizer(kind).steps(bowl(failures=[1]), START))


@BOTH
def test_new_samples_are_drawn_after_each_direction_and_never_within(bowl, finish, kind):
    keys = {"MaximumNumberOfIterations": 3, "StepLength": 1e-3}
    fresh, same = bowl(), bowl()
    taken, _ = finish(optimizer(kind, NewSamplesEveryIteration="true", **keys).steps(fresh, START))
    again, _ = finish(optimizer(kind, **keys).steps(same, START))
    assert (fresh.draws, same.draws) == (3, 0)
    assert fresh.evaluations == same.evaluations + 3
    assert [step.row for step in taken] == [step.row for step in again]


@BOTH
def test_new_samples_cannot_be_had_where_no_sampler_is_random(bowl, finish, kind, caplog):
    field = bowl(random_sampling=False)
    with caplog.at_level(logging.WARNING):
        finish(optimizer(kind, NewSamplesEveryIteration="true", MaximumNumberOfIterations=2).steps(field, START))
    assert field.draws == 0
    assert "NewSamplesEveryIteration has no effect" in caplog.text


@BOTH
def test_the_defaults_are_those_of_elastix(kind):
    settings = optimizer(kind).settings
    assert settings.maximum_number_of_iterations == 100
    assert settings.maximum_number_of_line_search_iterations == 20
    assert (settings.step_length, settings.gradient_magnitude_tolerance) == (1, 1e-6)
    assert (settings.line_search_value_tolerance, settings.line_search_gradient_tolerance) == (1e-4, 0.9)
    assert settings.stop_if_wolfe_not_satisfied
    assert not settings.generate_line_search_iterations


@BOTH
@pytest.mark.parametrize(
    "keys",
    [{"StepLength": 0}, {"MaximumNumberOfLineSearchIterations": 0}, {"GradientMagnitudeTolerance": -1}],
)
def test_a_wrong_setting_is_named(kind, keys):
    with pytest.raises(ParameterError, match=next(iter(keys))):
        optimizer(kind, **keys)


@BOTH
def test_the_second_wolfe_condition_may_not_be_the_weaker_one(kind):
    with pytest.raises(
        ParameterError, match=r"LineSearchGradientTolerance 0.1\): at least LineSearchValueTolerance, 0.2"
    ):
        optimizer(kind, LineSearchGradientTolerance=0.1, LineSearchValueTolerance=0.2)


@BOTH
def test_keys_are_read_for_each_resolution(kind):
    settings = optimizer(kind, level=1, StepLength=[2, 0.5], MaximumNumberOfLineSearchIterations=[7, 9]).settings
    assert (settings.step_length, settings.maximum_number_of_line_search_iterations) == (0.5, 9)
