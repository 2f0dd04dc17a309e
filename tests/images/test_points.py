"""Point files of every format, and where exactly they are wrong."""

import json
import struct
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from impactreg.errors import OutputError, PointsError
from impactreg.images import Grid, PointSet, read_points, write_points

POINTS = [[1.5, -2.25, 3.0], [4.0, 5.0, 1 / 3]]


@pytest.mark.parametrize("name", ["a.txt", "a.vtk", "a.csv", "a.fcsv", "a.mrk.json"])
@pytest.mark.parametrize("dimension", [2, 3])
def test_points_come_back_exactly(tmp_path: Path, name: str, dimension: int) -> None:
    points = torch.tensor(POINTS, dtype=torch.float64)[:, :dimension]
    write_points(points, tmp_path / name)
    assert torch.equal(read_points(tmp_path / name, dimension=dimension).points, points)
    assert [file.name for file in tmp_path.iterdir()] == [name]


def test_indices_need_a_grid_and_are_rounded_to_voxels(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    grid = Grid.of([10, 10, 10], [2.0, 2.0, 2.0], [100.0, 0.0, 0.0])
    for head in ("index\n2\n", "2\n"):
        path.write_text(head + "1 2 3\n3.6 0 0\n")
        assert read_points(path, grid=grid).points.tolist() == [[102, 4, 6], [108, 0, 0]]
    with pytest.raises(PointsError, match=r"a.txt:1: these are voxel indices"):
        read_points(path)


def write(tmp_path: Path, name: str, text: str) -> Path:
    path = tmp_path / name
    path.write_text(text, encoding="utf-8")
    return path


def test_a_csv_file_may_have_names_other_columns_and_other_separators(tmp_path: Path) -> None:
    assert read_points(write(tmp_path, "a.csv", "1,2,3\n4,5,6\n")).points.tolist() == [[1, 2, 3], [4, 5, 6]]
    assert read_points(write(tmp_path, "a.csv", "1e0,-2.0e+01,3\n")).points.tolist() == [[1, -20, 3]]
    text = 'label;"Z";"X";"Y"\ntip;3;1;2\n\n# a comment\nend;6;4;5\n'
    assert read_points(write(tmp_path, "a.csv", text)).points.tolist() == [[1, 2, 3], [4, 5, 6]]


@pytest.mark.parametrize(("system", "expected"), [("LPS", 1.0), ("1", 1.0), ("RAS", -1.0), ("0", -1.0)])
def test_slicer_points_become_lps(tmp_path: Path, system: str, expected: float) -> None:
    text = (
        f"# Markups fiducial file version = 4.6\n# CoordinateSystem = {system}\n# columns = id,x,y,z,ow\nF1,1,2,3,0\n"
    )
    assert read_points(write(tmp_path, "a.fcsv", text)).points.tolist() == [[expected, 2 * expected, 3]]
    markup = {"coordinateSystem": system, "controlPoints": [{"position": [1, 2, 3]}]}
    path = write(tmp_path, "a.mrk.json", json.dumps({"markups": [markup]}))
    assert read_points(path).points.tolist() == [[expected, 2 * expected, 3]]


def test_vtk_files_may_have_other_sections_and_be_binary(tmp_path: Path) -> None:
    head = "# vtk DataFile Version 3.0\nout\nASCII\nDATASET POLYDATA\n"
    text = head + "POINTS 2 float\n1 2 3 4\n5 6\nVERTICES 1 2\n1 0\n"
    assert read_points(write(tmp_path, "a.vtk", text)).points.tolist() == [[1, 2, 3], [4, 5, 6]]
    binary = head.replace("ASCII", "BINARY") + "POINTS 1 double\n"
    (tmp_path / "b.vtk").write_bytes(binary.encode() + struct.pack(">3d", 1, 2, 3) + b"\n")
    assert read_points(tmp_path / "b.vtk").points.tolist() == [[1, 2, 3]]


@pytest.mark.parametrize(
    ("name", "text", "reason"),
    [
        ("a.txt", "point\n3\n1 2 3\n4 5 6\n", r":2: 3 points of 3 coordinates are announced, but 6 numbers follow"),
        ("a.txt", "point\n1\n1 2\n3 4\n", r":2: 1 points of 3 coordinates are announced, but 4 numbers follow"),
        ("a.txt", "points\n1\n1 2 3\n", r":1: the number of points is needed"),
        ("a.txt", "point\n\n1 2 x\n", r":3: a coordinate is needed, but here stands `x`"),
        ("a.txt", "point\n1\n1 2 nan\n", "must be finite"),
        ("a.txt", "point\n0\n", "holds no points"),
        ("a.txt", "", ":1: the number of points is needed"),
        ("a.csv", "x,y,z\n1,2,3\n1,2\n", ":3: 3 columns are needed, but this line has 2"),
        ("a.csv", "x,y,z\n1,2,three\n", ":2: a coordinate is needed"),
        ("a.csv", "one,two\n1,2\n", ":1: columns named x, y and z"),
        ("a.csv", "1,2\n", "3 coordinates are needed, but these have 2"),
        ("a.vtk", "nothing", ":1: a legacy VTK file"),
        (
            "a.vtk",
            "# vtk DataFile Version 3.0\na\nASCII\nDATASET POLYDATA\nPOINTS 2 float\n1 2 3\n",
            ":5: 6 coordinates",
        ),
        (
            "a.vtk",
            "# vtk DataFile Version 3.0\na\nASCII\nDATASET POLYDATA\nPOINTS 1 float\n1 x 3\n",
            ":6: a coordinate",
        ),
        ("a.vtk", "# vtk DataFile Version 3.0\na\nASCII\nDATASET POLYDATA\nPOINTS many float\n", ":5: `POINTS"),
        ("a.vtk", "# vtk DataFile Version 3.0\na\nBINARY\nDATASET POLYDATA\nPOINTS 9 float\n1", ":5: 108 bytes"),
        ("a.fcsv", "# CoordinateSystem = IJK\n", ":1: the coordinate system `IJK`"),
        ("a.fcsv", "a,1,2\n", ":1: a line with the columns id,x,y,z"),
        ("a.mrk.json", '{"markups":\n[}', ":2: this is not valid JSON"),
        ("a.mrk.json", "[]", "a list `markups`"),
        ("a.mrk.json", '{"markups": [{"controlPoints": [{}]}]}', "control point 1 needs"),
        ("a.txt", "point\n²\n1 2 3\n", ":2: the number of points is needed"),
        ("a.txt", f"point\n{'1' * 5000}\n", ":2: the number of points is needed"),
        ("a.vtk", "# vtk DataFile Version 3.0\na\nASCII\nDATASET POLYDATA\nPOINTS ² float\n", ":5: `POINTS"),
        (
            "a.mrk.json",
            f'{{"markups": [{{"controlPoints": [{{"position": [{"1" * 5000}, 2, 3]}}]}}]}}',
            "must be finite",
        ),
        ("a.json", "{}", "point files end in"),
    ],
)
def test_a_malformed_point_file_is_one_line_that_says_where(tmp_path: Path, name: str, text: str, reason: str) -> None:
    path = write(tmp_path, name, text)
    with pytest.raises(PointsError, match=reason) as caught:
        read_points(path, dimension=3)
    assert str(caught.value).startswith(str(path))
    assert "\n" not in str(caught.value)


@given(st.binary(max_size=200), st.sampled_from(["a.txt", "a.vtk", "a.csv", "a.fcsv", "a.mrk.json"]))
def test_no_bytes_raise_anything_but_a_points_error(
    tmp_path_factory: pytest.TempPathFactory, content: bytes, name: str
) -> None:
    path = tmp_path_factory.mktemp("fuzz") / name
    path.write_bytes(content)
    message = ""
    try:
        read_points(path)
    except PointsError as error:
        message = str(error)
    assert "\n" not in message


def test_a_missing_file_and_an_unknown_ending_are_one_line(tmp_path: Path) -> None:
    with pytest.raises(PointsError, match="cannot be read: No such file"):
        read_points(tmp_path / "a.txt")
    with pytest.raises(OutputError, match=r"use one of \.txt"):
        write_points(torch.zeros(1, 3), tmp_path / "a.xyz")
    with pytest.raises(OutputError, match="cannot be written: No such file"):
        write_points(torch.zeros(1, 3), tmp_path / "missing" / "a.txt")


@pytest.mark.usefixtures("unchecked_shapes")
def test_point_sets_are_finite_2d_or_3d_and_double_precision() -> None:
    assert PointSet(torch.zeros(5, 2)).points.dtype == torch.float64
    assert len(PointSet(torch.zeros(5, 2))) == 5
    for wrong in (torch.zeros(5), torch.zeros(5, 4), torch.full((1, 3), float("nan"))):
        with pytest.raises(PointsError):
            PointSet(wrong)
