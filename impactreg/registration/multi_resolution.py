"""The registration loop: from coarse to fine, sample, transform, compare, step
(`itk::MultiResolutionImageRegistrationMethod2`).

For each resolution: pyramid images and masks, the transform refined, a metric and a sampler, scales, an optimizer; then
iterations, each of which is recorded and may be watched.
"""

import logging
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from impactreg.components.optimizers.optimizer import STOPPED, Optimizer, Row, Step
from impactreg.components.scales import scales_of
from impactreg.components.transforms.transform import Combination, Parameters
from impactreg.parameters import ParameterMap, RunSettings
from impactreg.parameters.settings import Unknown
from impactreg.registration import estimate
from impactreg.registration.case import Case, Iteration, StageResult, Watch
from impactreg.registration.checkpoint import State, plain_tables
from impactreg.registration.estimate import Estimate
from impactreg.registration.exact_metric import ExactMetricSettings
from impactreg.registration.levels import Levels
from impactreg.registration.objective import WeightSettings
from impactreg.registration.plan import MULTI_METRIC, SINGLE, Plan
from impactreg.registration.preparation import device_of_level
from impactreg.registration.registration import Registration
from impactreg.registration.results import Recorder

logger = logging.getLogger(__name__)
Rows = list[Row]


class _ByLoop(Registration):
    """A registration by this loop."""

    def __init__(self, parameter_map: ParameterMap) -> None:
        super().__init__(parameter_map)
        self.plan = Plan(parameter_map)

    @property
    def levels(self) -> int:
        """`NumberOfResolutions`."""
        return self.plan.levels

    def check(self, case: Case) -> None:
        """Reads every setting of every resolution, and holds the case against what the components need."""
        self.plan.check(case.fixed.dimension)
        self.plan.check_case(case)

    def estimate(self, case: Case) -> Estimate:
        """From iterations, samples and feature maps."""
        return estimate.of_loop(self.parameter_map, case, self.levels)

    def models(self, dimension: int, folders: Sequence[Path]) -> list[tuple[str, Path]]:
        """The models of its metrics."""
        return self.plan.models(dimension, folders)

    def unknown(self) -> list[Unknown]:
        """Keys that neither the run nor its components read."""
        return self.plan.unknown()

    def run(
        self, case: Case, initial: Combination | None, recorder: Recorder, watch: Watch | None = None
    ) -> StageResult:
        """Registers by the PyTorch loop."""
        return Loop(case, self.plan, initial, recorder, watch).run()


class MultiResolutionRegistration(_ByLoop, name=SINGLE):
    """From coarse to fine, by one metric between one fixed and one moving image."""

    reads = (RunSettings, ExactMetricSettings)


class MultiMetricMultiResolutionRegistration(_ByLoop, name=MULTI_METRIC):
    """From coarse to fine, by the weighted sum of several metrics, of one or of several pairs of images."""

    reads = (RunSettings, WeightSettings, ExactMetricSettings)


