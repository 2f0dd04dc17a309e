"""Did it work? The numbers that come first, and what a reader should look at before believing them."""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from statistics import fmean

from impactreg.report.charts import column
from impactreg.report.deformation import Deformation, Likeness
from impactreg.report.run_folder import RunFolder, Table

Number = float | str | tuple[float, float]
"""A number, a text, or a pair of numbers: before and after."""
ENDS = 10
"""How many iterations the first and the last value of a noisy metric are means of."""


@dataclass(frozen=True)
class Card:
    """A number with its name, its value after and, where it has one, before, and a note in small print."""

    name: str
    value: str
    before: str = ""
    note: str = ""


@dataclass(frozen=True)
class Check:
    """Something that is as it should be, or not, in one sentence."""

    good: bool
    text: str


def cards(
    run: RunFolder, deformation: Deformation | None, alike: Likeness | None, numbers: Mapping[str, Number]
) -> list[Card]:
    """All numbers: those that were given first."""
    found = [_given(name, value) for name, value in numbers.items()]
    if alike is not None:
        before, after = alike.information
        note = f"nats; correlation {_told(alike.correlation[0])} → {_told(alike.correlation[1])}"
        found.append(Card("Mutual information", _told(after), _told(before), note))
    found += _metric_card(run)
    if deformation is not None:
        found += _deformation_cards(deformation)
    if run.seconds:
        found.append(Card("Run time", told_seconds(run.seconds), "", run.log.facts.get("device", "")))
    return found


def checks(run: RunFolder, deformation: Deformation | None, alike: Likeness | None) -> list[Check]:
    """What can be told without landmarks or labels."""
    found = []
    if alike is not None:
        before, after = alike.information
        more = "are more alike" if after > before else "are not more alike"
        found.append(
            Check(after > before, f"The images {more} than before: mutual information {before:.3f} to {after:.3f}.")
        )
    if deformation is not None:
        found.append(_folding(deformation))
    found += _metric_check(run)
    return found


def told_seconds(seconds: float) -> str:
    """A duration as people say it."""
    if seconds < 100:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"


def ends(table: Table) -> tuple[float, float] | None:
    """The metric at the begin and at the end of a resolution, as means of some iterations; None without a metric."""
    values = [v for v in column(table, "Metric") if math.isfinite(v)]
    count = min(ENDS, max(1, len(values) // 5))
    return (fmean(values[:count]), fmean(values[-count:])) if values else None


def _given(name: str, value: Number) -> Card:
    if isinstance(value, tuple):
        return Card(name, _told(value[1]), _told(value[0]))
    return Card(name, value if isinstance(value, str) else _told(value))


def _metric_card(run: RunFolder) -> Iterator[Card]:
    tables = run.stages[-1].levels
    found = ends(tables[-1]) if tables else None
    if found:
        yield Card("Metric", _told(found[1]), _told(found[0]), "last resolution; less is better")


def _deformation_cards(deformation: Deformation) -> Iterator[Card]:
    length = deformation.displacement
    yield Card(
        "Displacement", f"{_told(float(length.mean()))} mm", "", f"mean; at most {_told(float(length.max()))} mm"
    )
    determinant = deformation.determinant
    spread = f"determinant {_told(float(determinant.min()))} to {_told(float(determinant.max()))}"
    yield Card("Folded", f"{100 * deformation.folded:.3g} %", "", spread)
    yield Card("SDlogJ", _told(deformation.spread), "", "spread of the local volume change")


def _folding(deformation: Deformation) -> Check:
    points, folded = len(deformation.determinant), int((deformation.determinant <= 0).sum())
    if folded:
        return Check(False, f"Space is folded at {folded:,} of {points:,} points: see the Jacobian maps.")
    return Check(True, f"Space is folded at none of {points:,} points.")


def _metric_check(run: RunFolder) -> Iterator[Check]:
    """Whether the metric of the last resolution still fell from its last but one fifth to its last, or has risen."""
    tables = run.stages[-1].levels
    values = [v for v in column(tables[-1], "Metric") if math.isfinite(v)] if tables else []
    if len(values) < 50:
        return
    fifth = len(values) // 5
    parts = [fmean(values[n : n + fifth]) for n in (0, len(values) - 2 * fifth, len(values) - fifth)]
    noise = math.sqrt(fmean((v - parts[2]) ** 2 for v in values[-fifth:])) / math.sqrt(fifth)
    fall, last = parts[0] - parts[2], parts[1] - parts[2]
    if last > max(0.15 * abs(fall), 3 * noise):
        yield Check(False, "The metric was still falling at the end: more iterations may help.")
    elif fall < -3 * noise:
        yield Check(False, "The metric rose in the last resolution: the steps may be too large.")
    else:
        yield Check(True, "The metric had settled at the end.")


def _told(value: float) -> str:
    if not math.isfinite(value):
        return "–"
    return (
        f"{value:.0f}"
        if abs(value) >= 1000
        else f"{value:.3g}"
        if abs(value) >= 0.001 or value == 0
        else f"{value:.1e}"
    )
