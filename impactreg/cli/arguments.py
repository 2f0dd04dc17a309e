"""The command line's flags: elastix's own, spelt exactly, with a hint at the nearest one when they are not."""

import argparse
import difflib
import re
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NoReturn

LOG_LEVELS = ("off", "error", "warning", "info")


class UsageError(Exception):
    """A command line that cannot be understood; the message is one line."""


class _Help(argparse.RawDescriptionHelpFormatter):
    """Each flag on one line where it can be: `--models DIR ...`, not `--models DIR [DIR ...]`."""

    def _format_args(self, action: argparse.Action, default_metavar: str) -> str:
        written = super()._format_args(action, default_metavar)
        return re.sub(r"^(\S+) \[\1 \.\.\.\]$", r"\1 ...", written)


class Parser(argparse.ArgumentParser):
    """argparse with elastix's single-dash words: no abbreviations, and nothing glued to a short flag.

    argparse reads a mistyped `-fmask k` as `-f mask` and a stray `k`; here it is an unknown flag.
    """

    def __init__(self, prog: str, caption: str, epilog: str = "", usage: str | None = None) -> None:
        super().__init__(
            prog=prog,
            usage=usage,
            description=caption,
            epilog=epilog,
            allow_abbrev=False,
            formatter_class=partial(_Help, max_help_position=27),
        )
        self.needed: dict[str, str] = {}

    def read(self, arguments: Sequence[str]) -> argparse.Namespace:
        """The options; raises `UsageError` for what is wrong, and `SystemExit` after --help and --version."""
        for argument in arguments:
            self._check_known(argument)
        options = self.parse_args(arguments)
        missing = [flag for name, flag in self.needed.items() if not getattr(options, name)]
        if missing:
            self.error(f"the following arguments are required: {', '.join(missing)}")
        return options

    def error(self, message: str) -> NoReturn:
        """Instead of argparse's own, which prints the usage of all flags."""
        raise UsageError(message)

    def _check_known(self, argument: str) -> None:
        if not re.match(r"-+[A-Za-z]", argument):
            return
        flag = argument.partition("=")[0] if argument.startswith("--") else argument
        known = [name for action in self._actions for name in action.option_strings]
        if flag not in known:
            self.error(f"there is no flag {flag}{nearest(flag, known)}")


def nearest(written: str, known: Sequence[str]) -> str:
    """`; did you mean -fMask?` with the known word that is most alike, "" when none is."""
    lower = {name.lower(): name for name in reversed(known)}
    found = difflib.get_close_matches(written.lower(), lower, n=1, cutoff=0.5)
    return f"; did you mean {lower[found[0]]}?" if found else ""


def registration_parser(caption: str, epilog: str) -> Parser:
    """The flags of `impactreg`."""
    usage = "impactreg -f FIXED -m MOVING [-p MAP ...] -out DIR [flags]\n       impactreg VERB [flags]"
    parser = Parser("impactreg", caption, epilog, usage)
    parser.needed = {"fixed": "-f", "moving": "-m"}
    _add_registration_flags(parser)
    _add_our_flags(parser)
    add_common_flags(parser, elastix=True)
    return parser


def transformix_parser(caption: str) -> Parser:
    """The flags of `impactreg transformix`."""
    parser = Parser("impactreg transformix", caption)
    add = parser.add_argument
    add(
        "-tp",
        dest="transform",
        metavar="FILE",
        type=Path,
        required=True,
        help="TransformParameters file, ITK transform file or displacement field",
    )
    add("-out", dest="output", metavar="DIR", type=Path, required=True, help="output folder; made if it is missing")
    add("-in", dest="image", metavar="IMAGE", help="moving image to be deformed")
    add(
        "-def",
        dest="points",
        metavar="all|POINTS",
        help='"all" for the deformation field, or a file of fixed points to be moved',
    )
    add(
        "-jac",
        dest="jacobian",
        metavar="all",
        choices=["all"],
        help="determinant of the spatial Jacobian in every voxel",
    )
    add(
        "-jacmat", dest="jacobian_matrix", metavar="all", choices=["all"], help="spatial Jacobian matrix in every voxel"
    )
    add(
        "--reference",
        metavar="FIXED",
        help="fixed image, whose grid the results get; needed with an ITK transform file. Moving image with --inverse",
    )
    add(
        "--inverse",
        action="store_true",
        help="apply the inverse: moving points to fixed ones, and images in fixed space to the grid of --reference",
    )
    add(
        "--labels",
        action="store_true",
        help="-in holds labels: no new ones come up, the pixel type stays, and outside is 0",
    )
    add_common_flags(parser, elastix=True)
    return parser


