"""Deformation fields as transforms: a displacement in every voxel of an image, interpolated between them."""

import dataclasses
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import NoReturn, Self

import torch

from impactreg.components.component import AnySettings
from impactreg.components.interpolators import Interpolant, held_inside
from impactreg.components.setup import Setup
from impactreg.components.transforms.evaluated import EvaluatedPoints, EvaluatedSettings, EvaluatedTransform
from impactreg.components.transforms.reading import existing_file
from impactreg.components.transforms.transform import Mapped, Parameters, Points
from impactreg.errors import ImageError, ParameterError, TransformError
from impactreg.images.files import read_image, write_image
from impactreg.images.image import Image
from impactreg.parameters import ParameterMap, Refused

_NO_PARAMETERS = "a deformation field has no parameters"
_NOT_OPTIMISED = 'it cannot be optimised: use "BSplineTransform", or give the field as initial transform'
ORDERS = (0, 1)
"""What `DeformationFieldInterpolationOrder` may be: nearest voxel or linear."""


class FieldSettings(EvaluatedSettings):
    """Refuses a deformation field in a parameter file, with file and line, before anything runs."""

    def check(self) -> None:
        """elastix cannot optimise one either."""
        if self.transform:
            raise Refused("transform", _NOT_OPTIMISED)


@dataclass(frozen=True, eq=False)
class DeformationFieldTransform(EvaluatedTransform, name="DeformationFieldTransform"):
    """T(x) = x + field(x), and T(x) = x outside the field's voxels (`itk::DeformationFieldInterpolatingTransform`).

    `field` has a channel for each dimension: T(x) - x in millimetres along the world axes (LPS). `order` is 0 for the
    nearest voxel or 1 for linear interpolation. `file` is where the field is stored, "" while it is in memory alone.
    """

    Settings = FieldSettings

    field: Image
    order: int = 1
    file: str = ""
    parameters: Parameters = dataclasses.field(default_factory=lambda: torch.zeros(0, dtype=torch.float64), init=False)

    def __post_init__(self) -> None:
        name, n = self.file or "deformation field", self.field.dimension
        if self.field.channels != n:
            raise TransformError(f"{name}: a field in {n}D needs {n} values a voxel, but it has {self.field.channels}")
        if self.order not in ORDERS:
            raise TransformError(f"{name}: the interpolation order is 0 or 1, not {self.order}")

    @property
    def dimension(self) -> int:
        """2 or 3."""
        return self.field.dimension

    @classmethod
    def begin(cls, settings: AnySettings, setup: Setup) -> Self:
        """Raises `ParameterError`: elastix's loop cannot optimise a field."""
        del settings, setup
        raise ParameterError(f'(Transform "DeformationFieldTransform"): {_NOT_OPTIMISED}')

    def with_parameters(self, parameters: Parameters) -> Self:
        """The same field; raises `TransformError` for any parameter."""
        return self if parameters.numel() == 0 else _no_parameters()

    def at(self, points: Points) -> Mapped:
        """The transformed points, without derivatives."""
        return EvaluatedPoints(self(points), _NO_PARAMETERS)

    def __call__(self, points: Points) -> Points:
        """The transformed points."""
        there = points.to(self.field.data.device)
        inside = self._interpolant.inside(there)
        held = held_inside(self.field.grid, there) if self.order else there
        moved = torch.where(inside[:, None], self._interpolant.values(held), 0.0)
        return points + moved.to(points)

    def saved(self, path: Path) -> Self:
        """The same transform with its field stored in an image file; raises `OutputError`."""
        write_image(self.field, path)
        return replace(self, file=str(path))

    def written(self) -> dict[str, list[str | int | float]]:
        """Where the field is stored, and the order."""
        return {
            "DeformationFieldFileName": [self.file],
            "DeformationFieldInterpolationOrder": [self.order],
            "NumberOfParameters": [0],
        }

    @classmethod
    def read(cls, parameter_map: ParameterMap) -> Self:
        """The transform in a TransformParameters file, whose field is looked for here and beside the file."""
        file = existing_file(parameter_map, "DeformationFieldFileName")
        order = parameter_map.first("DeformationFieldInterpolationOrder", "0")
        if order not in map(str, ORDERS):
            where = parameter_map.where("DeformationFieldInterpolationOrder")
            raise TransformError(f"{where}: (DeformationFieldInterpolationOrder {order}): 0 or 1 is needed")
        try:
            read = read_image(file, name="deformation field")
        except ImageError as error:
            raise TransformError(f"{parameter_map.where('DeformationFieldFileName')}: {error}") from error
        aligned = parameter_map.first("UseDirectionCosines", "true") != "false"
        return cls(read if aligned else Image(read.data, read.grid.without_direction()), int(order), str(file))

    @cached_property
    def _interpolant(self) -> Interpolant:
        return Interpolant.of(self.field, self.order)


def _no_parameters() -> NoReturn:
    raise TransformError(f"{_NO_PARAMETERS}: it can be an initial transform, but not be optimised")
