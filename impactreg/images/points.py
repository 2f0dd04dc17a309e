"""Point sets: elastix point files, VTK polydata, CSV, and 3D Slicer's markups."""

import os
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from impactreg.errors import OutputError, PointsError
from impactreg.images.grid import Grid
from impactreg.images.slicer import read_fcsv, read_markups, text_of_fcsv, text_of_markups
from impactreg.images.whole import whole_file

FilePath = str | os.PathLike[str]
Rows = list[list[float]]

_COUNT = re.compile("[0-9]{1,18}")


@dataclass(frozen=True, eq=False)
class PointSet:
    """World positions (LPS mm) as float64 [points, dim]; raises `PointsError` where they are not finite, 2D or 3D.

    `indexed` tells that they were given as voxels of a grid.
    """

    points: Float[Tensor, "points dim"]
    indexed: bool = False

    def __post_init__(self) -> None:
        if self.points.ndim != 2 or self.points.shape[1] not in (2, 3):
            raise PointsError(
                f"points of shape (N, 2) or (N, 3) are needed, but the shape is {tuple(self.points.shape)}"
            )
        if not bool(torch.isfinite(self.points).all()):
            raise PointsError("points must be finite numbers")
        object.__setattr__(self, "points", self.points.detach().to(torch.float64))

    @classmethod
    def of_indices(cls, indices: Float[Tensor, "points dim"], grid: Grid) -> "PointSet":
        """Points given as voxel indices (x, y, z) of a grid, rounded to whole voxels as elastix does."""
        return cls(grid.index_to_world(torch.floor(indices.to(torch.float64) + 0.5)), indexed=True)

    def __len__(self) -> int:
        return int(self.points.shape[0])

    @property
    def dimension(self) -> int:
        """2 or 3."""
        return int(self.points.shape[1])


def read_points(path: FilePath, *, grid: Grid | None = None, dimension: int | None = None) -> PointSet:
    """The points in a file: elastix .txt, .vtk (legacy polydata), .csv, or 3D Slicer's .fcsv and .mrk.json.

    elastix files (first word `point`, `index`, or nothing, which means `index`; then the count and the coordinates)
    with indices need `grid`, the image they index. `dimension` (2 or 3) is checked when given, by itself or by
    `grid`; in formats that always have three coordinates a third one of 0 is dropped for 2. RAS coordinates become
    LPS. Raises `PointsError` with file and line.
    """
    file = Path(path)
    wanted = dimension if dimension is not None else grid.dimension if grid is not None else None
    try:
        content = file.read_bytes()
    except OSError as error:
        raise PointsError(f"{path}: cannot be read: {error.strerror or error}") from error
    if _extension(file) == ".vtk":
        rows, are_indices = _read_vtk(content, str(path)), False
    else:
        try:
            text = content.decode("utf-8-sig")
        except UnicodeDecodeError as error:
            raise PointsError(f"{path}: this is no text file, so no point file") from error
        rows, are_indices = _reader(file)(text, str(path), wanted)
    points = _tensor(rows, str(path), wanted)
    if not are_indices:
        return PointSet(points)
    if grid is None:
        raise PointsError(
            f"{path}:1: these are voxel indices: give their image, or write `point` first if they are world points"
        )
    return PointSet.of_indices(points, grid)


def write_points(points: "PointSet | Float[Tensor, 'points dim']", path: FilePath) -> None:
    """Writes points, whole or not at all: .txt (elastix), .vtk, .csv, .fcsv or .mrk.json, by the extension.

    Coordinates keep their full precision; raises `OutputError`.
    """
    rows: Rows = (points if isinstance(points, PointSet) else PointSet(points)).points.cpu().tolist()
    writers: dict[str, Callable[[Rows], str]] = {
        ".txt": lambda rows: f"point\n{len(rows)}\n" + _lines(rows, " "),
        ".csv": lambda rows: ("x,y\n" if rows and len(rows[0]) == 2 else "x,y,z\n") + _lines(rows, ","),
        ".vtk": _text_of_vtk,
        ".fcsv": text_of_fcsv,
        ".mrk.json": text_of_markups,
    }
    extension = _extension(Path(path))
    if extension not in writers:
        raise OutputError(f'{path}: points cannot be written to "{extension}" files: use one of {", ".join(writers)}')
    with whole_file(Path(path)) as draft:
        draft.write_text(writers[extension](rows), encoding="utf-8")


def _extension(file: Path) -> str:
    return ".mrk.json" if file.name.lower().endswith(".mrk.json") else file.suffix.lower()


def _reader(file: Path) -> "Callable[[str, str, int | None], tuple[Rows, bool]]":
    readers: dict[str, Callable[[str, str, int | None], tuple[Rows, bool]]] = {
        ".txt": _read_elastix,
        ".pts": _read_elastix,
        ".csv": lambda text, where, _: (_read_csv(text, where), False),
        ".fcsv": lambda text, where, _: (read_fcsv(text, where), False),
        ".mrk.json": lambda text, where, _: (read_markups(text, where), False),
    }
    if _extension(file) not in readers:
        raise PointsError(f"{file}: point files end in {', '.join([*readers, '.vtk'])}")
    return readers[_extension(file)]


