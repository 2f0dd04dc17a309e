"""Linear transforms: translation, Euler, similarity and affine, with elastix's parameters and centre of rotation.

T(x) = A (x - centre) + centre + translation, where A depends on some parameters and the others are the translation
(`itk::AdvancedMatrixOffsetTransformBase` and its children).
"""

from abc import abstractmethod
from dataclasses import dataclass, replace
from typing import Annotated, ClassVar, Self, cast

import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor

from impactreg.components.component import AnySettings
from impactreg.components.setup import Setup
from impactreg.components.transforms.initialization import (
    InitializationSettings,
    given_centre,
    initial_placement,
    searched_placement,
)
from impactreg.components.transforms.local import LinearLocal
from impactreg.components.transforms.reading import floats, parameters_of
from impactreg.components.transforms.transform import Mapped, Parameters, Points, SecondMoment, Transform
from impactreg.errors import RegistrationError, TransformError
from impactreg.images import sums
from impactreg.parameters import ParameterMap, WholeList

Matrix = Float[Tensor, "dim dim"]
TURNING_STEPS = 20
"""Newton's steps to the parameters of a rotation; they double the digits each."""


class DenseMapped(Mapped):
    """Points with their whole Jacobian [points, dim, parameters], for transforms of few parameters."""

    def __init__(self, points: Points, jacobian: Float[Tensor, "points dim parameters"]) -> None:
        self.points = points
        self._jacobian = jacobian

    def pull_back(self, gradient: Points) -> Parameters:
        """The sum of J' gradient over all points."""
        return sums.inner(gradient.reshape(-1, 1), self._jacobian.flatten(0, 1))[0]

    def push_forward(self, direction: Parameters) -> Points:
        """J direction at every point."""
        return self._jacobian @ direction.to(self._jacobian)

    def gram(self, scales: Parameters) -> Float[Tensor, "points dim dim"]:
        """J diag(1 / scales) J' at every point."""
        scaled = self._jacobian / scales.sqrt().to(self._jacobian)
        return scaled @ scaled.mT

    def second_moment(self, scales: Parameters) -> SecondMoment:
        """The second moment of J diag(scales)^-1/2 over all points."""
        scaled = self._jacobian / scales.sqrt().to(self._jacobian)
        rows = scaled.flatten(0, 1)
        moment = sums.inner(rows, rows) / len(scaled)
        sandwich = scaled @ moment @ scaled.mT
        return SecondMoment(float(moment.trace()), float(torch.linalg.matrix_norm(moment)), sandwich)

    def squared_columns(self) -> Parameters:
        """The sum over points and dimensions of the squared derivatives to each parameter."""
        return self._jacobian.square().sum(dim=(0, 1))


class LinearSettings(InitializationSettings):
    """What every linear transform reads: how it starts and how its parameters are scaled."""

    scales: Annotated[tuple[float, ...], WholeList] = Field(
        (), description="Squared scales of the parameters: one number for the matrix part, or one for each parameter."
    )


