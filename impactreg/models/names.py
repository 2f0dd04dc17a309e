"""Names of models and their releases in the form of the Spinal Cord Toolbox, read by vocabulary and not by position."""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import date, datetime

from impactreg.errors import ModelError

Values = tuple[str, ...]

VOCABULARY: dict[str, Values] = {
    "task": ("seg", "label", "find"),
    "anatomy": ("sc", "gm", "wm", "csf", "brainstem", "axon", "myelin", "lesion", "canal", "disc", "rootlets"),
    "animal": ("human", "dog", "cat", "rat", "mouse", "monkey", "macaque", "pig"),
    "pathology": ("hc", "ms", "sci", "dcm"),
    "condition": ("invivo", "exvivo"),
    "contrast": ("t1", "t1w", "t2", "t2w", "t2star", "mp2rage", "psir", "stir", "epi", "dwi", "sem", "tem", "oi", "ct"),
    "architecture": ("unet2d", "unet3d", "filmCharley", "hemisAndreanne"),
}
"""The fields in the order in which a name has them, and their known values."""

DEFAULTS: dict[str, Values] = {
    "anatomy": ("sc",),
    "animal": ("human",),
    "pathology": ("hc",),
    "condition": ("invivo",),
    "architecture": ("unet2d",),
}
"""What a field is when a name does not say it; the others are empty then."""

_KNOWN = {value.lower(): (name, value) for name, values in VOCABULARY.items() for value in values}


@dataclass(frozen=True)
class ModelName:
    """What a model is for: `model_task_anatomy_animal_pathology_condition_contrast_architecture`.

    A field may have several values, written with `-` between them. `remarks` tells, one line each, where a name that
    was read deviates from this form.
    """

    task: Values = ()
    anatomy: Values = DEFAULTS["anatomy"]
    animal: Values = DEFAULTS["animal"]
    pathology: Values = DEFAULTS["pathology"]
    condition: Values = DEFAULTS["condition"]
    contrast: Values = ()
    architecture: Values = DEFAULTS["architecture"]
    remarks: Values = field(default=(), compare=False)

    @classmethod
    def parse(cls, text: str) -> "ModelName":
        """The fields of a name, whatever their order.

        A word that no vocabulary has is a further value of the field it is joined to by `-`; one that stands alone is
        an anatomy before any pathology or contrast, and a contrast after. Raises `ModelError` for an empty name.
        """
        reader = _Reader()
        for token in reader.tokens(text):
            reader.take(token)
        if not reader.found:
            raise ModelError(f"{text!r}: a model name has at least one word, such as model_seg_sc_t2")
        return cls(**{name: tuple(values) for name, values in reader.found.items()}, remarks=tuple(reader.remarks))


@dataclass(frozen=True, order=True)
class ReleaseTag:
    """The tag of a release: `r` and its day, such as r20240915; older ones may have a suffix, such as r20210401_v2."""

    day: date
    suffix: str = ""

    @classmethod
    def parse(cls, text: str) -> "ReleaseTag":
        """The day of a tag; raises `ModelError` for what is no tag or no day."""
        matched = re.fullmatch(r"r(\d{8})((?:_[\w.]+)?)", text, re.ASCII)
        try:
            if matched is None:
                raise ValueError(text)
            return cls(datetime.strptime(matched[1], "%Y%m%d").date(), matched[2].removeprefix("_"))
        except ValueError:
            raise ModelError(f"{text!r}: a release tag is r and a day, rYYYYMMDD, such as r20240915") from None

    def __str__(self) -> str:
        return f"r{self.day:%Y%m%d}" + (f"_{self.suffix}" if self.suffix else "")


def split_release(stem: str) -> tuple[str, ReleaseTag | None]:
    """A file's name without its ending as the model's name and the release, which is None where it has no valid tag."""
    matched = re.fullmatch(r"(.+)[-_](r\d{8}(?:_[\w.]+)?)", stem, re.ASCII)
    if matched is None:
        return stem, None
    try:
        return matched[1], ReleaseTag.parse(matched[2])
    except ModelError:
        return stem, None


class _Reader:
    """The fields found so far."""

    def __init__(self) -> None:
        self.found: dict[str, list[str]] = {}
        self.remarks: list[str] = []

    def tokens(self, text: str) -> Iterator[list[str]]:
        """The words of each part between underscores, without the `model` in front."""
        words = [[word.strip() for word in part.split("-")] for part in text.split("_")]
        if words[0][0].lower() == "model":
            if len(words[0]) > 1:
                self.remarks.append("the word model is joined to the next by '-' and not by '_'")
            words[0] = words[0][1:]
        else:
            self.remarks.append("the name does not start with model_")
        for number, token in enumerate(words):
            if number > 0 and "" in token:
                self.remarks.append("there is nothing between two separators")
            if filled := [word for word in token if word]:
                yield filled

    def take(self, token: list[str]) -> None:
        """Puts the values of a token in their fields."""
        fields = list(dict.fromkeys(_KNOWN[word.lower()][0] for word in token if word.lower() in _KNOWN))
        if len(fields) > 1:
            self.remarks.append(f"{'-'.join(token)} mixes {' and '.join(fields)}; write them with '_' between them")
        for word in token:
            own = fields[0] if len(fields) == 1 else None
            name, value = _KNOWN.get(word.lower(), (own or self._guess(), word))
            self._put(own or name, value, word)
            if word.lower() not in _KNOWN:
                self.remarks.append(f"{word} is in no vocabulary; it is taken as {own or name}")

    def _put(self, name: str, value: str, word: str) -> None:
        order = list(VOCABULARY)
        later = [other for other in self.found if order.index(other) > order.index(name)]
        if later:
            self.remarks.append(f"{word} ({name}) stands behind the {later[0]}, but belongs before it")
        if word.lower() in _KNOWN and _KNOWN[word.lower()][0] != name:
            self.remarks.append(f"{word} is no {name}")
        values = self.found.setdefault(name, [])
        if value not in values:
            values.append(value)

    def _guess(self) -> str:
        return "contrast" if {"pathology", "contrast"} & self.found.keys() else "anatomy"
