"""transformix(): a transform applied to an image or points, and its deformation field and spatial Jacobian."""

import logging
import os
from collections.abc import Sequence
from dataclasses import dataclass
from math import floor
from pathlib import Path
from typing import Any

import torch

from impactreg.components.resampling import Output
from impactreg.components.transforms.files import is_itk_file, read_transform
from impactreg.components.transforms.transform import Combination
from impactreg.components.warping import deformation_field, jacobian_determinant, spatial_jacobian
from impactreg.errors import ImageError, TransformError
from impactreg.images import Grid, Image, PointSet, as_image, read_points, write_image, write_points
from impactreg.images.whole import whole_file
from impactreg.parameters import ParameterMap
from impactreg.registration.results import prepare_directory

logger = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class TransformixResult:
    """What was asked for; the rest is None.

    `image` is the warped image; `points` are the transformed points; `deformation_field` is T(x) - x (mm, a channel
    for each dimension), `jacobian` det(dT/dx) and `jacobian_matrix` dT/dx (D x D channels, row by row) on the fixed
    image's grid.
    """

    transform: Combination
    image: Image | None = None
    points: PointSet | None = None
    deformation_field: Image | None = None
    jacobian: Image | None = None
    jacobian_matrix: Image | None = None
    output_directory: Path | None = None


def transformix(
    transform: Any,
    *,
    image: Any = None,
    points: Any = None,
    jacobian: bool = False,
    jacobian_matrix: bool = False,
    output_directory: str | Path | None = None,
    reference: Any = None,
    device: str | torch.device = "cpu",
) -> TransformixResult:
    """Applies a transform, as elastix's transformix does.

    `transform` is a TransformParameters file, a map, several maps (a chain), or a transform; an ITK transform file or
    a transform in memory has no grid and needs `reference`, the fixed image or a `Grid`. `image` is whatever
    `as_image` takes; `points` are a point file, a `PointSet`, or "all" for the deformation field; `jacobian` and
    `jacobian_matrix` ask for det(dT/dx) and dT/dx.

    In `output_directory` land `result`, `deformationField`, `spatialJacobian` and `fullSpatialJacobian` as
    `ResultImageFormat` asks, and `outputpoints.txt`. Raises `TransformError` where nothing is asked for or the grid
    is not known.
    """
    if image is None and points is None and not jacobian and not jacobian_matrix:
        raise TransformError("nothing to do: give an image (-in), points (-def), -jac all or -jacmat all")
    directory = prepare_directory(output_directory)
    combination, parameter_map = _opened(transform)
    output = Output.of(parameter_map, _reference_grid(reference))
    _check_dimension(combination, output.grid, "the grid")
    job = _Job(combination, output, directory, torch.device(device))
    moving = None if image is None else job.moving(image)
    return TransformixResult(
        combination,
        None if moving is None else job.warped(moving),
        None if points is None or _is_all(points) else job.moved(points, moving),
        job.field() if _is_all(points) else None,
        job.determinant() if jacobian else None,
        job.matrix() if jacobian_matrix else None,
        directory,
    )


