"""transformix(): a transform or its inverse applied to images and points, and its field and spatial Jacobian."""

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from impactreg.components.labels import warp_labels
from impactreg.components.resampling import Output
from impactreg.components.transforms.displacement import DeformationFieldTransform
from impactreg.components.transforms.inverse import inverse_points
from impactreg.components.transforms.inverse_field import Inverse, inverse_on
from impactreg.components.transforms.transform import Combination
from impactreg.components.warping import deformation_field, jacobian_determinant, spatial_jacobian
from impactreg.errors import ImageError, TransformError
from impactreg.images import Grid, Image, PointSet, as_image, read_points, write_image, write_points
from impactreg.images.whole import whole_file
from impactreg.parameters import ParameterMap
from impactreg.registration.point_transform import check_points, open_transform, point_lines, without_inverse
from impactreg.registration.results import prepare_directory

Points = Float[Tensor, "points dim"]
logger = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class TransformixResult:
    """What was asked for; the rest is None.

    `image` is the warped image; `points` are the transformed points; `deformation_field` is T(x) - x (mm, a channel
    for each dimension), `jacobian` det(dT/dx) and `jacobian_matrix` dT/dx (D x D channels, row by row) on the fixed
    image's grid. With `inverse=True` all of these are of the inverse, on the moving image's grid; then `inverse` tells
    how far the field that images go through is off, and `point_residuals` by how many mm each point is missed.
    """

    transform: Combination
    image: Image | None = None
    points: PointSet | None = None
    deformation_field: Image | None = None
    jacobian: Image | None = None
    jacobian_matrix: Image | None = None
    output_directory: Path | None = None
    inverse: Inverse | None = None
    point_residuals: Float[Tensor, " points"] | None = None


def transformix(
    transform: Any,
    *,
    image: Any = None,
    points: Any = None,
    jacobian: bool = False,
    jacobian_matrix: bool = False,
    output_directory: str | Path | None = None,
    reference: Any = None,
    inverse: bool = False,
    labels: bool = False,
    device: str | torch.device = "cpu",
) -> TransformixResult:
    """Applies a transform, as elastix's transformix does.

    `transform` is whatever `as_transform` takes. TransformParameters files, maps and what `register` returned know the
    fixed image's grid, and a displacement field by itself has one; anything else needs `reference`, the fixed image or
    a `Grid`, which also replaces those. `image` is whatever `as_image` takes; `points` are a point file, a `PointSet`,
    an array, or "all" for the deformation field; `jacobian` and `jacobian_matrix` ask for det(dT/dx) and dT/dx.

    With `labels`, `image` holds labels: it keeps its number type, gets no new label, and is 0 outside (see
    `warp_labels`).

    With `inverse`, moving points are mapped to fixed ones and `image`, which lies in fixed space, is warped onto the
    grid of `reference`, the moving image, which must be given. Points without an inverse are told in a warning.

    In `output_directory` land `result`, `deformationField`, `spatialJacobian` and `fullSpatialJacobian` as
    `ResultImageFormat` asks, and `outputpoints.txt`; a folder that had to be made goes again where nothing could be
    written. Raises `TransformError` where nothing is asked for or the grid is not known.
    """
    if image is None and points is None and not jacobian and not jacobian_matrix:
        raise TransformError("nothing to do: give an image (-in), points (-def), -jac all or -jacmat all")
    with _output_folder(output_directory) as directory:
        combination, parameter_map = open_transform(transform)
        if inverse and reference is None:
            raise TransformError(
                "an inverse needs the grid of the moving image: give that image as reference (--reference)"
            )
        output = Output.of(parameter_map, _reference_grid(reference) or _own_grid(combination, parameter_map))
        _check_dimension(combination, output.grid, "the grid")
        job: _Job = (_InverseJob if inverse else _Job)(combination, output, directory, torch.device(device), labels)
        moving = None if image is None else job.moving(image)
        moved, residuals = (None, None) if points is None or _is_all(points) else job.moved(points, moving)
        return TransformixResult(
            combination,
            None if moving is None else job.warped(moving),
            moved,
            job.field() if _is_all(points) else None,
            job.determinant() if jacobian else None,
            job.matrix() if jacobian_matrix else None,
            directory,
            job.inverse,
            residuals,
        )


