"""`impactreg components [KIND [NAME]]`: what a parameter file can name, and the keys of each component."""

import shutil
import sys
from collections.abc import Iterable, Iterator, Sequence
from textwrap import wrap
from typing import TYPE_CHECKING

from impactreg.cli.arguments import Parser, UsageError, nearest

if TYPE_CHECKING:
    from impactreg.parameters.settings import KeyDescription
    from impactreg.registration.vocabulary import Word

WIDTH = 100
BOLD, FAINT = "1", "2"
READ = {
    "resolution": "a value for each resolution",
    "registration": "one value",
    "list": "all values count",
    "dimension": "a value for each dimension",
    "resolution, in the key": "values for the resolution that ends the key",
    "resolution and dimension": "a value for each resolution and dimension",
}
"""What is said of the ways in which a key's values are read."""


def run(arguments: Sequence[str]) -> None:
    """Prints all kinds, or the components of one, or the keys of one component, or who reads a key."""
    words = parser().read(arguments).words
    if len(words) > 2:
        parser().error("one kind and one name are understood at most, such as components Metric Impact")
    lines = told_kinds() if not words else told_kind(words[0]) if len(words) == 1 else told_word(words[0], words[1])
    sys.stdout.write("\n".join(lines) + "\n")


def parser() -> Parser:
    """The flags."""
    result = Parser(
        "impactreg components",
        "Tells what a parameter file can name and which keys are read.",
        "examples:\n  impactreg components\n  impactreg components Metric\n  impactreg components Metric Impact\n"
        "  impactreg components NumberOfSpatialSamples",
    )
    result.add_argument(
        "words", nargs="*", metavar="KIND [NAME]", help="a kind of component, its name; or a name or a key alone"
    )
    return result


def told_kinds() -> Iterator[str]:
    """Every kind with the names of its components."""
    from impactreg.registration.vocabulary import vocabulary

    for kind, words in vocabulary().items():
        yield painted(kind, BOLD)
        yield from wrapped(", ".join(words), 4)
        yield from _told_others(kind)


def told_kind(written: str) -> Iterator[str]:
    """The components of a kind with a line for each; or, for a word that is no kind, the component or key it names."""
    from impactreg.registration.vocabulary import only_elastix, readers, vocabulary

    if written in vocabulary():
        yield from _told_components(written)
        return
    named = [kind for kind, words in vocabulary().items() if written in words or written in only_elastix(kind)]
    if named:
        yield from told_word(named[0], written)
    elif found := readers(written):
        yield from _told_readers(written, found)
    else:
        names = [name for words in vocabulary().values() for name in words]
        keys = {key.key for words in vocabulary().values() for word in words.values() for key in word.keys}
        near = nearest(written, list(vocabulary())) or nearest(written, [*names, *keys])
        raise UsageError(f"there is no kind {written}{near or '; there are ' + ', '.join(vocabulary())}")


def told_word(kind: str, name: str) -> Iterator[str]:
    """What a component is for and each of its keys; of one that only itk-elastix has, the names of its keys."""
    from impactreg.registration.vocabulary import only_elastix, vocabulary

    if kind not in vocabulary():
        raise UsageError(f"there is no kind {kind}{nearest(kind, list(vocabulary()))}")
    if name in only_elastix(kind):
        yield from _told_elastix(kind, name)
        return
    words = vocabulary()[kind]
    if name not in words:
        near = nearest(name, [*words, *only_elastix(kind)])
        raise UsageError(f"there is no {kind} {name}{near or '; there are ' + ', '.join(words)}")
    yield painted(f'({kind} "{name}")', BOLD)
    for paragraph in words[name].meaning.split("\n\n"):
        yield from wrapped(plain(paragraph), 2)
    yield from _told_keys(words[name].keys)
    if kind != "Registration":
        yield from ("", *wrapped(_ADVICE.format(kind=kind), 0))


def painted(text: str, style: str) -> str:
    """The text in a style, on a terminal."""
    return f"\033[{style}m{text}\033[0m" if sys.stdout.isatty() else text


def wrapped(text: str, indent: int, hanging: int | None = None) -> list[str]:
    """Lines of the text that fit the terminal, of 100 columns at most."""
    width = min(WIDTH, shutil.get_terminal_size((WIDTH, 24)).columns)
    rest = " " * (indent if hanging is None else hanging)
    return wrap(
        " ".join(text.split()), width, initial_indent=" " * indent, subsequent_indent=rest, break_on_hyphens=False
    )


def plain(text: str) -> str:
    """Text without the quotes of a docstring."""
    return text.replace("`", "")


_ADVICE = (
    "A key behind a label, as in {kind}0Key, counts for that one of several alone. What is read whatever the "
    "components are: impactreg components Registration MultiResolutionRegistration"
)


def _told_components(kind: str) -> Iterator[str]:
    from impactreg.registration.vocabulary import vocabulary

    words = vocabulary()[kind]
    column = min(max(map(len, words)) + 4, 40)
    for name, word in words.items():
        lines = wrapped(plain(word.caption), column)
        beside = len(name) + 4 <= column
        yield f"  {painted(name, BOLD)}{lines[0][len(name) + 2 :] if beside else ''}"
        yield from lines[1:] if beside else lines
    yield from _told_others(kind, 2)


def _told_others(kind: str, indent: int = 4) -> list[str]:
    from impactreg.registration.vocabulary import only_elastix

    others = only_elastix(kind)
    return wrapped(f"by itk-elastix alone: {', '.join(others)}", indent) if others else []


def _told_keys(keys: "Iterable[KeyDescription]") -> Iterator[str]:
    for each in keys:
        yield from ("", f"  {painted(each.key, BOLD)}", *wrapped(plain(each.meaning), 4))
        default = f"default {each.default}" if each.default else "no default"
        facts = f"{each.type}; {default}; {READ.get(each.per, each.per)}"
        yield from (painted(line, FAINT) for line in wrapped(facts, 4))


def _told_readers(key: str, found: "Sequence[Word]") -> Iterator[str]:
    described = next(each for each in found[0].keys if each.key == key)
    yield from _told_keys([described])
    yield from ("", *wrapped("read by " + ", ".join(f"{word.kind} {word.name}" for word in found), 2, 4))


def _told_elastix(kind: str, name: str) -> Iterator[str]:
    from impactreg.registration.vocabulary import elastix_reads

    yield painted(f'({kind} "{name}")', BOLD)
    yield "  Only itk-elastix has it: use --engine elastix. It reads:"
    yield from wrapped(", ".join(elastix_reads(kind, name)) or "no keys of its own", 4)
