"""Levels: what is compared in each resolution; images out of the pyramids, masks, samplers and metrics.

Of several images, metric i compares the i-th fixed with the i-th moving image, by the i-th pyramids and interpolator;
where there is one, it serves all metrics (`itk::MultiMetricMultiResolutionImageRegistrationMethod`).
"""

from collections.abc import Callable, Sequence
from typing import TypeVar

import torch

from impactreg.components.component import Component
from impactreg.components.metrics.metric import Metric, Scene
from impactreg.components.pyramids import ImagePyramid, Role
from impactreg.components.samplers import Sampler
from impactreg.components.transforms.transform import Combination, Parameters
from impactreg.images.image import Image
from impactreg.images.masks import Mask
from impactreg.parameters import Settings
from impactreg.registration.case import Case
from impactreg.registration.exact_metric import ExactMetric, ExactMetricSettings
from impactreg.registration.objective import ResolutionObjective, Term, WeightSettings
from impactreg.registration.plan import Choice, Plan

C = TypeVar("C", bound=Component)
K = TypeVar("K")
T = TypeVar("T")


class Levels:
    """The resolutions of a case under a plan; random numbers come from `generator`."""

    def __init__(self, case: Case, plan: Plan, generator: torch.Generator) -> None:
        self.case = case
        self.plan = plan
        self.generator = generator
        self._pyramids = self._made(plan.fixed_pyramids, "fixed"), self._made(plan.moving_pyramids, "moving")

    def settings(self, choice: Choice[C], level: int) -> Settings:
        """The settings of a component in a resolution."""
        return choice.settings(self.plan.parameter_map, level, self.case.fixed.dimension)

    def at(self, level: int) -> "Level":
        """The images of a resolution."""
        return Level(self, level)

    def pyramid(self, role: Role, metric: int) -> ImagePyramid:
        """The pyramid of the fixed or moving image of a metric."""
        return _own(self._pyramids[role == "moving"], metric)

    def _made(self, choices: Sequence[Choice[ImagePyramid]], role: Role) -> list[ImagePyramid]:
        dimension = self.case.fixed.dimension
        return [
            c.component(self.settings(c, 0), role=role, levels=self.plan.levels, dimension=dimension) for c in choices
        ]


class Level:
    """The images of one resolution, each made once, and the objective over them."""

    def __init__(self, levels: Levels, level: int) -> None:
        self.levels = levels
        self.level = level
        self._images: dict[tuple[int, int], Image] = {}
        self._masks: dict[tuple[int, int], Mask] = {}
        self._samplers: dict[tuple[int, ...], Sampler] = {}

    def image(self, role: Role, metric: int) -> Image:
        """The fixed or moving image that a metric compares."""
        case = self.levels.case
        pyramid = self.levels.pyramid(role, metric)
        full = _own(case.fixed_images if role == "fixed" else case.moving_images, metric)
        return _once(self._images, (id(pyramid), id(full)), lambda: pyramid.level(full, self.level))

    def mask(self, role: Role, metric: int) -> Mask | None:
        """The fixed or moving mask of a metric: the only one of one image, else that of its number, if there is one."""
        case, plan = self.levels.case, self.levels.plan
        images, masks = (
            (case.fixed_images, case.fixed_masks) if role == "fixed" else (case.moving_images, case.moving_masks)
        )
        number = 0 if len(images) == len(masks) == 1 else metric
        if number >= len(masks):
            return None
        mask = masks[number]
        if not plan.erodes(role, self.level, number):
            return mask
        pyramid = self.levels.pyramid(role, metric)
        return _once(
            self._masks,
            (id(pyramid), id(mask)),
            lambda: mask.eroded(pyramid.factors(self.level), moving=role == "moving"),
        )

    def pairs(self) -> list[tuple[Image, Image]]:
        """The fixed and moving images of every pyramid."""
        plan = self.levels.plan
        number = max(len(self.levels.case.fixed_images), len(plan.fixed_pyramids), len(plan.moving_pyramids))
        return [(self.image("fixed", i), self.image("moving", i)) for i in range(1 if plan.single else number)]

    def objective(self, transform: Combination, scales: Parameters) -> ResolutionObjective:
        """The weighted sum of the metrics."""
        plan, case = self.levels.plan, self.levels.case
        terms = [self._term(i, choice.label) for i, choice in enumerate(plan.metrics)]
        return ResolutionObjective(
            transform,
            terms,
            scales,
            self.level,
            self.image("fixed", 0),
            self.mask("fixed", 0),
            case.fixed,
            case.moving,
            generator=self.levels.generator,
            exact=[self._exact(term, choice) for term, choice in zip(terms, plan.metrics, strict=True)],
        )

    def _exact(self, term: Term, choice: Choice[Metric]) -> ExactMetric:
        settings = ExactMetricSettings.read(
            self.levels.plan.parameter_map,
            level=self.level,
            label=choice.label,
            dimension=self.levels.case.fixed.dimension,
        )
        return ExactMetric(choice.label, term.metric, term.sampler, settings)

    def _term(self, metric: int, label: str) -> Term:
        plan = self.levels.plan
        choice = plan.metrics[metric]
        made = choice.component(self.levels.settings(choice, self.level), self._scene(metric, label))
        weights = WeightSettings.read(plan.parameter_map, level=self.level, label=label)
        return Term(made, self._sampler(metric) if choice.component.uses_samples else None, weights)

    def _scene(self, metric: int, label: str) -> Scene:
        plan, case = self.levels.plan, self.levels.case
        interpolator = _own(plan.interpolators, metric)
        return Scene(
            fixed=self.image("fixed", metric),
            moving=self.image("moving", metric),
            fixed_mask=self.mask("fixed", metric),
            moving_mask=self.mask("moving", metric),
            interpolator=interpolator.component(self.levels.settings(interpolator, self.level)),
            generator=self.levels.generator,
            parameter_map=plan.parameter_map,
            level=self.level,
            label=label,
            model_folders=case.model_folders,
            fixed_points=case.further.fixed_points,
            moving_points=case.further.moving_points,
        )

    def _sampler(self, metric: int) -> Sampler:
        """The sampler of a metric: its own, else the first one, shared with every metric of the same image and mask."""
        plan, case = self.levels.plan, self.levels.case
        number = metric if metric < len(plan.samplers) else 0
        image, mask, choice = self.image("fixed", metric), self.mask("fixed", metric), plan.samplers[number]
        others = [(self.image("fixed", i), self.mask("fixed", i)) for i in range(len(case.fixed_images)) if i != metric]
        return _once(
            self._samplers,
            (number, id(image), id(mask)),
            lambda: choice.component(
                self.levels.settings(choice, self.level),
                image,
                mask,
                self.levels.generator,
                full=_own(case.fixed_images, metric).grid,
                others=others,
            ),
        )


def _own(several: Sequence[T], metric: int) -> T:
    """What belongs to a metric: that of its number, or the only one of all."""
    return several[metric] if metric < len(several) else several[0]


def _once(made: dict[K, T], key: K, make: Callable[[], T]) -> T:
    if key not in made:
        made[key] = make()
    return made[key]