@dataclass(frozen=True)
class _Job:
    """A transform with the grid and folder that its results go to."""

    transform: Combination
    output: Output
    directory: Path | None
    device: torch.device
    labels: bool = False

    @property
    def applied(self) -> Combination:
        """What images and fields go through."""
        return self.transform

    @property
    def inverse(self) -> Inverse | None:
        """The inverse that images and fields went through, if there was one."""
        return None

    def mapped(self, points: Points) -> tuple[Points, Float[Tensor, " points"] | None]:
        """The points after the transform; for an inverse also by how much each is missed."""
        return self.transform(points), None

    def moving(self, image: Any) -> Image:
        """The image to be warped."""
        moving = as_image(image, name="input image").to(device=self.device)
        _check_dimension(self.transform, moving.grid, "the input image")
        return moving

    def warped(self, moving: Image) -> Image:
        """The warped image, written as `ResultImagePixelType`; labels in their own type."""
        if self.labels:
            return self._warped_labels(moving)
        result = self.output.resample(moving, self.applied)
        asked = self.output.resampler.settings
        self._write(result, "result", asked.result_image_pixel_type, asked.compress_result_image)
        return result

    def _warped_labels(self, moving: Image) -> Image:
        found = warp_labels(self.output.seen(moving), self.applied, self.output.working_grid)
        asked = self.output.resampler.settings
        if asked.default_pixel_value:
            logger.info("Labels are 0 outside: (DefaultPixelValue %g) is for other images", asked.default_pixel_value)
        return self._write(self.output.finished(found), "result", None, asked.compress_result_image)

    def field(self) -> Image:
        """The deformation field."""
        found = deformation_field(self.applied, self.output.working_grid, device=self.device)
        return self._write(self.output.finished(found), "deformationField")

    def determinant(self) -> Image:
        """det(dT/dx)."""
        found = jacobian_determinant(self.applied, self.output.working_grid, device=self.device)
        return self._write(self.output.finished(found), "spatialJacobian")

    def matrix(self) -> Image:
        """dT/dx."""
        found = spatial_jacobian(self.applied, self.output.working_grid, device=self.device)
        return self._write(self.output.finished(found), "fullSpatialJacobian")

    def moved(self, points: Any, moving: Image | None) -> tuple[PointSet, Float[Tensor, " points"] | None]:
        """The transformed points; for an inverse also by how much each is missed."""
        grid = self.output.working_grid
        path = Path(points) if isinstance(points, str | os.PathLike) else None
        if path is not None:
            given = read_points(path, grid=grid)
        else:
            given = points if isinstance(points, PointSet) else PointSet(torch.as_tensor(np.asarray(points)))
        check_points(self.transform, given.dimension)
        mapped, residuals = self.mapped(given.points)
        result = PointSet(mapped)
        if self.directory is not None:
            self._write_points(given, result, "" if path is None else "".join(path.suffixes[-2:]), moving)
        return result, residuals

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


class _InverseJob(_Job):
    """The inverse of a transform: points one by one, all else through a field on the grid."""

    @property
    def applied(self) -> Combination:
        """The inverse, found when it is first needed."""
        return Combination(self._field.transform)

    @property
    def inverse(self) -> Inverse | None:
        """The inverse, where it was needed."""
        return self.__dict__.get("_field")

    def mapped(self, points: Points) -> tuple[Points, Float[Tensor, " points"] | None]:
        """The points that the transform maps to these, as near as they were found."""
        found = inverse_points(self.transform, points)
        if not bool(found.found.all()):
            logger.warning("%s", without_inverse(found))
        return found.points, found.residuals

    @cached_property
    def _field(self) -> Inverse:
        found = inverse_on(self.transform, self.output.working_grid)
        bad = found.residual.without + found.residual.folded
        logger.log(logging.WARNING if bad else logging.INFO, "The inverse on the grid: %s", found)
        return found


@contextmanager
def _output_folder(directory: str | Path | None) -> Iterator[Path | None]:
    """The output folder; folders that had to be made for it are taken away again if the block leaves them empty."""
    path = None if directory is None else Path(directory)
    made = [] if path is None else [each for each in (path, *path.parents) if not each.exists()]
    try:
        yield prepare_directory(directory)
    except BaseException:
        for each in made:
            with suppress(OSError):
                each.rmdir()
        raise


def _own_grid(transform: Combination, parameter_map: ParameterMap) -> Grid | None:
    """The grid of a displacement field that is all there is; None where the parameter map has to tell one."""
    if parameter_map:
        return None
    if transform.initial is None and isinstance(transform.current, DeformationFieldTransform):
        return transform.current.field.grid
    raise TransformError(
        "this transform does not tell the grid that is needed to know the fixed image's voxels: give that image as "
        "reference (--reference)"
    )


def _is_all(points: Any) -> bool:
    return isinstance(points, str) and points == "all"


def _reference_grid(reference: Any) -> Grid | None:
    if reference is None or isinstance(reference, Grid):
        return reference
    return as_image(reference, name="reference image").grid


def _check_dimension(transform: Combination, grid: Grid, what: str) -> None:
    if grid.dimension != transform.dimension:
        raise ImageError(f"{what} is {grid.dimension}D, but the transform is {transform.dimension}D")
