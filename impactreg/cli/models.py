"""`impactreg models list|info|fetch|check|export ...`: the models that turn images into features."""

import sys
from argparse import Namespace
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib import import_module
from typing import TYPE_CHECKING

from impactreg.cli.arguments import Parser, UsageError, add_common_flags, nearest
from impactreg.cli.components import BOLD, painted, wrapped
from impactreg.errors import ModelError

if TYPE_CHECKING:
    from impactreg.models.cards import CardFile, ModelCard
    from impactreg.models.downloads import Progress
    from impactreg.models.fetching import Store

SUBVERBS: tuple[tuple[str, str, str], ...] = (
    ("list", "impactreg.cli.models", "tells which models are known, and which are on this machine"),
    ("info", "impactreg.cli.model_files", "tells all about a model: its card, and what its file does"),
    ("fetch", "impactreg.cli.models", "downloads models, checks them and records their checksums"),
    ("check", "impactreg.cli.model_files", "tries whether a model file can be used, and prints its parameter lines"),
    ("export", "impactreg.cli.model_files", "makes a model file from a PyTorch module"),
    ("pack", "impactreg.cli.packages", "makes a package of an nnU-Net training"),
    ("install", "impactreg.cli.packages", "unpacks packages of nnU-Net models, with a record of where they came from"),
    ("convert", "impactreg.cli.packages", "makes a model file of an nnU-Net model"),
)
"""Each word after `models`, the module with its `run_<word>(arguments)`, and what it does."""

EXAMPLES = """examples:
  impactreg models list
  impactreg models fetch TS/M730
  impactreg models info MIND/R1D2_3D
  impactreg models check my_model.pt
  impactreg models export my_package.nets:Encoder --example 1,1,32,32,32 -out encoder.pt"""


def run(arguments: Sequence[str]) -> None:
    """Runs one of the sub-verbs; raises `UsageError` or an `ImpactregError`."""
    known = {name: module for name, module, _ in SUBVERBS}
    if not arguments or arguments[0] in ("-h", "--help"):
        parser().print_help()
        return
    word, *rest = arguments
    if word not in known:
        raise UsageError(f"there is no models {word}{nearest(word, list(known)) or '; there are ' + ', '.join(known)}")
    getattr(import_module(known[word]), f"run_{word}")(rest)


def parser() -> Parser:
    """What `impactreg models --help` tells."""
    words = "\n".join(f"  {name:<10}{what}" for name, _, what in SUBVERBS)
    return Parser(
        "impactreg models",
        f"The models that turn images into features.\n\n{words}",
        f"{EXAMPLES}\n\nimpactreg models WORD --help tells the flags of each.",
    )


def subparser(word: str, caption: str, examples: str) -> Parser:
    """A parser for one sub-verb, with what all of them take."""
    result = Parser(f"impactreg models {word}", caption, f"examples:\n{examples}")
    add_common_flags(result, level="warning", threads=False)
    return result


def run_list(arguments: Sequence[str]) -> None:
    """Prints a row for each known model file."""
    parser = subparser(
        "list",
        "Tells which models are known, and which are on this machine.",
        "  impactreg models list\n  impactreg models list TS\n  impactreg models list --verify",
    )
    parser.add_argument("families", nargs="*", metavar="FAMILY", help="only these families, such as TS or MIND")
    parser.add_argument("--verify", action="store_true", help="read the fetched files and compare their checksums")
    options = parser.read(arguments)
    with _messages(options):
        sys.stdout.write("\n".join(_listed(options.families, options.verify)) + "\n")


