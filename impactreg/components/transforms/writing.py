"""A transform written as another kind of file, by its ending: elastix's, ITK's, or a displacement field."""

from pathlib import Path
from typing import Any

from impactreg.components.resampling import Output
from impactreg.components.transforms.displacement import DeformationFieldTransform
from impactreg.components.transforms.displacement_files import FIELD_ENDINGS, write_field, write_voxel_field
from impactreg.components.transforms.exchange import as_transform, itk_members
from impactreg.components.transforms.files import ITK_EXTENSIONS, NO_INITIAL, text_of, transform_map, write_itk
from impactreg.components.transforms.transform import Combination
from impactreg.errors import OutputError, TransformError
from impactreg.images.grid import Grid
from impactreg.images.whole import whole_file
from impactreg.parameters import ParameterMap

ITK_ENDINGS = tuple(f".{each}" for each in ITK_EXTENSIONS)
ENDINGS = (*ITK_ENDINGS, ".txt", *FIELD_ENDINGS, ".npz")
"""Endings that say what is written; `.txt` is a TransformParameters file and `.npz` a field of Learn2Reg's."""


def write_transform(
    transform: Any,
    path: str | Path,
    *,
    fixed: Grid | None = None,
    moving: Grid | None = None,
    learn2reg: bool = False,
) -> None:
    """Writes a transform (whatever `as_transform` takes) as the kind of file that the ending of `path` names.

    Displacement fields and TransformParameters files need `fixed`, the grid of the fixed image. Fields of Learn2Reg's,
    which are `.npz` files or asked for by `learn2reg`, need `moving` as well. A chain in a TransformParameters file
    gets a file for each member. Every file appears whole or not at all. Raises `TransformError` where a grid is missing
    or ITK cannot hold the transform, and `OutputError` for other endings and folders.
    """
    file, combination = Path(path), as_transform(transform)
    name = file.name.lower()
    if not name.endswith(ENDINGS):
        raise OutputError(f'{path}: transforms cannot be written to "{file.suffix}" files: use {", ".join(ENDINGS)}')
    if learn2reg or name.endswith(".npz"):
        write_voxel_field(
            combination, file, *(_needed(grid, what) for grid, what in ((fixed, "fixed"), (moving, "moving")))
        )
    elif name.endswith(FIELD_ENDINGS):
        write_field(combination, file, _checked(_needed(fixed, "fixed"), combination))
    elif name.endswith(ITK_ENDINGS):
        write_itk(file, itk_members(combination))
    else:
        _write_elastix(combination, file, _checked(_needed(fixed, "fixed"), combination))


def _needed(grid: Grid | None, what: str) -> Grid:
    if grid is None:
        flag = "--reference" if what == "fixed" else "--moving"
        raise TransformError(f"this kind of file needs the grid of the {what} image: give that image ({flag})")
    return grid


def _checked(grid: Grid, combination: Combination) -> Grid:
    if grid.dimension != combination.dimension:
        raise TransformError(
            f"the fixed image is {grid.dimension}D, but the transform is {combination.dimension}D: give its own"
        )
    return grid


def _write_elastix(combination: Combination, file: Path, grid: Grid) -> None:
    """A TransformParameters file for each member; the last one has the name that was asked for."""
    empty = ParameterMap.from_dict({}, file.name)
    output, initial = Output.of(empty, grid), NO_INITIAL
    chain = combination.chain()
    for number, member in enumerate(chain):
        last = number == len(chain) - 1
        path = file if last else file.with_name(f"{file.stem}.{number}{file.suffix}")
        current = member.current
        if isinstance(current, DeformationFieldTransform) and not current.file:
            current = current.saved(path.absolute().with_suffix(".mha"))
        content = transform_map(Combination(current, None, member.compose), output, empty, initial)
        with whole_file(path) as draft:
            draft.write_text(text_of(content), encoding="utf-8", newline="\n")
        initial = str(path.absolute())
