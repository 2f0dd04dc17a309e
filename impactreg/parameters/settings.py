"""Typed settings: a parameter map read into a frozen class whose fields are elastix keys.

A component says what it reads in one class; from it come reading, checking, defaults and the tables of keys:

    class RandomSettings(Settings):
        number_of_spatial_samples: int = Field(5000, ge=1, description="How many samples an iteration takes.")
        sp_a: float = Field(400.0, alias="SP_a", gt=0, description="Numerator of the step size.")
        direction: Annotated[bool, Once] = Field(True, alias="UseDirectionCosines", description="...")

    RandomSettings.read(parameters, level=1, label="ImageSampler0").number_of_spatial_samples
    RandomSettings(number_of_spatial_samples=2000)

The key of a field is its name in PascalCase, or its alias; `<i>` in an alias is the number in the component's label.
How it takes its values is a marker of `reading`; the bounds of `Field` hold for files and Python alike. Every mistake
is a ParameterError of one line, `bspline.txt:14: (NumberOfSpatialSamples 2000.5): a whole number is needed`.
"""

import re
from collections.abc import Iterable, Mapping
from typing import Any, Literal, NamedTuple, Self, get_args, get_origin

from pydantic import BaseModel, ConfigDict, ModelWrapValidatorHandler, ValidationError, ValidationInfo, model_validator
from pydantic.alias_generators import to_pascal
from pydantic.fields import FieldInfo

from impactreg.errors import ParameterError
from impactreg.parameters.casting import cast, nearest, scalar_type, to_text
from impactreg.parameters.complaints import Refused, first_complaint
from impactreg.parameters.grammar import excerpt
from impactreg.parameters.parameter_map import Found, ParameterMap
from impactreg.parameters.reading import (
    ImageDimension,
    LevelSuffix,
    Once,
    PerDimension,
    PerLevel,
    Reading,
    Request,
    WholeList,
)

__all__ = [
    "ImageDimension",
    "KeyDescription",
    "LevelSuffix",
    "Once",
    "PerDimension",
    "PerLevel",
    "Refused",
    "Settings",
    "Unknown",
    "WholeList",
    "describe",
    "keys_of",
    "unknown_keys",
]


class Settings(BaseModel):
    """The settings of a component; abstract. Frozen; a field is one elastix key with its type, bounds and default."""

    model_config = ConfigDict(
        frozen=True, strict=True, extra="forbid", allow_inf_nan=False, alias_generator=to_pascal, populate_by_name=True
    )

    @classmethod
    def read(cls, parameters: ParameterMap, *, level: int = 0, label: str = "", dimension: int = 3) -> Self:
        """Read the settings of one component for one resolution.

        `level` is the resolution, 0 being the coarsest; `label` the component's kind and number, such as `Metric0`;
        `dimension` that of the fixed image. Raises ParameterError for a value that does not fit its field.
        """
        request = Request(level, label, dimension)
        found = {name: _find(parameters, field, request) for name, field in cls.model_fields.items()}
        origin = _Origin(cls, parameters, found, request)
        try:
            values = {name: _value(name, cls.model_fields[name], found[name], request) for name in found}
        except Refused as refused:
            raise origin.error(refused) from None
        return cls.model_validate(values, context=origin)

    def check(self) -> None:
        """Hold the rules between fields: a subclass raises `Refused("field_name", "what is needed")`."""

    @model_validator(mode="wrap")
    @classmethod
    def _complain_in_one_line(cls, data: Any, handler: ModelWrapValidatorHandler[Self], info: ValidationInfo) -> Self:
        given = {name: _plain(value) for name, value in data.items()} if isinstance(data, Mapping) else data
        try:
            settings = handler(given)
            settings.check()
        except ValidationError as error:
            refused = first_complaint(error, cls.model_fields)
        except Refused as error:
            refused = error
        else:
            return settings
        origin = info.context if isinstance(info.context, _Origin) else None
        raise (origin.error(refused) if origin else _error_in_call(cls, given, refused)) from None

    @classmethod
    def __pydantic_init_subclass__(cls, **_: Any) -> None:
        for name, field in cls.model_fields.items():
            if not field.description or field.is_required():
                raise TypeError(f"{cls.__name__}.{name} needs a description and a default")
            scalar_type(_value_type(field))


