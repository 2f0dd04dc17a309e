"""Estimate: about how long a stage takes and how much memory, from what its map says and how large the images are.

The figures per iteration, sample and channel are those of `tools/benchmarks/speed` and `static_metric` on two processor
cores of 2.5 GHz; a real run differs by half or double.
"""

from dataclasses import dataclass
from math import prod

from impactreg.components.optimizers.optimizer import IterationSettings
from impactreg.components.sampler_settings import RandomSettings
from impactreg.models.cards import known
from impactreg.models.features import sampling_grid
from impactreg.parameters import ImpactSettings, ModelSettings, ParameterMap
from impactreg.registration.case import Case

START = {"torch": 1.5, "elastix": 5.0}
"""Seconds before the first iteration."""
PROGRAM = 450e6
"""Bytes that PyTorch and this package take."""
VOXEL = 28
"""Bytes for each voxel of both images: read, smoothed, as spline coefficients and as result."""
MAPS = 3.0
"""Times the size of the feature maps that are needed while they are made."""
ITERATION, SAMPLE, CHANNEL = 3e-3, 4.5e-6, 0.5e-6
"""Seconds for an iteration, for a sample in it, and for a channel of a sample."""
FEATURE = 6e-8
"""Seconds for one value of a feature map."""


@dataclass(frozen=True)
class Estimate:
    """How long a stage takes on a processor (s; None where that depends on a model that is not known), and the most
    memory (bytes).
    """

    seconds: float | None
    memory: float

    def __str__(self) -> str:
        time = "depends on the model" if self.seconds is None else f"about {_rounded(self.seconds)} s on a CPU"
        return f"{time}, {_rounded(self.memory / 1e9)} GB"


def of_loop(parameter_map: ParameterMap, case: Case, levels: int, engine: str = "torch") -> Estimate:
    """The estimate for a registration by elastix's loop, here or in elastix itself."""
    times, sizes = zip(*(_level(parameter_map, case, level) for level in range(levels)), strict=True)
    known = [seconds for seconds in times if seconds is not None]
    voxels = prod(case.fixed.grid.size) + prod(case.moving.grid.size)
    return Estimate(START[engine] + sum(known) if len(known) == levels else None, PROGRAM + VOXEL * voxels + max(sizes))


def _level(parameter_map: ParameterMap, case: Case, level: int) -> tuple[float | None, float]:
    """Seconds and bytes of a resolution."""
    dimension = case.fixed.dimension
    iterations = IterationSettings.read(parameter_map, level=level, dimension=dimension).maximum_number_of_iterations
    samples = RandomSettings.read(parameter_map, level=level, dimension=dimension).number_of_spatial_samples
    if parameter_map.first("ImageSampler") in ("Full", "Grid"):
        samples = prod(case.fixed.grid.size)
    seconds: float | None = iterations * ITERATION
    size = 0.0
    for number, name in enumerate(parameter_map.get("Metric", ())):
        found: tuple[float | None, float] = (iterations * samples * SAMPLE, 0.0)
        if name == "Impact":
            settings = ImpactSettings.read_level(parameter_map, level, dimension, f"Metric{number}")
            found = _impact(settings, case, iterations * samples)
        seconds = None if seconds is None or found[0] is None else seconds + found[0]
        size += found[1]
    return seconds, size


def _impact(settings: ImpactSettings, case: Case, visits: int) -> tuple[float | None, float]:
    """Seconds and bytes of the metric for so many samples in all iterations together."""
    widths = [widths_of(model) for model in settings.fixed]
    if settings.mode == "Jacobian" or not all(widths):
        return None, 0.0
    voxels = sum(
        prod(sampling_grid(image.grid, model.voxel_size).size) * sum(width)
        for image, models in ((case.fixed, settings.fixed), (case.moving, settings.moving))
        for model, width in zip(models, widths, strict=False)
    )
    layers = zip(settings.layers, [channels for width in widths for channels in width], strict=False)
    compared = sum(layer.subset_features or layer.pca or channels for layer, channels in layers)
    return voxels * FEATURE + visits * (2 * SAMPLE + CHANNEL * compared), 4.0 * MAPS * voxels


def widths_of(model: ModelSettings) -> list[int]:
    """Channels of each selected layer of a model; empty where no card tells them."""
    card = known(model.path)
    layers = card[1].layers if card else ()
    return [layer.channels for layer, used in zip(layers, model.layers_mask, strict=False) if used]


def _rounded(number: float) -> str:
    return f"{number:.0f}" if number >= 10 else f"{number:.1f}"
