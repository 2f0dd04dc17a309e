"""`impactreg features -in IMAGE -model NAME -out FILE`: runs a model over a whole image, in blended tiles."""

import logging
import sys
import time
from argparse import Namespace
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

from impactreg.cli.arguments import Parser, add_common_flags, version
from impactreg.cli.console import console
from impactreg.cli.register import set_threads

Number = TypeVar("Number", int, float)

logger = logging.getLogger(__name__)

EXAMPLES = """examples:
  impactreg features -in mr.nii.gz -model MIND/R1D2_3D.pt -out mind.nii.gz
  impactreg features -in ct.nii.gz -model TS/M291.pt -out ct.mha -layers 01 -voxel 1.5 -pca 3
  impactreg features -in ct.nii.gz -model organs.pt -out organs.nii.gz -labels -voxel 1.5 -grid image
"""


def run(arguments: Sequence[str]) -> None:
    """Writes what the model makes of the image; raises `UsageError` or an `ImpactregError`."""
    options = parser().read(arguments)
    with console(options.loglevel):
        logger.info("impactreg %s", version())
        set_threads(options.threads)
        _infer(options)


def parser() -> Parser:
    """The flags."""
    caption = "Runs a model over a whole image: feature maps, labels, synthesis or denoising."
    result = Parser("impactreg features", caption, EXAMPLES)
    result.needed = {"image": "-in", "model": "-model", "output": "-out"}
    _add_files(result)
    _add_tiles(result)
    _add_results(result)
    _add_machine(result)
    return result


def _add_files(parser: Parser) -> None:
    add = parser.add_argument_group("files").add_argument
    add("-in", dest="image", metavar="IMAGE", help="image: a file, or a folder with a DICOM series")
    add("-model", dest="model", metavar="NAME", help="model: the name of a known one, or a TorchScript file")
    add(
        "-out",
        dest="output",
        metavar="FILE",
        help="result: nii, nii.gz, mha, mhd or nrrd; of several layers the second is name.L2.nii.gz",
    )
    add(
        "--models",
        metavar="DIR",
        action="extend",
        nargs="+",
        default=[],
        type=Path,
        help="folders in which models are found",
    )


def _add_tiles(parser: Parser) -> None:
    add = parser.add_argument_group("what the model sees").add_argument
    add("-voxel", metavar="MM", nargs="+", type=float, help="spacing (mm), one or x y z; the image's own by default")
    add(
        "-patch",
        metavar="N",
        nargs="+",
        type=int,
        help="size of tiles (voxels), one or x y z; 0 is the whole axis. By default up to 96, of 2D models 512",
    )
    add(
        "-overlap",
        metavar="N",
        nargs="+",
        type=float,
        help="of tiles, in voxels or below 1 as a share, one or x y z; by default what the field of view needs",
    )
    add("-axis", choices=["x", "y", "z"], help="along which a 2D model sees a 3D image in slices; default z")
    add("-dimension", type=int, choices=[2, 3], help="of the model's input; found by asking the model")
    add("-channels", metavar="N", type=int, help="of the model's input; found by asking the model")


def _add_results(parser: Parser) -> None:
    add = parser.add_argument_group("what is written").add_argument
    add("-layers", metavar="MASK", help="which outputs of the model: 01 is the second of two; all by default")
    add("-pca", metavar="N", type=int, help="so many principal components of the channels instead of these")
    add("-labels", action="store_true", help="the number of the channel with the highest value")
    add(
        "-grid",
        choices=["model", "image"],
        default="model",
        help="on which grid: that of the layer (default), or that of the image",
    )


def _add_machine(parser: Parser) -> None:
    add = parser.add_argument_group("where").add_argument
    add("-device", metavar="cpu|cuda[:N]", default="cpu", help="where to compute; the CPU by default")
    add("-mixed", action="store_true", help="compute in half precision where a GPU can do so safely")
    add("-memory", metavar="GIB", type=float, help="results beyond this lie on the disk; half of the memory by default")
    add_common_flags(parser)


def _infer(options: Namespace) -> None:
    from impactreg.models.inference import features

    started = time.perf_counter()
    with _bar(options.loglevel) as progress:
        features(
            options.image,
            options.model,
            layers=options.layers,
            patch=_one_or_more(options.patch),
            overlap=_one_or_more(options.overlap),
            voxel=_one_or_more(options.voxel),
            axis=options.axis,
            pca=options.pca,
            labels=options.labels,
            grid=options.grid,
            dimension=options.dimension,
            channels=options.channels,
            device=options.device,
            mixed_precision=options.mixed,
            models=options.models,
            memory=options.memory,
            output=options.output,
            progress=progress,
        )
    logger.info("This took %.1f s", time.perf_counter() - started)


def _one_or_more(numbers: "list[Number] | None") -> "Number | list[Number] | None":
    return numbers[0] if numbers and len(numbers) == 1 else numbers


@contextmanager
def _bar(level: str) -> Iterator[Callable[[int, int], None] | None]:
    """A progress bar on a terminal."""
    if level != "info" or not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
    with Progress(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task("tiles", total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)
