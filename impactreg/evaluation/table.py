"""An evaluation as rows for people, as CSV and as JSON."""

import csv
import io
import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import asdict, astuple, dataclass
from pathlib import Path
from typing import Any

from impactreg.errors import OutputError
from impactreg.evaluation.case import Evaluation, Learn2RegFigures
from impactreg.evaluation.dataset import DatasetEvaluation, Figure
from impactreg.evaluation.deformation import Deformation
from impactreg.evaluation.landmarks import Distances
from impactreg.evaluation.learn2reg import mean
from impactreg.evaluation.overlap import LabelOverlap
from impactreg.images.whole import whole_file

NAMES = ("evaluation.csv", "evaluation.json")
"""The files that `write_results` makes."""
OURS, LEARN2REG = "", "Learn2Reg"
_TITLES = ("case", "convention", "measure", "label", "before", "after", "unit")
_OVERLAPS = {"dice": ("Dice", ""), "hd95": ("HD95", "mm"), "asd": ("ASD", "mm")}


@dataclass(frozen=True)
class Row:
    """One figure: of a case ("" where there is one alone), by whose convention, what, of which label, before the
    transform and after it (None where there is no such), in which unit.
    """

    case: str
    convention: str
    measure: str
    label: str
    before: float | None
    after: float | None
    unit: str


def rows_of(result: Evaluation | DatasetEvaluation) -> tuple[Row, ...]:
    """Every figure of an evaluation as a row."""
    return tuple(_rows_of_dataset(result) if isinstance(result, DatasetEvaluation) else _rows_of_case(result))


def content_of(result: Evaluation | DatasetEvaluation) -> dict[str, Any]:
    """An evaluation as JSON: what is not a number or infinite is null.

    That of a task is laid out as Learn2Reg's own metrics file, with the fraction of folded voxels beside it.
    """
    content = _content_of_dataset(result) if isinstance(result, DatasetEvaluation) else _content_of_case(result)
    return {key: _plain(value) for key, value in content.items()}