def _read_elastix(text: str, where: str, wanted: int | None) -> tuple[Rows, bool]:
    words = _words(text)
    line, kind = next(words, (1, ""))
    are_indices = kind != "point"
    if kind in ("point", "index"):
        line, kind = next(words, (line, ""))
    if not _COUNT.fullmatch(kind):
        raise PointsError(
            f"{where}:{line}: the number of points is needed after `point` or `index`, but here stands `{kind[:40]}`"
        )
    count, numbers = int(kind), [_number(word, f"{where}:{number}") for number, word in words]
    dimension = wanted or (len(numbers) // count if count else 3)
    if len(numbers) != count * dimension or dimension not in (2, 3):
        sort = f"{count} points of {wanted or '2 or 3'} coordinates"
        raise PointsError(f"{where}:{line}: {sort} are announced, but {len(numbers)} numbers follow")
    return [numbers[k : k + dimension] for k in range(0, len(numbers), dimension)], are_indices


def _words(text: str) -> Iterator[tuple[int, str]]:
    return ((number, word) for number, line in enumerate(text.splitlines(), 1) for word in line.split())


def _number(word: str, where: str) -> float:
    try:
        return float(word)
    except ValueError:
        raise PointsError(f"{where}: a coordinate is needed, but here stands `{word.strip()[:40]}`") from None


def _read_csv(text: str, where: str) -> Rows:
    lines = [
        (number, line) for number, line in enumerate(text.splitlines(), 1) if line.strip() and not line.startswith("#")
    ]
    if not lines:
        return []
    separator = next((s for s in (",", ";", "\t") if s in lines[0][1]), ",")
    names = [word.strip().strip('"').lower() for word in lines[0][1].split(separator)]
    chosen = [names.index(axis) for axis in "xyz" if axis in names]
    if not all(map(_is_number, names)) and any(c.isalpha() for name in names for c in name):
        if len(chosen) < 2:
            raise PointsError(
                f"{where}:{lines[0][0]}: columns named x, y and z are needed, but they are named {', '.join(names)}"
            )
        lines = lines[1:]
    rows = [[word.strip().strip('"') for word in line.split(separator)] for _, line in lines]
    for (number, _), row in zip(lines, rows, strict=True):
        if len(row) != len(names):
            raise PointsError(f"{where}:{number}: {len(names)} columns are needed, but this line has {len(row)}")
    columns = chosen or range(len(names))
    return [
        [_number(row[c], f"{where}:{number}") for c in columns] for (number, _), row in zip(lines, rows, strict=True)
    ]


def _is_number(word: str) -> bool:
    try:
        float(word)
    except ValueError:
        return False
    return True


def _read_vtk(content: bytes, where: str) -> Rows:
    head, found, rest = content.partition(b"\nPOINTS")
    lines = head.decode("latin-1").split("\n")
    if not lines[0].startswith("# vtk DataFile") or len(lines) < 4 or not found:
        raise PointsError(f"{where}:1: a legacy VTK file with a POINTS section is needed")
    announced, _, values = rest.partition(b"\n")
    words, number = announced.decode("latin-1").split(), len(lines) + 1
    types = {"float": ">f4", "double": ">f8"}
    if len(words) != 2 or not _COUNT.fullmatch(words[0]) or words[1] not in types:
        raise PointsError(f"{where}:{number}: `POINTS <count> float|double` is needed")
    count = 3 * int(words[0])
    if lines[2].strip().upper() == "BINARY":
        return _binary_rows(values, count, types[words[1]], f"{where}:{number}")
    numbers: list[float] = []
    for line, word in _words(values.decode("latin-1")):
        if len(numbers) == count:
            break
        numbers.append(_number(word, f"{where}:{number + line}"))
    if len(numbers) < count:
        raise PointsError(f"{where}:{number}: {count} coordinates are announced, but {len(numbers)} follow")
    return [numbers[k : k + 3] for k in range(0, count, 3)]


def _binary_rows(values: bytes, count: int, kind: str, where: str) -> Rows:
    import numpy as np

    size = count * np.dtype(kind).itemsize
    if len(values) < size:
        raise PointsError(f"{where}: {size} bytes of coordinates are announced, but {len(values)} follow")
    rows: Rows = np.frombuffer(values[:size], kind).astype(float).reshape(-1, 3).tolist()
    return rows


def _text_of_vtk(rows: Rows) -> str:
    three = [row + [0.0] * (3 - len(row)) for row in rows]
    return f"# vtk DataFile Version 2.0\npoints\nASCII\nDATASET POLYDATA\nPOINTS {len(rows)} double\n" + _lines(
        three, " "
    )


def _lines(rows: Rows, separator: str) -> str:
    return "".join(separator.join(map(repr, row)) + "\n" for row in rows)


def _tensor(rows: Rows, where: str, wanted: int | None) -> Float[Tensor, "points dim"]:
    if not rows:
        raise PointsError(f"{where}: the file holds no points")
    points = torch.tensor(rows, dtype=torch.float64)
    if not bool(torch.isfinite(points).all()):
        raise PointsError(f"{where}: the coordinates must be finite numbers")
    if wanted == 2 and points.shape[1] == 3 and bool((points[:, 2] == 0).all()):
        points = points[:, :2]
    if points.shape[1] != (wanted or points.shape[1]) or points.shape[1] not in (2, 3):
        raise PointsError(
            f"{where}: points of {wanted or '2 or 3'} coordinates are needed, but these have {points.shape[1]}"
        )
    return points
