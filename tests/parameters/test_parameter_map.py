import contextlib
import os
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from impactreg.errors import OutputError, ParameterError
from impactreg.parameters import ParameterMap
from impactreg.parameters.defaults import DEFAULT_MAPS

SCHEDULE = '(A 10 20 30)\n(Metric0A 1 2)\n(Nothing "")\n(B 5)\n'


@pytest.fixture
def schedule(tmp_path: Path) -> ParameterMap:
    path = tmp_path / "schedule.txt"
    path.write_text(SCHEDULE, encoding="utf-8")
    return ParameterMap.read(path)


def test_a_map_keeps_the_order_of_its_file(schedule: ParameterMap) -> None:
    assert list(schedule) == ["A", "Metric0A", "Nothing", "B"]
    assert schedule["A"] == ("10", "20", "30")
    assert schedule.text() == SCHEDULE


@pytest.mark.parametrize(
    ("key", "level", "label", "value"),
    [
        ("A", 0, "", "10"),
        ("A", 2, "", "30"),
        ("A", 3, "", "10"),
        ("A", 1, "Metric0", "2"),
        ("A", 2, "Metric0", "1"),
        ("A", 2, "Metric1", "30"),
        ("B", 2, "Metric0", "5"),
        ("Nothing", 0, "", None),
        ("C", 0, "Metric0", None),
    ],
)
def test_a_value_is_looked_up_as_elastix_does(
    schedule: ParameterMap, key: str, level: int, label: str, value: str | None
) -> None:
    assert schedule.lookup(key, level, label) == value


def test_the_first_value_has_a_default(schedule: ParameterMap) -> None:
    assert schedule.first("B", "7") == "5"
    assert schedule.first("Nothing", "7") == "7"


def test_a_key_knows_its_file_and_line(schedule: ParameterMap) -> None:
    assert schedule.source is not None
    assert schedule.where("B") == f"{schedule.source}:4"
    assert schedule.where("absent") == str(schedule.source)
    assert ParameterMap.from_dict({"A": 1}, "rigid").where("A") == "rigid"


def test_an_error_shows_the_line_as_it_is(schedule: ParameterMap) -> None:
    assert str(schedule.error("A", "no", 1)) == f"{schedule.source}:1: (A 10 20 30): value 2, 20: no"
    assert str(schedule.error("B", "no", 0)) == f"{schedule.source}:4: (B 5): no"
    assert str(schedule.error("C", "no")) == f"{schedule.source}: (C): no"


def test_plain_values_become_text() -> None:
    parameters = ParameterMap.from_dict(
        {"A": 1, "B": 2.0, "C": True, "D": "x", "E": [1, 0.5, False, ""], "F": np.array([1.5, 2.0]), "G": (), "H": ""}
    )
    assert parameters.to_dict() == {
        "A": ["1"], "B": ["2"], "C": ["true"], "D": ["x"], "E": ["1", "0.5", "false"],
        "F": ["1.5", "2"], "G": [], "H": [],
    }  # fmt: skip
    assert ParameterMap.from_dict(parameters.to_dict()) == parameters


@pytest.mark.parametrize("value", [None, {"a": 1}, [[1]], {1, 2}, [np.zeros((2, 2))]])
def test_other_values_are_refused(value: object) -> None:
    with pytest.raises(ParameterError, match=r"^mine: A: "):
        ParameterMap.from_dict({"A": value}, "mine")


def test_a_map_is_changed_by_making_another(schedule: ParameterMap) -> None:
    changed = schedule.replace({"Metric0A": 9}, New=[1, 2]).without("Nothing", "absent")
    assert changed.to_dict() == {"A": ["10", "20", "30"], "Metric0A": ["9"], "B": ["5"], "New": ["1", "2"]}
    assert changed.where("B") == f"{schedule.source}:4"
    assert changed.where("Metric0A") == str(schedule.source)
    assert changed.source == schedule.source
    assert schedule["Metric0A"] == ("1", "2")


def test_a_map_cannot_be_changed(schedule: ParameterMap) -> None:
    with pytest.raises(AttributeError):
        schedule.name = "other"  # type: ignore[misc]


