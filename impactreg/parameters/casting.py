"""A value as the text of a parameter file and as a Python value, by elastix's rules of casting.

elastix keeps every value as text and casts it when a component asks for it. A boolean is exactly `true` or `false`. A
whole number is decimal, and a point with nothing but zeros behind it is dropped, so `4096.0` is one and `1e2` is not.
Any other number is as in C, with `NaN` and `Infinity` spelled so. (Source: elastix, `elxConversion`.)
"""

import difflib
import math
import re
import types
from collections.abc import Callable, Iterable
from decimal import Decimal
from typing import Annotated, Any, Literal, Union, get_args, get_origin


def cast(text: str, annotation: Any) -> Any:
    """Cast the text of one value to bool, int, float, str, a Literal of those, or any of them `| None`.

    Raises ValueError whose message says what is needed, such as "a whole number is needed".
    """
    annotation = scalar_type(annotation)
    if get_origin(annotation) is Literal:
        return _one_of(text, get_args(annotation))
    return _CASTS[annotation](text)


def scalar_type(annotation: Any) -> Any:
    """Strip `Annotated[...]` and `| None` off a type; TypeError when a value cannot be cast to what remains."""
    origin = get_origin(annotation)
    if origin is Annotated:
        return scalar_type(get_args(annotation)[0])
    if origin in (Union, types.UnionType):
        return scalar_type(next(part for part in get_args(annotation) if part is not type(None)))
    if origin is not Literal and annotation not in _CASTS:
        raise TypeError(f"a value cannot be cast to {annotation}")
    return annotation


def to_text(value: object) -> str:
    """Give the text that elastix writes for a Python value: text, boolean, whole number or number, NumPy's included.

    Raises TypeError for anything else.
    """
    if isinstance(value, str):
        return value
    if isinstance(value, float):
        return number_text(float(value))  # NumPy's float64 is a float, but writes itself otherwise
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        return str(value)
    if hasattr(value, "item"):
        return to_text(value.item())
    raise TypeError(f"a text, a boolean or a number is needed, not {type(value).__name__}")


def number_text(value: float) -> str:
    """Write a number in the shortest form that reads back as itself, laid out as elastix (and ECMAScript) does."""
    if not math.isfinite(value):
        return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    shortest = repr(value)
    if "e" not in shortest:
        return "0" if value == 0 else shortest.removesuffix(".0")
    mantissa, exponent = shortest.split("e")
    if -7 < int(exponent) < 21:
        return format(Decimal(shortest), "f")
    return f"{mantissa.removesuffix('.0')}e{int(exponent):+d}"


def to_numbers(texts: tuple[str, ...]) -> tuple[float, ...] | None:
    """Cast many numbers at once; None when some value is not a plain decimal number, so that a look at each is due."""
    if _PLAIN_NUMBERS.fullmatch("".join(texts)):
        try:
            return tuple(map(float, texts))
        except ValueError:
            return None
    return None


def nearest(word: str, words: Iterable[str], likeness: float = 0.6) -> str:
    """Find the spelling most like `word`, small and capital letters being alike; "" when none is that much alike."""
    spellings = {each.casefold(): each for each in words}
    close = difflib.get_close_matches(word[:200].casefold(), spellings, n=1, cutoff=likeness)
    return spellings[close[0]] if close else ""


def one_of(word: str, words: Iterable[str]) -> str:
    """Say that one of `words` is needed instead of `word`, and which one may have been meant."""
    words = list(words)
    meant = nearest(word, words)
    return f"one of {', '.join(words)} is needed" + (f"; did you mean {meant}?" if meant else "")


_PLAIN_NUMBERS = re.compile(r"[0-9eE.+-]*")
_WHOLE = re.compile(r"([+-]?\d{1,18})(?:\.0*)?", re.ASCII)
_REAL = re.compile(r"[+-]?(?:\d+(?:\.\d*)?|\.\d+)(?:[eE][+-]?\d+)?", re.ASCII)
_NOT_FINITE = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf, "inf": math.inf, "-inf": -math.inf}


def _bool(text: str) -> bool:
    if text not in ("true", "false"):
        raise ValueError('"true" or "false" is needed')
    return text == "true"


def _whole(text: str) -> int:
    match = _WHOLE.fullmatch(text)
    if not match:
        raise ValueError("a whole number is needed")
    return int(match[1])


def _real(text: str) -> float:
    if text in _NOT_FINITE:
        return _NOT_FINITE[text]
    if not _REAL.fullmatch(text):
        raise ValueError("a number is needed")
    return float(text)


def _one_of(text: str, allowed: tuple[Any, ...]) -> Any:
    spelled = {to_text(each): each for each in allowed}
    whole = _WHOLE.fullmatch(text)
    known = str(int(whole[1])) if whole else text
    if known not in spelled:
        raise ValueError(one_of(text, spelled))
    return spelled[known]


_CASTS: dict[Any, Callable[[str], Any]] = {bool: _bool, int: _whole, float: _real, str: str}
