"""The rigidity penalty: how far a B-spline is from turning and shifting its control points without any deformation."""

import logging
from collections.abc import Iterator
from typing import Annotated, cast

import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor

from impactreg.components.component import AnySettings
from impactreg.components.metrics.metric import Metric, MetricValue, Scene
from impactreg.components.metrics.rigidity_conditions import (
    Condition,
    ControlPoints,
    linearity,
    orthonormality,
    properness,
)
from impactreg.components.metrics.rigidity_images import RigidityImages, read_rigidity_image, rigidity_file
from impactreg.components.samplers import Samples
from impactreg.components.transforms.bspline import BSplineTransform
from impactreg.components.transforms.transform import Combination, Transform
from impactreg.errors import RegistrationError
from impactreg.images import sums
from impactreg.parameters import Once, ParameterMap, Settings

logger = logging.getLogger(__name__)
NOTHING = 1e-14
"""A sum of rigidity coefficients below this means that nothing is to be rigid."""


class RigiditySettings(Settings):
    """What `TransformRigidityPenalty` reads."""

    linearity_condition_weight: float = Field(1.0, description="Weight of the linearity condition.")
    orthonormality_condition_weight: float = Field(1.0, description="Weight of the orthonormality condition.")
    properness_condition_weight: float = Field(1.0, description="Weight of the properness condition.")
    use_linearity_condition: bool = Field(True, description="Whether second derivatives are penalised.")
    use_orthonormality_condition: bool = Field(True, description="Whether stretch and shear are penalised.")
    use_properness_condition: bool = Field(True, description="Whether changes of volume are penalised.")
    calculate_linearity_condition: bool = Field(
        True, description="Whether the linearity condition is reported even where it is not used."
    )
    calculate_orthonormality_condition: bool = Field(
        True, description="Whether the orthonormality condition is reported even where it is not used."
    )
    calculate_properness_condition: bool = Field(
        True, description="Whether the properness condition is reported even where it is not used."
    )
    fixed_rigidity_image_name: Annotated[str, Once] = Field(
        "", description="Image file with the rigidity, from 0 to 1, of every voxel of the fixed image."
    )
    moving_rigidity_image_name: Annotated[str, Once] = Field(
        "", description="Image file with the rigidity, from 0 to 1, of every voxel of the moving image."
    )
    use_fixed_rigidity_image: bool = Field(
        True, description="Whether the fixed rigidity image is taken where it is named; elastix 5 goes by the name."
    )
    use_moving_rigidity_image: bool = Field(
        True, description="Whether the moving rigidity image is taken where it is named; elastix 5 goes by the name."
    )
    dilate_rigidity_images: bool = Field(
        True, description="Whether the rigid regions are made larger, so that their borders stay rigid."
    )
    dilation_radius_multiplier: float = Field(
        1.0,
        description="How much larger, in control grid spacings (mm) taken as a number of voxels of the rigidity image.",
    )


