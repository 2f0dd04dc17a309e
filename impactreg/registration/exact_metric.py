"""The exact metric: its value over the whole image after an iteration, as a column for the user; it steers nothing.

A metric on few random samples is too noisy to tell how a registration goes. `(ShowExactMetricValue "true")` adds
`ExactMetric0` for metric 0 and so on, and of several metrics their weighted sum `ExactMetric`, all at the transform
that the iteration led to (`elx::MetricBase::AfterEachIterationBase`).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Annotated

import torch
from pydantic import Field

from impactreg.components.metrics.metric import Metric
from impactreg.components.optimizers.optimizer import Row
from impactreg.components.sampler_settings import GridSettings, PerLevelAndDimension, entries_or
from impactreg.components.samplers import GridSampler, Sampler, Samples
from impactreg.components.transforms.transform import Combination
from impactreg.parameters import Settings
from impactreg.parameters.parameter_map import Found, ParameterMap
from impactreg.parameters.reading import Request


class ExactGridEntries(PerLevelAndDimension):
    """As its base, but 1 stands in for a missing entry."""

    @staticmethod
    def find(parameters: ParameterMap, key: str, request: Request) -> list[Found]:
        """Take entry level * D + i, or else 1, for each dimension i."""
        return entries_or("1", parameters, key, request)


class ExactMetricSettings(Settings):
    """What every metric reads about its exact value; the component's label, such as `Metric0`, may stand in front."""

    show_exact_metric_value: bool = Field(
        False, description="Whether the metric over the whole image is told after an iteration."
    )
    exact_metric_sample_grid_spacing: Annotated[tuple[Annotated[int, Field(ge=1)], ...], ExactGridEntries] = Field(
        (1,), description="Distance along each axis, in voxels, of the samples for the exact metric."
    )
    exact_metric_every_x_iterations: int = Field(
        1, ge=1, alias="ExactMetricEveryXIterations", description="After how many iterations it is told again."
    )


@dataclass(frozen=True, eq=False)
class ExactMetric:
    """The exact value of one metric in one resolution; `label` is such as `Metric0`, `sampler` that of the metric."""

    label: str
    metric: Metric
    sampler: Sampler | None
    settings: ExactMetricSettings

    @property
    def column(self) -> str:
        """Its name in the table of iterations."""
        return f"Exact{self.label}"

    def due(self, iteration: int) -> bool:
        """Whether it is told after an iteration, the first of a resolution being 0."""
        asked = self.settings
        return asked.show_exact_metric_value and iteration % asked.exact_metric_every_x_iterations == 0

    def value(self, transform: Combination) -> float:
        """The metric over the whole image; raises `RegistrationError` as the metric does.

        A metric without samples has its usual value, where elastix tells 0.
        """
        return self.metric.evaluate(transform, self._samples, gradient=False).value

    @cached_property
    def _samples(self) -> Samples:
        if self.sampler is None:
            fixed = self.metric.scene.fixed
            none = torch.zeros(0, fixed.dimension, dtype=torch.float64, device=fixed.data.device)
            return Samples(none, none[:, 0])
        return exact_samples(self.sampler, self.settings.exact_metric_sample_grid_spacing)


def exact_samples(sampler: Sampler, spacing: tuple[int, ...]) -> Samples:
    """Voxels of the image, mask and region of a sampler on a regular grid, `spacing` (x, y, z) voxels apart.

    A `Grid` sampler keeps its own, as in elastix. Random samplers are left as they are and draw nothing. Raises
    `RegistrationError` where the mask leaves no voxel.
    """
    if isinstance(sampler, GridSampler):
        return sampler.draw()
    settings = GridSettings(sample_grid_spacing=spacing)
    return GridSampler(settings, sampler.image, sampler.mask, sampler.generator, full=sampler.full).draw()


def exact_columns(
    metrics: Sequence[ExactMetric], weights: Sequence[float], iteration: int, transform: Combination
) -> Row:
    """The columns after an iteration that led to `transform`; `weights` are what the metrics are multiplied by.

    A cell is empty where nothing is due. Of several metrics, `ExactMetric` sums those that are due; unlike elastix's it
    is empty, not 0, where none is, and takes relative weights into account. Of several metrics elastix also tells most
    at the transform before the iteration, of one metric at the transform after it; here it is always the latter.
    """
    due = {m.column: m.value(transform) for m in metrics if m.due(iteration)}
    shown = [m.column for m in metrics if m.settings.show_exact_metric_value]
    row: Row = {column: due.get(column, "") for column in shown}
    if len(metrics) > 1 and shown:
        weighted = [w * due[m.column] for m, w in zip(metrics, weights, strict=True) if m.column in due]
        row["ExactMetric"] = sum(weighted) if weighted else ""
    return row
