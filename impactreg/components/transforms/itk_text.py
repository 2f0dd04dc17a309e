"""ITK transforms: their text files (.tfm, .txt), and what they are called here.

A transform of ITK is a class name with parameters and fixed parameters; those of a composite stand in the order in
which ITK holds them, the one applied first last (`itk::TxtTransformIO`, `itk::CompositeTransform`).
"""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from impactreg.components.transforms.displacement import DeformationFieldTransform
from impactreg.components.transforms.transform import Combination, Transform
from impactreg.errors import TransformError
from impactreg.images.grid import Grid
from impactreg.images.image import Image
from impactreg.parameters import ParameterMap

HEADER = "#Insight Transform File V1.0"
COMPOSITE = "CompositeTransform"
LEAVE_OUT = "leave out (ITKTransformOutputFileNameExtension ...)"
_PLAIN = ("TranslationTransform", "EulerTransform", "SimilarityTransform", "AffineTransform")
_WITH_DIMENSION = ("EulerTransform", "SimilarityTransform")
KNOWN = (*_PLAIN, "IdentityTransform", "VersorRigid3DTransform")
"""Kinds of linear transforms that are read as they are."""
_SAME = {"Rigid2DTransform": "EulerTransform", "MatrixOffsetTransformBase": "AffineTransform"}


class ItkTransform(NamedTuple):
    """A class name such as `Euler3DTransform_double_3_3` (or `Euler3DTransform`), parameters and fixed parameters."""

    name: str
    parameters: Sequence[float]
    fixed_parameters: Sequence[float]

    @property
    def kind(self) -> str:
        """The class without number type and dimensions."""
        return self.name.split("_")[0]

    @property
    def order(self) -> int:
        """The spline order, which stands last in the name unless it is 3."""
        parts = self.name.split("_")
        return int(parts[4]) if len(parts) > 4 and parts[4].isdigit() else 3


def is_itk_text(path: Path) -> bool:
    """Whether a file begins as ITK's transform text files do."""
    with path.open("rb") as file:
        return file.read(24).startswith(HEADER[:23].encode())


def read_itk_text(path: Path) -> list[ItkTransform]:
    """The transforms of an ITK text file, in its order; raises `TransformError` with file and line."""
    found: list[ItkTransform] = []
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise TransformError(f"{path}: the transform cannot be read: {error}") from error
    for number, line in enumerate(lines, start=1):
        key, colon, text = line.partition(":")
        if not line.strip() or line.startswith("#"):
            continue
        if key == "Transform" and colon:
            found.append(ItkTransform(text.strip(), (), ()))
        elif key in ("Parameters", "FixedParameters") and found:
            values = _numbers(text, f"{path}:{number}")
            last = found.pop()
            known = (values, last.fixed_parameters) if key == "Parameters" else (last.parameters, values)
            found.append(ItkTransform(last.name, *known))
        else:
            raise TransformError(
                f"{path}:{number}: `Transform: ...`, `Parameters: ...` or `FixedParameters: ...` is needed"
            )
    if not found:
        raise TransformError(f"{path}: the file holds no transform")
    return found


def itk_text(transforms: Iterable[ItkTransform]) -> str:
    """The text of an ITK transform file; a composite, if there is one, comes first."""
    lines = [HEADER]
    for number, transform in enumerate(transforms):
        lines += [f"#Transform {number}", f"Transform: {transform.name}"]
        if transform.kind != COMPOSITE:
            lines.append("Parameters: " + " ".join(map(repr, map(float, transform.parameters))))
            lines.append("FixedParameters: " + " ".join(map(repr, map(float, transform.fixed_parameters))))
    return "\n".join(lines) + "\n"


def to_itk(transform: Transform, advice: str = LEAVE_OUT) -> ItkTransform:
    """A transform as ITK has it; raises `TransformError`, which ends in `advice`, for one that ITK lacks."""
    if isinstance(transform, DeformationFieldTransform):
        return _field_to_itk(transform, advice)
    dimension, name = transform.dimension, next(iter(transform.names), type(transform).__name__)
    end = f"_double_{dimension}_{dimension}"
    written = ParameterMap.from_dict(transform.written())
    if name == "BSplineTransform":
        order = written.first("BSplineTransformSplineOrder")
        direction = np.array(written.numbers("GridDirection")).reshape(dimension, dimension).T
        size = [int(n) for n in written.numbers("GridSize")]
        grid = Grid.of(size, written.numbers("GridSpacing"), written.numbers("GridOrigin"), direction)
        name += end + ("" if order == "3" else f"_{order}")
        return ItkTransform(name, transform.parameters.tolist(), _fixed_of_grid(grid))
    if name not in _PLAIN:
        raise TransformError(f"ITK has no {name}: {advice}")
    if name in _WITH_DIMENSION:
        name = name.replace("Transform", f"{dimension}DTransform")
    fixed = list(written.numbers("CenterOfRotationPoint"))
    if "ComputeZYX" in written:
        fixed.append(float(written.first("ComputeZYX") == "true"))
    return ItkTransform(name + end, transform.parameters.tolist(), fixed)


