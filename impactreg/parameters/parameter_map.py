"""A parameter map: what one parameter file says, unchangeable, in its order, and knowing the line of every key."""

import os
import secrets
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, Protocol, Self, runtime_checkable

from impactreg.errors import OutputError, ParameterError
from impactreg.parameters import grammar
from impactreg.parameters.casting import cast, to_numbers, to_text
from impactreg.parameters.defaults import default_values
from impactreg.parameters.grammar import Entry


class Found(NamedTuple):
    """One value as it was looked up: under which key, at which place in its list, and its text."""

    key: str
    place: int
    value: str


@runtime_checkable
class ItkParameterObject(Protocol):
    """The part of `itk.ParameterObject` from which parameter maps are taken."""

    def GetNumberOfParameterMaps(self) -> int: ...  # noqa: D102, N802
    def GetParameterMap(self, index: int, /) -> Mapping[str, Iterable[str]]: ...  # noqa: D102, N802


@dataclass(frozen=True, eq=False, repr=False, slots=True)
class ParameterMap(Mapping[str, tuple[str, ...]]):
    """Keys with their values, all of them text, as a parameter file or elastix's `ParameterObject` holds them.

    A mapping from key to the tuple of its values; two maps are equal when keys and values are. Make one with `read`,
    `from_dict`, `from_itk` or `default`; change one by making another with `replace` or `without`.
    """

    entries: Mapping[str, Entry]
    source: Path | None = None
    name: str = "parameter map"

    def __getitem__(self, key: str) -> tuple[str, ...]:
        return self.entries[key].values

    def __iter__(self) -> Iterator[str]:
        return iter(self.entries)

    def __len__(self) -> int:
        return len(self.entries)

    def __eq__(self, other: object) -> bool:
        return dict(self) == dict(other) if isinstance(other, ParameterMap) else NotImplemented

    def __hash__(self) -> int:
        return hash(frozenset(self.items()))

    def __repr__(self) -> str:
        return f"<ParameterMap {self.name}: {len(self)} keys>"

    @classmethod
    def read(cls, path: str | os.PathLike[str]) -> Self:
        """Read a parameter file; its name must end in .txt or .toml.

        Raises ParameterError, `file.txt:14: ...`, when the file cannot be read or a line of it is wrong.
        """
        path = Path(path)
        parse = _PARSERS.get(path.suffix)
        if parse is None:
            raise ParameterError(f"{path}: the name of a parameter file must end in .txt or .toml")
        return cls(parse(_text_of(path), str(path)), path, str(path))

    @classmethod
    def from_dict(cls, values: Mapping[str, object], source: str | Path = "") -> Self:
        """Make a map of plain Python values: a text, boolean, number, or list, tuple or array of these a key.

        An empty text is no value, like empty quotes in a file. `source` is the name of the map in messages; given as a
        Path it is also the file next to which others are looked for. Raises ParameterError for a value of another type.
        """
        name = str(source) or "parameter map"
        entries = {key: Entry(_texts(key, value, name)) for key, value in values.items()}
        return cls(entries, source if isinstance(source, Path) else None, name)

    @classmethod
    def from_itk(cls, parameter_object: ItkParameterObject) -> list[Self]:
        """Take all maps of an `itk.ParameterObject`."""
        maps = [parameter_object.GetParameterMap(i) for i in range(parameter_object.GetNumberOfParameterMaps())]
        return [
            cls.from_dict({key: tuple(values) for key, values in each.items()}, f"parameter map {number}")
            for number, each in enumerate(maps)
        ]

    @classmethod
    def default(cls, name: str, levels: int = 4) -> Self:
        """Give elastix's own default map "translation", "rigid", "affine" or "bspline" for a number of resolutions."""
        return cls.from_dict(default_values(name, levels), f"default {name} map")

    def to_dict(self) -> dict[str, list[str]]:
        """Give the keys and the lists of their values, as `itk.ParameterObject.SetParameterMap` takes them."""
        return {key: list(values) for key, values in self.items()}

    def text(self) -> str:
        """Write the map as the text of a .txt parameter file, in its own order, quoting as elastix does."""
        return grammar.write(dict(self), self.name)

    def write(self, path: str | os.PathLike[str]) -> None:
        """Write a .txt or .toml file, whole or not at all.

        Raises OutputError when the file cannot be written, ParameterError when .txt cannot hold some value.
        """
        path = Path(path)
        if path.suffix not in _PARSERS:
            raise OutputError(f"{path}: the name of a parameter file must end in .txt or .toml")
        text = self.text() if path.suffix == ".txt" else grammar.write_toml(dict(self))
        _write_whole(path, text)

    def replace(self, changes: Mapping[str, object] | None = None, /, **more: object) -> Self:
        """Make a map with other values for some keys, known or new; a known key keeps its place."""
        new = type(self).from_dict({**(changes or {}), **more}, self.name)
        return type(self)({**self.entries, **new.entries}, self.source, self.name)

    def without(self, *keys: str) -> Self:
        """Make a map that lacks some keys, whether this one has them or not."""
        kept = {key: entry for key, entry in self.entries.items() if key not in keys}
        return type(self)(kept, self.source, self.name)

    def find(self, key: str, level: int = 0, label: str = "") -> Found | None:
        """Look a value up as elastix does, and tell where it was.

        In this order: LABELkey[level], LABELkey[0], key[level], key[0]. The label is that of a component, such as
        `Metric0`; only the first entry stands in for a missing one. A key without values counts as absent.
        (Source: elastix, `itkParameterMapInterface.h`.)
        """
        for name in (label + key, key) if label else (key,):
            entry = self.entries.get(name)
            if entry and entry.values:
                index = level if level < len(entry.values) else 0
                return Found(name, index, entry.values[index])
        return None

    def lookup(self, key: str, level: int = 0, label: str = "") -> str | None:
        """Look a value up as `find` does; None when it is absent."""
        found = self.find(key, level, label)
        return found.value if found else None

    def first(self, key: str, default: str = "") -> str:
        """Give the first value of a key, or the default when there is none."""
        found = self.find(key)
        return found.value if found else default

    def numbers(self, key: str) -> tuple[float, ...]:
        """Give all values of a key as numbers; fast for hundreds of thousands of them, and () for an absent key.

        Raises ParameterError for a value that is not a number.
        """
        texts = self.get(key, ())
        plain = to_numbers(texts)
        return plain if plain is not None else tuple(self._number(key, i, text) for i, text in enumerate(texts))

    def where(self, key: str) -> str:
        """Tell where a key stands, `file.txt:14`; the name of the map when it comes from no line of a file."""
        entry = self.entries.get(key)
        return f"{self.name}:{entry.line}" if entry and entry.line else self.name

    def error(self, key: str, reason: str, index: int | None = None) -> ParameterError:
        """Make the error that says what is wrong with a key, or with the value at one place of its list.

        `bspline.txt:14: (NumberOfSpatialSamples 2000.5): a whole number is needed`
        """
        values = self.get(key, ())
        shown = grammar.excerpt(f"({' '.join([key, *map(grammar.quoted, values[:100])])})") if values else f"({key})"
        if index is not None and len(values) > 1:
            reason = f"value {index + 1}, {grammar.excerpt(grammar.quoted(values[index]))}: {reason}"
        return ParameterError(f"{self.where(key)}: {shown}: {reason}")

    def _number(self, key: str, index: int, text: str) -> float:
        try:
            return float(cast(text, float))
        except ValueError as error:
            raise self.error(key, str(error), index) from None


