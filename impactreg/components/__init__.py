"""What a parameter file chooses by name: every room of components, opened so that its names are known."""

from impactreg.components import interpolators, pyramids, samplers
from impactreg.components.metrics import impact, intensity
from impactreg.components.optimizers import adaptive, gradient_descent
from impactreg.components.transforms import bspline, displacement, linear, rotating

__all__ = [
    "adaptive",
    "bspline",
    "displacement",
    "gradient_descent",
    "impact",
    "intensity",
    "interpolators",
    "linear",
    "pyramids",
    "rotating",
    "samplers",
]
