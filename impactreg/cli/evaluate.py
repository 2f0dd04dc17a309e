"""`impactreg evaluate -tp TRANSFORM ...`: how good a registration is, or all those of a Learn2Reg task."""

import logging
import math
import sys
from argparse import Namespace
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from impactreg.cli.arguments import Parser, add_common_flags
from impactreg.cli.console import console
from impactreg.cli.register import set_threads

if TYPE_CHECKING:
    from rich.table import Table

    from impactreg.evaluation import DatasetEvaluation, Evaluation, Row

logger = logging.getLogger(__name__)

EXAMPLES = """examples:
  impactreg evaluate -tp out/TransformParameters.1.txt -fp fixed.csv -mp moving.csv
  impactreg evaluate -tp out/TransformParameters.1.txt -fl fixed_labels.nii.gz -ml moving_labels.nii.gz -out scores
  impactreg evaluate --dataset LungCT_dataset.json --fields my_fields -out scores

With --dataset each pair is sought in the folder --fields as disp_0001_0002.npz or .nii.gz (a field of
Learn2Reg's), disp_0001_0002.txt, .h5 ... (a transform file), or as the folder disp_0001_0002, the -out of its
registration, whose last TransformParameters file counts."""
WIDEST = 250
"""Columns of text in a file."""
_GROUPS = ("TRE", "Dice", "HD95", "ASD", "inverse")
_POINTS_AND_LABELS = ("fixed_points", "moving_points", "fixed_labels", "moving_labels")
_ONE_CASE = (*_POINTS_AND_LABELS, "transform", "inverse", "fixed", "moving", "fixed_mask", "labels", "learn2reg")


def run(arguments: Sequence[str]) -> None:
    """Evaluates what the flags name; raises `UsageError` or an `ImpactregError`."""
    options = parser().read(arguments)
    _check(options)
    with console(options.loglevel):
        set_threads(options.threads)
        result = _evaluated_dataset(options) if options.dataset else _evaluated_case(options)
        show(result)
        if options.output is not None:
            from impactreg.evaluation import write_results

            logger.info("Results are in %s and %s", *write_results(result, options.output))


def parser() -> Parser:
    """The flags."""
    result = Parser("impactreg evaluate", "Tells how good a registration is, before and after.", EXAMPLES)
    _add_case_flags(result)
    _add_dataset_flags(result)
    result.add_argument("-out", dest="output", metavar="DIR", type=Path, help="folder for evaluation.csv and .json")
    add_common_flags(result)
    return result


def show(result: "Evaluation | DatasetEvaluation") -> None:
    """Writes a table to the terminal, in colours only where it is one."""
    from rich.console import Console

    from impactreg.evaluation import DatasetEvaluation, rows_of

    table = _table_of_cases(result) if isinstance(result, DatasetEvaluation) else _table_of_rows(rows_of(result))
    # a file or a pipe has no width
    width = None if sys.stdout.isatty() else WIDEST
    Console(file=sys.stdout, highlight=False, markup=False, emoji=False, width=width).print(table)


def _add_case_flags(result: Parser) -> None:
    add = result.add_argument_group("one registration").add_argument
    add("-tp", dest="transform", metavar="FILE", type=Path, help="transform; without it: how things are before")
    add("-f", dest="fixed", metavar="IMAGE", help="fixed image, whose voxels are looked at")
    add("-m", dest="moving", metavar="IMAGE", help="moving image")
    add("-fp", dest="fixed_points", metavar="POINTS", type=Path, help="landmarks in the fixed image: a point file")
    add("-mp", dest="moving_points", metavar="POINTS", type=Path, help="the same landmarks in the moving image")
    add("-fl", dest="fixed_labels", metavar="LABELS", help="label image on the fixed image's grid")
    add("-ml", dest="moving_labels", metavar="LABELS", help="label image on the moving image's grid")
    add("-fMask", dest="fixed_mask", metavar="MASK", help="deformation and inverse in this mask alone")
    add("-inv", dest="inverse", metavar="FILE", type=Path, help="inverse transform, to see how well it leads back")
    add("--labels", metavar="N", type=int, nargs="+", help="labels that count (all of both images)")
    add("--learn2reg", action="store_true", help="Learn2Reg's own figures, too")


