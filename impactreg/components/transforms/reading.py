"""Numbers and file names out of a TransformParameters file, or one clear line that says which are missing."""

import logging
from pathlib import Path, PureWindowsPath

import torch
from jaxtyping import Float
from torch import Tensor

from impactreg.errors import TransformError
from impactreg.parameters import ParameterMap

logger = logging.getLogger(__name__)


def floats(parameter_map: ParameterMap, key: str) -> tuple[float, ...]:
    """The numbers of a key that must be there."""
    if not parameter_map.get(key):
        raise TransformError(f"{parameter_map.where(key)}: a transform needs ({key} ...), which is missing")
    return parameter_map.numbers(key)


def parameters_of(parameter_map: ParameterMap, needed: int) -> Float[Tensor, " parameters"]:
    """`TransformParameters`, checked for their number against `needed` and `NumberOfParameters`."""
    values = floats(parameter_map, "TransformParameters")
    written = parameter_map.get("NumberOfParameters")
    counts = {needed} if not written else {needed, int(float(written[0]))}
    if counts != {len(values)}:
        where = parameter_map.where("TransformParameters")
        raise TransformError(f"{where}: {len(values)} TransformParameters are given where {needed} are needed")
    found = torch.tensor(values, dtype=torch.float64)
    if not bool(found.isfinite().all()):
        where = parameter_map.where("TransformParameters")
        raise TransformError(f"{where}: TransformParameters must be finite numbers; take the file of another run")
    return found


def dimension_of(parameter_map: ParameterMap) -> int:
    """2 or 3: `FixedImageDimension`, else the count of `Size`; raises `TransformError` for none and for others."""
    written = parameter_map.first("FixedImageDimension")
    key = "FixedImageDimension" if written else "Size"
    found = int(parameter_map.numbers(key)[0]) if written else len(parameter_map.get("Size", ()))
    if found == 0:
        raise TransformError(
            f"{parameter_map.where(key)}: a transform needs (FixedImageDimension ...), which is missing"
        )
    if found not in (2, 3):
        raise TransformError(
            f"{parameter_map.where(key)}: transforms of 2D and 3D images are read here, and this one is {found}D; "
            "use elastix's own transformix"
        )
    return found


def existing_file(parameter_map: ParameterMap, key: str, *, beside_first: bool = False, entry: int = 0) -> Path:
    """The file that an entry of a key names: as written (relative ones in the working folder), else beside the map's.

    With `beside_first` the folder of the map's file is looked into first. A file of the same name beside the map's
    file stands in, with a warning, for one that has moved along with it. Raises `TransformError` where there is none.
    """
    name = (*parameter_map.get(key, ()), "")[entry]
    if not name:
        raise TransformError(f"{parameter_map.where(key)}: a transform needs ({key} ...), which is missing")
    written = Path(name)
    folder = parameter_map.source.parent if parameter_map.source else Path()
    places = [folder / written, written] if beside_first else [written, folder / written]
    found = next((place for place in places if place.is_file()), None)
    moved = folder / PureWindowsPath(name).name
    if found is None and parameter_map.source and moved.is_file():
        logger.warning(
            '%s: "%s" does not exist; the file of that name beside it is taken', parameter_map.where(key), name
        )
        found = moved
    if found is None:
        raise TransformError(f'{parameter_map.where(key)}: ({key} "{name}"): there is no such file')
    return found
