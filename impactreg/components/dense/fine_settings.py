"""The keys of the fine stage."""

from typing import Annotated, Literal

from pydantic import Field

from impactreg.components.dense.features import DenseModelSettings
from impactreg.parameters import Once, Refused

CURVED = ("L1", "L2", "Cosine", "NCC")
"""Distances of which the curvature is known, which Gauss-Newton steps need."""


class FineSettings(DenseModelSettings):
    """What `ImpactFineRegistration` reads: models and layers as the `Impact` metric, the grid, the optimizer.

    With the defaults it is `itk::ImpactFineRegistration` but for lengths, which are millimetres, for a loss that does
    not depend on the unit of the features, and for exact places of coarse points. `(ImpactUnits "Voxels")`,
    `(ImpactLossScale "Start")` (or "Sum", where its NormalizeLosses is off), `(ImpactControlInterpolation "Corners")`,
    `(ImpactOutside "Zero")` and `(ImpactRegularizeLinearPart "true")` give these too: then the loss is the same.
    """

    maximum_number_of_iterations: int = Field(
        80, ge=0, alias="MaximumNumberOfIterations", description="How many iterations a resolution has at most."
    )
    fine_transform: Annotated[Literal["Displacement", "SVF", "SymmetricSVF"], Once] = Field(
        "Displacement",
        description="Displacement: a field as it is; SVF: the flow of a stationary velocity field, which cannot fold; "
        "SymmetricSVF: a flow that is compared in both directions. Flows have an inverse, which is given too.",
    )
    fine_optimizer: Literal["Adam", "GaussNewton"] = Field(
        "Adam",
        description="Adam: steps of ImpactLearningRate; GaussNewton: steps to the minimum of a quadratic form, of "
        "which far fewer are needed (Displacement with L1, L2, Cosine, NCC or intensities).",
    )
    control_interpolation: Annotated[Literal["Linear", "BSpline", "Corners"], Once] = Field(
        "Linear",
        description="How displacements come about between control points: linear, or cubic B-splines. Corners: linear, "
        "with the outermost points of all coarser grids, features too, put on the outermost voxels, as ITKIMPACT does.",
    )
    grid_shrink_factor: float = Field(1.0, ge=1, description="Distance of the control points in fixed voxels.")
    control_grid_spacing: float = Field(
        0.0, ge=0, description="Distance of the control points in mm; 0 takes ImpactGridShrinkFactor."
    )
    control_grid_smoothing_iterations: int = Field(
        0, ge=0, description="How often the control grid goes through a box filter of 3 points along each axis."
    )
    evaluation_shrink_factor: int = Field(
        0,
        ge=0,
        description="By how much the lattice on which features are compared is coarser than they are; 0 takes the "
        "control grid's, without splines, and else 1.",
    )
    evaluation_spacing: float = Field(
        0.0,
        ge=0,
        description="About how many mm there are between the points of that lattice, where a layer is not as coarse; 0 "
        "takes ImpactEvaluationShrinkFactor.",
    )
    feature_pooling: bool = Field(
        True, description="Whether features are averaged for a coarser lattice; else it has every n-th of them."
    )
    regularization: Literal["Diffusion", "Bending"] = Field(
        "Diffusion", description="What keeps the field smooth: first or second differences between control points."
    )
    regularization_weight: float = Field(
        1.25, ge=0, description="Weight of the regularization; for Bending in mm^2 (ImpactUnits)."
    )
    learning_rate: float = Field(1.0, gt=0, description="Length of Adam's steps, in mm (ImpactUnits).")
    final_learning_rate: float = Field(
        1.0, gt=0, le=1, description="Share of the learning rate that is left at the last iteration."
    )
    maximum_step: float = Field(
        0.0,
        ge=0,
        description="Longest step of a control point in an iteration of GaussNewton, in mm; 0 is one lattice step.",
    )
    conjugate_gradient_iterations: int = Field(
        10, ge=1, description="Iterations in which GaussNewton solves for one of its steps."
    )
    units: Annotated[Literal["Millimetres", "Voxels"], Once] = Field(
        "Millimetres",
        description="Unit of displacements in learning rate and regularization; Voxels of the fixed image.",
    )
    loss_scale: Literal["Spread", "Start", "Mean", "Sum"] = Field(
        "Spread",
        description="What the distance of a layer is divided by: Spread: that of the fixed features, so that its unit "
        "is gone; Start: what it is at first; Mean: nothing; Sum: nothing, and L1 and L2 are sums over channels.",
    )
    regularize_linear_part: Annotated[bool, Once] = Field(
        False, description="Whether the linear part of the transform before is regularized too, or set apart."
    )
    outside: Literal["Ignore", "Zero"] = Field(
        "Ignore", description="Points that are mapped outside the moving image: do not count, or have features 0."
    )
    intensity_distance: Literal["MSE", "LNCC", "CorrelationRatio"] = Field(
        "MSE",
        description="How intensities are compared: squared differences; local correlation, which allows for contrast "
        "and bias; or whether moving ones follow from fixed ones by any function, for two modalities.",
    )
    correlation_ratio_bins: int = Field(64, ge=2, description="How many steps the function of CorrelationRatio has.")
    local_correlation_radius: int = Field(2, ge=1, description="Radius of the boxes of LNCC, in points of the lattice.")
    convergence_threshold: float = Field(
        0.0,
        ge=0,
        description="It stops where the metric falls by less than this share of itself over the window; 0 is never.",
    )
    convergence_window: int = Field(10, ge=2, description="Over how many iterations convergence is looked at.")
    integration_steps: Annotated[int, Once] = Field(
        6, ge=1, le=12, description="How often a velocity field is halved before it is composed with itself."
    )
    checkpoint_interval: Annotated[int, Once] = Field(
        0, ge=0, description="After how many iterations the state is saved, so that a run can go on; 0 is never."
    )

    def check(self) -> None:
        """As the models' settings, and what flows and Gauss-Newton steps need."""
        super().check()
        if self.control_interpolation == "Corners" and self.fine_transform != "Displacement":
            raise Refused("control_interpolation", f'{self.fine_transform} needs "Linear" or "BSpline"')
        if self.fine_optimizer != "GaussNewton":
            return
        if self.fine_transform != "Displacement":
            raise Refused("fine_optimizer", f'{self.fine_transform} needs (ImpactFineOptimizer "Adam")')
        for layer in self.compared:
            if layer.distance not in CURVED:
                reason = f'GaussNewton knows {", ".join(CURVED)}; take another, or (ImpactFineOptimizer "Adam")'
                raise Refused("distance", reason)
