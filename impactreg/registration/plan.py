"""Plan: the components that a parameter map chooses, found and read before anything runs."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

from impactreg.components.component import Component
from impactreg.components.interpolators import Interpolator
from impactreg.components.metrics.metric import Metric
from impactreg.components.optimizers.optimizer import Optimizer
from impactreg.components.pyramids import ImagePyramid
from impactreg.components.resampling import choose
from impactreg.components.samplers import Sampler
from impactreg.components.setup import Setup
from impactreg.components.transforms.transform import Combination, Transform
from impactreg.errors import ImpactregError, ParameterError, PointsError
from impactreg.models.catalogue import locate
from impactreg.parameters import ParameterMap, RunSettings, Settings, keys_of, unknown_keys
from impactreg.parameters.impact_settings import ImpactSettings
from impactreg.parameters.settings import Unknown
from impactreg.registration.case import Case
from impactreg.registration.exact_metric import ExactMetricSettings
from impactreg.registration.objective import WeightSettings

C = TypeVar("C", bound=Component)
SINGLE = "MultiResolutionRegistration"
MULTI_METRIC = "MultiMetricMultiResolutionRegistration"

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Choice(Generic[C]):
    """A component that a parameter map names: its class, and its label, such as `Metric0`."""

    component: type[C]
    label: str

    def settings(self, parameter_map: ParameterMap, level: int, dimension: int) -> Settings:
        """Its settings in one resolution."""
        return self.component.Settings.read(parameter_map, level=level, label=self.label, dimension=dimension)


class Plan:
    """What a parameter map asks the PyTorch loop to do; raises `ParameterError` for a component that is missing or
    unknown.
    """

    def __init__(self, parameter_map: ParameterMap) -> None:
        self.parameter_map = parameter_map
        self.run = RunSettings.read(parameter_map)
        self.transform = self._one(Transform, "Transform")  # type: ignore[type-abstract]
        self.optimizer = self._one(Optimizer, "Optimizer")  # type: ignore[type-abstract]
        self.interpolators = self._all(Interpolator, "Interpolator", "BSplineInterpolator")
        self.fixed_pyramids = self._all(ImagePyramid, "FixedImagePyramid", "FixedSmoothingImagePyramid")
        self.moving_pyramids = self._all(ImagePyramid, "MovingImagePyramid", "MovingSmoothingImagePyramid")
        self.metrics = self._all(Metric, "Metric")
        self.samplers = self._samplers()
        self.resampling = choose(parameter_map)
        self._check_numbers()
        for metric in self.metrics:
            metric.component.check_choice(parameter_map, metric.label, self.transform.component)

    @property
    def levels(self) -> int:
        """`NumberOfResolutions`."""
        return self.run.number_of_resolutions

    @property
    def single(self) -> bool:
        """Whether this is the registration of one metric and one pair of images."""
        return self.parameter_map.first("Registration", SINGLE) == SINGLE

    @property
    def composes(self) -> bool:
        """Whether the transform is composed with the initial one, not added to it."""
        return self.run.how_to_combine_transforms == "Compose"

    def erodes(self, side: str, level: int, number: int = 0) -> bool:
        """Whether the mask of that number is eroded in a resolution; `side` is "fixed" or "moving".

        The most specific key counts.
        """
        run = RunSettings.read(self.parameter_map, level=level, label=f"{side.capitalize()}ImagePyramid{number}")
        fixed = (run.erode_numbered_fixed_mask, run.erode_fixed_mask, run.erode_mask)
        moving = (run.erode_numbered_moving_mask, run.erode_moving_mask, run.erode_mask)
        return next(e for e in (fixed if side == "fixed" else moving) if e is not None)

    def setup(self, case: Case, initial: Combination | None = None) -> Setup:
        """What the transform of this plan begins with, on top of `initial`."""
        return Setup(
            case.fixed,
            case.moving,
            case.fixed_mask,
            case.moving_mask,
            initial if self.composes else None,
            initial is not None,
            self.levels,
            case.further.fixed_points,
            case.further.moving_points,
        )

    def check_case(self, case: Case) -> None:
        """Raises an `ImpactregError` where the case has not what the plan needs (images, a mask, landmarks), or its
        transform could not begin.
        """
        self._check_given(case)
        settings = self.transform.settings(self.parameter_map, 0, case.fixed.dimension)
        try:
            self.transform.component.check(settings, self.setup(case))
        except ImpactregError as error:
            raise type(error)(f"{self.parameter_map.name}: {error}") from None

    def _check_given(self, case: Case) -> None:
        for choice in self._choices():
            for side in choice.component.needs_points:
                if (case.further.fixed_points if side == "fixed" else case.further.moving_points) is None:
                    raise PointsError(
                        f"{self.parameter_map.where(choice.component.kind)}: {choice.component.names[0]} needs "
                        f"landmarks of the {side} image: give a file of points by -{side[0]}p ({side}_points=)"
                    )
        masked = [s.component.names[0] for s in self.samplers if s.component.needs_mask]
        if masked and not case.fixed_masks:
            where = self.parameter_map.where("ImageSampler")
            raise ParameterError(f'{where}: {masked[0]} needs a fixed mask: give one with -fMask, or take "Random"')
        numbers = {"fixed": len(case.fixed_images), "moving": len(case.moving_images)}
        if self.single and max(*numbers.values(), len(case.fixed_masks), len(case.moving_masks)) > 1:
            raise ParameterError(
                f"{self.parameter_map.where('Registration')}: {SINGLE} takes one fixed and one moving image, with "
                f'one mask each; use (Registration "{MULTI_METRIC}")'
            )
        for side, number in numbers.items():
            if number not in (1, len(self.metrics)):
                raise ParameterError(
                    f"{self.parameter_map.where('Metric')}: there are {number} {side} images for {len(self.metrics)} "
                    "metrics; give one, or one for each metric"
                )

    def check(self, dimension: int) -> None:
        """Reads every setting of every component in every resolution; raises `ParameterError` at the first that is not
        allowed.
        """
        for level in range(self.levels):
            for choice in self._choices():
                choice.settings(self.parameter_map, level, dimension)
            for metric in self.metrics:
                ExactMetricSettings.read(self.parameter_map, level=level, label=metric.label, dimension=dimension)
                WeightSettings.read(self.parameter_map, level=level, label=metric.label, dimension=dimension)

    def unknown(self) -> list[Unknown]:
        """Keys of the map that no component of this plan reads, with the nearest spelling of one that is read."""
        settings = [c.component.Settings for c in self._choices()]
        resampling = [type(each.settings) for each in self.resampling]
        known = keys_of(RunSettings, WeightSettings, ExactMetricSettings, *settings, *resampling)
        return unknown_keys(self.parameter_map, known)

    def models(self, dimension: int, folders: Sequence[Path]) -> list[tuple[str, Path]]:
        """Every model of the plan as it is written, and the file that it means; raises `ModelError` where there is
        none.
        """
        source = self.parameter_map.source
        found: dict[str, Path] = {}
        for choice in self.metrics:
            for level in range(self.levels):
                settings = choice.settings(self.parameter_map, level, dimension)
                if isinstance(settings, ImpactSettings):
                    for model in (*settings.fixed, *settings.moving):
                        found[model.path] = locate(model.path, relative_to=source and source.parent, search=folders)
        return list(found.items())

    def _choices(self) -> list[Choice[Any]]:
        single: list[Choice[Any]] = [self.transform, self.optimizer]
        return [
            *single,
            *self.interpolators,
            *self.fixed_pyramids,
            *self.moving_pyramids,
            *self.metrics,
            *self.samplers,
        ]

    def _one(self, kind: type[C], key: str) -> Choice[C]:
        found = self._all(kind, key)
        if len(found) > 1:
            where = self.parameter_map.where(key)
            logger.warning("%s: %d are named for %s, of which the first alone is used", where, len(found), key)
        return found[0]

    def _all(self, kind: type[C], key: str, default: str = "") -> list[Choice[C]]:
        where = self.parameter_map.where(key)
        names = self.parameter_map.get(key) or ((default,) if default else ())
        if not names:
            raise ParameterError(f'{where}: the following component has not been specified: {key}; add ({key} "...")')
        return [Choice(kind.named(name, where), f"{key}{i}") for i, name in enumerate(names)]

    def _samplers(self) -> list[Choice[Sampler]]:
        """The samplers; none are needed where no metric takes samples."""
        needed = any(m.component.uses_samples for m in self.metrics)
        return self._all(Sampler, "ImageSampler") if needed or self.parameter_map.get("ImageSampler") else []

    def _check_numbers(self) -> None:
        if self.single and len(self.metrics) > 1:
            raise ParameterError(
                f"{self.parameter_map.where('Metric')}: {SINGLE} takes one metric, not "
                f'{len(self.metrics)}; use (Registration "{MULTI_METRIC}")'
            )
        metrics = len(self.metrics)
        several: dict[str, Sequence[Choice[Any]]] = {
            "Interpolator": self.interpolators,
            "FixedImagePyramid": self.fixed_pyramids,
            "MovingImagePyramid": self.moving_pyramids,
        }
        for key, choices in several.items():
            if len(choices) not in (1, metrics) and not self.single:
                raise self.parameter_map.error(key, f"one is needed, or one for each of the {metrics} metrics")
        if len(self.fixed_pyramids) > 1 and 0 < len(self.samplers) < metrics and not self.single:
            raise self.parameter_map.error(
                "ImageSampler", f"with several fixed image pyramids, one sampler for each of the {metrics} metrics"
            )
