"""3D Slicer's two formats of fiducial points, as rows of LPS coordinates: .fcsv and .mrk.json."""

import json
from typing import Any

from impactreg.errors import PointsError

Rows = list[list[float]]

_SYSTEMS = {"0": "RAS", "1": "LPS", "RAS": "RAS", "LPS": "LPS"}


def read_fcsv(text: str, where: str) -> Rows:
    """The points of a .fcsv file; without `# CoordinateSystem` they are in RAS, as Slicer's oldest files are."""
    system, columns, rows = "RAS", ["id", "x", "y", "z"], []
    for number, line in enumerate(text.splitlines(), 1):
        key, _, value = line.lstrip("# ").partition("=")
        if line.startswith("#") and key.strip() == "CoordinateSystem":
            system = _system(value.strip(), f"{where}:{number}")
        elif line.startswith("#") and key.strip() == "columns":
            columns = _columns(value, f"{where}:{number}")
        elif line.strip() and not line.startswith("#"):
            rows.append(_fcsv_point(line.split(","), columns, f"{where}:{number}"))
    return [_lps(row, system) for row in rows]


def read_markups(text: str, where: str) -> Rows:
    """The control points of all markups in a .mrk.json file."""
    try:
        # Whole numbers may be too large for a float, and, as Python's own, too long to be read.
        content = json.loads(text, parse_int=float)
    except (json.JSONDecodeError, RecursionError) as error:
        line = error.lineno if isinstance(error, json.JSONDecodeError) else 1
        raise PointsError(f"{where}:{line}: this is not valid JSON") from error
    markups = content.get("markups") if isinstance(content, dict) else None
    if not isinstance(markups, list) or not all(isinstance(markup, dict) for markup in markups):
        raise PointsError(f"{where}: a list `markups` of 3D Slicer is needed")
    return [row for markup in markups for row in _control_points(markup, where)]


def text_of_fcsv(rows: Rows) -> str:
    """The text of a .fcsv file with these LPS points."""
    head = "# Markups fiducial file version = 4.11\n# CoordinateSystem = LPS\n"
    head += "# columns = id,x,y,z,ow,ox,oy,oz,vis,sel,lock,label,desc,associatedNodeID\n"
    points = (f"{k},{','.join(map(repr, _three(row)))},0,0,0,1,1,1,0,F-{k},,\n" for k, row in enumerate(rows, 1))
    return head + "".join(points)


def text_of_markups(rows: Rows) -> str:
    """The text of a .mrk.json file with these LPS points."""
    schema = "https://raw.githubusercontent.com/slicer/slicer/master/Modules/Loadable/Markups/Resources/Schema/markups-schema-v1.0.3.json#"
    points = [{"id": str(k), "label": f"F-{k}", "position": _three(row)} for k, row in enumerate(rows, 1)]
    markup = {"type": "Fiducial", "coordinateSystem": "LPS", "coordinateUnits": "mm", "controlPoints": points}
    return json.dumps({"@schema": schema, "markups": [markup]}, indent=1) + "\n"


def _control_points(markup: dict[str, Any], where: str) -> Rows:
    system = _system(str(markup.get("coordinateSystem", "LPS")), where)
    points, rows = markup.get("controlPoints", []), []
    for number, point in enumerate(points if isinstance(points, list) else [points], 1):
        position = point.get("position") if isinstance(point, dict) else None
        plain = isinstance(position, list) and len(position) == 3
        if not plain or not all(isinstance(v, int | float) and not isinstance(v, bool) for v in position or []):
            raise PointsError(f"{where}: control point {number} needs a `position` of three numbers")
        rows.append(_lps([float(v) for v in position or []], system))
    return rows


def _system(value: str, where: str) -> str:
    if value not in _SYSTEMS:
        raise PointsError(f"{where}: the coordinate system `{value}` is not supported: save the points in LPS or RAS")
    return _SYSTEMS[value]


def _columns(value: str, where: str) -> list[str]:
    columns = [name.strip() for name in value.split(",")]
    if not {"x", "y", "z"} <= set(columns):
        raise PointsError(f"{where}: columns x, y and z are needed")
    return columns


def _fcsv_point(words: list[str], columns: list[str], where: str) -> list[float]:
    # old files leave the id out of the columns that they name, or the name in front of bare coordinates
    try:
        return [float(words[columns.index(axis)]) for axis in "xyz"]
    except (ValueError, IndexError):
        raise PointsError(f"{where}: a line with the columns {','.join(columns[:4])} is needed") from None


def _lps(row: list[float], system: str) -> list[float]:
    return [-row[0], -row[1], row[2]] if system == "RAS" else row


def _three(row: list[float]) -> list[float]:
    return row + [0.0] * (3 - len(row))
