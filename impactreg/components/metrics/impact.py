"""Impact: distances between features of pretrained networks, in the mode that each resolution asks for."""

from functools import cached_property

from impactreg.components.metrics.impact_jacobian import JacobianMode
from impactreg.components.metrics.impact_mode import ImpactMetricSettings, Mode
from impactreg.components.metrics.impact_static import StaticMode
from impactreg.components.metrics.metric import ImageMetric, MetricValue
from impactreg.components.samplers import Samples
from impactreg.components.transforms.transform import Combination

MODES: dict[str, type[Mode]] = {"Static": StaticMode, "Jacobian": JacobianMode}


class Impact(ImageMetric, name="Impact"):
    """Distances between deep features (Boussot et al. 2025, arXiv:2503.24121; `elx::ImpactMetric`).

    `ImpactMode`, which may differ from resolution to resolution: in Static mode both images go through the networks
    once a resolution, and their feature maps are interpolated; in Jacobian mode patches around the samples go through
    them in every iteration.
    """

    Settings = ImpactMetricSettings
    settings: ImpactMetricSettings
    needs_fixed_values = False

    @cached_property
    def mode(self) -> Mode:
        """What `ImpactMode` says for this resolution."""
        return MODES[self.settings.mode](self, self.settings)

    def after_iteration(self, number: int, transform: Combination) -> None:
        """Takes the moving features from the warped image every `ImpactFeaturesMapUpdateInterval` iterations (Static
        mode).
        """
        self.mode.after_iteration(number, transform)

    def evaluate(self, transform: Combination, samples: Samples, *, gradient: bool = True) -> MetricValue:
        """The weighted sum of the layers' distances and its gradient."""
        return self.mode.evaluate(transform, samples, gradient=gradient)
