"""Transforms that rotate: Euler and similarity, in two and three dimensions, with ITK's parameters."""

from dataclasses import dataclass
from typing import Annotated, Self, cast

import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor

from impactreg.components.component import AnySettings
from impactreg.components.setup import Setup
from impactreg.components.transforms.linear import LinearSettings, LinearTransform, Matrix
from impactreg.components.transforms.transform import Parameters
from impactreg.errors import TransformError
from impactreg.parameters import Once, ParameterMap

Matrices = Float[Tensor, "matrix_parameters dim dim"]


class EulerSettings(LinearSettings):
    """What `EulerTransform` reads."""

    compute_z_y_x: Annotated[bool, Once] = Field(
        False, alias="ComputeZYX", description="3D: rotate by Rz Ry Rx instead of Rz Rx Ry."
    )


@dataclass(frozen=True, eq=False)
class EulerTransform(LinearTransform, name="EulerTransform"):
    """Rotation and translation: (angle, tx, ty) in 2D, (rx, ry, rz, tx, ty, tz) in 3D, radians and millimetres.

    3D rotates by R = Rz Rx Ry, or Rz Ry Rx with `ComputeZYX` (`itk::Euler2DTransform`, `itk::Euler3DTransform`).
    elastix documents that key of a parameter file, but reads it from transform files alone.
    """

    Settings = EulerSettings
    compute_zyx: bool = False

    def matrix(self) -> Matrix:
        """The rotation."""
        factors = self._factors()
        return _product([f[0] for f in factors])

    def matrix_derivatives(self) -> Matrices:
        """The rotation with one of its factors replaced by that factor's derivative."""
        factors = self._factors()
        derived = {}
        for position, (_, _, parameter) in enumerate(factors):
            chain = [f[1] if i == position else f[0] for i, f in enumerate(factors)]
            derived[parameter] = _product(chain)
        return torch.stack([derived[i] for i in sorted(derived)])

    def _factors(self) -> list[tuple[Tensor, Tensor, int]]:
        """Axis rotations from left to right, each with its derivative and the parameter that it turns by."""
        if self.dimension == 2:
            return [(*_axis_rotation(self.parameters[0], 0, 1, 2), 0)]
        planes = {0: (1, 2), 1: (2, 0), 2: (0, 1)}
        order = (2, 1, 0) if self.compute_zyx else (2, 0, 1)
        return [(*_axis_rotation(self.parameters[i], *planes[i], 3), i) for i in order]

    @classmethod
    def matrix_positions(cls, dimension: int) -> list[int]:
        """The angles."""
        return [0] if dimension == 2 else [0, 1, 2]

    @classmethod
    def identity_parameters(cls, dimension: int) -> Parameters:
        """Zero."""
        return torch.zeros(3 if dimension == 2 else 6, dtype=torch.float64)

    @classmethod
    def begin(cls, settings: AnySettings, setup: Setup) -> Self:
        """The identity about the centre, or where `AutomaticTransformInitialization` puts it."""
        start = super().begin(settings, setup)
        # the angles of a start that is turned depend on the order
        ordered = cls(start.parameters, start.centre, cast(EulerSettings, settings).compute_z_y_x)
        return ordered.turned(start.matrix()) if ordered.compute_zyx else ordered

    def written(self) -> dict[str, list[str | int | float]]:
        """As every linear transform, and `ComputeZYX` in 3D."""
        order: dict[str, list[str | int | float]] = {"ComputeZYX": [str(self.compute_zyx).lower()]}
        return {**super().written(), **(order if self.dimension == 3 else {})}

    @classmethod
    def read(cls, parameter_map: ParameterMap) -> Self:
        """The transform in a TransformParameters file."""
        start = super().read(parameter_map)
        return cls(start.parameters, start.centre, (parameter_map.get("ComputeZYX") or ("false",))[0] == "true")


