"""The command line's flags: elastix's own, spelt exactly, with a hint at the nearest one when they are not."""

import argparse
import difflib
import re
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

LOG_LEVELS = ("off", "error", "warning", "info")


class UsageError(Exception):
    """A command line that cannot be understood; the message is one line."""


class Parser(argparse.ArgumentParser):
    """argparse with elastix's single-dash words: no abbreviations, and nothing glued to a short flag.

    argparse reads a mistyped `-fmask k` as `-f mask` and a stray `k`; here it is an unknown flag.
    """

    def __init__(self, prog: str, caption: str, epilog: str = "") -> None:
        form = argparse.RawDescriptionHelpFormatter
        super().__init__(prog=prog, description=caption, epilog=epilog, allow_abbrev=False, formatter_class=form)

    def read(self, arguments: Sequence[str]) -> argparse.Namespace:
        """The options; raises `UsageError` for what is wrong, and `SystemExit` after --help and --version."""
        for argument in arguments:
            self._check_known(argument)
        return self.parse_args(arguments)

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
    parser = Parser("impactreg", caption, epilog)
    _add_registration_flags(parser)
    _add_our_flags(parser)
    _add_common_flags(parser)
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
        help="TransformParameters file or ITK transform file",
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
        help="fixed image, whose grid the results get; needed with an ITK transform file",
    )
    _add_common_flags(parser)
    return parser


def _add_registration_flags(parser: Parser) -> None:
    add = parser.add_argument_group("elastix's flags").add_argument
    add("-f", dest="fixed", metavar="FIXED", required=True, help="fixed image: a file, or a folder with a DICOM series")
    add("-m", dest="moving", metavar="MOVING", required=True, help="moving image")
    add(
        "-p",
        dest="parameters",
        metavar="MAP",
        required=True,
        action="extend",
        nargs="+",
        help="parameter file or name of a shipped one; several are run one after the other",
    )
    add("-out", dest="output", metavar="DIR", type=Path, help="output folder; made if it is missing")
    add("-fMask", dest="fixed_mask", metavar="MASK", help="mask of the fixed image")
    add("-mMask", dest="moving_mask", metavar="MASK", help="mask of the moving image")
    add(
        "-t0",
        dest="initial",
        metavar="FILE",
        type=Path,
        help="transform to start from: TransformParameters file or ITK transform file",
    )


def _add_our_flags(parser: Parser) -> None:
    add = parser.add_argument_group("impactreg's flags").add_argument
    add("--device", metavar="cpu|cuda[:N]", help="where to compute; by default what ImpactGPU says")
    add(
        "--models",
        metavar="DIR",
        action="extend",
        nargs="+",
        default=[],
        type=Path,
        help="folders in which feature extractors are found",
    )
    add(
        "--engine",
        choices=["auto", "torch", "elastix"],
        default="auto",
        help="who runs a parameter file: itk-elastix, PyTorch, or (auto) itk-elastix what it can and PyTorch the rest",
    )
    add("--seed", metavar="N", type=_natural, help="replaces RandomSeed")
    add("--check", action="store_true", help="read everything, print what would be done, and register nothing")


def _add_common_flags(parser: Parser) -> None:
    add = parser.add_argument_group("other flags").add_argument
    add("-threads", metavar="N", type=_positive, help="how many threads to use")
    add("-loglevel", choices=LOG_LEVELS, default="info", help="what to tell: off, error, warning or info (default)")
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
