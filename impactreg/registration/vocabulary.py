"""What a parameter file can say: the kinds of components, their names, and the keys that each of them reads."""

import inspect
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache

import impactreg.components
from impactreg.components.component import available, kinds
from impactreg.parameters import Settings, describe
from impactreg.parameters.settings import KeyDescription
from impactreg.registration import elastix, elastix_keys, registrations
from impactreg.registration.registration import Registration

ROOMS = (*impactreg.components.__all__, *registrations.ROOMS)
"""The rooms of components, whose names are known because they are imported."""


@dataclass(frozen=True)
class Word:
    """A component: its kind and name, what it does (paragraphs of a docstring) and its keys."""

    kind: str
    name: str
    meaning: str
    keys: tuple[KeyDescription, ...]

    @property
    def caption(self) -> str:
        """The first sentence of what it does, without references."""
        first = " ".join(self.meaning.split("\n\n")[0].split())
        sentence = re.split(r"\. (?=[A-Z`])", re.sub(_REFERENCE, "", first))[0]
        return sentence.rstrip(".")


_REFERENCE = re.compile(r" \([^()]*(?:`\w+::|\d{4})[^()]*\)")


@cache
def vocabulary() -> Mapping[str, Mapping[str, Word]]:
    """Each kind as a parameter file spells it, with its components by name, both in alphabetical order."""
    words: dict[str, dict[str, Word]] = {}
    for word in sorted(_words(), key=lambda each: (each.kind, each.name)):
        words.setdefault(word.kind, {})[word.name] = word
    return words


def only_elastix(kind: str) -> tuple[str, ...]:
    """The components of a kind that itk-elastix has and the PyTorch loop lacks, in alphabetical order."""
    return tuple(sorted(elastix.COMPONENTS.get(kind, frozenset()) - set(vocabulary().get(kind, ()))))


def elastix_reads(kind: str, name: str) -> tuple[str, ...]:
    """The keys that a component of itk-elastix reads, in alphabetical order; `<i>` and `<level>` stand for numbers."""
    return tuple(sorted(elastix_keys.keys_of_component(kind, name)))


def readers(key: str) -> list[Word]:
    """The components that read a key."""
    return [
        word for words in vocabulary().values() for word in words.values() if any(key == each.key for each in word.keys)
    ]


def _words() -> Iterator[Word]:
    for kind in kinds():
        for name, component in available(kind).items():
            side = "" if kind != "ImagePyramid" else "Fixed" if name.startswith("Fixed") else "Moving"
            meaning = inspect.getdoc(component) or ""
            reads = component.reads if issubclass(component, Registration) else (component.Settings,)
            yield Word(side + kind, name, meaning, _keys(side + kind, *reads))


def _keys(kind: str, *settings: type[Settings]) -> tuple[KeyDescription, ...]:
    """The keys of some settings, each once, but for those of the other image's pyramid and for names of kinds."""
    other = {"FixedImagePyramid": "MovingImagePyramid", "MovingImagePyramid": "FixedImagePyramid"}.get(kind)
    found = {each.key: each for one in settings for each in describe(one)}
    return tuple(
        each
        for key, each in found.items()
        if not (other and key.startswith(other)) and (kind == "Registration" or key not in elastix.COMPONENTS)
    )