def numbered(options: argparse.Namespace, name: str) -> list[str]:
    """The files of a flag and of its numbered forms (`-f`, or `-f0`, `-f1` ...) in their order.

    Raises `UsageError` where a number is left out, or one file is given twice.
    """
    given: dict[int, list[str]] = {}
    for number, file in getattr(options, name) or ():
        given.setdefault(number, []).append(file)
    flag = f"-{_NUMBERED[name][0]}"
    if any(len(files) > 1 for files in given.values()):
        raise UsageError(f"{flag}: one file for each number: {flag} is the same as {flag}0")
    if sorted(given) != list(range(len(given))):
        first = min(set(range(len(given))) - set(given))
        raise UsageError(f"{flag}{first} is missing; number the files from 0 on, without a gap")
    return [given[number][0] for number in sorted(given)]


_NUMBERED = {
    "fixed": ("f", "FIXED", "fixed image: a file, or a folder of DICOM files"),
    "moving": ("m", "MOVING", "moving image"),
    "fixed_mask": ("fMask", "MASK", "mask of the fixed image"),
    "moving_mask": ("mMask", "MASK", "mask of the moving image"),
}
MOST_IMAGES = 10
"""How many numbered flags there are, `-f0` to `-f9`."""


def _add_numbered(add: Any, name: str) -> None:
    flag, metavar, text = _NUMBERED[name]
    for number in (None, *range(MOST_IMAGES)):
        add(
            f"-{flag}" if number is None else f"-{flag}{number}",
            dest=name,
            metavar=metavar,
            action="append",
            type=partial(_with_number, number or 0),
            help=f"{text}; of several -{flag}0, -{flag}1 ..." if number is None else argparse.SUPPRESS,
        )


def _with_number(number: int, file: str) -> tuple[int, str]:
    return number, file


def _add_registration_flags(parser: Parser) -> None:
    add = parser.add_argument_group("elastix's flags").add_argument
    _add_numbered(add, "fixed")
    _add_numbered(add, "moving")
    add(
        "-p",
        dest="parameters",
        metavar="MAP",
        action="extend",
        nargs="+",
        help="parameter file or name of a shipped one; several run in turn (rigid, mind-bspline)",
    )
    add("-out", dest="output", metavar="DIR", type=Path, help="output folder; made if it is missing")
    _add_numbered(add, "fixed_mask")
    _add_numbered(add, "moving_mask")
    add("-fp", dest="fixed_points", metavar="POINTS", type=Path, help="landmarks in the fixed image: a point file")
    add("-mp", dest="moving_points", metavar="POINTS", type=Path, help="the same landmarks in the moving image")
    add(
        "-t0",
        dest="initial",
        metavar="FILE",
        type=Path,
        help="transform to start from: TransformParameters or ITK transform file, field",
    )


def _add_our_flags(parser: Parser) -> None:
    add = parser.add_argument_group("impactreg's flags").add_argument
    add("--device", metavar="DEVICE", help="cpu, cuda or cuda:1; by default what ImpactGPU says")
    add_models_flag(add)
    add(
        "--engine",
        metavar="NAME",
        choices=["auto", "torch", "elastix"],
        default="auto",
        help="torch, elastix, or auto: itk-elastix runs what it can and PyTorch the rest",
    )
    add("--seed", metavar="N", type=_natural, help="replaces RandomSeed")
    add("--image-name", metavar="NAME", help="result image also as NAME, such as sub-{moving[sub]}_T1w.nii.gz")
    add(
        "--transform-name",
        metavar="NAME",
        help="whole transform also as NAME: .h5, .tfm, .txt or .nii.gz",
    )
    add("--report", action="store_true", help="show the result as one HTML page, report.html in -out")
    add("--resume", action="store_true", help="go on where the same run was interrupted in -out")
    add("--check", action="store_true", help="read everything, print the plan, and register nothing")


def add_models_flag(add: Callable[..., argparse.Action]) -> None:
    """Where models are looked for."""
    text = "folders in which models are found"
    add("--models", metavar="DIR", action="extend", nargs="+", default=[], type=Path, help=text)


def add_common_flags(parser: Parser, *, elastix: bool = False, level: str = "info", threads: bool = True) -> None:
    """The flags that most verbs have; `elastix` adds one that only elastix gives a meaning to."""
    add = parser.add_argument_group("other flags").add_argument
    if threads:
        add("-threads", metavar="N", type=_positive, help="how many threads to use")
    told = ", ".join(f"{each} (default)" if each == level else each for each in LOG_LEVELS)
    add("-loglevel", metavar="LEVEL", choices=LOG_LEVELS, default=level, help=told)
    if elastix:
        add("-priority", metavar="WORD", help="for elastix's sake; without effect")
    add("--debug", action="store_true", help="show where in the program an error came from")
    add("--version", action="version", version=f"impactreg {version()}", help="print the version")


def version() -> str:
    """The version of impactreg."""
    from impactreg import __version__

    return __version__


def _natural(text: str) -> int:
    if not re.fullmatch(r"\d+", text):
        raise argparse.ArgumentTypeError(f"a whole number is needed, not {text!r}")
    return int(text)


def _positive(text: str) -> int:
    if _natural(text) == 0:
        raise argparse.ArgumentTypeError("a number above 0 is needed")
    return int(text)
