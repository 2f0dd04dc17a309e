from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from impactreg.errors import ParameterError
from impactreg.parameters import ParameterMap
from impactreg.parameters.grammar import Entry, excerpt, parse, parse_toml, quoted, write, write_toml

# What elastix makes of each text; None where it refuses it. Only an empty key is treated differently, see below.
ODD_TEXTS: list[tuple[str, dict[str, tuple[str, ...]] | None]] = [
    ("", {}),
    ("\n\n   \n\t\n// all of it a comment", {}),
    ("(A foo bar)", {"A": ("foo", "bar")}),
    ("(A 1) // note", {"A": ("1",)}),
    ("(A 1) // (B 2)", {"A": ("1",)}),
    ('(A "http://x")', None),
    ("(A 1 // x )", None),
    ("# c", None),
    ("; c", None),
    ("/* c */", None),
    ("A 1", None),
    ("(A 1", None),
    ("A 1)", None),
    ("(A 1);", None),
    ("(A 1\n2)", None),
    ("(A 1) (B 2)", {"A": ("1)", "(B", "2")}),
    ("(A 1))", {"A": ("1)",)}),
    ("((A 1))", None),
    ('(A"x y")', {"A": ("x y",)}),
    ("(A 1 )", {"A": ("1",)}),
    ("  (A 1)  ", {"A": ("1",)}),
    ("(A\t1\t)", {"A": ("1",)}),
    ('(A "x\ty")', {"A": ("x y",)}),
    ('(A "")', {"A": ()}),
    ('(A "" 1)', {"A": ("1",)}),
    ('(A " ")', {"A": (" ",)}),
    ('(A "  x  ")', {"A": ("  x  ",)}),
    ('(A " "" ")', {"A": (" ", " ")}),
    ("(A)", None),
    ("()", None),
    ("(", None),
    (")", None),
    ("(A )", None),
    ('(A"x")', None),
    ("(A\x0b1)", None),
    ("(A\xa01)", None),
    ('(A "x)', None),
    ('(A a"b c)', None),
    ('(A "x\\"y")', None),
    ('(A "C:\\foo")', {"A": ("C:\\foo",)}),
    ('(A "x""y")', {"A": ("x", "y")}),
    ('(A 1"x"2)', {"A": ("1", "x", "2")}),
    ("(A 1,2,3)", {"A": ("1,2,3",)}),
    ("(A b(c)d)", {"A": ("b(c)d",)}),
    ("(A ( )", {"A": ("(",)}),
    ("(A.b 1)", None),
    ("(A'b 1)", None),
    ("(A(b 1)", None),
    ("(A*b 1)", None),
    ("(# 1)", None),
    ("(A-b 1)", {"A-b": ("1",)}),
    ("(A_b 1)", {"A_b": ("1",)}),
    ("(A/ /b 1)", {"A/": ("/b", "1")}),
    ("(A=b 1)", {"A=b": ("1",)}),
    ("(A{b 1)", {"A{b": ("1",)}),
    ("(A[b 1)", {"A[b": ("1",)}),
    ("(A\\b 1)", {"A\\b": ("1",)}),
    ("(A~b 1)", {"A~b": ("1",)}),
    ("(A\x1c1 2)", {"A\x1c1": ("2",)}),
    ("(Aé 1)", {"Aé": ("1",)}),
    ('(A "é")', {"A": ("é",)}),
    ("(A 1)\n(A 1)", None),
    ('(A "")\n(A 1)', None),
    ("(A 1)\n(a 1)", {"A": ("1",), "a": ("1",)}),
    ("(A 1)\r\n(B 2)\r\n", {"A": ("1",), "B": ("2",)}),
    ("(A 1)\r(B 2)", {"A": ("1)\r(B", "2")}),
    ("(A 1)\r\r\n", None),
    ("\x0b(A 1)", None),
    ("(A 1)\x0c", None),
    ("(A 1)\x85", None),
    ("\ufeff(A 1)", None),
]


def values_of(text: str) -> dict[str, tuple[str, ...]] | None:
    try:
        return {key: entry.values for key, entry in parse(text, "f.txt").items()}
    except ParameterError:
        return None


def read_or_told(read: Callable[[str, str], dict[str, Entry]], text: str) -> tuple[dict[str, Entry], str]:
    try:
        return read(text, "f.txt"), ""
    except ParameterError as error:
        return {}, str(error)


