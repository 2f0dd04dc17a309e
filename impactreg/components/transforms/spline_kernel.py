"""Splines through landmarks: thin plates, volumes and elastic bodies, with the moving landmarks as parameters.

T(x) = x + sum over landmarks p of G(x - p) w + A x + b, where w, A and b make T carry the fixed landmarks to the moving
ones (`itk::KernelTransform2`; Davis et al. 1997, IEEE TMI 16, 317-328).
"""

from dataclasses import dataclass, replace
from functools import cached_property
from typing import Annotated, Literal, Self, cast

import torch
from pydantic import Field
from torch import Tensor

from impactreg.components.component import AnySettings
from impactreg.components.setup import Setup
from impactreg.components.transforms.kernels import KernelSpline, spline_of
from impactreg.components.transforms.reading import dimension_of, floats, parameters_of
from impactreg.components.transforms.transform import Mapped, Parameters, Points, Transform
from impactreg.errors import ParameterError, PointsError, TransformError
from impactreg.parameters import Once, ParameterMap, Settings

KernelType = Literal[
    "ThinPlateSpline", "ThinPlateR2LogRSpline", "VolumeSpline", "ElasticBodySpline", "ElasticBodyReciprocalSpline"
]
PAIRS_AT_ONCE = 1 << 20
"""Pairs of a point and a landmark that are worked on together."""


class SplineKernelSettings(Settings):
    """What `SplineKernelTransform` reads."""

    spline_kernel_type: Annotated[KernelType, Once] = Field(
        "ThinPlateSpline", description="The kernel, in 3D; in 2D it is always that of a thin plate, r^2 log r."
    )
    spline_relaxation_factor: Annotated[float, Once] = Field(
        0.0, ge=0, description="0 carries landmarks to landmarks exactly; more lets the spline pass them by."
    )
    spline_poisson_ratio: Annotated[float, Once] = Field(
        0.3, ge=-1, le=0.5, description="Poisson's ratio of the elastic bodies; 0.5 is incompressible."
    )
    ignored_inversion_method: Annotated[Literal["SVD", "QR"], Once] = Field(
        "SVD", alias="TPSMatrixInversionMethod", description="Without effect: the pseudo-inverse is taken always."
    )
    ignored_scales_estimation: Annotated[bool, Once] = Field(
        False, alias="AutomaticScalesEstimation", description="Without effect, as in elastix: every scale is 1."
    )


@dataclass(frozen=True, eq=False)
class SplineKernelTransform(Transform, name="SplineKernelTransform"):
    """Moving landmarks as parameters, x y (z) of one after the other (`elx::SplineKernelTransform`).

    In 2D every kernel type is that of a thin plate, r^2 log r, as in elastix. elastix reads `SplinePoissonRatio` of an
    `ElasticBodyReciprocalSpline` in transform files, but by a slip not in parameter files, where 0.25 is taken; here it
    counts in both.
    """

    Settings = SplineKernelSettings
    needs_points = ("fixed",)

    parameters: Parameters
    spline: KernelSpline
    kernel_type: str = "ThinPlateSpline"
    poisson_ratio: float = 0.3

    @classmethod
    def through(
        cls,
        fixed: Points,
        moving: Points,
        *,
        kernel_type: str = "ThinPlateSpline",
        poisson_ratio: float = 0.3,
        relaxation: float = 0.0,
    ) -> Self:
        """The spline that carries fixed landmarks to moving ones (mm), exactly where `relaxation` is 0.

        Raises `TransformError` for a kernel that its dimension does not have.
        """
        spline = spline_of(fixed, kernel_type, poisson_ratio, relaxation)
        return cls(moving.reshape(-1).clone(), spline, kernel_type, poisson_ratio)

    @property
    def dimension(self) -> int:
        """2 or 3."""
        return int(self.spline.landmarks.shape[1])

    @classmethod
    def begin(cls, settings: AnySettings, setup: Setup) -> Self:
        """Through the landmarks that were given, or the identity where only those of the fixed image were.

        After a composed initial transform the fixed landmarks are where it puts them. Raises `ParameterError` without
        landmarks.
        """
        given, fixed, moving = cast(SplineKernelSettings, settings), setup.fixed_points, setup.moving_points
        if fixed is None:
            raise ParameterError(
                '(Transform "SplineKernelTransform") needs landmarks of the fixed image: give a file of points by -fp'
            )
        if moving is not None and moving.shape != fixed.shape:
            raise PointsError(
                f"SplineKernelTransform needs pairs of landmarks, but there are {len(fixed)} fixed (-fp) and "
                f"{len(moving)} moving ones (-mp)"
            )
        placed = fixed if setup.before is None else setup.before(fixed)
        return cls.through(
            placed.cpu(),
            (placed if moving is None else moving).cpu(),
            kernel_type=given.spline_kernel_type,
            poisson_ratio=given.spline_poisson_ratio,
            relaxation=given.spline_relaxation_factor,
        )

    def with_parameters(self, parameters: Parameters) -> Self:
        """Other moving landmarks."""
        return replace(self, parameters=parameters)

    def at(self, points: Points) -> Mapped:
        """The transformed points with the Jacobian there."""
        return self.spline.at(points, self._coefficients.to(points))

    def __call__(self, points: Points) -> Points:
        """The transformed points."""
        at_once = max(PAIRS_AT_ONCE // len(self.spline.landmarks), 1)
        coefficients = self._coefficients.to(points)
        return torch.cat([p + self.spline.rows(p) @ coefficients for p in points.split(at_once)])

    def written(self) -> dict[str, list[str | int | float]]:
        """The kernel, the fixed landmarks, and the moving ones as parameters."""
        return {
            "NumberOfParameters": [self.parameters.numel()],
            "TransformParameters": self.parameters.tolist(),
            "SplineKernelType": [self.kernel_type],
            "SplinePoissonRatio": [self.poisson_ratio],
            "SplineRelaxationFactor": [self.spline.relaxation],
            "FixedImageLandmarks": self.spline.landmarks.reshape(-1).tolist(),
        }

    @classmethod
    def read(cls, parameter_map: ParameterMap) -> Self:
        """The transform in a TransformParameters file."""
        landmarks, dimension = floats(parameter_map, "FixedImageLandmarks"), dimension_of(parameter_map)
        if len(landmarks) % dimension:
            where = parameter_map.where("FixedImageLandmarks")
            raise TransformError(f"{where}: {len(landmarks)} numbers are no landmarks of {dimension} coordinates each")
        if not parameter_map.get("SplineKernelType"):
            raise TransformError(f"{parameter_map.name}: a transform needs (SplineKernelType ...), which is missing")
        ratio, relaxation = (
            float((parameter_map.numbers(key) or (default,))[0])
            for key, default in (("SplinePoissonRatio", 0.3), ("SplineRelaxationFactor", 0.0))
        )
        fixed = torch.tensor(landmarks, dtype=torch.float64).reshape(-1, dimension)
        moving = parameters_of(parameter_map, len(landmarks)).reshape(-1, dimension)
        kernel = parameter_map.first("SplineKernelType")
        try:
            return cls.through(fixed, moving, kernel_type=kernel, poisson_ratio=ratio, relaxation=max(relaxation, 0.0))
        except TransformError as error:
            raise TransformError(f"{parameter_map.where('SplineKernelType')}: {error}") from None

    @cached_property
    def _coefficients(self) -> Tensor:
        moving = self.parameters.reshape(-1, self.dimension)
        return self.spline.coefficients(moving - self.spline.landmarks.to(moving))
