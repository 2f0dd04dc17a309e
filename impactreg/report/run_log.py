"""elastix.log read back: how a registration was called, with what, how long it took and why it stopped."""

import re
import shlex
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import groupby, takewhile
from pathlib import Path

from impactreg.errors import ParameterError
from impactreg.parameters import ParameterMap, grammar

_OURS = re.compile(r"parameter map ?(.*):")
_NAMED = re.compile(r"Parameter map \d+: (.+)")
_BEGIN = re.compile(r"=+ start of ParameterMap:? ?(.*?) ?=+")
_END = re.compile(r"=+ end of ParameterMap:? ?(.*?) ?=+")
_FLAG = re.compile(r"-(f\d?|m\d?|fp|mp)\s+(\S.*)")
_STOP = "Stopping condition: "
_SAVED = "The transform is saved in "
_TOOK = re.compile(r"(?:the registration took|Total time elapsed:) ([\d.]+)\s?s")


@dataclass(frozen=True)
class RunLog:
    """What a log says; all of it is empty where there is no log.

    `facts` are the lines `name: value` at its head, `command` the words of the command line, `flags` what elastix's
    own log tells of its flags, `stop_reasons` those of each stage, `seconds` how long the whole took.
    """

    facts: Mapping[str, str] = field(default_factory=dict)
    command: tuple[str, ...] = ()
    flags: Mapping[str, str] = field(default_factory=dict)
    parameter_maps: tuple[ParameterMap, ...] = ()
    stop_reasons: tuple[tuple[str, ...], ...] = ()
    seconds: float | None = None

    @classmethod
    def read(cls, path: Path) -> "RunLog":
        """The log in a file of ours or of elastix; what is not understood is left out."""
        try:
            lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
        except OSError:
            return cls()
        facts = dict(_facts(lines))
        return cls(
            facts,
            _words(facts.get("command line", "")),
            {m[1]: m[2].strip() for line in lines if (m := _FLAG.fullmatch(line)) and "unspecified" not in m[2]},
            tuple(_maps(lines)),
            tuple(_stops(lines)),
            next((float(m[1]) for line in reversed(lines) if (m := _TOOK.search(line))), None),
        )

    def given(self, flag: str) -> tuple[str, ...]:
        """What the command line gave after a flag such as `-f`, which may also be written `-f0`."""
        for name in (flag, f"{flag}0"):
            if name in self.command:
                rest = self.command[self.command.index(name) + 1 :]
                return tuple(takewhile(lambda word: not re.match(r"-+[A-Za-z]", word), rest))
            if name[1:] in self.flags:
                return (self.flags[name[1:]],)
        return ()


def _facts(lines: Sequence[str]) -> Iterator[tuple[str, str]]:
    for number, line in enumerate(takewhile(str.strip, lines)):
        name, colon, value = line.partition(": ")
        if number == 0 and line.startswith("impactreg "):
            yield "impactreg", line.removeprefix("impactreg ").split(",")[0]
        elif colon and re.fullmatch(r"[a-z ]{3,20}", name):
            yield name, value
    elastix = next((line for line in lines if line.startswith("ELASTIX version: ")), None)
    if elastix:
        yield "elastix", elastix.partition(": ")[2]


def _words(command: str) -> tuple[str, ...]:
    try:
        return tuple(shlex.split(command))
    except ValueError:
        return tuple(command.split())


def _maps(lines: Sequence[str]) -> Iterator[ParameterMap]:
    """The parameter maps as the pipeline tells them, or, of elastix's own logs, as elastix does."""
    for name, text in list(_told_by_us(lines)) or _told_by_elastix(lines):
        with suppress(ParameterError):
            entries = grammar.parse(text, name or "parameter map")
            yield ParameterMap(entries, Path(name) if name else None, name or "parameter map")


def _told_by_us(lines: Sequence[str]) -> Iterator[tuple[str, str]]:
    for number, line in enumerate(lines):
        if found := _OURS.fullmatch(line):
            rest = takewhile(lambda each: each.startswith("("), lines[number + 1 :])
            yield found[1], "\n".join(rest)


def _told_by_elastix(lines: Sequence[str]) -> Iterator[tuple[str, str]]:
    for number, line in enumerate(lines):
        if found := _BEGIN.fullmatch(line):
            rest = takewhile(lambda each: not _END.fullmatch(each), lines[number + 1 :])
            before = _NAMED.fullmatch(lines[number - 1]) if number else None
            yield found[1] or (before[1] if before else ""), "\n".join(rest)


def _stops(lines: Sequence[str]) -> Iterator[tuple[str, ...]]:
    """For each stage its reasons to stop; a stage ends where its transform is saved."""
    told = [line for line in lines if line.startswith((_STOP, _SAVED))]
    for is_stop, group in groupby(told, key=lambda line: line.startswith(_STOP)):
        if is_stop:
            yield tuple(line.removeprefix(_STOP) for line in group)
