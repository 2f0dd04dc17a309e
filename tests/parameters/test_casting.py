from typing import Annotated, Any, Literal

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from impactreg.parameters.casting import cast, nearest, number_text, one_of, to_numbers, to_text


@pytest.mark.parametrize(
    ("text", "kind", "value"),
    [
        ("true", bool, True),
        ("false", bool, False),
        ("3", int, 3),
        ("+3", int, 3),
        ("-3", int, -3),
        ("3.", int, 3),
        ("4096.000000", int, 4096),
        (".5", float, 0.5),
        ("5.", float, 5.0),
        ("+1", float, 1.0),
        ("1E+02", float, 100.0),
        ("Infinity", float, float("inf")),
        ("-inf", float, float("-inf")),
        ("anything", str, "anything"),
        ("7", int | None, 7),
        ("7", Annotated[int, "marker"], 7),
        ("Static", Literal["Static", "Jacobian"], "Static"),
        ("3.0", Literal[1, 3], 3),
    ],
)
def test_a_text_is_cast_as_elastix_casts_it(text: str, kind: Any, value: object) -> None:
    result = cast(text, kind)
    assert result == value
    assert type(result) is type(value)


def test_nan_is_a_number_only_when_spelled_as_elastix_spells_it() -> None:
    assert np.isnan(cast("NaN", float))
    with pytest.raises(ValueError, match="a number is needed"):
        cast("nan", float)


@pytest.mark.parametrize("text", ["True", "1", "", "yes"])
def test_only_true_and_false_are_booleans(text: str) -> None:
    with pytest.raises(ValueError, match='"true" or "false" is needed'):
        cast(text, bool)


@pytest.mark.parametrize("text", ["3.5", "1e2", "x", "", " 3", "3 ", ".0", "1_000", "٣", "9" * 30])
def test_a_whole_number_is_nothing_else(text: str) -> None:
    with pytest.raises(ValueError, match="a whole number is needed"):
        cast(text, int)


@pytest.mark.parametrize("text", ["x", "", " 3", "1_000", "0x10", "1e", "1,5", ".", "1" * 1_000_000 + "x"])
def test_a_number_is_nothing_else(text: str) -> None:
    with pytest.raises(ValueError, match="a number is needed"):
        cast(text, float)


def test_a_choice_tells_what_is_allowed_and_what_is_nearest() -> None:
    with pytest.raises(ValueError, match=r"^one of Static, Jacobian is needed; did you mean Static\?$"):
        cast("statik", Literal["Static", "Jacobian"])


def test_a_type_without_a_text_is_a_programmers_mistake() -> None:
    with pytest.raises(TypeError, match="cannot be cast"):
        cast("x", list[int])


@given(st.floats())
def test_a_number_reads_back_from_its_text(value: float) -> None:
    back = cast(number_text(value), float)
    assert back == value or (np.isnan(back) and np.isnan(value))


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (1.0, "1"),
        (0.1, "0.1"),
        (-0.0, "0"),
        (1e16, "10000000000000000"),
        (1.5e21, "1.5e+21"),
        (0.000001, "0.000001"),
        (5e-324, "5e-324"),
    ],
)
def test_a_number_is_laid_out_as_elastix_does(value: float, text: str) -> None:
    assert number_text(value) == text


@pytest.mark.parametrize(
    ("value", "text"), [("x", "x"), (True, "true"), (np.True_, "true"), (3, "3"), (np.int64(3), "3"), (2.5, "2.5")]
)
def test_python_values_become_text(value: object, text: str) -> None:
    assert to_text(value) == text
    assert to_text(np.float32(0.5)) == "0.5"


def test_other_python_values_do_not() -> None:
    with pytest.raises(TypeError, match="not dict"):
        to_text({})


def test_many_numbers_are_cast_at_once() -> None:
    assert to_numbers(("1", "2.5", "-3e-2")) == (1.0, 2.5, -0.03)
    assert to_numbers(()) == ()
    assert to_numbers(("1", "x")) is None
    assert to_numbers(("1", "1-2")) is None
    assert to_numbers(("1", "NaN")) is None


def test_the_nearest_word_is_found_without_regard_to_capitals() -> None:
    assert nearest("sp_A", ["SP_alpha", "SP_A"]) == "SP_A"
    assert nearest("zzz", ["SP_alpha", "SP_A"]) == ""
    assert one_of("zzz", ["A", "B"]) == "one of A, B is needed"
