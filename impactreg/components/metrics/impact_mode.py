"""What both modes of Impact share: the settings, how a layer is compared, and where models are found."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from impactreg.components.metrics.distances import DISTANCES, RELATIVE_DISTANCES
from impactreg.components.metrics.metric import ImageMetric, ImageMetricSettings, MetricValue
from impactreg.components.samplers import Samples
from impactreg.components.transforms.transform import Combination
from impactreg.errors import ParameterError
from impactreg.models.catalogue import locate
from impactreg.models.extractor import Extractor
from impactreg.parameters import ImpactSettings, LayerSettings, ModelSettings

Features = Float[Tensor, "points channel"]
ROUNDING = 1e-6
"""Features that differ by no more than this share of the largest one are the same."""


class ImpactMetricSettings(ImageMetricSettings, ImpactSettings):
    """What `Impact` reads: its own keys and those of every metric between images."""


@dataclass
class Comparison:
    """How one layer is compared, and what stays the same for a resolution: `norm` is what the first value was
    multiplied by to become 1.
    """

    settings: LayerSettings
    norm: float | None = None

    @property
    def weight(self) -> float:
        """`ImpactLayersWeight` over the layer's first value in this resolution, where the distance is relative."""
        return self.settings.weight * (self.norm or 1.0)

    def chosen(self, channels: int, generator: torch.Generator) -> Int[Tensor, " chosen"] | None:
        """A random choice of `ImpactSubsetFeatures` of so many channels, or None for all."""
        wanted = self.settings.subset_features
        return torch.randperm(channels, generator=generator)[:wanted] if 0 < wanted < channels else None

    def compare(self, fixed: Features, moving: Features) -> tuple[float, Features]:
        """The weighted distance and its derivative; the first comparison sets the norm."""
        value, derivative = DISTANCES[self.settings.distance](fixed, moving)
        if self.norm is None:
            relative = self.settings.distance in RELATIVE_DISTANCES and not _alike(fixed, moving)
            self.norm = 1 / float(value) if relative else 1.0
        return float(value) * self.weight, derivative * self.weight


def _alike(fixed: Features, moving: Features) -> bool:
    """Whether features are the same but for rounding: a distance that is nothing else must not become 1."""
    return float((moving - fixed).abs().max()) <= ROUNDING * float(fixed.abs().max())


class Mode:
    """How features come to be: a part of `Impact`, made anew for each resolution; abstract."""

    def __init__(self, metric: ImageMetric, settings: ImpactMetricSettings) -> None:
        self.metric = metric
        self.scene = metric.scene
        self.settings = settings

    def evaluate(self, transform: Combination, samples: Samples, *, gradient: bool) -> MetricValue:
        """As `Metric.evaluate`."""
        raise NotImplementedError

    def after_iteration(self, number: int, transform: Combination) -> None:
        """As `Metric.after_iteration`."""

    def extractor(self, model: ModelSettings, device: torch.device) -> Extractor:
        """The model of a parameter file; raises `ModelError` where there is none."""
        source = self.scene.parameter_map.source
        path = locate(model.path, relative_to=source.parent if source else None, search=self.scene.model_folders)
        return Extractor.load(path, device, name=model.path)

    def where(self, key: str, side: str = "") -> str:
        """Where a key of this resolution stands, such as `map.txt:7`: that of one side, Fixed or Moving, or of both."""
        given, level = self.scene.parameter_map, self.scene.level
        for label in (self.scene.label, ""):
            for name in (f"Impact{side}{key}", f"Impact{key}"):
                for end in (str(level), "0", ""):
                    if given.get(f"{label}{name}{end}"):
                        return given.where(f"{label}{name}{end}")
        return given.name

    def check_widths(self, fixed: Sequence[int], moving: Sequence[int]) -> None:
        """Raises `ParameterError` unless layers have as many channels as their counterparts."""
        for number, (one, other) in enumerate(zip(fixed, moving, strict=True), start=1):
            if one != other:
                raise ParameterError(
                    f"{self.where('ModelsPath', 'Moving')}: layer {number} of the fixed models has {one} channels and "
                    f"its moving counterpart {other}; choose layers of equal width"
                )
