"""Transforms from whatever Python programs have at hand, and back: matrices, itk and SimpleITK objects.

All map fixed to moving points in world millimetres (LPS), which is also what `itk.ResampleImageFilter` and
`SimpleITK.Resample` take.
"""

import os
import tempfile
from collections.abc import Iterable
from importlib import import_module
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor

from impactreg.components.transforms import itk_text
from impactreg.components.transforms.files import is_itk_file, read_transform
from impactreg.components.transforms.itk_text import COMPOSITE, ItkTransform
from impactreg.components.transforms.linear import AffineTransform
from impactreg.components.transforms.transform import Combination, Transform
from impactreg.errors import MissingExtra, TransformError
from impactreg.images.files import itk_transform_of, itk_transform_parts
from impactreg.parameters import ParameterMap

Matrix = np.ndarray[tuple[int, int], np.dtype[np.float64]]
_TAKEN = "a path, a transform, ParameterMaps, a Result, a 4 x 4 or 3 x 3 matrix, an itk or SimpleITK transform"


def as_transform(anything: Any) -> Combination:
    """A transform from anything that is one.

    That is the path of a TransformParameters file, an ITK transform file or a displacement field in millimetres, a
    `Combination` or single transform, a `ParameterMap` or a list of them (a chain), what `register` or `transformix`
    returned, a homogeneous matrix (array or tensor, see `from_matrix`), or a transform object of itk or SimpleITK,
    composites and displacement fields among them. Raises `TransformError` in one line for what is none of these or
    cannot be read.
    """
    if isinstance(anything, Combination):
        return anything
    if isinstance(anything, Transform):
        return Combination(anything)
    if isinstance(anything, np.ndarray | Tensor):
        return from_matrix(anything)
    if isinstance(anything, ParameterMap | str | os.PathLike):
        return read_transform(cast("ParameterMap | str | os.PathLike[str]", anything))
    if isinstance(anything, list | tuple) and all(isinstance(each, ParameterMap) for each in anything):
        return read_transform(anything)
    # what register() and transformix() return is known above these floors alone
    if isinstance(getattr(anything, "transform", None), Combination):
        return cast(Combination, anything.transform)
    return _from_library(anything)


def opened(anything: Any) -> Any:
    """What `as_transform` takes, with the path of a TransformParameters file replaced by its `ParameterMap`: a file
    with many coefficients is then read once, whatever else is asked of it.
    """
    if isinstance(anything, str | os.PathLike) and not is_itk_file(Path(anything)):
        return ParameterMap.read(anything)
    return anything


def last_map(anything: Any) -> ParameterMap | None:
    """The map that tells the images of what `as_transform` takes: of several that of the last, as transformix has it;
    None where there is none.
    """
    anything = opened(anything)
    maps = getattr(anything, "transform_parameter_maps", anything)
    last = maps[-1] if isinstance(maps, list | tuple) and maps else maps
    return last if isinstance(last, ParameterMap) else None


def to_matrix(transform: Any) -> Matrix:
    """The homogeneous matrix [D + 1, D + 1] (float64) of a linear transform: fixed to moving points, LPS millimetres.

    `transform` is whatever `as_transform` takes. Raises `TransformError` where a part of it is not linear.
    """
    combination = as_transform(transform)
    bent = next((each.current for each in combination.chain() if not each.current.linear), None)
    if bent is not None:
        raise TransformError(
            f"a {type(bent).__name__} is not linear and has no matrix: take the points themselves, or its deformation "
            "field"
        )
    n = combination.dimension
    origin = torch.zeros(1, n, dtype=torch.float64)
    matrix = np.eye(n + 1)
    matrix[:n, :n] = combination.local(origin).jacobian[0].cpu().numpy()
    matrix[:n, n] = combination(origin)[0].cpu().numpy()
    return matrix


def from_matrix(matrix: Any) -> Combination:
    """The affine transform of a homogeneous matrix [4, 4] (3D) or [3, 3] (2D): fixed to moving points, LPS millimetres.

    `matrix` is an array, a tensor or nested lists. Raises `TransformError` where it is no such matrix or is singular.
    """
    given = np.asarray(matrix.detach().cpu() if isinstance(matrix, Tensor) else matrix, dtype=np.float64)
    n = given.shape[0] - 1 if given.ndim == 2 else 0
    if given.shape not in ((3, 3), (4, 4)):
        raise TransformError(f"a transform matrix is 4 x 4 (3D) or 3 x 3 (2D), but this one has shape {given.shape}")
    if not np.isfinite(given).all() or not np.allclose(given[n], [0.0] * n + [1.0], atol=1e-12):
        row = " ".join(f"{value:g}" for value in given[n])
        raise TransformError(
            f"a transform matrix is homogeneous: finite, with {' '.join('0' * n)} 1 as last row, not {row}; put a "
            "rotation alone into the upper left of an identity"
        )
    if abs(np.linalg.det(given[:n, :n])) < 1e-12:
        raise TransformError("the transform matrix is singular: it maps different points to one")
    parameters = torch.from_numpy(np.concatenate([given[:n, :n].reshape(-1), given[:n, n]]))
    return Combination(AffineTransform(parameters, torch.zeros(n, dtype=torch.float64)))


