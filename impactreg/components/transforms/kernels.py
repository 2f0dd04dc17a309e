"""Kernel splines: which functions of the distance to landmarks they are made of, and how their equations are solved."""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from functools import cached_property, partial
from typing import cast

import torch
from jaxtyping import Float
from torch import Tensor

from impactreg.components.transforms.last_points import LastPoints
from impactreg.components.transforms.linear import DenseMapped
from impactreg.components.transforms.transform import Mapped, Parameters, Points, SecondMoment
from impactreg.errors import TransformError
from impactreg.images import sums

Landmarks = Float[Tensor, "landmarks dim"]
Rows = Float[Tensor, "points ... basis"]
_TINY = 1e-300


class KernelSpline(ABC):
    """Landmarks [landmarks, dim] and a kernel with the inverse of its system of equations; abstract.

    `rows` gives the kernels around each point, the point and 1; times `inverse` they are the derivatives of T(x) to the
    moving landmarks.
    """

    def __init__(self, landmarks: Landmarks, relaxation: float = 0.0) -> None:
        self.landmarks = landmarks
        self.relaxation = relaxation
        self._last: LastPoints[Tensor] = LastPoints()

    def rows_once(self, points: Points) -> Rows:
        """`rows`, remembered for the points of the last call: they do not depend on the moving landmarks."""
        return self._last.of(points, None, self.rows)

    @abstractmethod
    def rows(self, points: Points) -> Rows:
        """What the coefficients of the spline are multiplied with."""

    @abstractmethod
    def coefficients(self, displacements: Landmarks) -> Tensor:
        """The coefficients for the displacements of the landmarks."""

    @abstractmethod
    def at(self, points: Points, coefficients: Tensor) -> Mapped:
        """T(x) at points with its derivatives to the moving landmarks."""

    @cached_property
    def inverse(self) -> Float[Tensor, "basis landmarks"]:
        """The inverse of [[K + relaxation, P], [P', 0]], as far as it acts on the landmarks.

        The pseudo-inverse with elastix's tolerance where landmarks do not determine the spline.
        """
        upper = self.rows(self.landmarks).flatten(0, -2)
        n, total = upper.shape
        system = torch.zeros(total, total, dtype=upper.dtype, device=upper.device)
        system[:n] = upper
        system[:, :n] = upper.T
        system[:n, :n] += self.relaxation * torch.eye(n, dtype=upper.dtype, device=upper.device)
        inverse, failed = torch.linalg.inv_ex(system)
        if failed or not self._determined():
            # by singular values: eigenvalues would lose the small ones beside the cubes of long distances
            rounding = total * torch.finfo(system.dtype).eps
            inverse = torch.linalg.pinv(system, atol=1e-8, rtol=rounding)
        return cast(Tensor, inverse)[:, :n].contiguous()

    def _determined(self) -> bool:
        """Whether the equations have one solution: landmarks apart, and not all in one plane (2D: line)."""
        centred = self.landmarks - self.landmarks.mean(dim=0)
        spread = torch.linalg.matrix_rank(centred, rtol=1e-9) == centred.shape[1]
        apart = self.relaxation > 0 or len(torch.unique(self.landmarks, dim=0)) == len(self.landmarks)
        return bool(spread) and apart


class ScalarKernel(KernelSpline):
    """A kernel that is a number for each distance, the same for every dimension."""

    def __init__(self, landmarks: Landmarks, kernel: Callable[[Tensor], Tensor], relaxation: float = 0.0) -> None:
        super().__init__(landmarks, relaxation)
        self._kernel = kernel

    def rows(self, points: Points) -> Float[Tensor, "points basis"]:
        """Kernel values, coordinates and 1."""
        squared = _squared_distances(points, self.landmarks.to(points))
        return torch.cat([self._kernel(squared), points, torch.ones_like(points[:, :1])], dim=1)

    def coefficients(self, displacements: Landmarks) -> Float[Tensor, "basis dim"]:
        """One column for each dimension."""
        return self.inverse.to(displacements) @ displacements

    def at(self, points: Points, coefficients: Float[Tensor, "basis dim"]) -> Mapped:
        """Derivatives that are the same for every dimension."""
        rows = self.rows_once(points)
        return ScalarMapped(points + rows @ coefficients, rows, self.inverse.to(points))