def composite_to_itk(combination: Combination) -> list[ItkTransform]:
    """A chain as an ITK composite and its members; raises `TransformError` where transforms are added."""
    chain = combination.chain()
    if any(not each.compose for each in chain[1:]):
        raise TransformError(
            'ITK composites cannot hold (HowToCombineTransforms "Add"): leave out (WriteITKCompositeTransform ...)'
        )
    dimension = combination.dimension
    return [
        ItkTransform(f"{COMPOSITE}_double_{dimension}_{dimension}", (), ()),
        *(to_itk(each.current) for each in reversed(chain)),
    ]


def from_itk(transforms: Sequence[ItkTransform], where: str) -> list[Transform]:
    """The transforms of a file in the order in which they are applied; `where` begins the `TransformError`."""
    if transforms[0].kind == COMPOSITE:
        transforms = transforms[:0:-1]
    elif len(transforms) > 1:
        raise TransformError(f"{where}: the file holds {len(transforms)} transforms that are not one composite")
    if not transforms or any(each.kind == COMPOSITE for each in transforms):
        raise TransformError(f"{where}: a composite transform must have members that are no composites")
    return [_from_itk(each, where) for each in transforms]


def elastix_name(transform: ItkTransform) -> str:
    """What elastix calls an ITK class: `EulerTransform` for `Euler3DTransform`."""
    kind = transform.kind
    return _SAME.get(kind, kind.replace("2D", "").replace("3D", ""))


def from_itk_parameters(name: str, transform: ItkTransform, dimension: int, where: str) -> Transform:
    """The transform that elastix calls `name`, from ITK's parameters and fixed parameters (none: an identity's)."""
    values: Mapping[str, object]
    fixed = list(transform.fixed_parameters)
    if name in ("BSplineTransform", "RecursiveBSplineTransform"):
        values = {**_grid_keys(fixed, where), "BSplineTransformSplineOrder": transform.order}
    elif name in _PLAIN:
        order = {"ComputeZYX": bool(fixed[3])} if name == "EulerTransform" and len(fixed) == 4 else {}
        values = {"CenterOfRotationPoint": (fixed or [0.0] * dimension)[:dimension], **order}
    else:
        raise TransformError(
            f"{where}: {transform.name} is not supported: write the transform as {', '.join(_PLAIN)}, or as B-spline"
        )
    return Transform.named(name).read(
        ParameterMap.from_dict({"TransformParameters": list(transform.parameters), **values}, where)
    )


def _from_itk(transform: ItkTransform, where: str) -> Transform:
    dimension = 2 if "_2_2" in transform.name or "2D" in transform.kind else 3
    if transform.kind == "DisplacementFieldTransform":
        return _field_from_itk(transform, where)
    if transform.kind == "IdentityTransform":
        transform = ItkTransform("TranslationTransform", [0.0] * dimension, ())
    if transform.kind == "VersorRigid3DTransform":
        transform = ItkTransform("Similarity3DTransform", [*transform.parameters, 1.0], transform.fixed_parameters)
    return from_itk_parameters(elastix_name(transform), transform, dimension, where)


def _field_to_itk(transform: DeformationFieldTransform, advice: str) -> ItkTransform:
    if transform.order != 1:
        raise TransformError(f"ITK interpolates displacement fields linearly only: {advice}")
    field = transform.field
    values = field.data.double().cpu().movedim(0, -1).reshape(-1).tolist()
    name = f"DisplacementFieldTransform_double_{field.dimension}_{field.dimension}"
    return ItkTransform(name, values, _fixed_of_grid(field.grid))


def _field_from_itk(transform: ItkTransform, where: str) -> DeformationFieldTransform:
    keys = _grid_keys(list(transform.fixed_parameters), where)
    size = [int(n) for n in keys["GridSize"]]
    direction = np.array(keys["GridDirection"]).reshape(len(size), len(size)).T
    grid = Grid.of(size, keys["GridSpacing"], keys["GridOrigin"], direction)
    values = torch.tensor(transform.parameters, dtype=torch.float64)
    if values.numel() != grid.number_of_voxels * len(size):
        raise TransformError(
            f"{where}: a displacement field of size {grid.size} has {len(transform.parameters)} numbers"
        )
    return DeformationFieldTransform(Image(values.reshape(*grid.shape, len(size)).movedim(-1, 0).contiguous(), grid))


def _fixed_of_grid(grid: Grid) -> list[float]:
    return [*map(float, grid.size), *grid.origin, *grid.spacing, *(v for row in grid.direction for v in row)]


def _grid_keys(fixed: list[float], where: str) -> dict[str, list[float]]:
    n = {10: 2, 18: 3}.get(len(fixed))
    if n is None:
        raise TransformError(
            f"{where}: fixed parameters of 10 (2D) or 18 (3D) numbers are needed, but there are {len(fixed)}"
        )
    columns = np.array(fixed[3 * n :]).reshape(n, n).T.reshape(-1)
    return {
        "GridSize": fixed[:n],
        "GridOrigin": fixed[n : 2 * n],
        "GridSpacing": fixed[2 * n : 3 * n],
        "GridDirection": columns.tolist(),
    }


def _numbers(text: str, where: str) -> list[float]:
    try:
        return [float(word) for word in text.split()]
    except ValueError as error:
        raise TransformError(f"{where}: a number is needed: {str(error)[:80]}") from None