class KeyDescription(NamedTuple):
    """One line of a table of keys: the key, its type, its default, its meaning, and for what there is one value."""

    key: str
    type: str
    default: str
    meaning: str
    per: str


def describe(settings: type[Settings]) -> list[KeyDescription]:
    """Describe all keys of a settings class, in its order, for tables in documentation."""
    return [
        KeyDescription(
            key=spelling_of(field),
            type=_type_words(field),
            default=_default_words(field.default),
            meaning=field.description or "",
            per=reading_of(field).per,
        )
        for field in settings.model_fields.values()
        if reading_of(field).is_key
    ]


def keys_of(*settings: type[Settings]) -> set[str]:
    """Give the keys that some settings read; `<i>` in one stands for a number, `<level>` for a number or nothing."""
    return {key.key for each in settings for key in describe(each)}


class Unknown(NamedTuple):
    """A key that nobody reads, where it stands, and the spelling that may have been meant ("" when none is near)."""

    key: str
    where: str
    suggestion: str


def unknown_keys(parameters: ParameterMap, known: Iterable[str]) -> list[Unknown]:
    """Find the keys of a map that are not among `known`, as `keys_of` gives them, behind a component's label or not.

    A spelling that the map has already is suggested for a slip of the pen alone.
    """
    known = sorted(known)
    spelled = "|".join(map(re.escape, known)).replace("<i>", r"\d+").replace("<level>", r"\d*")
    pattern = re.compile(f"(?:{_LABEL})?(?:{spelled})")
    free = [key for key in known if key not in parameters]
    return [
        Unknown(key, parameters.where(key), _suggestion(key, known, 0.95) or _suggestion(key, free))
        for key in parameters
        if not pattern.fullmatch(key)
    ]


def key_of(field: FieldInfo) -> str:
    """Give the elastix key of a field."""
    return field.validation_alias if isinstance(field.validation_alias, str) else field.alias or ""


def reading_of(field: FieldInfo) -> type[Reading]:
    """Give the way in which a field takes its values."""
    markers = [each for each in field.metadata if isinstance(each, type) and issubclass(each, Reading)]
    return markers[0] if markers else PerLevel


def spelling_of(field: FieldInfo) -> str:
    """Give the key of a field as `keys_of` does."""
    return key_of(field) + ("<level>" if reading_of(field) is LevelSuffix else "")


class _Origin(NamedTuple):
    """Where settings are read from: the map, and what was found there for each field."""

    settings: type[Settings]
    parameters: ParameterMap
    found: Mapping[str, list[Found]]
    request: Request

    def error(self, refused: Refused) -> ParameterError:
        """Tell file, line and value of what was refused."""
        name = _name_of(self.settings, refused.field)
        found = self.found.get(name, [])
        if not found:
            field = self.settings.model_fields[name]
            return self.parameters.error(_key_for(field, self.request), refused.reason)
        at = found[refused.place if refused.place is not None and refused.place < len(found) else 0]
        place = at.place if refused.place is not None or len(found) == 1 else None
        return self.parameters.error(at.key, refused.reason, place)


def _key_for(field: FieldInfo, request: Request) -> str:
    key = key_of(field).replace("<i>", _number_of(request.label))
    return f"{key}{request.level}" if reading_of(field) is LevelSuffix else key


def _number_of(label: str) -> str:
    return label[len(label.rstrip("0123456789")) :] or "0"


def _find(parameters: ParameterMap, field: FieldInfo, request: Request) -> list[Found]:
    key = key_of(field)
    if "<i>" in key:
        key, request = _key_for(field, request), request._replace(label="")
    return reading_of(field).find(parameters, key, request)