def run_fetch(arguments: Sequence[str]) -> None:
    """Downloads what the arguments name."""
    parser = subparser(
        "fetch",
        "Downloads models, checks them and records their checksums in models.lock.toml.",
        "  impactreg models fetch TS/M730\n  impactreg models fetch SAM2.1 MRSeg\n"
        "  impactreg models fetch TS/M291 --mirror https://files.example.org/impact",
    )
    add = parser.add_argument
    add("names", nargs="+", metavar="NAME", help="a file such as TS/M730, or a whole family such as SAM2.1")
    add("--mirror", metavar="URL", help="address under which the files lie as TS/M730.pt; default IMPACTREG_MIRROR")
    add("--offline", action="store_true", default=None, help="use what is on this machine; default IMPACTREG_OFFLINE")
    add("--renew", action="store_true", help="forget the recorded checksum and take what is there now")
    options = parser.read(arguments)
    with _messages(options):
        for card, file in _chosen(options.names):
            _fetch(card, file, options)


def _listed(families: Sequence[str], verify: bool) -> Iterator[str]:
    from impactreg.models.cards import cards
    from impactreg.models.catalogue import store

    known = {card.family.lower(): card for card in cards()}
    for family in families:
        if family.lower() not in known:
            raise UsageError(f"there is no family {family}{nearest(family, [card.family for card in known.values()])}")
    chosen = [known[family.lower()] for family in families] or list(known.values())
    for number, card in enumerate(chosen):
        yield from ([""] if number else [])
        yield painted(f"{card.family}: {card.title}", BOLD)
        yield from (_row(card, file, store(), verify) for file in card.files)
    yield ""
    yield from wrapped(f"Fetched models are in {store().folder}; their checksums are in {store().lock.path}.", 0)


def _row(card: "ModelCard", file: "CardFile", store: "Store", verify: bool) -> str:
    state = "built-in" if card.source == "built-in" else store.state(file, verify=verify) or "-"
    layers = f"{len(file.layers)} layer{'s' if len(file.layers) > 1 else ''}"
    voxel = f"{file.voxel_size:g} mm" if file.voxel_size else ""
    facts = (
        f"{file.dimension}D  {file.input_channels} ch  {layers:<9} {voxel:<7} {file.modality or ''}  {file.title or ''}"
    )
    return f"  {file.path:<22} {state:<9} {facts}".rstrip()


def _chosen(names: Sequence[str]) -> Iterator[tuple["ModelCard", "CardFile"]]:
    from impactreg.models.cards import cards, known
    from impactreg.models.cards import names as all_names

    families = {card.family.lower(): card for card in cards()}
    for name in names:
        if card := families.get(name.lower()):
            yield from ((card, file) for file in card.files)
        elif found := known(name):
            yield found
        else:
            near = nearest(name, [*(card.family for card in families.values()), *all_names()])
            raise ModelError(f"there is no model {name}{near}; impactreg models list tells all")


def _fetch(card: "ModelCard", file: "CardFile", options: Namespace) -> None:
    from impactreg.models.catalogue import locate, store

    if card.source == "built-in":
        sys.stdout.write(f"{file.path}: built-in: {locate(file.path)}\n")
        return
    with progress_bar(file.path) as progress:
        found = store().fetch(
            card, file, mirror=options.mirror, offline=options.offline, renew=options.renew, progress=progress
        )
    how = "fetched" if found.downloaded else "is here already"
    sys.stdout.write(f"{file.path}: {how}: {found.path}\n  sha256 {found.record.sha256}, {found.record.size} bytes\n")
    sys.stdout.write(f"  licence {card.licence or 'not known'}; {' '.join(card.citation.split())}\n")


@contextmanager
def progress_bar(name: str) -> Iterator["Progress"]:
    """A progress bar on a terminal; elsewhere nothing, for the result says it all."""
    from impactreg.models.downloads import unseen

    if not sys.stdout.isatty():
        yield unseen
        return
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TimeRemainingColumn())
    with Progress(*columns, transient=True) as bars:
        task = bars.add_task(name, total=None)
        yield lambda here, total: bars.update(task, completed=here, total=total)


@contextmanager
def _messages(options: Namespace) -> Iterator[None]:
    from impactreg.cli.console import console

    with console(options.loglevel):
        yield
