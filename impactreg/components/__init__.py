"""What a parameter file chooses by name: every room of components, opened so that its names are known."""

from impactreg.components import coordinate_samplers, interpolators, pyramids, resampling, samplers
from impactreg.components.metrics import (
    bending_energy,
    correlation,
    impact,
    intensity,
    kappa,
    mutual_information,
    points,
    rigidity,
)
from impactreg.components.optimizers import adaptive, conjugate_gradient, gradient_descent, quasi_newton
from impactreg.components.transforms import (
    affine_forms,
    bspline,
    displacement,
    linear,
    rotating,
    spline_kernel,
    stacks,
    weighted,
)

__all__ = [
    "adaptive",
    "affine_forms",
    "bending_energy",
    "bspline",
    "conjugate_gradient",
    "coordinate_samplers",
    "correlation",
    "displacement",
    "gradient_descent",
    "impact",
    "intensity",
    "interpolators",
    "kappa",
    "linear",
    "mutual_information",
    "points",
    "pyramids",
    "quasi_newton",
    "resampling",
    "rigidity",
    "rotating",
    "samplers",
    "spline_kernel",
    "stacks",
    "weighted",
]
