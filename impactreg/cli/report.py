"""`impactreg report DIR`: one HTML page that shows a finished registration."""

import logging
import sys
import time
from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path

from impactreg.cli.arguments import Parser, add_common_flags, add_models_flag
from impactreg.cli.console import console
from impactreg.cli.register import set_threads

logger = logging.getLogger(__name__)


def run(arguments: Sequence[str]) -> None:
    """Writes the page; raises `UsageError` or an `ImpactregError`."""
    options = parser().read(arguments)
    _check(options)
    with console(options.loglevel):
        set_threads(options.threads)
        started = time.perf_counter()
        from impactreg.report import write_report

        path = write_report(
            options.directory,
            fixed=options.fixed,
            moving=options.moving,
            fixed_points=options.fixed_points,
            moving_points=options.moving_points,
            fixed_labels=options.fixed_labels,
            moving_labels=options.moving_labels,
            models=options.models,
        )
        logger.info("This took %.1f s", time.perf_counter() - started)
    if options.loglevel != "info":
        sys.stdout.write(f"{path}\n")


def _check(options: Namespace) -> None:
    if (options.fixed_points is None) != (options.moving_points is None):
        parser().error("-fp and -mp go together: the same landmarks in both images")
    if (options.fixed_labels is None) != (options.moving_labels is None):
        parser().error("-fl and -ml go together: labels of both images")


def parser() -> Parser:
    """The flags."""
    result = Parser(
        "impactreg report",
        "Writes report.html into the folder of a finished registration: numbers, pictures, charts and settings.",
        "examples:\n  impactreg report result\n  impactreg report result -f fixed.nii.gz -m moving.nii.gz\n"
        "  impactreg report result -fp fixed.txt -mp moving.txt",
    )
    add = result.add_argument
    add("directory", metavar="DIR", type=Path, help="output folder (-out) of the registration")
    add("-f", dest="fixed", metavar="FIXED", help="fixed image, if it is not where it was any more")
    add("-m", dest="moving", metavar="MOVING", help="moving image, if it is not where it was any more")
    add("-fp", dest="fixed_points", metavar="POINTS", type=Path, help="landmarks in the fixed image: a point file")
    add("-mp", dest="moving_points", metavar="POINTS", type=Path, help="the same landmarks in the moving image")
    add("-fl", dest="fixed_labels", metavar="LABELS", help="label image on the fixed image")
    add("-ml", dest="moving_labels", metavar="LABELS", help="label image on the moving image")
    add_models_flag(add)
    add_common_flags(result)
    return result
