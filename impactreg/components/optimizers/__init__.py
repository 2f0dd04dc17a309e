"""How the parameters of a transform walk downhill: elastix's gradient descents and line searches, and Adam."""

from impactreg.components.optimizers.adaptive import AdaptiveStochasticGradientDescent
from impactreg.components.optimizers.conjugate_gradient import ConjugateGradient
from impactreg.components.optimizers.gradient_descent import Adam, RegularStepGradientDescent, StandardGradientDescent
from impactreg.components.optimizers.optimizer import Evaluation, Objective, Optimizer, Step
from impactreg.components.optimizers.quasi_newton import QuasiNewtonLBFGS

__all__ = [
    "Adam",
    "AdaptiveStochasticGradientDescent",
    "ConjugateGradient",
    "Evaluation",
    "Objective",
    "Optimizer",
    "QuasiNewtonLBFGS",
    "RegularStepGradientDescent",
    "StandardGradientDescent",
    "Step",
]
