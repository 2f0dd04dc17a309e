"""The parameter maps that come with impactreg, found by name.

They lie in `parameter_maps/<task>/<name>.txt` (or .toml); `<task>/<name>` is the name of one, and `<name>` will do when
no other task has it:

    ParameterMap.read(presets.find("abdomen/mr-ct"))

To ship another one, put its file there.
"""

from pathlib import Path

from impactreg.errors import ParameterError
from impactreg.parameters.casting import nearest
from impactreg.parameters.grammar import excerpt

FIRST_MAPS = {2: ["rigid", "mind-bspline-2d"], 3: ["rigid", "mind-bspline"]}
"""The shipped maps that are run where none is named, for 2D and for 3D images."""

_HOUSE = Path(__file__).parents[1]
# Installed, the maps lie inside the package; in a working copy, next to it.
_FOLDERS = (_HOUSE / "shipped" / "parameter_maps", _HOUSE.parent / "parameter_maps")


def find(name: str | Path) -> Path:
    """Find a parameter file: a path as it is, otherwise the map of that name, `<task>/<name>` or `<name>` alone.

    Raises ParameterError, offering the nearest names, when there is neither.
    """
    path = Path(name)
    if _exists(path):
        return path
    shipped = _shipped()
    wanted = path.as_posix().removesuffix(".txt").removesuffix(".toml")
    found = [full for full in shipped if full == wanted or full.rpartition("/")[2] == wanted]
    if len(found) == 1:
        return shipped[found[0]]
    if found:
        raise ParameterError(f"{name}: there are several parameter maps of this name: {', '.join(found)}")
    raise ParameterError(f"{excerpt(str(name))}: there is no such parameter file{_advice(wanted, list(shipped))}")


def names() -> list[str]:
    """List the shipped parameter maps, each as `<task>/<name>`."""
    return sorted(_shipped())


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except OSError:  # a name that is too long
        return False


def _shipped() -> dict[str, Path]:
    folder = next((folder for folder in _FOLDERS if folder.is_dir()), None)
    files = sorted(path for path in folder.rglob("*") if path.suffix in (".txt", ".toml")) if folder else []
    return {path.relative_to(folder).with_suffix("").as_posix(): path for path in files} if folder else {}


def _advice(wanted: str, shipped: list[str]) -> str:
    short = {full.rpartition("/")[2]: full for full in shipped}
    near = nearest(wanted, shipped) or short.get(nearest(wanted.rpartition("/")[2], short), "")
    return f", nor a shipped one of this name; did you mean {near}?" if near else ", nor a shipped one of this name"