def _add_dataset_flags(result: Parser) -> None:
    add = result.add_argument_group("all registrations of a Learn2Reg task").add_argument
    add("--dataset", metavar="JSON", type=Path, help="the task's dataset or evaluation_config")
    add(
        "--fields",
        metavar="DIR",
        type=Path,
        help="folder with disp_0001_0002.npz, .nii.gz or .txt: see below",
    )
    add("--data", metavar="DIR", type=Path, help="folder with imagesTr, if not beside the JSON")
    add("--test", action="store_true", help="registration_test, not registration_val")


def _check(options: Namespace) -> None:
    given = [name for name in _ONE_CASE if getattr(options, name)]
    if options.dataset is None and (options.fields or options.data or options.test):
        parser().error("--fields, --data and --test go with --dataset")
    if options.dataset is not None and given:
        parser().error("--dataset goes with --fields, --data, --test and -out alone")
    if options.dataset is not None and options.fields is None:
        parser().error("--dataset needs --fields, the folder with the displacement fields or transforms")
    if options.dataset is None and not {"transform", *_POINTS_AND_LABELS} & set(given):
        parser().error("there is nothing to evaluate: give -tp, -fp and -mp, -fl and -ml, or --dataset and --fields")


def _evaluated_case(options: Namespace) -> "Evaluation":
    from impactreg.evaluation import evaluate

    return evaluate(
        options.transform,
        fixed=options.fixed,
        moving=options.moving,
        fixed_points=options.fixed_points,
        moving_points=options.moving_points,
        fixed_labels=options.fixed_labels,
        moving_labels=options.moving_labels,
        fixed_mask=options.fixed_mask,
        inverse=options.inverse,
        labels=options.labels,
        learn2reg_figures=options.learn2reg,
    )


def _evaluated_dataset(options: Namespace) -> "DatasetEvaluation":
    from impactreg.evaluation import evaluate_dataset

    return evaluate_dataset(options.dataset, options.fields, data=options.data, test=options.test)


def _table_of_rows(rows: "Sequence[Row]") -> "Table":
    columns = ["measure", "label", "before", "after", "unit"]
    if not any(row.label for row in rows):
        columns.remove("label")
    table, last = _empty_table(columns), None
    for row in rows:
        measure = f"{row.convention} {row.measure}".strip()
        group = row.convention or next((name for name in _GROUPS if row.measure.startswith(name)), "")
        if last is not None and group != last:
            table.add_section()
        last = group
        cells = {"measure": measure, "label": row.label, "unit": row.unit}
        cells |= {"before": _told(row.before), "after": _told(row.after)}
        table.add_row(*(cells[column] for column in columns))
    return table


def _table_of_cases(result: "DatasetEvaluation") -> "Table":
    methods = list(result.aggregates)
    table = _empty_table(["case", *methods, "folding"])
    for name, figures in result.cases.items():
        table.add_row(name, *(_told(figures[method].mean) for method in methods), _told(result.folding[name]))
    table.add_section()
    for key in ("mean", "std", "30"):
        table.add_row(key, *(_told(result.aggregates[method][key]) for method in methods), "")
    return table


def _empty_table(columns: Iterable[str]) -> "Table":
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    table = Table(box=SIMPLE_HEAD)
    for column in columns:
        worded = column in ("measure", "label", "unit", "case")
        table.add_column(column, justify="left" if worded else "right", no_wrap=True)
    return table


def _told(value: float | None) -> str:
    if value is None or math.isnan(value):
        return "" if value is None else "-"
    return f"{value:.4g}" if abs(value) < 0.01 else f"{value:.3f}"
