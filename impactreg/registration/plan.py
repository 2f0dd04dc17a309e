"""Plan: the components that a parameter map chooses, found and read before anything runs."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

from impactreg.components.component import Component
from impactreg.components.interpolators import Interpolator
from impactreg.components.metrics.metric import Metric
from impactreg.components.optimizers.optimizer import Optimizer
from impactreg.components.pyramids import ImagePyramid
from impactreg.components.samplers import Sampler
from impactreg.components.transforms.transform import Transform
from impactreg.errors import ParameterError
from impactreg.models.catalogue import locate
from impactreg.parameters import ParameterMap, RunSettings, Settings, keys_of, unknown_keys
from impactreg.parameters.impact_settings import ImpactSettings
from impactreg.parameters.settings import Unknown
from impactreg.registration.objective import WeightSettings

C = TypeVar("C", bound=Component)


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
        self.interpolator = self._one(Interpolator, "Interpolator", "BSplineInterpolator")
        self.fixed_pyramid = self._one(ImagePyramid, "FixedImagePyramid", "FixedSmoothingImagePyramid")
        self.moving_pyramid = self._one(ImagePyramid, "MovingImagePyramid", "MovingSmoothingImagePyramid")
        self.metrics = self._all(Metric, "Metric")
        self.samplers = self._all(Sampler, "ImageSampler")
        self._check_numbers()

    @property
    def levels(self) -> int:
        """`NumberOfResolutions`."""
        return self.run.number_of_resolutions

    @property
    def composes(self) -> bool:
        """Whether the transform is composed with the initial one, not added to it."""
        return self.run.how_to_combine_transforms == "Compose"

    def erodes(self, level: int) -> tuple[bool, bool]:
        """Whether the fixed and the moving mask are eroded in a resolution; the most specific key counts."""
        run = RunSettings.read(self.parameter_map, level=level)
        fixed = (run.erode_numbered_fixed_mask, run.erode_fixed_mask, run.erode_mask)
        moving = (run.erode_numbered_moving_mask, run.erode_moving_mask, run.erode_mask)
        return next(e for e in fixed if e is not None), next(e for e in moving if e is not None)

    def check(self, dimension: int) -> None:
        """Reads every setting of every component in every resolution; raises `ParameterError` at the first that is not
        allowed.
        """
        for level in range(self.levels):
            for choice in self._choices():
                choice.settings(self.parameter_map, level, dimension)

    def unknown(self) -> list[Unknown]:
        """Keys of the map that no component of this plan reads, with the nearest spelling of one that is read."""
        settings = [c.component.Settings for c in self._choices()]
        return unknown_keys(self.parameter_map, keys_of(RunSettings, WeightSettings, *settings))

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
        chosen: list[Choice[Any]] = [
            self.transform,
            self.optimizer,
            self.interpolator,
            self.fixed_pyramid,
            self.moving_pyramid,
            *self.metrics,
            *self.samplers,
        ]
        return chosen

    def _one(self, kind: type[C], key: str, default: str = "") -> Choice[C]:
        return self._all(kind, key, default)[0]

    def _all(self, kind: type[C], key: str, default: str = "") -> list[Choice[C]]:
        where = self.parameter_map.where(key)
        names = self.parameter_map.get(key) or ((default,) if default else ())
        if not names:
            raise ParameterError(f'{where}: the following component has not been specified: {key}; add ({key} "...")')
        return [Choice(kind.named(name, where), f"{key}{i}") for i, name in enumerate(names)]

    def _check_numbers(self) -> None:
        single = (
            self.parameter_map.first("Registration", "MultiResolutionRegistration") == "MultiResolutionRegistration"
        )
        if single and len(self.metrics) > 1:
            raise ParameterError(
                f"{self.parameter_map.where('Metric')}: MultiResolutionRegistration takes one metric, not "
                f'{len(self.metrics)}; use (Registration "MultiMetricMultiResolutionRegistration")'
            )
