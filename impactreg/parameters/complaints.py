"""What is wrong with the value of a setting, in the words of this house rather than pydantic's."""

from collections.abc import Iterable
from typing import Any

from pydantic import ValidationError

from impactreg.parameters.casting import nearest, one_of, to_text


class Refused(Exception):
    """The value of a field is refused; `place` is its place in a list, and None means the whole list.

    `Settings.check` raises it; whoever reads the settings makes a ParameterError of it that tells file and line.
    """

    def __init__(self, field: str, reason: str, place: int | None = None) -> None:
        super().__init__(f"{field}: {reason}")
        self.field = field
        self.reason = reason
        self.place = place


def first_complaint(error: ValidationError, fields: Iterable[str]) -> Refused:
    """Put the first complaint of pydantic into our words; `fields` are the names that a field may have."""
    first = error.errors(include_url=False)[0]
    path = first["loc"]
    name = str(path[0]) if path else ""
    place = path[1] if len(path) > 1 and isinstance(path[1], int) else None
    return Refused(
        name, _reason(first["type"], first["msg"], first.get("ctx", {}), first["input"], name, fields), place
    )


def _reason(kind: str, message: str, context: dict[str, Any], given: object, name: str, fields: Iterable[str]) -> str:
    if kind == "extra_forbidden":
        meant = nearest(name, fields)
        return "there is no such field" + (f"; did you mean {meant}?" if meant else "")
    if kind == "literal_error":
        # pydantic lists the allowed values as 'A', 'B' or 'C'.
        return one_of(str(given), str(context["expected"]).replace("'", "").replace(" or ", ", ").split(", "))
    if kind in _REASONS:
        return _REASONS[kind].format(**{name: to_text(bound) for name, bound in context.items()})
    return message[:1].lower() + message[1:]


_REASONS = {
    "bool_type": "true or false is needed",
    "int_type": "a whole number is needed",
    "int_from_float": "a whole number is needed",
    "float_type": "a number is needed",
    "finite_number": "a finite number is needed",
    "string_type": "a text is needed",
    "tuple_type": "a list of values is needed",
    "greater_than": "more than {gt} is needed",
    "greater_than_equal": "at least {ge} is needed",
    "less_than": "less than {lt} is needed",
    "less_than_equal": "at most {le} is needed",
    "multiple_of": "a multiple of {multiple_of} is needed",
    "too_short": "at least {min_length} values are needed",
    "too_long": "at most {max_length} values are needed",
    "string_too_short": "a text is needed that is not empty",
    "missing": "a value is needed",
}