@pytest.mark.parametrize(("text", "expected"), ODD_TEXTS)
def test_odd_lines_mean_what_they_mean_to_elastix(text: str, expected: dict[str, tuple[str, ...]] | None) -> None:
    assert values_of(text) == expected


@pytest.mark.itk
@pytest.mark.filterwarnings("ignore")
def test_elastix_itself_agrees_on_odd_lines(tmp_path: Path) -> None:
    itk: Any = pytest.importorskip("itk")
    path = tmp_path / "odd.txt"
    for text, expected in ODD_TEXTS:
        path.write_bytes(text.encode())
        parameters = itk.ParameterObject.New()
        try:
            parameters.ReadParameterFile(str(path))
            told = {key: tuple(values) for key, values in parameters.GetParameterMap(0).items()}
        except RuntimeError:
            told = None
        assert told == expected, repr(text)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("(B 2)\n\n(A 1", "f.txt:3: (A 1: a line must stand between brackets, like (Key value)"),
        ("# hello", "f.txt:1: # hello: a line must stand between brackets, like (Key value); a comment begins with //"),
        ('(A "a//b")', "// begins a comment, even inside quotes"),
        ('(A "x)', 'f.txt:1: (A "x): the number of quotes (") must be even'),
        ("(A)", 'f.txt:1: (A): a key and a value are needed, like (Key value) or (Key "")'),
        ("( A 1)", "f.txt:1: ( A 1): remove the blank or quote between the bracket and the key"),
        ('("A" 1)', 'f.txt:1: ("A" 1): remove the blank or quote between the bracket and the key'),
        ("(A.b 1)", "f.txt:1: (A.b 1): none of .,:;!@#$%^&'()*+|<>? is allowed in a key"),
        ("(A 1)\n//\n(A 2)", "f.txt:3: (A ...): the key stands in line 1 already"),
        ("(A 1)\n(B \0)", "f.txt:2: this is not a text file"),
        ("\ufeff(A 1)", "f.txt: begins with a byte order mark; save it as UTF-8 without one"),
    ],
)
def test_a_wrong_line_is_told_with_its_number(text: str, message: str) -> None:
    with pytest.raises(ParameterError) as told:
        parse(text, "f.txt")
    assert message in str(told.value)
    assert "\n" not in str(told.value)


def test_an_entry_knows_its_line() -> None:
    assert {key: entry.line for key, entry in parse("(A 1)\n\n// x\n(B 2)", "f.txt").items()} == {"A": 1, "B": 4}


