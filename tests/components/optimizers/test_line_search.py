"""More and Thuente's line search on functions of one variable: the six of their paper, and every way to end."""

from math import atan, cos, isclose, log, pi, sin, sqrt

import pytest

from impactreg.components.optimizers.line_search import LONGEST, SHORTEST, Point, Rules, search


def rational(a):
    return -a / (a * a + 2), (a * a - 2) / (a * a + 2) ** 2


def power(a):
    b = a + 0.004
    return b**5 - 2 * b**4, 5 * b**4 - 8 * b**3


def wavy(a, beta=0.01, waves=39):
    """A kinked valley at 1 with ripples."""
    if a <= 1 - beta:
        value, slope = 1 - a, -1.0
    elif a >= 1 + beta:
        value, slope = a - 1, 1.0
    else:
        value, slope = (a - 1) ** 2 / (2 * beta) + beta / 2, (a - 1) / beta
    ripple = 2 * (1 - beta) / (waves * pi)
    return value + ripple * sin(waves * pi / 2 * a), slope + ripple * waves * pi / 2 * cos(waves * pi / 2 * a)


def yanai(first, second):
    def gamma(beta):
        return sqrt(1 + beta * beta) - beta

    def function(a):
        left, right = sqrt((1 - a) ** 2 + second**2), sqrt(a * a + first**2)
        value = gamma(first) * left + gamma(second) * right
        return value, -gamma(first) * (1 - a) / left + gamma(second) * a / right

    return function


PAPER = {
    "rational": (rational, Rules(0.001, 0.1)),
    "power": (power, Rules(0.1, 0.1)),
    "wavy": (wavy, Rules(0.1, 0.1)),
    "yanai 4": (yanai(0.001, 0.001), Rules(0.001, 0.001)),
    "yanai 5": (yanai(0.01, 0.001), Rules(0.001, 0.001)),
    "yanai 6": (yanai(0.001, 0.01), Rules(0.001, 0.001)),
}


def searched(function, first, rules):
    return list(search(function, Point(0.0, *function(0.0)), first, rules))


@pytest.mark.parametrize("first", [1e-3, 1e-1, 10.0, 1e3])
@pytest.mark.parametrize("name", PAPER)
def test_the_wolfe_conditions_hold_at_the_end(name, first):
    function, rules = PAPER[name]
    trials = searched(function, first, rules)
    start, end = trials[0].at, trials[-1].at
    assert trials[-1].end == "WolfeSatisfied"
    assert trials[-1].decreases
    assert trials[-1].flattens
    assert end.value <= start.value + rules.value_tolerance * end.step * start.slope
    assert abs(end.slope) <= rules.gradient_tolerance * abs(start.slope)
    assert (end.value, end.slope) == function(end.step)


@pytest.mark.parametrize(
    ("name", "first", "steps", "step"),
    [
        ("rational", 1e-3, 6, 1.4),
        ("rational", 1e-1, 3, 1.4),
        ("rational", 10.0, 1, 10),
        ("rational", 1e3, 4, 37),
        ("power", 1e-3, 12, 1.6),
        ("power", 1e-1, 8, 1.6),
        ("power", 10.0, 8, 1.6),
        ("power", 1e3, 11, 1.6),
        ("wavy", 1e-3, 12, 1.0),
        ("yanai 4", 1e-3, 4, 0.08),
        ("yanai 4", 1e-1, 1, 0.1),
        ("yanai 4", 10.0, 3, 0.35),
        ("yanai 4", 1e3, 4, 0.83),
        ("yanai 5", 1e-3, 6, 0.075),
        ("yanai 5", 1e-1, 3, 0.078),
        ("yanai 6", 10.0, 8, 0.92),
    ],
)
def test_the_searches_are_those_of_the_paper(name, first, steps, step):
    function, rules = PAPER[name]
    trials = searched(function, first, rules)
    assert len(trials) - 1 == steps
    assert trials[-1].at.step == pytest.approx(step, rel=0.07)


def test_the_start_comes_first_and_trials_are_counted():
    trials = searched(rational, 1e-3, Rules(0.001, 0.1))
    assert trials[0].at == Point(0.0, 0.0, -0.5)
    assert [t.number for t in trials[1:]] == list(range(len(trials) - 1))
    assert [t.end for t in trials[:-1]] == [""] * (len(trials) - 1)
    assert trials[1].at.step == 1e-3


def test_a_parabola_is_solved_by_its_second_trial():
    trials = searched(lambda a: ((a - 3) ** 2, 2 * (a - 3)), 10.0, Rules(gradient_tolerance=0.1))
    assert trials[-1].at.step == pytest.approx(3)
    assert len(trials) == 3


@pytest.mark.parametrize("slope", [1.0, 0.0, float("nan")])
def test_nothing_is_tried_where_the_value_does_not_fall(slope):
    trials = list(search(pytest.fail, Point(0.0, 1.0, slope), 1.0, Rules()))
    assert [(t.number, t.end) for t in trials] == [(0, "AscentSearchDir")]


def test_the_last_of_too_few_trials_is_at_the_lowest_point_so_far():
    trials = searched(rational, 1e-3, Rules(0.001, 0.1, iterations=3))
    steps = [t.at.step for t in trials]
    assert trials[-1].end == "MaxNrIterations"
    assert len(trials) == 1 + 3
    assert steps[3] == steps[2] > steps[1]


def test_one_trial_alone_stays_at_the_start():
    trials = searched(rational, 1e-3, Rules(0.001, 0.1, iterations=1))
    assert (trials[-1].at.step, trials[-1].end) == (0.0, "MaxNrIterations")


def test_steps_grow_to_the_longest_where_the_value_falls_for_ever():
    trials = searched(lambda a: (-a, -1.0), 1.0, Rules(iterations=100))
    assert (trials[-1].at.step, trials[-1].end) == (LONGEST, "StepTooLarge")
    assert trials[3].at.step == 21  # 1, then five times as far from where it was


def test_steps_shrink_to_the_shortest_where_the_value_only_rises():
    trials = searched(lambda a: (a, -1.0), SHORTEST, Rules())
    assert (trials[-1].at.step, trials[-1].end) == (SHORTEST, "StepTooSmall")


def test_a_jump_ends_in_an_interval_that_is_too_small():
    trials = searched(lambda a: (-a, -1.0) if a < 1 / 3 else (1.0, -1.0), 1.0, Rules(iterations=200))
    assert trials[-1].end in ("IntervalTooSmall", "RoundingError")
    assert isclose(trials[-1].at.step, 1 / 3, rel_tol=1e-6)


@pytest.mark.parametrize("function", [lambda a: (-atan(a), -1 / (1 + a * a)), lambda a: (-log(1 + a), -1 / (1 + a))])
def test_long_slopes_are_followed_until_they_are_flat(function):
    end = searched(function, 1e-3, Rules(1e-4, 0.1, iterations=50))[-1]
    assert end.end == "WolfeSatisfied"
    assert end.at.step > 2
