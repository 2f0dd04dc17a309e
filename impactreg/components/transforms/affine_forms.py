"""Affine transforms in other parameters: the logarithm of the matrix, and angles, shears and scales."""

from dataclasses import dataclass
from typing import Annotated, cast

import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor

from impactreg.components.component import AnySettings
from impactreg.components.transforms.linear import LinearSettings, LinearTransform, Matrix
from impactreg.components.transforms.transform import Parameters
from impactreg.errors import TransformError
from impactreg.parameters import Refused, WholeList

Matrices = Float[Tensor, "matrix_parameters dim dim"]


class AffineFormSettings(LinearSettings):
    """What `AffineLogTransform` and `AffineDTITransform` read; their scales are estimated unless all are given."""

    scales: Annotated[tuple[float, ...], WholeList] = Field(
        (), description="Squared scales, one for each parameter; without them they are estimated, as in elastix."
    )

    @property
    def estimates_scales(self) -> bool:
        """Whether the scales are estimated, whatever `AutomaticScalesEstimation` says."""
        return not self.scales

    def check(self) -> None:
        """Scales must be positive."""
        if min(self.scales, default=1.0) <= 0:
            raise Refused("scales", "numbers above 0 are needed")


class AffineForm(LinearTransform):
    """An affine transform whose D x D matrix parameters come first and the translation last; abstract."""

    Settings = AffineFormSettings

    @classmethod
    def identity_parameters(cls, dimension: int) -> Parameters:
        """Zero."""
        return torch.zeros(len(cls.matrix_positions(dimension)) + dimension, dtype=torch.float64)

    def default_scales(self, settings: AnySettings) -> Parameters:
        """`Scales`, one number for each parameter."""
        given, total = cast(AffineFormSettings, settings).scales, self.parameters.numel()
        if len(given) != total:
            raise TransformError(f"(Scales ...) of {self.names[0]} has {total} numbers, not {len(given)}")
        return torch.tensor(given, dtype=torch.float64)


@dataclass(frozen=True, eq=False)
class AffineLogTransform(AffineForm, name="AffineLogTransform"):
    """The logarithm of the matrix row by row, then the translation (`elx::AffineLogTransformElastix`)."""

    def matrix(self) -> Matrix:
        """The matrix exponential."""
        return cast(Tensor, torch.linalg.matrix_exp(self._logarithm))

    def matrix_derivatives(self) -> Matrices:
        """The upper right blocks of exp [[L, dL], [0, L]] (Van Loan 1978, IEEE TAC 23, 395-404)."""
        n = self.dimension
        block = torch.zeros(n * n, 2 * n, 2 * n, dtype=self.parameters.dtype)
        block[:, :n, :n] = block[:, n:, n:] = self._logarithm
        block[:, :n, n:] = torch.eye(n * n, dtype=block.dtype).reshape(n * n, n, n)
        return cast(Tensor, torch.linalg.matrix_exp(block))[:, :n, n:]

    @classmethod
    def matrix_positions(cls, dimension: int) -> list[int]:
        """The first D x D."""
        return list(range(dimension * dimension))

    @property
    def _logarithm(self) -> Matrix:
        n = self.dimension
        return self.parameters[: n * n].reshape(n, n).cpu()


@dataclass(frozen=True, eq=False)
class AffineDTITransform(AffineForm, name="AffineDTITransform"):
    """Angles, shears and scales: three of each in 3D, then the translation; one angle and two of each else in 2D.

    A = Rx Ry Rz Gx Gy Gz S in 3D and R Gx Gy S in 2D, where the rotations turn against those of `EulerTransform`
    (`itk::AffineDTI3DTransform`; Leemans, Jones 2009, MRM 61, 1336-1349).
    """

    def matrix(self) -> Matrix:
        """The product of all factors."""
        return cast(Tensor, torch.linalg.multi_dot([factor for factor, _ in self._factors()]))

    def matrix_derivatives(self) -> Matrices:
        """The product with one factor's matrix replaced by that factor's derivative, for each parameter."""
        factors = self._factors()
        derived = []
        for position, (_, derivatives) in enumerate(factors):
            for derivative in derivatives:
                chain = [derivative if i == position else factor for i, (factor, _) in enumerate(factors)]
                derived.append(torch.linalg.multi_dot(chain))
        return torch.stack(derived)

    @classmethod
    def matrix_positions(cls, dimension: int) -> list[int]:
        """All but the last."""
        return list(range(9 if dimension == 3 else 5))

    @classmethod
    def identity_parameters(cls, dimension: int) -> Parameters:
        """Scales of 1, and zero else."""
        parameters = super().identity_parameters(dimension)
        parameters[cls.matrix_positions(dimension)[-dimension:]] = 1.0
        return parameters

    def _factors(self) -> list[tuple[Matrix, list[Matrix]]]:
        """The matrices from left to right, each with its derivatives to its own parameters, in their order."""
        n, values = self.dimension, self.parameters.cpu()
        planes = [(1, 2), (2, 0), (0, 1)] if n == 3 else [(0, 1)]
        shears = [(0, 2), (1, 0), (2, 1)] if n == 3 else [(0, 1), (1, 0)]
        turns = [_rotation(angle, *plane, n) for angle, plane in zip(values, planes, strict=False)]
        sheared = [_shear(value, *at, n) for value, at in zip(values[len(planes) :], shears, strict=False)]
        scales = values[len(planes) + len(shears) :][:n]
        units = [torch.diag(unit) for unit in torch.eye(n, dtype=values.dtype)]
        return [*turns, *sheared, (torch.diag(scales), units)]


def _rotation(angle: Tensor, first: int, second: int, n: int) -> tuple[Matrix, list[Matrix]]:
    """The rotation from axis `second` towards `first`, and its derivative to the angle."""
    rotation = torch.eye(n, dtype=angle.dtype)
    derivative = torch.zeros_like(rotation)
    cosine, sine = torch.cos(angle), torch.sin(angle)
    for matrix, diagonal, off in ((rotation, cosine, sine), (derivative, -sine, cosine)):
        matrix[first, first] = matrix[second, second] = diagonal
        matrix[first, second] = off
        matrix[second, first] = -off
    return rotation, [derivative]


def _shear(value: Tensor, row: int, column: int, n: int) -> tuple[Matrix, list[Matrix]]:
    derivative = torch.zeros(n, n, dtype=value.dtype)
    derivative[row, column] = 1.0
    return torch.eye(n, dtype=value.dtype) + value * derivative, [derivative]
