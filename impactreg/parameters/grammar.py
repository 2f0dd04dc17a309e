"""The two spellings of a parameter file, elastix's own text and TOML: text in, keys with their values and lines out.

The text form has one entry a line, `(Key value "another value") // comment`. The rules are those of elastix's
`itkParameterFileParser`, which are simpler than they look: a tab is a space, `//` begins a comment even inside quotes,
quotes only hold blanks together and leave no trace in the value, there is no escape character, nothing continues on the
next line, and a key that comes twice is an error. Every value is text; what it means is asked later.
"""

import re
import tomllib
from typing import Any, NamedTuple

import pyparsing as pp

from impactreg.errors import ParameterError
from impactreg.parameters.casting import number_text, to_text


class Entry(NamedTuple):
    """The values of one key, and the line that it stands on (0 when it comes from no file)."""

    values: tuple[str, ...]
    line: int = 0


def parse(text: str, where: str) -> dict[str, Entry]:
    """Read the text form.

    `where` is the name of the file in error messages. Raises ParameterError, `file.txt:14: ...`, at the first bad line.
    """
    _refuse_binary(text, where)
    entries: dict[str, Entry] = {}
    for number, line in enumerate(text.split("\n"), start=1):
        bare = line.removesuffix("\r").replace("\t", " ").partition("//")[0].strip(" ")
        if bare:
            key, values = _read_line(bare, line.strip(), f"{where}:{number}")
            if key in entries:
                raise ParameterError(
                    f"{where}:{number}: ({excerpt(key)} ...): the key stands in line {entries[key].line} already"
                )
            entries[key] = Entry(values, number)
    return entries


def parse_toml(text: str, where: str) -> dict[str, Entry]:
    """Read the TOML form: `Key = value` or `Key = [value, value]`, values being text, booleans or numbers.

    Raises ParameterError for bad TOML, and for tables, dotted keys, dates and lists in lists, which mean nothing here.
    """
    text = text.removeprefix("\ufeff")
    _refuse_binary(text, where)
    _refuse_dotted_keys(text, where)
    try:
        table = tomllib.loads(text, parse_float=_toml_float)
    except RecursionError:
        raise ParameterError(f"{where}: a list in a list means nothing here; write Key = [value, value]") from None
    except ValueError as error:
        raise ParameterError(_told_by_tomllib(str(error), text, where)) from None
    lines = _lines_of_toml_keys(text)
    return {key: _toml_entry(key, value, lines.get(key, 0), where) for key, value in table.items()}


def write(values: dict[str, tuple[str, ...]], where: str) -> str:
    """Give the text form, one line for each key; a value that looks like a number goes bare, any other in quotes.

    Raises ParameterError for a key or value that this form cannot hold, such as one with `//` or a quote in it.
    """
    lines = []
    for key, texts in values.items():
        line = f"({key} {' '.join(map(quoted, texts or ('',)))})"
        if not key or _NOT_IN_A_WRITTEN_KEY.search(key):
            raise ParameterError(f"{where}: {excerpt(line)}: a .txt parameter file cannot hold this key")
        if any('"' in text for text in texts) or _NOT_IN_A_WRITTEN_LINE.search(line):
            raise ParameterError(f'{where}: {excerpt(line)}: a .txt parameter file cannot hold //, " or a line break')
        lines.append(f"{line}\n")
    return "".join(lines)


def write_toml(values: dict[str, tuple[str, ...]]) -> str:
    """Give the TOML form; `true`, `false` and numbers that keep their spelling go bare, any other value in quotes."""
    lines = []
    for key, texts in values.items():
        name = key if _BARE_TOML_KEY.fullmatch(key) else _toml_quoted(key)
        listed = ", ".join(map(_toml_value, texts))
        lines.append(f"{name} = {listed if len(texts) == 1 else f'[{listed}]'}\n")
    return "".join(lines)


def quoted(value: str) -> str:
    """Write one value as elastix does: bare when it looks like a number, else in quotes."""
    return value if _NUMBER.fullmatch(value) else f'"{value}"'


def excerpt(text: str, limit: int = 100) -> str:
    """Make one short printable line of a piece of a file, to be shown in a message."""
    short = text if len(text) <= limit else f"{text[: limit - 4]} ..."
    return "".join(char if char.isprintable() else repr(char)[1:-1] for char in short)


_NUMBER = re.compile(r"-?\d+(?:\.\d+)?|-?\d(?:\.\d+)?e[+-]\d+", re.ASCII)
# elastix writes this class with &-+ in it, which is a range; that is why a hyphen is allowed.
_NOT_IN_A_KEY = re.compile(r"[.,:;!@#$%^&-+|<>?]")
_NOT_IN_A_WRITTEN_KEY = re.compile(r'[.,:;!@#$%^&-+|<>?"\s\0]')
_NOT_IN_A_WRITTEN_LINE = re.compile(r"//|[\t\r\n\0]")
_VALUE = re.compile(r'"[^"]*"|[^ "]+')


def _told(element: pp.ParserElement, hint: str) -> pp.ParserElement:
    """Let the parser say `hint` where this element is missing."""
    element.errmsg = hint
    return element


