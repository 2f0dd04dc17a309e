"""How the parameters of a transform walk downhill: elastix's gradient descents, and Adam."""

from impactreg.components.optimizers.adaptive import AdaptiveStochasticGradientDescent
from impactreg.components.optimizers.gradient_descent import Adam, RegularStepGradientDescent, StandardGradientDescent
from impactreg.components.optimizers.optimizer import Evaluation, Objective, Optimizer, Step

__all__ = [
    "Adam",
    "AdaptiveStochasticGradientDescent",
    "Evaluation",
    "Objective",
    "Optimizer",
    "RegularStepGradientDescent",
    "StandardGradientDescent",
    "Step",
]
