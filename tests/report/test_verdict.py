from __future__ import annotations

from pathlib import Path

import pytest

from impactreg.report.deformation import Likeness
from impactreg.report.run_folder import RunFolder, Stage
from impactreg.report.run_log import RunLog
from impactreg.report.verdict import cards, checks, ends, told_seconds


def run_with(metric: list[float]) -> RunFolder:
    stage = Stage(0, Path("TransformParameters.0.txt"), ({"2:Metric": tuple(metric)},), (), None)
    return RunFolder(Path(), RunLog(seconds=12.0), (stage,))


def test_given_numbers_come_first_with_what_was_before() -> None:
    found = cards(run_with([2.0, 1.0]), None, None, {"TRE": (12.0, 1.5), "Note": "text", "Dice": 0.8})
    assert [(card.name, card.before, card.value) for card in found[:3]] == [
        ("TRE", "12", "1.5"),
        ("Note", "", "text"),
        ("Dice", "", "0.8"),
    ]
    assert [card.name for card in found[3:]] == ["Metric", "Run time"]


def test_a_metric_that_settled_is_good() -> None:
    settled = [1 / (1 + n) for n in range(200)]
    assert [check.good for check in checks(run_with(settled), None, None)] == [True]


@pytest.mark.parametrize(
    ("metric", "said"),
    [([1 - n / 200 for n in range(200)], "still falling"), ([n / 200 for n in range(200)], "rose")],
)
def test_a_metric_that_falls_or_rises_at_the_end_is_told(metric: list[float], said: str) -> None:
    (check,) = checks(run_with(metric), None, None)
    assert not check.good
    assert said in check.text


def test_a_few_iterations_are_not_judged() -> None:
    assert checks(run_with([3.0, 2.0]), None, None) == []


def test_images_that_are_less_alike_are_told() -> None:
    (check,) = checks(run_with([]), None, Likeness(1000, (0.5, 0.4), (0.9, 0.8)))
    assert not check.good
    assert "not more alike" in check.text


def test_the_ends_of_a_metric_are_means() -> None:
    assert ends({"2:Metric": tuple(map(float, range(100)))}) == (4.5, 94.5)
    assert ends({}) is None


@pytest.mark.parametrize(("seconds", "text"), [(9.96, "10.0 s"), (125.0, "2 min 5 s"), (7300.0, "2 h 1 min")])
def test_durations_are_told_as_people_do(seconds: float, text: str) -> None:
    assert told_seconds(seconds) == text