def to_itk_transform(transform: Any) -> Any:
    """The transform as an object of itk, a `CompositeTransform` where several are applied one after the other.

    `transform` is whatever `as_transform` takes. Linear transforms that ITK lacks become affine. Raises
    `TransformError` for what ITK cannot hold.
    """
    return itk_transform_of(itk_text.itk_text(itk_members(as_transform(transform))))


def to_sitk_transform(transform: Any) -> Any:
    """The transform as an object of SimpleITK, as `to_itk_transform`; raises `MissingExtra` where it is not installed.

    It can be handed to `SimpleITK.Resample` and `SimpleITK.WriteTransform`.
    """
    try:
        library = import_module("SimpleITK")
    except ImportError:
        raise MissingExtra("SimpleITK is not installed: pip install SimpleITK") from None
    text = itk_text.itk_text(itk_members(as_transform(transform)))
    with tempfile.TemporaryDirectory() as folder:
        plain = Path(folder) / "transform.tfm"
        plain.write_text(text, encoding="utf-8")
        try:
            read = library.ReadTransform(os.fspath(plain))
        except RuntimeError as error:
            raise TransformError(f"SimpleITK has no such transform: {str(error).splitlines()[-1].strip()}") from None
    return read.Downcast() if hasattr(read, "Downcast") else read


def itk_members(combination: Combination) -> list[ItkTransform]:
    """A chain as ITK holds it: one transform, or a composite and its members, the one applied first last.

    Linear transforms that ITK lacks become affine. Raises `TransformError` for what ITK cannot hold.
    """
    chain = combination.chain()
    if any(not each.compose for each in chain[1:]):
        if not all(each.current.linear for each in chain):
            raise TransformError(
                'ITK cannot hold transforms that are added (HowToCombineTransforms "Add"): take the deformation field'
            )
        chain = [from_matrix(to_matrix(combination))]
    members = [_itk_member(each.current) for each in reversed(chain)]
    n = combination.dimension
    return members if len(members) == 1 else [ItkTransform(f"{COMPOSITE}_double_{n}_{n}", (), ()), *members]


def _itk_member(transform: Transform) -> ItkTransform:
    try:
        return itk_text.to_itk(transform, "take its deformation field")
    except TransformError:
        if not transform.linear:
            raise
    return itk_text.to_itk(from_matrix(to_matrix(transform)).current)


def _from_library(anything: Any) -> Combination:
    library = type(anything).__module__.split(".")[0]
    parts = {"itk": _itk_parts, "SimpleITK": _sitk_parts}.get(library)
    if parts is None or not hasattr(anything, "TransformPoint"):
        raise TransformError(f"a {type(anything).__name__} is no transform: give {_TAKEN}")
    members = [_known(part, member) for part, member in parts(anything)]
    if not members:
        raise TransformError("the composite transform has no members")
    combination: Combination | None = None
    for each in reversed(members):
        combination = Combination(itk_text.from_itk([each], f"the {library} transform")[0], combination)
    return cast(Combination, combination)


def _itk_parts(transform: Any) -> Iterable[tuple[ItkTransform, Any]]:
    """The members of a transform in ITK's order, those of composites in composites in their place."""
    if hasattr(transform, "GetNthTransform"):
        for i in range(transform.GetNumberOfTransforms()):
            yield from _itk_parts(transform.GetNthTransform(i))
    else:
        yield ItkTransform(*itk_transform_parts(transform)), transform


def _sitk_parts(transform: Any) -> Iterable[tuple[ItkTransform, Any]]:
    library = import_module("SimpleITK")
    name, n = transform.GetName(), transform.GetDimension()
    if name == COMPOSITE:
        whole = library.CompositeTransform(transform)
        for i in range(whole.GetNumberOfTransforms()):
            yield from _sitk_parts(whole.GetNthTransform(i))
        return
    order = library.BSplineTransform(transform).GetOrder() if name == "BSplineTransform" else 3
    full = f"{name}_double_{n}_{n}" + ("" if order == 3 else f"_{order}")
    yield ItkTransform(full, transform.GetParameters(), transform.GetFixedParameters()), transform


def _known(part: ItkTransform, transform: Any) -> ItkTransform:
    """The part as it is, or as affine where it is of one of ITK's many other linear kinds."""
    known = (*itk_text.KNOWN, "BSplineTransform", "DisplacementFieldTransform")
    if itk_text.elastix_name(part) in known or part.kind in known or not transform.IsLinear():
        return part
    n = 2 if "_2_2" in part.name or "2D" in part.kind else 3
    points = np.array([transform.TransformPoint([float(v) for v in row]) for row in np.eye(n + 1)[:, :n]])
    # row k of the identity is unit vector k, and the last row is the origin
    matrix = (points[:n] - points[n]).T
    parameters = [*matrix.reshape(-1).tolist(), *points[n].tolist()]
    return ItkTransform(f"AffineTransform_double_{n}_{n}", parameters, [0.0] * n)
