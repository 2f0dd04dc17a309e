"""The keys of the coarse stage."""

from typing import Annotated

from pydantic import Field

from impactreg.components.dense.features import DenseModelSettings
from impactreg.parameters import Once, Refused


class CoarseSettings(DenseModelSettings):
    """What `ImpactCoarseRegistration` reads: models and layers as the `Impact` metric, cells and displacements.

    With the defaults it is `itk::ImpactCoarseRegistration`, which does not normalize intensities: there
    `(ImpactNormalizeLosses "false")` gives the same.
    """

    grid_spacing: Annotated[int, Once] = Field(
        4, ge=1, description="Voxels of a cell along the finest axis of the fixed image; other axes are as long in mm."
    )
    displacement_half_width: Annotated[int, Once] = Field(
        3, ge=1, description="How many cells a displacement goes at most along each axis."
    )
    inverse_consistency: Annotated[bool, Once] = Field(
        True,
        description="Whether moving is registered to fixed too, and both fields drawn to be each other's inverse.",
    )
    normalize_losses: Annotated[bool, Once] = Field(
        True, description="Whether the cost of each layer is divided by what it is at first, so that its unit is gone."
    )
    initial_coupling: Annotated[float, Once] = Field(
        0.0,
        ge=0,
        description="What the square of a displacement of one cell costs at first; a little, such as 0.001, keeps what "
        "is flat at rest.",
    )

    def check(self) -> None:
        """As the models' settings; features are compared by squares alone."""
        super().check()
        for place, layer in enumerate(self.compared if self.uses_models else ()):
            if layer.distance != "L2":
                raise Refused("distance", 'the coarse stage compares by squares alone: "L2"', place)