def write_results(result: Evaluation | DatasetEvaluation, folder: Path) -> tuple[Path, Path]:
    """Writes `evaluation.csv` and `evaluation.json`, both whole or neither; the folder is made where it is missing.

    Raises `OutputError`.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        reason = "it is a file" if folder.is_file() else error.strerror or str(error)
        raise OutputError(f"{folder}: the output folder cannot be made: {reason}; choose another folder") from error
    table, content = (folder / name for name in NAMES)
    with whole_file(table) as first, whole_file(content) as second:
        first.write_text(text_of(rows_of(result)), encoding="utf-8", newline="")
        second.write_text(json.dumps(content_of(result), indent=1, allow_nan=False) + "\n", encoding="utf-8")
    return table, content


def text_of(rows: tuple[Row, ...]) -> str:
    """Rows as CSV, with numbers in full; empty where there is none."""
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(_TITLES)
    writer.writerows(["" if each is None else each for each in astuple(row)] for row in rows)
    return stream.getvalue()


def _rows_of_case(result: Evaluation) -> Iterator[Row]:
    yield from _rows_of_distances("TRE", result.errors_before, result.errors)
    yield from _rows_of_overlaps(result.overlaps_before, result.overlaps)
    if result.deformation is not None:
        for name, value in _of_deformation(result.deformation).items():
            yield Row("", OURS, name, "", None, value, "")
    yield from _rows_of_distances("inverse consistency", None, result.inverse_consistency)
    if result.learn2reg is not None:
        yield from _rows_of_learn2reg(result.learn2reg)


def _rows_of_distances(name: str, before: Distances | None, after: Distances | None) -> Iterator[Row]:
    given = after or before
    earlier, later = (None if each is None else each.summary() for each in (before, after))
    for key in given.summary() if given else ():
        if key == "TRE30" and name != "TRE":
            continue
        measure = key if key == "TRE30" else f"{name} {key}"
        yield Row("", OURS, measure, "", earlier[key] if earlier else None, later[key] if later else None, "mm")


def _rows_of_overlaps(before: tuple[LabelOverlap, ...], after: tuple[LabelOverlap, ...]) -> Iterator[Row]:
    for key, (measure, unit) in _OVERLAPS.items() if before else ():
        earlier, later = ({each.label: float(getattr(each, key)) for each in side} for side in (before, after))
        for label, value in earlier.items():
            yield Row("", OURS, measure, str(label), value, later.get(label), unit)
        both = mean(list(earlier.values())), mean(list(later.values())) if later else None
        yield Row("", OURS, measure, "mean", *both, unit)


def _rows_of_learn2reg(figures: Learn2RegFigures) -> Iterator[Row]:
    yield Row("", LEARN2REG, "LogJacDetStd", "", None, figures.sdlogj, "")
    if figures.tre:
        yield Row("", LEARN2REG, "TRE", "", None, mean(figures.tre), "mm")
    for name, values, unit in (("DSC", figures.dice, ""), ("HD95", figures.hd95, "voxels")):
        for label, value in values.items():
            yield Row("", LEARN2REG, name, str(label), None, value, unit)
        if values:
            yield Row("", LEARN2REG, name, "mean", None, mean(list(values.values())), unit)


def _rows_of_dataset(result: DatasetEvaluation) -> Iterator[Row]:
    for name, figures in result.cases.items():
        for method, figure in figures.items():
            for label, value in zip(figure.labels, figure.detailed, strict=False):
                yield Row(name, LEARN2REG, method, str(label), None, value, "")
            yield Row(name, LEARN2REG, method, "mean" if figure.labels else "", None, figure.mean, "")
        yield Row(name, OURS, "folding", "", None, result.folding[name], "")
    for method, values in result.aggregates.items():
        for key, value in values.items():
            yield Row("all cases", LEARN2REG, method, key, None, value, "")


def _of_deformation(found: Deformation) -> dict[str, float]:
    return {
        "SDlogJ": found.sdlogj,
        "folding": found.folding,
        "det J min": found.smallest,
        "det J mean": found.mean,
        "det J max": found.largest,
    }


def _content_of_case(result: Evaluation) -> dict[str, Any]:
    sides = {"before": result.errors_before, "after": result.errors}
    overlaps = {"before": result.overlaps_before, "after": result.overlaps}
    content: dict[str, Any] = {
        "tre_mm": {side: _of_distances(each) for side, each in sides.items() if each is not None},
        "labels": {side: dict(map(_of_overlap, found)) for side, found in overlaps.items() if found},
        "deformation": None if result.deformation is None else asdict(result.deformation),
        "inverse_consistency_mm": None if result.inverse_consistency is None else result.inverse_consistency.summary(),
        "learn2reg": None if result.learn2reg is None else asdict(result.learn2reg),
    }
    return {key: value for key, value in content.items() if value}


def _of_distances(distances: Distances) -> dict[str, Any]:
    return {**distances.summary(), "landmarks": distances.values.tolist()}


def _of_overlap(overlap: LabelOverlap) -> tuple[int, dict[str, float]]:
    return overlap.label, {"dice": overlap.dice, "hd95_mm": overlap.hd95, "asd_mm": overlap.asd}


def _content_of_dataset(result: DatasetEvaluation) -> dict[str, Any]:
    cases = {name: {key: _of_figure(each) for key, each in case.items()} for name, case in result.cases.items()}
    for case in cases.values():
        case["num_foldings"] = {"mean": 0.0, "detailed": 0.0}
    return {"name": result.name, "aggregates": result.aggregates, "cases": cases, "folding": result.folding}


def _of_figure(figure: Figure) -> dict[str, Any]:
    alone = len(figure.detailed) == 1 and not figure.labels and figure.detailed[0] == figure.mean
    return {"mean": figure.mean, "detailed": figure.mean if alone else list(figure.detailed)}


def _plain(value: Any) -> Any:
    """What JSON can hold."""
    if isinstance(value, Mapping):
        return {str(key): _plain(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(each) for each in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