_BRACKETS = "a line must stand between brackets, like (Key value)"
_TWO_WORDS = 'a key and a value are needed, like (Key value) or (Key "")'
_OPENING = _told(pp.Regex(r"\((?=.*\)\Z)", re.DOTALL), _BRACKETS)
_KEY = _told(pp.Regex('[^ "]*'), _TWO_WORDS)
# All values are one token: a file of transform parameters may have hundreds of thousands in a line.
_VALUES = _told(pp.Regex(r'(?=[^ ]* +[^ ].)[ "].*(?=\)\Z)', re.DOTALL), _TWO_WORDS)
_LINE = (_OPENING + _KEY + _VALUES).leave_whitespace()


def _read_line(bare: str, line: str, where: str) -> tuple[str, tuple[str, ...]]:
    try:
        _, key, run = _LINE.parse_string(bare)
    except pp.ParseException as error:
        raise ParameterError(f"{where}: {excerpt(line)}: {error.msg}{_advice(bare, line)}") from None
    if run.count('"') % 2:
        raise ParameterError(f'{where}: {excerpt(line)}: the number of quotes (") must be even{_advice(bare, line)}')
    if not key:
        raise ParameterError(f"{where}: {excerpt(line)}: remove the blank or quote between the bracket and the key")
    if _NOT_IN_A_KEY.search(key):
        raise ParameterError(f"{where}: {excerpt(line)}: none of .,:;!@#$%^&'()*+|<>? is allowed in a key")
    values = (value.strip('"') for value in _VALUE.findall(run)) if '"' in run else _VALUE.findall(run)
    return key, tuple(filter(None, values))


def _advice(bare: str, line: str) -> str:
    if bare[0] in "#;%":
        return "; a comment begins with //"
    return "; // begins a comment, even inside quotes" if "//" in line else ""


def _refuse_binary(text: str, where: str) -> None:
    if text.startswith("\ufeff"):
        raise ParameterError(f"{where}: begins with a byte order mark; save it as UTF-8 without one")
    if "\0" in text:
        raise ParameterError(f"{where}:{text.count(chr(10), 0, text.index(chr(0))) + 1}: this is not a text file")


_TWICE_IN_TOML = "Cannot overwrite a value"
_BARE_TOML_KEY = re.compile("[A-Za-z0-9_-]+")
_TOML_KEY = re.compile(r"""[ \t]*(?:"([^"\n]*)"|'([^'\n]*)'|([A-Za-z0-9_-]+))[ \t]*=""")
_TOML_TEXT_OR_COMMENT = re.compile(r"""#[^\n]*|"[^"\n]*"|'[^'\n]*'""")


def _refuse_dotted_keys(text: str, where: str) -> None:
    """Refuse long dotted keys before tomllib meets them: its time grows with the square of their length."""
    for number, line in enumerate(_TOML_TEXT_OR_COMMENT.sub("", text).split("\n"), start=1):
        if line.count(".") > 30 and any(part.count(".") > 30 for part in re.split("[=,]", line)):
            raise ParameterError(f"{where}:{number}: a dotted key means nothing here; write Key = value")


def _told_by_tomllib(complaint: str, text: str, where: str) -> str:
    reason, _, place = complaint.replace(_TWICE_IN_TOML, "the key stands in an earlier line already").partition(" (at ")
    line = re.match(r"line (\d+)", place)
    number = line[1] if line else text.count("\n") + 1
    return f"{where}:{number}: {excerpt(reason)}" if place else f"{where}: {excerpt(reason)}"


def _lines_of_toml_keys(text: str) -> dict[str, int]:
    lines: dict[str, int] = {}
    for number, line in enumerate(text.split("\n"), start=1):
        if match := _TOML_KEY.match(line):
            lines.setdefault(match[match.lastindex or 0], number)
    return lines


def _toml_float(text: str) -> str:
    return number_text(float(text))


def _toml_entry(key: str, value: Any, line: int, where: str) -> Entry:
    values = value if isinstance(value, list) else [value]
    place = f"{where}:{line}: {excerpt(key)}" if line else f"{where}: {excerpt(key)}"
    if any(isinstance(each, int) and each.bit_length() > 63 for each in values):
        raise ParameterError(f"{place}: a whole number of at most 64 bits is needed")
    try:
        return Entry(tuple(map(to_text, values)), line)
    except TypeError:
        raise ParameterError(f"{place}: only texts, booleans, numbers and lists of them are allowed") from None


def _toml_value(text: str) -> str:
    return text if text in ("true", "false") or _is_toml_number(text) else _toml_quoted(text)


def _is_toml_number(text: str) -> bool:
    """Tell whether a number keeps its spelling in TOML; `1.0` reads back as `1`, and `007` is none there."""
    if not _NUMBER.fullmatch(text):
        return False
    whole = "." not in text and "e" not in text
    return len(text) < 19 and str(int(text)) == text if whole else number_text(float(text)) == text


def _toml_quoted(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return '"' + "".join(char if char >= " " and char != "\x7f" else f"\\u{ord(char):04x}" for char in escaped) + '"'