@dataclass(frozen=True, eq=False)
class SimilarityTransform(LinearTransform, name="SimilarityTransform"):
    """Rotation, isotropic scale and translation.

    2D: (scale, angle, tx, ty) (`itk::Similarity2DTransform`); 3D: (versor x, y, z, tx, ty, tz, scale)
    (`itk::Similarity3DTransform`), where the versor is axis times sin(angle / 2). Raises `TransformError` for a versor
    that is too long.
    """

    def matrix(self) -> Matrix:
        """Scale times rotation."""
        return self._scale * self._rotation()[0]

    def matrix_derivatives(self) -> Matrices:
        """To scale and angle in 2D, to the versor and the scale in 3D."""
        rotation, turned = self._rotation()
        turns = [self._scale * t for t in turned]
        return torch.stack([rotation, *turns] if self.dimension == 2 else [*turns, rotation])

    @property
    def _scale(self) -> Tensor:
        return self.parameters[0 if self.dimension == 2 else 6]

    def _rotation(self) -> tuple[Tensor, list[Tensor]]:
        if self.dimension == 2:
            rotation, derivative = _axis_rotation(self.parameters[1], 0, 1, 2)
            return rotation, [derivative]
        return _versor_rotation(self.parameters[:3])

    @classmethod
    def matrix_positions(cls, dimension: int) -> list[int]:
        """Scale and angle, or versor and scale."""
        return [0, 1] if dimension == 2 else [0, 1, 2, 6]

    @classmethod
    def identity_parameters(cls, dimension: int) -> Parameters:
        """Scale 1 and zero else."""
        values = [1.0, 0, 0, 0] if dimension == 2 else [0, 0, 0, 0, 0, 0, 1.0]
        return torch.tensor(values, dtype=torch.float64)

    def default_scales(self, settings: AnySettings) -> Parameters:
        """elastix's own: 10,000 and 100,000 for scale and angle in 2D; 100,000 for the versor and 10,000 for the scale
        in 3D.
        """
        default = [1e4, 1e5, 1, 1] if self.dimension == 2 else [1e5, 1e5, 1e5, 1, 1, 1, 1e4]
        given = list(cast(LinearSettings, settings).scales)
        return torch.tensor(given + default[len(given) :], dtype=torch.float64)[: len(default)]


def _axis_rotation(angle: Tensor, first: int, second: int, dimension: int) -> tuple[Tensor, Tensor]:
    """The rotation that turns axis `first` towards axis `second`, and its derivative to the angle."""
    rotation = torch.eye(dimension, dtype=torch.float64)
    derivative = torch.zeros(dimension, dimension, dtype=torch.float64)
    cosine, sine = torch.cos(angle), torch.sin(angle)
    for target, diagonal, off in ((rotation, cosine, sine), (derivative, -sine, cosine)):
        target[first, first] = target[second, second] = diagonal
        target[first, second] = -off
        target[second, first] = off
    return rotation, derivative


def _versor_rotation(versor: Tensor) -> tuple[Tensor, list[Tensor]]:
    """R = I + 2 w [v] + 2 [v]^2 with w = sqrt(1 - |v|^2), and its derivatives to v."""
    squared = float(versor @ versor)
    if squared >= 1:
        raise TransformError(
            f"the versor of a similarity transform must be shorter than 1, but its length is {squared**0.5:g}"
        )
    w = torch.sqrt(1 - versor @ versor)
    cross, units = _cross(versor), [_cross(unit) for unit in torch.eye(3, dtype=torch.float64)]
    rotation = torch.eye(3, dtype=torch.float64) + 2 * w * cross + 2 * cross @ cross
    derivatives = [
        2 * (w * u - v / w * cross) + 2 * (u @ cross + cross @ u) for u, v in zip(units, versor, strict=True)
    ]
    return rotation, derivatives


def _cross(v: Tensor) -> Tensor:
    zero = torch.zeros_like(v[0])
    return torch.stack([zero, -v[2], v[1], v[2], zero, -v[0], -v[1], v[0], zero]).reshape(3, 3)


def _product(matrices: list[Tensor]) -> Tensor:
    result = matrices[0]
    for matrix in matrices[1:]:
        result = result @ matrix
    return result
