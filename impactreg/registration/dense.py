"""What the dense stages have in common: one pair of images, settings by resolution, and the models that these name."""

from abc import abstractmethod
from collections.abc import Sequence
from pathlib import Path

from impactreg.components.dense.features import DenseModelSettings
from impactreg.components.resampling import choose
from impactreg.errors import ParameterError
from impactreg.models.catalogue import locate
from impactreg.parameters import ParameterMap, RunSettings, keys_of
from impactreg.parameters.settings import Unknown, unknown_keys
from impactreg.registration.case import Case
from impactreg.registration.registration import Registration


class DenseRegistration(Registration):
    """A stage that finds a displacement in every voxel of the fixed image."""

    def __init__(self, parameter_map: ParameterMap) -> None:
        super().__init__(parameter_map)
        self.settings = RunSettings.read(parameter_map)
        self.read(self.settings.fixed_image_dimension or 3)

    @abstractmethod
    def read(self, dimension: int) -> Sequence[DenseModelSettings]:
        """The settings of every resolution for images of a dimension; raises `ParameterError`."""

    @property
    def folder(self) -> Path | None:
        """That of the parameter file."""
        source = self.parameter_map.source
        return source and source.parent

    def check(self, case: Case) -> None:
        """Reads the settings for the images, of which there must be one pair."""
        self.read(case.fixed.dimension)
        if case.further.fixed or case.further.moving:
            where = self.parameter_map.where("Registration")
            raise ParameterError(
                f"{where}: {self.names[0]} takes one fixed and one moving image; give one of each (-f, -m)"
            )

    def models(self, dimension: int, folders: Sequence[Path]) -> list[tuple[str, Path]]:
        """The models of both images in all resolutions."""
        used = (m for each in self.read(dimension) for m in (*each.models_of("fixed"), *each.models_of("moving")))
        paths = dict.fromkeys(model.path for model in used)
        return [(path, locate(path, relative_to=self.folder, search=folders)) for path in paths]

    def unknown(self) -> list[Unknown]:
        """Keys that neither the stage nor what writes its results reads."""
        resampling = [type(each.settings) for each in choose(self.parameter_map)]
        return unknown_keys(self.parameter_map, keys_of(*self.reads, *resampling))
