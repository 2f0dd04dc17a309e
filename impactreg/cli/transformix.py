"""`impactreg transformix -tp TRANSFORM -in IMAGE -out DIR`: applies a transform to an image or points."""

import logging
import time
from argparse import Namespace
from collections.abc import Sequence

from impactreg.cli.arguments import Parser, transformix_parser, version
from impactreg.cli.console import console
from impactreg.cli.register import set_threads

logger = logging.getLogger(__name__)


def run(arguments: Sequence[str]) -> None:
    """Transforms what the flags name; raises `UsageError` or an `ImpactregError`."""
    options = parser().read(arguments)
    if not (options.image or options.points or options.jacobian or options.jacobian_matrix):
        parser().error("there is nothing to do: give -in, -def, -jac all or -jacmat all")
    if options.labels and not options.image:
        parser().error("--labels says what -in is: give -in, too")
    with console(options.loglevel):
        logger.info("impactreg %s", version())
        if options.priority:
            logger.info("-priority %s has no effect", options.priority)
        set_threads(options.threads)
        _transform(options, arguments)


def parser() -> Parser:
    """The flags."""
    return transformix_parser("Applies a transform to an image or to points.")


def _transform(options: Namespace, arguments: Sequence[str]) -> None:
    from impactreg.cli import log
    from impactreg.registration.transformix import transformix

    started = time.perf_counter()
    header = log.header(["transformix", *arguments], {"transform": options.transform})
    with log.log_file(options.output / "transformix.log", header, options.loglevel) as file:
        transformix(
            options.transform,
            image=options.image,
            points=options.points,
            jacobian=options.jacobian is not None,
            jacobian_matrix=options.jacobian_matrix is not None,
            output_directory=options.output,
            reference=options.reference,
            inverse=options.inverse,
            labels=options.labels,
        )
        file.begin()
        logger.info("Results are in %s; this took %.1f s", options.output, time.perf_counter() - started)