class TransformRigidityPenalty(Metric, name="TransformRigidityPenalty"):
    """The mean over control points, weighted by their rigidity, of what they lack in being rigid
    (`itk::TransformRigidityPenaltyTerm`; Staring, Klein, Pluim 2007, Medical Physics 34, 4098-4108).

    With C the derivatives of T along the axes of the control grid, seen at a control point: orthonormality is the sum
    of (C'C - I)^2 over the upper triangle, properness is (det C - 1)^2, and linearity is the sum of squared second
    derivatives, where elastix halves the pure ones and divides the mixed ones by the spacings (mm) of their two axes;
    so does the value here. T is the B-spline alone, without what comes before it.

    The gradient is that of the value. elastix's is not: in 3D several of its terms are mistyped, such as the first
    derivatives of the orthonormality condition, which resist rotations; mixed second derivatives have another scale
    than in its value; and at the border of the control grid it ignores that coefficients are repeated there. elastix
    also compares oblique control grids with the world's axes; here they are compared with their own.
    """

    Settings = RigiditySettings
    settings: RigiditySettings
    needs_fixed_values = False
    uses_samples = False

    def __init__(self, settings: AnySettings, scene: Scene) -> None:
        super().__init__(settings, scene)
        given = cast(RigiditySettings, settings)
        uses = {"Fixed": given.use_fixed_rigidity_image, "Moving": given.use_moving_rigidity_image}
        fixed, moving = (
            read_rigidity_image(scene.parameter_map, scene.label, f"{side}RigidityImageName", scene.fixed)
            if use
            else None
            for side, use in uses.items()
        )
        self._images = RigidityImages(
            fixed, moving, given.dilation_radius_multiplier if given.dilate_rigidity_images else None
        )
        self._widened: dict[tuple[float, ...], RigidityImages] = {}
        if fixed is None and moving is None:
            logger.warning(
                "FixedRigidityImageName and MovingRigidityImageName are both not given: all that the control grid "
                "covers is held rigid"
            )

    @classmethod
    def check_choice(cls, parameter_map: ParameterMap, label: str, transform: type[Transform]) -> None:
        """Refuses all but B-splines of order 3, and rigidity images that are not there."""
        order = parameter_map.first("BSplineTransformSplineOrder", "3")
        if not issubclass(transform, BSplineTransform) or order != "3":
            raise parameter_map.error("Metric", f'{cls.names[0]} needs (Transform "BSplineTransform") of order 3')
        asked = RigiditySettings.read(parameter_map, label=label)
        for side, use in (("Fixed", asked.use_fixed_rigidity_image), ("Moving", asked.use_moving_rigidity_image)):
            if use:
                rigidity_file(parameter_map, label, f"{side}RigidityImageName")

    def evaluate(self, transform: Combination, samples: Samples, *, gradient: bool = True) -> MetricValue:
        """The penalty and its gradient, with the three conditions as columns; raises `RegistrationError` for another
        transform than a cubic B-spline.
        """
        del samples
        spline = _cubic(transform)
        rigidity = self._rigidity(spline)
        total, slope = 0.0, torch.zeros_like(spline.parameters)
        columns: dict[str, float] = {}
        if float(sums.total(rigidity)) >= NOTHING:
            points = ControlPoints.of(spline, rigidity / sums.total(rigidity))
            for condition in self._conditions():
                value, gradients = condition.of(points)
                pulled = points.pull_back(gradients) * condition.weight if gradient else slope
                columns |= condition.columns(float(value), float(torch.linalg.vector_norm(pulled)))
                if condition.used:
                    total += condition.weight * float(value)
                    slope = slope + pulled
        return MetricValue(total, slope if gradient else None, columns)

    def _rigidity(self, spline: BSplineTransform) -> Float[Tensor, " control_points"]:
        spacing = spline.grid.spacing
        if spacing not in self._widened:
            self._widened = {spacing: self._images.widened(spacing)}
        return self._widened[spacing].coefficients(spline)

    def _conditions(self) -> Iterator[Condition]:
        given = self.settings
        for function, name, weight, used, calculated in (
            (
                linearity,
                "LC",
                given.linearity_condition_weight,
                given.use_linearity_condition,
                given.calculate_linearity_condition,
            ),
            (
                orthonormality,
                "OC",
                given.orthonormality_condition_weight,
                given.use_orthonormality_condition,
                given.calculate_orthonormality_condition,
            ),
            (
                properness,
                "PC",
                given.properness_condition_weight,
                given.use_properness_condition,
                given.calculate_properness_condition,
            ),
        ):
            if used or calculated:
                yield Condition(function, name, max(weight, 0.0), used)


def _cubic(transform: Combination) -> BSplineTransform:
    current = transform.current
    if isinstance(current, BSplineTransform) and current.order == 3:
        return current
    order = f" of order {current.order}" if isinstance(current, BSplineTransform) else ""
    raise RegistrationError(
        f'(Metric "TransformRigidityPenalty") needs (Transform "BSplineTransform") of order 3, but it got a '
        f"{type(current).__name__}{order}"
    )
