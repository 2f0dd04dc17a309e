"""The command line: `impactreg -f ... -m ... -p ... -out ...` and `impactreg <verb> ...`.

Nothing heavy is imported before the flags have been understood, so that help and mistakes come at once. Exit codes:
0 done, 1 something that the user can mend (one line on stderr; `--debug` shows where it came from), 2 a command line
that makes no sense, 130 Ctrl-C.
"""

import atexit
import os
import sys
import traceback
from collections.abc import Sequence
from importlib import import_module
from typing import NoReturn

from impactreg.cli.arguments import UsageError, nearest
from impactreg.errors import ImpactregError

VERBS = {
    "register": ("impactreg.cli.register", "registers a moving image to a fixed one; meant when there is no verb"),
    "transformix": ("impactreg.cli.transformix", "applies a transform to an image or to points"),
    "convert-transform": ("impactreg.cli.convert_transform", "writes a transform as another kind of file"),
    "evaluate": ("impactreg.cli.evaluate", "tells how good a registration is, from landmarks and labels"),
    "report": ("impactreg.cli.report", "shows a finished registration as one HTML page"),
    "components": ("impactreg.cli.components", "tells what a parameter file can name, and the keys of each component"),
    "features": ("impactreg.cli.features", "runs a model over a whole image: feature maps, labels, synthesis"),
    "models": ("impactreg.cli.models", "lists, fetches, describes, checks and makes models"),
    "completion": ("impactreg.cli.completion", "prints what makes a shell complete verbs and flags"),
}
"""Each verb, the module with its `run(arguments)`, and what it does. A new verb is one line here and one module."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs a command line (by default that of the process) and returns the exit code."""
    own_process = arguments is None
    arguments = sys.argv[1:] if arguments is None else list(arguments)
    try:
        verb, rest = _verb(arguments)
        import_module(VERBS[verb][0]).run(rest)
    except SystemExit as end:
        return int(end.code or 0)
    except UsageError as error:
        return _complain(f"{error}; see {_helped(arguments)} --help", 2)
    except KeyboardInterrupt:
        code = _complain(f"interrupted{_how_to_go_on(arguments)}", 130)
        return _leave_at_once(code) if own_process else code
    except BrokenPipeError:
        # What is left in stdout's buffer would fail once more when Python ends.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return _complain("stopped, since nobody reads the output any more", 1)
    except Exception as error:
        if "--debug" in arguments:
            traceback.print_exc()
        return _complain(_one_line(error), 1)
    return 0


def _verb(arguments: Sequence[str]) -> tuple[str, Sequence[str]]:
    if not arguments or arguments[0].startswith("-"):
        return "register", arguments
    if arguments[0] not in VERBS:
        raise UsageError(f"there is no verb {arguments[0]}{nearest(arguments[0], list(VERBS))}")
    return arguments[0], arguments[1:]


def _helped(arguments: Sequence[str]) -> str:
    """The verb whose help tells more."""
    if not arguments or arguments[0] not in VERBS or arguments[0] == "register":
        return "impactreg"
    words = arguments[:1]
    if words[0] == "models":
        from impactreg.cli.models import SUBVERBS

        words = [*words, *(word for word in arguments[1:2] if word in {name for name, *_ in SUBVERBS})]
    return " ".join(("impactreg", *words))


def _leave_at_once(code: int) -> NoReturn:
    """Ends the process without taking PyTorch apart, which takes longer than somebody who pressed Ctrl-C waits."""
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def _how_to_go_on(arguments: Sequence[str]) -> str:
    """A registration with an output folder can be taken up again."""
    if _verb(arguments)[0] != "register" or "-out" not in arguments or "--check" in arguments:
        return ""
    return "; run the same command to go on" if "--resume" in arguments else "; add --resume to go on"


def _one_line(error: Exception) -> str:
    said = " ".join(str(error).split())
    if isinstance(error, ImpactregError):
        return said
    return f"internal error ({type(error).__name__}: {said}); --debug shows where"


def _complain(message: str, code: int) -> int:
    sys.stderr.write(f"impactreg: {'error: ' if code != 130 else ''}{message}\n")
    return code