def _value(name: str, field: FieldInfo, found: list[Found], request: Request) -> Any:
    """Cast what was found, or take the default."""
    if not found:
        return reading_of(field).default(field.get_default(call_default_factory=True), request)
    values = []
    for place, each in enumerate(found):
        try:
            values.append(cast(each.value, _value_type(field)))
        except ValueError as error:
            raise Refused(name, str(error), place) from None
    return tuple(values) if reading_of(field).many else values[0]


def _value_type(field: FieldInfo) -> Any:
    """Give the type of one value; a field of many values is a tuple of them."""
    if not reading_of(field).many:
        return field.annotation
    if get_origin(field.annotation) is not tuple:
        raise TypeError(f"a field of many values must be a tuple[..., ...], not {field.annotation}")
    return get_args(field.annotation)[0]


def _plain(value: Any) -> Any:
    """Turn NumPy values and lists into what strict validation takes."""
    value = value.tolist() if hasattr(value, "tolist") else value
    return tuple(value) if isinstance(value, list) else value


def _name_of(settings: type[Settings], name: str) -> str:
    """Give the field of a name, which may be its alias."""
    names = {field.alias: each for each, field in settings.model_fields.items()}
    return name if name in settings.model_fields else names.get(name, name)


def _error_in_call(settings: type[Settings], given: Any, refused: Refused) -> ParameterError:
    name = _name_of(settings, refused.field)
    values = {_name_of(settings, key): value for key, value in given.items()} if isinstance(given, Mapping) else {}
    shown = f"{name}={values[name]!r}" if name in values else name
    place = "" if refused.place is None else f"value {refused.place + 1}: "
    return ParameterError(f"{settings.__name__}({excerpt(shown)}): {place}{refused.reason}")


_KINDS = "Registration|Transform|Metric|Optimizer|ImageSampler|Interpolator|FixedImagePyramid|MovingImagePyramid"
_LABEL = rf"(?:{_KINDS}|ResampleInterpolator|Resampler)\d+"


def _suggestion(key: str, known: Iterable[str], likeness: float = 0.8) -> str:
    """Find the known spelling most like a key, with the label and the numbers that the key has."""
    label = match[0] if (match := re.match(_LABEL, key)) else ""
    number = match[0] if (match := re.search(r"\d+", key)) else "0"
    level = match[0] if (match := re.search(r"\d+$", key)) else ""
    spelled = [each.replace("<i>", number).replace("<level>", level) for each in known]
    return nearest(key, [*spelled, *(label + each for each in spelled)], likeness)


_TYPE_WORDS = {bool: "true or false", int: "whole number", float: "number", str: "text"}
_BOUND_WORDS = {"ge": "at least", "gt": "more than", "le": "at most", "lt": "less than"}


def _type_words(field: FieldInfo) -> str:
    kind = scalar_type(_value_type(field))
    literal = get_origin(kind) is Literal
    words = ", ".join(map(to_text, get_args(kind))) if literal else _TYPE_WORDS[kind]
    bounds = [f"{_BOUND_WORDS[name]} {to_text(bound)}" for name, bound in _bounds(field)]
    return ("list of: " if reading_of(field).many else "") + ", ".join([words, *bounds])


def _bounds(field: FieldInfo) -> list[tuple[str, Any]]:
    """List the bounds of a value, which stand in the field or, when there are many values, in the type of one."""
    metadata = list(field.metadata)
    for each in getattr(_value_type(field), "__metadata__", ()):
        metadata += each.metadata if isinstance(each, FieldInfo) else [each]
    return [(name, getattr(each, name)) for each in metadata for name in _BOUND_WORDS if hasattr(each, name)]


def _default_words(default: Any) -> str:
    values = default if isinstance(default, tuple) else () if default is None else (default,)
    return " ".join(map(to_text, values))