class ElasticKernel(KernelSpline):
    """A kernel that is a matrix for each offset, radial(r) I + along(r) x x'."""

    def __init__(
        self, landmarks: Landmarks, kernel: Callable[[Tensor], tuple[Tensor, Tensor]], relaxation: float = 0.0
    ) -> None:
        super().__init__(landmarks, relaxation)
        self._kernel = kernel

    def rows(self, points: Points) -> Float[Tensor, "points dim basis"]:
        """Kernel matrices side by side, then what A and b are multiplied with."""
        count, n = points.shape
        offset = points[:, None, :] - self.landmarks.to(points)[None, :, :]
        radial, along = self._kernel(offset.square().sum(dim=2))
        unit = torch.eye(n, dtype=points.dtype, device=points.device)
        kernels = radial[..., None, None] * unit + along[..., None, None] * offset[..., None] * offset[..., None, :]
        affine = unit[None, :, None, :] * points[:, None, :, None]
        parts = [kernels.transpose(1, 2).reshape(count, n, -1), affine.reshape(count, n, -1), unit.expand(count, n, n)]
        return torch.cat(parts, dim=2)

    def coefficients(self, displacements: Landmarks) -> Float[Tensor, " basis"]:
        """One column for all."""
        return self.inverse.to(displacements) @ displacements.reshape(-1)

    def at(self, points: Points, coefficients: Float[Tensor, " basis"]) -> Mapped:
        """Derivatives of every dimension to every other."""
        rows = self.rows_once(points)
        return ElasticMapped(points + rows @ coefficients, rows, self.inverse.to(points))


class ElasticMapped(Mapped):
    """Points under an elastic kernel: the Jacobian is rows @ inverse, multiplied out only where that is needed."""

    def __init__(
        self,
        points: Points,
        rows: Float[Tensor, "points dim basis"],
        inverse: Float[Tensor, "basis parameters"],
    ) -> None:
        self.points = points
        self._rows = rows
        self._inverse = inverse

    def pull_back(self, gradient: Points) -> Parameters:
        """The sum of J' gradient over all points."""
        to_basis = sums.inner(self._rows.flatten(0, 1), gradient.reshape(-1, 1))
        return sums.inner(to_basis, self._inverse)[0]

    def push_forward(self, direction: Parameters) -> Points:
        """J direction at every point."""
        return self._rows @ (self._inverse @ direction.to(self._inverse))

    def gram(self, scales: Parameters) -> Float[Tensor, "points dim dim"]:
        """J diag(1 / scales) J' at every point."""
        return self._dense.gram(scales)

    def second_moment(self, scales: Parameters) -> SecondMoment:
        """The second moment of J diag(scales)^-1/2 over all points."""
        return self._dense.second_moment(scales)

    def squared_columns(self) -> Parameters:
        """The sum over points and dimensions of the squared derivatives to each parameter."""
        return self._dense.squared_columns()

    @cached_property
    def _dense(self) -> DenseMapped:
        return DenseMapped(self.points, self._rows @ self._inverse)