_PARSERS = {".txt": grammar.parse, ".toml": grammar.parse_toml}


def _text_of(path: Path) -> str:
    try:
        return path.read_bytes().decode("utf-8")
    except UnicodeDecodeError as error:
        line = error.object.count(b"\n", 0, error.start) + 1
        raise ParameterError(f"{path}:{line}: this is not text in UTF-8; save the file as UTF-8") from None
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise ParameterError(f"{path}: the parameter file cannot be read: {reason}") from None


def _write_whole(path: Path, text: str) -> None:
    part = path.with_name(f".{path.name}.{secrets.token_hex(4)}.part")
    try:
        try:
            part.write_text(text, encoding="utf-8", newline="\n")
            part.replace(path)
        finally:
            part.unlink(missing_ok=True)
    except (OSError, UnicodeError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise OutputError(f"{path}: the parameter file cannot be written: {reason}") from None


def _texts(key: str, value: object, name: str) -> tuple[str, ...]:
    if hasattr(value, "tolist"):
        value = value.tolist()
    values = value if isinstance(value, (list, tuple)) else [value]
    try:
        return tuple(filter(None, map(to_text, values)))
    except (TypeError, ValueError) as error:
        raise ParameterError(f"{name}: {grammar.excerpt(key)}: {error}") from None