@dataclass(frozen=True, eq=False)
class LinearTransform(Transform):
    """A matrix about a centre and a translation."""

    linear: ClassVar[bool] = True
    Settings = LinearSettings

    parameters: Parameters
    centre: Float[Tensor, " dim"]

    @property
    def dimension(self) -> int:
        """2 or 3."""
        return int(self.centre.numel())

    @abstractmethod
    def matrix(self) -> Matrix:
        """A."""

    @abstractmethod
    def matrix_derivatives(self) -> Float[Tensor, "matrix_parameters dim dim"]:
        """dA for each parameter that A depends on, in the order of `matrix_positions`."""

    @classmethod
    @abstractmethod
    def matrix_positions(cls, dimension: int) -> list[int]:
        """Where the parameters of A stand among all parameters."""

    @classmethod
    @abstractmethod
    def identity_parameters(cls, dimension: int) -> Parameters:
        """The parameters that leave every point where it is."""

    @classmethod
    def translation_positions(cls, dimension: int) -> list[int]:
        """Where the translation stands among all parameters."""
        total = cls.identity_parameters(dimension).numel()
        return [i for i in range(total) if i not in cls.matrix_positions(dimension)]

    @classmethod
    def begin(cls, settings: AnySettings, setup: Setup) -> Self:
        """The identity about the centre of the fixed image, or where `AutomaticTransformInitialization` puts it."""
        dimension = setup.fixed.dimension
        asked = cast(InitializationSettings, settings)
        start = searched_placement(asked, setup, turns=bool(cls.matrix_positions(dimension)))
        parameters = cls.identity_parameters(dimension)
        if start is not None:
            parameters[cls.translation_positions(dimension)] = start.translation
            return cls(parameters, start.centre).turned(start.rotation)
        centre, translation = initial_placement(cls.names[0], asked, setup)
        parameters[cls.translation_positions(dimension)] = translation
        return cls(parameters, centre)

    @classmethod
    def check(cls, settings: AnySettings, setup: Setup) -> None:
        """Numbers of values of the centre and of the scales; the images are not looked at yet."""
        dimension = setup.fixed.dimension
        given_centre(cast(InitializationSettings, settings), setup.fixed)
        still = cls(cls.identity_parameters(dimension), torch.zeros(dimension, dtype=torch.float64))
        still.default_scales(settings)

    def with_parameters(self, parameters: Parameters) -> Self:
        """The same kind of transform about the same centre."""
        return replace(self, parameters=parameters)

    def turned(self, rotation: Matrix) -> Self:
        """The same translation with the parameters of a rotation of less than 90 degrees as matrix.

        Raises `RegistrationError` where the transform has no such matrix.
        """
        positions = self.matrix_positions(self.dimension)
        parameters = self.parameters.clone()
        parameters[positions] = self.identity_parameters(self.dimension)[positions]
        for _ in range(TURNING_STEPS if positions else 0):
            here = self.with_parameters(parameters.clone())
            lacking = (rotation - here.matrix()).reshape(-1, 1)
            derivatives = here.matrix_derivatives().flatten(1).T
            parameters[positions] += torch.linalg.lstsq(derivatives, lacking).solution[:, 0]
        found = self.with_parameters(parameters)
        if float((found.matrix() - rotation).abs().max()) > 1e-6:
            raise RegistrationError(f"a {type(self).__name__} cannot start turned: start from a transform by -t0")
        return found

    @property
    def translation(self) -> Float[Tensor, " dim"]:
        """The translation in millimetres."""
        return self.parameters[self.translation_positions(self.dimension)]

    def __call__(self, points: Points) -> Points:
        """The transformed points."""
        centre = self.centre.to(points)
        return (points - centre) @ self.matrix().T.to(points) + centre + self.translation.to(points)

    def at(self, points: Points) -> Mapped:
        """The transformed points with the Jacobian there."""
        dimension = self.dimension
        offset = points - self.centre.to(points)
        jacobian = points.new_zeros(len(points), dimension, self.parameters.numel())
        moved = torch.einsum("mij,nj->nim", self.matrix_derivatives().to(points), offset)
        jacobian[:, :, self.matrix_positions(dimension)] = moved
        jacobian[:, :, self.translation_positions(dimension)] = torch.eye(dimension).to(points)
        return DenseMapped(self(points), jacobian)

    def local(self, points: Points) -> LinearLocal:
        """The matrix, the same at every point."""
        return LinearLocal(
            len(points),
            self.matrix().to(points),
            self.matrix_derivatives().to(points),
            self.matrix_positions(self.dimension),
            self.parameters.numel(),
        )

    def default_scales(self, settings: AnySettings) -> Parameters:
        """100,000 for the matrix and 1 for the translation unless `Scales` gives one number for the matrix or one for
        each.
        """
        given = cast(LinearSettings, settings).scales
        total = self.parameters.numel()
        if len(given) == total:
            return torch.tensor(given, dtype=torch.float64)
        if len(given) > 1:
            raise TransformError(f"(Scales ...) of {self.names[0]} has 1 or {total} numbers, not {len(given)}")
        scales = torch.ones(total, dtype=torch.float64)
        scales[self.matrix_positions(self.dimension)] = given[0] if given else 100000.0
        return scales

    def written(self) -> dict[str, list[str | int | float]]:
        """`NumberOfParameters`, `TransformParameters`, `CenterOfRotationPoint`."""
        return {
            "NumberOfParameters": [self.parameters.numel()],
            "TransformParameters": self.parameters.tolist(),
            "CenterOfRotationPoint": self.centre.tolist(),
        }

    @classmethod
    def read(cls, parameter_map: ParameterMap) -> Self:
        """The transform in a TransformParameters file."""
        centre = torch.tensor(floats(parameter_map, "CenterOfRotationPoint"), dtype=torch.float64)
        return cls(parameters_of(parameter_map, cls.identity_parameters(centre.numel()).numel()), centre)


@dataclass(frozen=True, eq=False)
class TranslationTransform(LinearTransform, name="TranslationTransform"):
    """A translation in millimetres (`elx::TranslationTransformElastix`)."""

    def matrix(self) -> Matrix:
        """The identity."""
        return torch.eye(self.dimension, dtype=torch.float64)

    def matrix_derivatives(self) -> Float[Tensor, "matrix_parameters dim dim"]:
        """None."""
        return torch.zeros(0, self.dimension, self.dimension, dtype=torch.float64)

    @classmethod
    def matrix_positions(cls, dimension: int) -> list[int]:
        """None."""
        del dimension
        return []

    @classmethod
    def identity_parameters(cls, dimension: int) -> Parameters:
        """Zero."""
        return torch.zeros(dimension, dtype=torch.float64)

    def __call__(self, points: Points) -> Points:
        """The translated points."""
        return points + self.parameters.to(points)

    def written(self) -> dict[str, list[str | int | float]]:
        """`NumberOfParameters` and `TransformParameters`; a translation has no centre."""
        return {"NumberOfParameters": [self.parameters.numel()], "TransformParameters": self.parameters.tolist()}

    @classmethod
    def read(cls, parameter_map: ParameterMap) -> Self:
        """The transform in a TransformParameters file."""
        dimension = len(floats(parameter_map, "TransformParameters"))
        return cls(parameters_of(parameter_map, dimension), torch.zeros(dimension, dtype=torch.float64))


@dataclass(frozen=True, eq=False)
class AffineTransform(LinearTransform, name="AffineTransform"):
    """Matrix elements row by row, then the translation (`elx::AdvancedAffineTransformElastix`)."""

    def matrix(self) -> Matrix:
        """The matrix elements as they are."""
        n = self.dimension
        return self.parameters[: n * n].reshape(n, n)

    def matrix_derivatives(self) -> Float[Tensor, "matrix_parameters dim dim"]:
        """One at each element in turn."""
        n = self.dimension
        return torch.eye(n * n, dtype=torch.float64).reshape(n * n, n, n)

    @classmethod
    def matrix_positions(cls, dimension: int) -> list[int]:
        """The first D x D."""
        return list(range(dimension * dimension))

    @classmethod
    def identity_parameters(cls, dimension: int) -> Parameters:
        """The identity matrix and no translation."""
        return torch.cat([torch.eye(dimension).reshape(-1), torch.zeros(dimension)]).double()