@pytest.mark.parametrize("piece", ["(", ")", "()", "(\n"])
def test_ten_megabytes_of_parentheses_are_refused(piece: str) -> None:
    assert values_of(piece * (10_000_000 // len(piece))) is None


@pytest.mark.parametrize("piece", ['"', '(A "', "(A ", " ", "//", "(A 1) ", "\t", "\n", "1", "A"])
def test_megabytes_of_anything_are_read_or_refused(piece: str) -> None:
    nonsense = piece * (2_000_000 // len(piece))
    for text in (nonsense, f"({nonsense})", f"(A {nonsense})", f"({nonsense} 1)"):
        values_of(text)


def test_a_line_of_300000_numbers_keeps_them_all() -> None:
    run = " ".join(map(str, range(300_000)))
    assert len(parse(f"(TransformParameters {run})", "f.txt")["TransformParameters"].values) == 300_000


@given(st.text(st.sampled_from('()"/ \t\r\nAb1.-\0\ufeff\x85é') | st.characters()))
def test_any_text_is_read_or_refused(text: str) -> None:
    entries, told = read_or_told(parse, text)
    assert told.startswith("f.txt") or all(key and all(entry.values) for key, entry in entries.items())
    assert "\n" not in told


@given(st.text(st.sampled_from("=[]{},.\"'#\n \\abT10-+_eE:\ufeff") | st.characters()))
def test_any_toml_is_read_or_refused(text: str) -> None:
    entries, told = read_or_told(parse_toml, text)
    assert told.startswith("f.txt") or all(type(value) is str for entry in entries.values() for value in entry.values)


KEYS = st.text(st.sampled_from("Abz09_=/{}[]~-\\"), min_size=1).filter(lambda key: "//" not in key)
VALUES = st.text(st.characters(exclude_categories=["Cs"], exclude_characters='"\t\r\n\0'), min_size=1, max_size=9)
NUMBERS = st.floats().map(str) | st.integers().map(str) | st.text("01.-e+", min_size=1)
LISTS = st.lists(VALUES.filter(lambda value: "//" not in value) | NUMBERS, max_size=4).map(tuple)
MAPS = st.dictionaries(KEYS, LISTS, max_size=4)


@given(MAPS)
def test_what_is_written_as_text_reads_back_the_same(values: dict[str, tuple[str, ...]]) -> None:
    assert {key: entry.values for key, entry in parse(write(values, "f.txt"), "f.txt").items()} == values


@given(MAPS | st.dictionaries(st.text(st.characters(exclude_categories=["Cs"])), LISTS, max_size=2))
def test_what_is_written_as_toml_reads_back_the_same(values: dict[str, tuple[str, ...]]) -> None:
    assert {key: entry.values for key, entry in parse_toml(write_toml(values), "f.toml").items()} == values


@pytest.mark.parametrize(
    "values", [{"A": ('"',)}, {"A": ("a//b",)}, {"A": ("a\nb",)}, {"A b": ("1",)}, {"": ("1",)}, {"A.b": ("1",)}]
)
def test_what_text_cannot_hold_is_refused(values: dict[str, tuple[str, ...]]) -> None:
    with pytest.raises(ParameterError, match=r"f\.txt: .* cannot hold"):
        write(values, "f.txt")


@pytest.mark.parametrize("value", ["1", "-1", "1.5", "-0.25", "1.5e-7", "1e+21", "007"])
def test_a_number_is_written_bare(value: str) -> None:
    assert quoted(value) == value


@pytest.mark.parametrize("value", ["x", "true", ".5", "5.", "+3", "1e5", "12.5e+3", "-", "", "1-2", "NaN", "1..2"])
def test_anything_else_is_written_in_quotes(value: str) -> None:
    assert quoted(value) == f'"{value}"'


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a = 1.0", ("1",)),
        ("a = [1e21, 1e20, 1e-6, 1e-7, -0.0]", ("1e+21", "100000000000000000000", "0.000001", "1e-7", "0")),
        ("a = [inf, -inf, nan]", ("Infinity", "-Infinity", "NaN")),
        ("a = [0x10, 1_000, true, 'x', \"\"]", ("16", "1000", "true", "x", "")),
        ("\ufeffa = []", ()),
        ("a = 9223372036854775807", ("9223372036854775807",)),
    ],
)
def test_toml_values_become_the_text_that_elastix_makes_of_them(text: str, expected: tuple[str, ...]) -> None:
    assert parse_toml(text, "f.toml")["a"].values == expected


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("b = 1\na = [[1]]", "f.toml:2: a: only texts, booleans, numbers and lists of them are allowed"),
        ("a = 1979-05-27", "f.toml:1: a: only texts, booleans, numbers and lists of them are allowed"),
        ("[a]\nb = 1", "f.toml: a: only texts, booleans, numbers and lists of them are allowed"),
        ("a.b = 1", "f.toml: a: only texts, booleans, numbers and lists of them are allowed"),
        ("a = 9223372036854775808", "f.toml:1: a: a whole number of at most 64 bits is needed"),
        ("a = 0x" + "f" * 10_000, "f.toml:1: a: a whole number of at most 64 bits is needed"),
        ("a = 1\n\na = 2", "f.toml:3: the key stands in an earlier line already"),
        ("a = ", "f.toml:1: Invalid value"),
        ("a = " + "[" * 1_000_000, "f.toml: a list in a list means nothing here; write Key = [value, value]"),
        ("x = 1\n" + "a." * 5_000_000 + "a = 1", "f.toml:2: a dotted key means nothing here; write Key = value"),
        ("a = {" + '"b".' * 1_000_000 + "c = 1}", "f.toml:1: a dotted key means nothing here; write Key = value"),
        ("a = '\0'", "f.toml:1: this is not a text file"),
    ],
)
def test_toml_that_means_nothing_here_is_refused(text: str, message: str) -> None:
    with pytest.raises(ParameterError) as told:
        parse_toml(text, "f.toml")
    assert str(told.value) == message


def test_both_forms_of_a_whole_map_read_back_the_same(tmp_path: Path) -> None:
    parameters = ParameterMap.default("bspline")
    for name in ("map.txt", "map.toml"):
        parameters.write(tmp_path / name)
        assert ParameterMap.read(tmp_path / name) == parameters


def test_an_excerpt_is_short_and_printable() -> None:
    assert excerpt("a\tb\x00" + "c" * 200) == "a\\tb\\x00" + "c" * 92 + " ..."
