"""The registration loop: from coarse to fine, sample, transform, compare, step
(`itk::MultiResolutionImageRegistrationMethod2`).

For each resolution: pyramid images and masks, the transform refined, a metric and a sampler, scales, an optimizer; then
iterations, each of which is recorded and may be watched.
"""

import logging
import time
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from impactreg.components.metrics.metric import Scene
from impactreg.components.optimizers.optimizer import Optimizer, Step
from impactreg.components.pyramids import ImagePyramid, Role
from impactreg.components.samplers import Sampler
from impactreg.components.scales import scales_of
from impactreg.components.setup import Setup
from impactreg.components.transforms.transform import Combination, Parameters
from impactreg.images.image import Image
from impactreg.images.masks import Mask
from impactreg.parameters import ParameterMap, Settings
from impactreg.registration.case import Case, Iteration, StageResult, Watch
from impactreg.registration.objective import ResolutionObjective, Term, WeightSettings
from impactreg.registration.plan import C, Choice, Plan
from impactreg.registration.results import Recorder

logger = logging.getLogger(__name__)
STOPPED = "The callback has stopped the registration"
Rows = list[dict[str, float]]


def run(
    case: Case, parameter_map: ParameterMap, initial: Combination | None, recorder: Recorder, watch: Watch | None = None
) -> StageResult:
    """Registers by the PyTorch loop and returns the transform on top of `initial`.

    Raises `ParameterError` for a value that is not allowed and `RegistrationError` for a run that cannot go on. `watch`
    sees every iteration and stops the run by returning True.
    """
    return Loop(case, Plan(parameter_map), initial, recorder, watch).run()


@dataclass(frozen=True)
class LevelImages:
    """Images and masks of one resolution."""

    fixed: Image
    moving: Image
    fixed_mask: Mask | None
    moving_mask: Mask | None


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
        self.setup = self._setup()
        self.pyramids = self._pyramid(plan.fixed_pyramid, "fixed"), self._pyramid(plan.moving_pyramid, "moving")
        self._stopped = False

    def run(self) -> StageResult:
        """All resolutions, or those before the watcher stopped the run."""
        settings = self._settings(self.plan.transform, 0)
        start = self.plan.transform.component.begin(settings, self.setup)
        transform = Combination(start, self.initial, self.plan.composes)
        scales: Parameters | None = None
        tables, reasons = [], []
        for level in range(self.plan.levels):
            transform, scales = self._at_level(transform, scales, level)
            transform, table, reason = self._resolution(transform, scales, level)
            tables.append(tuple(table))
            reasons.append(reason)
            self.recorder.level_done(level, transform)
            if self._stopped:
                break
        return StageResult(transform, tuple(tables), tuple(reasons))

    def _setup(self) -> Setup:
        case, plan = self.case, self.plan
        before = self.initial if plan.composes else None
        return Setup(
            case.fixed, case.moving, case.fixed_mask, case.moving_mask, before, self.initial is not None, plan.levels
        )

    def _pyramid(self, choice: Choice[ImagePyramid], role: Role) -> ImagePyramid:
        return choice.component(
            self._settings(choice, 0), role=role, levels=self.plan.levels, dimension=self.case.fixed.dimension
        )

    def _settings(self, choice: Choice[C], level: int) -> Settings:
        return choice.settings(self.plan.parameter_map, level, self.case.fixed.dimension)

    def _at_level(self, transform: Combination, scales: Tensor | None, level: int) -> tuple[Combination, Tensor]:
        """The transform in the form of a resolution, and its scales; those of a linear transform stay as they are at
        the start.
        """
        settings = self._settings(self.plan.transform, level)
        current = transform.current.at_level(level, settings, self.setup)
        transform = replace(transform, current=current).to(self.case.device)
        if scales is None or not current.linear:
            scales = scales_of(transform, settings, self.case.fixed).to(transform.parameters)
        return transform, scales

    def _resolution(self, transform: Combination, scales: Parameters, level: int) -> tuple[Combination, Rows, str]:
        """Iterates until the optimizer has a reason to stop."""
        logger.info("Resolution: %d", level)
        objective = self._objective(transform, scales, level)
        optimizer = self.plan.optimizer.component(self._settings(self.plan.optimizer, level))
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
            rows.append(_row(step, time.perf_counter() - started))
            objective.after_iteration(len(rows), transform)
            self.recorder.iteration(level, step.iteration, rows[-1], transform)
            self._show(level, step, rows[-1], optimizer)
            started = time.perf_counter()
        return transform, rows, STOPPED

    def _show(self, level: int, step: Step, row: dict[str, float], optimizer: Optimizer) -> None:
        most = getattr(optimizer.settings, "maximum_number_of_iterations", 0)
        iteration = Iteration(self.recorder.number, level, self.plan.levels, step.iteration, most, row)
        self._stopped = self.watch is not None and self.watch(iteration) is True

    def _objective(self, transform: Combination, scales: Parameters, level: int) -> ResolutionObjective:
        images = self._images(level)
        samplers = self._samplers(images, level)
        terms = []
        for i, choice in enumerate(self.plan.metrics):
            metric = choice.component(self._settings(choice, level), self._scene(images, level, choice.label))
            weights = WeightSettings.read(self.plan.parameter_map, level=level, label=choice.label)
            terms.append(Term(metric, samplers[i] if i < len(samplers) else samplers[0], weights))
        full = self.case.fixed, self.case.moving
        return ResolutionObjective(
            transform, terms, scales, level, images.fixed, images.fixed_mask, *full, generator=self.generator
        )

    def _images(self, level: int) -> LevelImages:
        fixed, moving = (
            p.level(i, level) for p, i in zip(self.pyramids, (self.case.fixed, self.case.moving), strict=True)
        )
        self.recorder.pyramid_images(level, fixed, moving)
        erodes = self.plan.erodes(level)
        masks = (
            _eroded(mask, pyramid, level, moving=role) if erode else mask
            for mask, pyramid, erode, role in zip(
                (self.case.fixed_mask, self.case.moving_mask), self.pyramids, erodes, (False, True), strict=True
            )
        )
        return LevelImages(fixed, moving, *masks)

    def _samplers(self, images: LevelImages, level: int) -> list[Sampler]:
        full = self.case.fixed.grid
        return [
            c.component(self._settings(c, level), images.fixed, images.fixed_mask, self.generator, full=full)
            for c in self.plan.samplers
        ]

    def _scene(self, images: LevelImages, level: int, label: str) -> Scene:
        choice = self.plan.interpolator
        return Scene(
            fixed=images.fixed,
            moving=images.moving,
            fixed_mask=images.fixed_mask,
            moving_mask=images.moving_mask,
            interpolator=choice.component(self._settings(choice, level)),
            generator=self.generator,
            parameter_map=self.plan.parameter_map,
            level=level,
            label=label,
            model_folders=self.case.model_folders,
        )


def _eroded(mask: Mask | None, pyramid: ImagePyramid, level: int, *, moving: bool) -> Mask | None:
    return None if mask is None else mask.eroded(pyramid.factors(level), moving=moving)


def _row(step: Step, seconds: float) -> dict[str, float]:
    """An iteration in elastix's columns, without its number."""
    return {"2:Metric": step.value, **step.columns, "4:||Gradient||": step.gradient_norm, "Time[ms]": 1000 * seconds}
