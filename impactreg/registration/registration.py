"""Registration: a way to register that a parameter file names by `(Registration "...")`, and what each one does."""

from abc import abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

from impactreg.components.component import Component
from impactreg.components.transforms.transform import Combination
from impactreg.parameters import ParameterMap, Settings
from impactreg.parameters.settings import Unknown
from impactreg.registration.case import Case, StageResult, Watch
from impactreg.registration.estimate import Estimate
from impactreg.registration.results import Recorder


class Registration(Component, kind="Registration"):
    """A parameter map read by the way to register that it names; one stage of a chain.

    To make one raises `ParameterError` for all that is wrong whatever the images are.
    """

    reads: ClassVar[tuple[type[Settings], ...]] = ()
    """The settings of the run as a whole, as it reads them beside those of the components that the map names."""

    def __init__(self, parameter_map: ParameterMap) -> None:
        self.parameter_map = parameter_map

    @property
    @abstractmethod
    def levels(self) -> int:
        """How many resolutions it goes through."""

    @abstractmethod
    def check(self, case: Case) -> None:
        """Raises an `ImpactregError` for all that can be refused before a run, such as settings that do not fit the
        images.
        """

    def estimate(self, case: Case) -> Estimate | None:
        """About how long it takes and how much memory; None where nobody can tell."""
        del case
        return None

    @abstractmethod
    def models(self, dimension: int, folders: Sequence[Path]) -> list[tuple[str, Path]]:
        """Every model as it is written, and the file that it means; raises `ModelError` where there is none."""

    @abstractmethod
    def unknown(self) -> list[Unknown]:
        """Keys of the map that nothing reads, with the nearest spelling of one that is read."""

    @abstractmethod
    def run(
        self, case: Case, initial: Combination | None, recorder: Recorder, watch: Watch | None = None
    ) -> StageResult:
        """Registers on top of `initial`; raises `RegistrationError` for a run that cannot go on.

        `watch` sees every iteration and stops the run by returning True.
        """
