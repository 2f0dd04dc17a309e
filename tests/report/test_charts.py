from __future__ import annotations

import math

import pytest

from impactreg.report.charts import HEIGHT, WIDTH, chart, column, running_mean


def test_resolutions_stand_side_by_side() -> None:
    found = chart("Metric", [[3.0, 2.0, 1.0], [2.0, 1.0]])
    assert [line.label for line in found.lines] == ["R0", "R1"]
    assert found.lines[0].end < found.lines[1].begin
    assert "resolution 1 from 2 to 1" in found.description


def test_all_values_lie_in_the_picture() -> None:
    found = chart("Metric", [[-5.0, 17.0, 3.3]])
    points = [tuple(map(float, p.split())) for p in found.lines[0].path[1:].split("L")]
    assert all(0 <= x <= WIDTH and 0 <= y <= HEIGHT for x, y in points)
    assert [tick.text for tick in found.up] == ["-10", "0", "10", "20"]


def test_values_of_a_large_range_get_a_logarithmic_axis() -> None:
    assert chart("Gradient", [[1.0, 1e-6]]).logarithmic
    assert not chart("Gradient", [[1.0, 0.5]]).logarithmic
    assert not chart("Metric", [[1.0, 1e-6]]).logarithmic


@pytest.mark.parametrize("values", [[5.0], [0.0, 0.0], [1e-30, 1e-30], [1e30, -1e30], [math.nan, 2.0, math.inf]])
def test_any_values_make_a_chart(values: list[float]) -> None:
    assert "nan" not in chart("Metric", [values, []]).lines[0].path


def test_a_running_mean_is_over_what_is_there() -> None:
    assert running_mean([1.0, 2.0, 6.0], 3) == [1.5, 3.0, 4.0]
    assert running_mean([1.0, math.nan, 3.0], 3) == [1.0, 2.0, 3.0]


def test_columns_are_found_by_how_their_names_end() -> None:
    table = {"1:ItNr": (0.0,), "2:Metric": (1.0,), "3b:StepSize": (2.0,), "Time[ms]": (3.0,)}
    assert column(table, "StepSize", "Gain a_k") == (2.0,)
    assert column(table, "Gain a_k") == ()