@dataclass(frozen=True)
class _Job:
    """A transform with the grid and folder that its results go to."""

    transform: Combination
    output: Output
    directory: Path | None
    device: torch.device

    def moving(self, image: Any) -> Image:
        """The image to be warped."""
        moving = as_image(image, name="input image").to(device=self.device)
        _check_dimension(self.transform, moving.grid, "the input image")
        return moving

    def warped(self, moving: Image) -> Image:
        """The warped image, written as `ResultImagePixelType`."""
        result = self.output.resample(moving, self.transform)
        asked = self.output.resampler.settings
        self._write(result, "result", asked.result_image_pixel_type, asked.compress_result_image)
        return result

    def field(self) -> Image:
        """The deformation field."""
        found = deformation_field(self.transform, self.output.working_grid, device=self.device)
        return self._write(self.output.finished(found), "deformationField")

    def determinant(self) -> Image:
        """det(dT/dx)."""
        found = jacobian_determinant(self.transform, self.output.working_grid, device=self.device)
        return self._write(self.output.finished(found), "spatialJacobian")

    def matrix(self) -> Image:
        """dT/dx."""
        found = spatial_jacobian(self.transform, self.output.working_grid, device=self.device)
        return self._write(self.output.finished(found), "fullSpatialJacobian")

    def moved(self, points: Any, moving: Image | None) -> PointSet:
        """The transformed points."""
        grid = self.output.working_grid
        path = None if isinstance(points, PointSet | torch.Tensor) else Path(points)
        if path is None:
            given = points if isinstance(points, PointSet) else PointSet(points)
        else:
            given = read_points(path, grid=grid)
        if given.dimension != grid.dimension:
            raise TransformError(f"the points are {given.dimension}D, but the transform is {grid.dimension}D")
        result = PointSet(self.transform(given.points))
        if self.directory is not None:
            self._write_points(given, result, "" if path is None else "".join(path.suffixes[-2:]), moving)
        return result

    def _write(self, image: Image, name: str, pixel_type: str | None = None, compress: bool = False) -> Image:
        if self.directory is not None:
            path = self.directory / f"{name}.{self.output.resampler.settings.result_image_format}"
            write_image(image, path, pixel_type=pixel_type, compress=compress)
            logger.info("%s is saved in %s", name, path)
        return image

    def _write_points(self, given: PointSet, result: PointSet, ending: str, moving: Image | None) -> None:
        if self.directory is None:
            return
        formats = (".vtk", ".csv", ".fcsv", ".mrk.json")
        same = next((f for f in formats if ending.lower().endswith(f)), None)
        if same is not None:
            write_points(result, self.directory / f"outputpoints{same}")
        if same != ".vtk":
            seen = None if moving is None else self.output.seen(moving).grid
            with whole_file(self.directory / "outputpoints.txt") as draft:
                draft.write_text(
                    point_lines(given, result, self.output.working_grid, seen), encoding="utf-8", newline="\n"
                )


def point_lines(given: PointSet, result: PointSet, fixed: Grid, moving: Grid | None = None) -> str:
    """The lines of elastix's outputpoints.txt: indices of the nearest voxels, coordinates with six decimals."""
    indices = [_nearest(fixed, given), _nearest(fixed, result)]
    moving_indices = None if moving is None else _nearest(moving, result)
    lines = []
    for k, (point, image) in enumerate(zip(given.points.tolist(), result.points.tolist(), strict=True)):
        cells = [
            ("InputIndex", indices[0][k]),
            ("InputPoint", point),
            ("OutputIndexFixed", indices[1][k]),
            ("OutputPoint", image),
            ("Deformation", [after - before for before, after in zip(point, image, strict=True)]),
        ]
        if moving_indices is not None:
            cells.append(("OutputIndexMoving", moving_indices[k]))
        lines.append(f"Point\t{k}" + "".join(f"\t; {name} = [ {_spaced(values)}]" for name, values in cells) + "\n")
    return "".join(lines)


def _spaced(values: Sequence[float]) -> str:
    return "".join(f"{value} " if isinstance(value, int) else f"{value:.6f} " for value in values)


def _nearest(grid: Grid, points: PointSet) -> list[list[int]]:
    return [[floor(i + 0.5) for i in row] for row in grid.world_to_index(points.points).tolist()]


def _is_all(points: Any) -> bool:
    return isinstance(points, str) and points == "all"


def _opened(transform: Any) -> tuple[Combination, ParameterMap]:
    """A transform with the map that holds its grid and resampler: the last of a chain, or an empty one."""
    none = ParameterMap.from_dict({}, "this transform")
    if isinstance(transform, Combination):
        return transform, none
    if isinstance(transform, list | tuple) and transform:
        return read_transform(transform), transform[-1]
    if isinstance(transform, str | os.PathLike) and not is_itk_file(Path(transform)):
        transform = ParameterMap.read(transform)
    return read_transform(transform), transform if isinstance(transform, ParameterMap) else none


def _reference_grid(reference: Any) -> Grid | None:
    if reference is None or isinstance(reference, Grid):
        return reference
    return as_image(reference, name="reference image").grid


def _check_dimension(transform: Combination, grid: Grid, what: str) -> None:
    if grid.dimension != transform.dimension:
        raise ImageError(f"{what} is {grid.dimension}D, but the transform is {transform.dimension}D")