def test_equal_maps_say_the_same_wherever_they_come_from(schedule: ParameterMap) -> None:
    same = ParameterMap.from_dict(dict(reversed(schedule.to_dict().items())))
    assert same == schedule
    assert hash(same) == hash(schedule)
    assert same != schedule.without("B")
    assert schedule != {"A": ("1",)}


def test_a_map_survives_pickling(schedule: ParameterMap) -> None:
    copy = pickle.loads(pickle.dumps(schedule))
    assert copy == schedule
    assert copy.where("B") == schedule.where("B")


def test_numbers_are_read_at_once() -> None:
    parameters = ParameterMap.from_dict(
        {"A": ["1", "2.5", "1e-3"], "B": ["1", "Infinity"], "C": ["1", "1_0"]}, "tp.txt"
    )
    assert parameters.numbers("A") == (1.0, 2.5, 0.001)
    assert parameters.numbers("B") == (1.0, float("inf"))
    assert parameters.numbers("absent") == ()
    with pytest.raises(ParameterError, match=r'^tp\.txt: \(C 1 "1_0"\): value 2, "1_0": a number is needed$'):
        parameters.numbers("C")


@given(st.lists(st.floats(allow_nan=False)))
def test_numbers_come_back_exactly(values: list[float]) -> None:
    assert ParameterMap.from_dict({"A": values}).numbers("A") == tuple(values)


@pytest.mark.parametrize("name", ["map.txt", "map.toml"])
def test_a_written_map_reads_back_the_same(tmp_path: Path, schedule: ParameterMap, name: str) -> None:
    schedule.write(tmp_path / name)
    assert ParameterMap.read(tmp_path / name) == schedule
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted({name, "schedule.txt"})


def test_a_map_that_cannot_be_written_leaves_nothing_behind(tmp_path: Path, schedule: ParameterMap) -> None:
    (tmp_path / "folder.txt").mkdir()
    with pytest.raises(OutputError, match=r"folder\.txt: the parameter file cannot be written: "):
        schedule.write(tmp_path / "folder.txt")
    with pytest.raises(OutputError, match="No such file or directory"):
        schedule.write(tmp_path / "absent" / "map.txt")
    with pytest.raises(OutputError, match=r"must end in \.txt or \.toml"):
        schedule.write(tmp_path / "map.json")
    with pytest.raises(ParameterError):
        schedule.replace(A='"').write(tmp_path / "quote.txt")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["folder.txt", "schedule.txt"]