class ScalarMapped(Mapped):
    """Points under a scalar kernel: rows @ inverse is the weight that each moving landmark has, in every dimension
    alike.
    """

    def __init__(
        self, points: Points, rows: Float[Tensor, "points basis"], inverse: Float[Tensor, "basis landmarks"]
    ) -> None:
        self.points = points
        self._rows = rows
        self._inverse = inverse

    def pull_back(self, gradient: Points) -> Parameters:
        """The sum of J' gradient over all points."""
        return (self._inverse.T @ sums.inner(self._rows, gradient)).reshape(-1)

    def push_forward(self, direction: Parameters) -> Points:
        """J direction at every point."""
        return self._rows @ (self._inverse @ self._by_landmark(direction))

    def gram(self, scales: Parameters) -> Float[Tensor, "points dim dim"]:
        """J diag(1 / scales) J' at every point: diagonal."""
        return torch.diag_embed(self._weights.square() @ (1 / self._by_landmark(scales)))

    def second_moment(self, scales: Parameters) -> SecondMoment:
        """The second moment of J diag(scales)^-1/2 over all points, one block for each dimension."""
        trace, squares, sandwich = 0.0, 0.0, []
        for factor in (1 / self._by_landmark(scales).sqrt()).unbind(dim=1):
            scaled = self._weights * factor
            moment = sums.inner(scaled, scaled) / len(scaled)
            trace += float(moment.trace())
            squares += float(sums.total(moment.square()))
            sandwich.append(((scaled @ moment) * scaled).sum(dim=1))
        return SecondMoment(trace, math.sqrt(squares), torch.diag_embed(torch.stack(sandwich, dim=1)))

    def squared_columns(self) -> Parameters:
        """The sum over points of the squared derivatives to each parameter."""
        return self._weights.square().sum(dim=0).repeat_interleave(self.points.shape[1])

    @cached_property
    def _weights(self) -> Float[Tensor, "points landmarks"]:
        return self._rows @ self._inverse

    def _by_landmark(self, values: Parameters) -> Float[Tensor, "landmarks dim"]:
        return values.to(self._inverse).reshape(-1, self.points.shape[1])


def spline_of(landmarks: Landmarks, kernel_type: str, poisson_ratio: float, relaxation: float) -> KernelSpline:
    """The spline of an elastix `SplineKernelType`; raises `TransformError` for a name that 3D does not have.

    In 2D every name is r^2 log r, as in elastix.
    """
    if landmarks.shape[1] == 2:
        return ScalarKernel(landmarks, _r2_log_r, relaxation)
    if kernel_type in _SCALAR:
        return ScalarKernel(landmarks, _SCALAR[kernel_type], relaxation)
    if kernel_type == "ElasticBodySpline":
        alpha = 12 * (1 - poisson_ratio) - 1
        return ElasticKernel(landmarks, partial(_elastic, alpha), relaxation)
    if kernel_type == "ElasticBodyReciprocalSpline":
        alpha = 8 * (1 - poisson_ratio) - 1
        return ElasticKernel(landmarks, partial(_reciprocal, alpha), relaxation)
    known = ", ".join([*_SCALAR, "ElasticBodySpline", "ElasticBodyReciprocalSpline"])
    raise TransformError(f'(SplineKernelType "{kernel_type}"): in 3D there are {known}')


def _root(squared: Tensor) -> Tensor:
    """The distance, kept off 0, where it has no derivative."""
    return squared.clamp(min=_TINY).sqrt()


def _r2_log_r(squared: Tensor) -> Tensor:
    return 0.5 * squared * squared.clamp(min=_TINY).log()


def _volume(squared: Tensor) -> Tensor:
    return squared * _root(squared)


def _elastic(alpha: float, squared: Tensor) -> tuple[Tensor, Tensor]:
    root = _root(squared)
    return alpha * squared * root, -3 * root


def _reciprocal(alpha: float, squared: Tensor) -> tuple[Tensor, Tensor]:
    root = _root(squared)
    return alpha * root, -1 / root


_SCALAR: Mapping[str, Callable[[Tensor], Tensor]] = {
    "ThinPlateSpline": _root,
    "VolumeSpline": _volume,
}


def _squared_distances(points: Points, landmarks: Landmarks) -> Float[Tensor, "points landmarks"]:
    """Summed axis by axis, which keeps the digits that a product of matrices would lose."""
    total = torch.zeros(len(points), len(landmarks), dtype=points.dtype, device=points.device)
    for x, p in zip(points.unbind(dim=1), landmarks.unbind(dim=1), strict=True):
        total = total + (x[:, None] - p).square()
    return total