class Loop:
    """One run of the loop over all resolutions."""

    def __init__(
        self, case: Case, plan: Plan, initial: Combination | None, recorder: Recorder, watch: Watch | None
    ) -> None:
        self.case = case if plan.run.use_direction_cosines else case.without_direction()
        self.plan = plan
        self.initial = None if initial is None else initial.to(case.device)
        self.recorder = recorder
        self.watch = watch
        self.generator = torch.Generator().manual_seed(plan.run.random_seed if case.seed is None else case.seed)
        self.levels = Levels(self.case, plan, self.generator)
        self.setup = plan.setup(self.case, self.initial)
        self._stopped = False

    def run(self) -> StageResult:
        """All resolutions, or those before the watcher stopped the run; an interrupted run goes on after the last
        complete one.
        """
        settings = self.levels.settings(self.plan.transform, 0)
        start = self.plan.transform.component.begin(settings, self.setup)
        transform = Combination(start, self.initial, self.plan.composes)
        scales: Parameters | None = None
        tables, reasons, kept = [], [], self.recorder.kept
        for level in range(self.plan.levels):
            transform, scales = self._at_level(transform, scales, level)
            if level < len(kept.get("tables", ())):
                transform = self._restored(transform, kept, level)
                tables.append(tuple(kept["tables"][level]))
                reasons.append(kept["reasons"][level])
                continue
            transform, table, reason = self._resolution(transform, scales, level)
            tables.append(tuple(table))
            reasons.append(reason)
            self.recorder.level_done(level, transform)
            if self._stopped:
                break
            self._keep(transform, tables, reasons)
        return StageResult(transform, tuple(tables), tuple(reasons))

    def _keep(self, transform: Combination, tables: list[tuple[Row, ...]], reasons: list[str]) -> None:
        numbers = {"parameters": transform.parameters.cpu(), "generator": self.generator.get_state()}
        self.recorder.keep({**numbers, "tables": plain_tables(tables), "reasons": [*reasons]})

    def _restored(self, transform: Combination, kept: State, level: int) -> Combination:
        """The transform at the end of a resolution that was complete before the run was interrupted.

        Those before the last are only passed through, for the transform to get the form that it has after them.
        """
        if level < len(kept["tables"]) - 1:
            return transform
        self.generator.set_state(kept["generator"])
        return transform.with_parameters(kept["parameters"].to(transform.parameters))

    def _at_level(self, transform: Combination, scales: Tensor | None, level: int) -> tuple[Combination, Tensor]:
        """The transform in the form of a resolution and on its device, and its scales; those of a linear transform stay
        as they are at the start.
        """
        self._move(level)
        transform = transform.to(self.case.device)
        settings = self.levels.settings(self.plan.transform, level)
        current = transform.current.at_level(level, settings, self.setup)
        transform = replace(transform, current=current).to(self.case.device)
        if scales is None or not current.linear:
            scales = scales_of(transform, settings, self.case.fixed).to(transform.parameters)
        return transform, scales.to(transform.parameters)

    def _move(self, level: int) -> None:
        """Goes on on the device that `ImpactGPU` names for a resolution."""
        device = device_of_level(self.plan.parameter_map, level, self.case.device)
        if self.case.keeps_device or device == self.case.device:
            return
        logger.info("Resolution %d runs on %s", level, device)
        self.case = self.case.to(device)
        self.initial = None if self.initial is None else self.initial.to(device)
        self.levels = Levels(self.case, self.plan, self.generator)
        self.setup = self.plan.setup(self.case, self.initial)

    def _resolution(self, transform: Combination, scales: Parameters, level: int) -> tuple[Combination, Rows, str]:
        """Iterates until the optimizer has a reason to stop."""
        logger.info("Resolution: %d", level)
        here = self.levels.at(level)
        self.recorder.pyramid_images(level, here.pairs())
        objective = here.objective(transform, scales)
        optimizer = self.plan.optimizer.component(self.levels.settings(self.plan.optimizer, level))
        steps = optimizer.steps(objective, transform.parameters)
        rows: Rows = []
        started = time.perf_counter()
        while not self._stopped:
            try:
                step = next(steps)
            except StopIteration as end:
                logger.info("Stopping condition: %s.", end.value)
                return transform, rows, str(end.value)
            transform = transform.with_parameters(step.parameters)
            rows.append({**_row(step, time.perf_counter() - started), **objective.exact_columns(len(rows), transform)})
            objective.after_iteration(len(rows), transform)
            self.recorder.iteration(level, step.iteration, rows[-1], transform)
            self._show(level, step, rows[-1], optimizer)
            started = time.perf_counter()
        return transform, rows, STOPPED

    def _show(self, level: int, step: Step, row: Row, optimizer: Optimizer) -> None:
        most = getattr(optimizer.settings, "maximum_number_of_iterations", 0)
        iteration = Iteration(self.recorder.number, level, self.plan.levels, step.iteration, most, row)
        self._stopped = self.watch is not None and self.watch(iteration) is True


def _row(step: Step, seconds: float) -> Row:
    """An iteration in elastix's columns, without its number."""
    return {**step.row, "Time[ms]": 1000 * seconds}