def test_a_failed_write_keeps_the_older_file(tmp_path: Path, schedule: ParameterMap) -> None:
    path = tmp_path / "map.txt"
    schedule.write(path)
    with pytest.raises(OutputError, match="cannot be written"):
        schedule.replace(A="\ud800").write(path)
    assert ParameterMap.read(path) == schedule


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.TXT", b"(A 1)", "must end in .txt or .toml"),
        ("a.json", b"{}", "must end in .txt or .toml"),
        ("a.txt", b"(A 1)\n(B \xff)", ":2: this is not text in UTF-8"),
        ("a.txt", "(A 1)".encode("utf-16"), "this is not text in UTF-8"),
        ("a.txt", "(A 1)".encode("utf-16-le"), ":1: this is not a text file"),
        ("a.txt", b"\xef\xbb\xbf(A 1)", "begins with a byte order mark"),
        ("a.txt", b"(A 1)\n(B", ":2: (B: a line must stand between brackets"),
        ("a.toml", b"A = \xff", ":1: this is not text in UTF-8"),
    ],
)
def test_a_file_that_is_no_parameter_file_is_told_so(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(ParameterError) as told:
        ParameterMap.read(path)
    assert str(told.value).startswith(str(path))
    assert message in str(told.value)


def test_a_file_that_cannot_be_opened_is_told_so(tmp_path: Path) -> None:
    (tmp_path / "folder.txt").mkdir()
    with pytest.raises(ParameterError, match="cannot be read: Is a directory"):
        ParameterMap.read(tmp_path / "folder.txt")
    with pytest.raises(ParameterError, match="cannot be read: No such file or directory"):
        ParameterMap.read(tmp_path / "absent.txt")
    with pytest.raises(ParameterError, match="cannot be read: "):
        ParameterMap.read("nul\0.txt")
    with pytest.raises(ParameterError, match="cannot be read: "):
        ParameterMap.read("x" * 5000 + ".txt")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read every file")
def test_a_file_without_permission_is_told_so(tmp_path: Path) -> None:
    path = tmp_path / "secret.txt"
    path.write_text("(A 1)", encoding="utf-8")
    path.chmod(0)
    with pytest.raises(ParameterError, match="cannot be read: Permission denied"):
        ParameterMap.read(path)


@given(content=st.binary(), ending=st.sampled_from(["txt", "toml"]))
def test_any_bytes_are_read_or_refused(tmp_path_factory: pytest.TempPathFactory, content: bytes, ending: str) -> None:
    path = tmp_path_factory.getbasetemp() / f"bytes.{ending}"
    path.write_bytes(content)
    with contextlib.suppress(ParameterError):
        assert ParameterMap.read(path).name == str(path)


@pytest.mark.parametrize("name", DEFAULT_MAPS)
def test_a_default_map_reads_back_from_its_text(tmp_path: Path, name: str) -> None:
    parameters = ParameterMap.default(name)
    parameters.write(tmp_path / "default.txt")
    assert ParameterMap.read(tmp_path / "default.txt") == parameters


def test_the_grid_of_the_default_bspline_shrinks_by_the_root_of_two() -> None:
    schedule = ParameterMap.default("bspline", levels=5)["GridSpacingSchedule"]
    assert schedule == ("4", "2.8284271247461903", "2", "1.4142135623730951", "1")


def test_there_is_no_other_default_map() -> None:
    with pytest.raises(ParameterError, match=r"did you mean bspline\?"):
        ParameterMap.default("b-spline")
    with pytest.raises(ParameterError, match="at least 1 is needed"):
        ParameterMap.default("rigid", levels=0)


@pytest.mark.itk
@pytest.mark.filterwarnings("ignore")
def test_default_maps_are_those_of_elastix() -> None:
    itk: Any = pytest.importorskip("itk")
    for name in DEFAULT_MAPS:
        for levels in (1, 2, 3, 4, 6):
            elastix = itk.ParameterObject.GetDefaultParameterMap(name, levels)
            assert ParameterMap.default(name, levels).to_dict() == {key: list(elastix[key]) for key in elastix}


@pytest.mark.itk
@pytest.mark.filterwarnings("ignore")
def test_maps_come_out_of_an_elastix_parameter_object_and_go_into_one() -> None:
    itk: Any = pytest.importorskip("itk")
    maps = [ParameterMap.default("rigid"), ParameterMap.default("bspline")]
    parameter_object = itk.ParameterObject.New()
    for each in maps:
        parameter_object.AddParameterMap(each.to_dict())
    assert ParameterMap.from_itk(parameter_object) == maps


@pytest.mark.itk
@pytest.mark.filterwarnings("ignore")
def test_elastix_reads_what_we_write(tmp_path: Path) -> None:
    itk: Any = pytest.importorskip("itk")
    parameters = ParameterMap.from_dict(
        {
            "A": [".5", "1e5", "x y", "-1"],
            "B": [1e21, 1e-7, -0.5, 1 / 3],
            "C": "",
            "D": ["\\", "é"],
            "E": [True, "true"],
        }
    )
    for name in ("map.txt", "map.toml"):
        parameters.write(tmp_path / name)
        parameter_object = itk.ParameterObject.New()
        parameter_object.ReadParameterFile(str(tmp_path / name))
        assert ParameterMap.from_itk(parameter_object) == [parameters]


def test_maps_are_taken_from_anything_like_a_parameter_object() -> None:
    class Like:
        def GetNumberOfParameterMaps(self) -> int:  # noqa: N802
            return 2

        def GetParameterMap(self, index: int, /) -> dict[str, list[str]]:  # noqa: N802
            return {"Number": [str(index)]}

    assert [each.to_dict() for each in ParameterMap.from_itk(Like())] == [{"Number": ["0"]}, {"Number": ["1"]}]


def test_the_maps_of_the_reference_runs_are_read(shared: Path) -> None:
    paths = sorted((shared / "reference" / "impact_elastix").glob("*/map.txt"))
    assert all(ParameterMap.read(path)["Metric"] == ("Impact",) for path in paths)
