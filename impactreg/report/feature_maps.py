"""Feature maps of a run with Impact as colours: the three strongest principal components as red, green and blue."""

import hashlib
import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import UInt8
from torch import Tensor

from impactreg.components.aligned import resample_aligned
from impactreg.components.dense.features import DenseModelSettings
from impactreg.errors import ImpactregError
from impactreg.images.image import Image
from impactreg.models.catalogue import locate
from impactreg.models.extractor import Extractor
from impactreg.models.features import extract, sampling_grid, statistics
from impactreg.models.reduction import fit, project
from impactreg.parameters import ModelSettings, ParameterMap
from impactreg.parameters.impact_settings import ImpactSettings
from impactreg.report.deformation import PlaneField
from impactreg.report.planes import sampled
from impactreg.report.run_folder import RunFolder

logger = logging.getLogger(__name__)
MOST_LAYERS = 2
POINTS_3D, POINTS_2D = 72, 256
"""Most voxels along an axis of what a model is shown: a coarser voxel size keeps large images quick."""
PIXELS = 96


@dataclass(frozen=True)
class UsedModel:
    """A model that a parameter map names: as written, the resolutions that use it, its file and its checksum."""

    written: str
    levels: tuple[int, ...]
    file: Path | None
    sha256: str


@dataclass(frozen=True)
class Colours:
    """Features of both images in the same three components [3, *space], and the value shown black and white of each."""

    name: str
    fixed: Image
    moving: Image
    low: Tensor
    high: Tensor

    def pictures(self, field: PlaneField) -> tuple[UInt8[Tensor, "slice row column rgb"], Tensor]:
        """The fixed features and the moving ones as the transform brings them there, in the slices of a plane."""
        columns, rows = field.plane.size(PIXELS if len(field.plane.axes) > 2 else POINTS_2D)
        fixed, _ = sampled(self.fixed, field.plane.points(columns, rows))
        moving, inside = sampled(self.moving, field.moved_at(columns, rows))
        return self._bytes(fixed), self._bytes(moving) * inside[..., None]

    def _bytes(self, values: Tensor) -> Tensor:
        low, high = (v.reshape(3, *[1] * (values.ndim - 1)) for v in (self.low, self.high))
        scaled = (values - low) / (high - low).clamp_min(1e-12) * 255
        return scaled.clamp(0, 255).round().to(torch.uint8).movedim(0, -1).contiguous()


def used_models(run: RunFolder, folders: Sequence[Path], dimension: int) -> list[UsedModel]:
    """The models that the parameter maps of a run name, with the checksums of their files as they are now."""
    levels: dict[tuple[str, Path | None], list[int]] = {}
    for stage in run.stages:
        for level in range(max(1, len(stage.levels))):
            for settings, parameter_map in _impacts(stage.parameter_map, level, dimension):
                for model in {m.path: m for m in (*settings.fixed, *settings.moving)}.values():
                    levels.setdefault((model.path, _found(model.path, parameter_map, folders)), []).append(level)
    return [
        UsedModel(written, tuple(sorted(set(used))), file, "" if file is None else _checksum(file))
        for (written, file), used in levels.items()
    ]


def colours(run: RunFolder, fixed: Image, moving: Image, folders: Sequence[Path]) -> list[Colours]:
    """The first layers of the last resolution that used Impact; none where there is none or its models are gone."""
    for stage in reversed(run.stages):
        impacts = list(_impacts(stage.parameter_map, max(0, len(stage.levels) - 1), fixed.dimension))
        if impacts:
            try:
                return [found for each in impacts for found in _layers(*each, fixed, moving, folders)][:MOST_LAYERS]
            except ImpactregError as error:
                logger.warning("the report shows no feature maps: %s", error)
                return []
    return []


def uses_models(parameter_map: ParameterMap | None) -> bool:
    """Whether a parameter map names feature extractors."""
    return parameter_map is not None and any("ModelsPath" in key for key in parameter_map)


def _impacts(
    parameter_map: ParameterMap | None, level: int, dimension: int
) -> Iterator[tuple[ImpactSettings, ParameterMap]]:
    """The settings of every Impact metric of a resolution; a map that they cannot be read from has none."""
    if parameter_map is None:
        return
    for label, settings in _readers(parameter_map):
        try:
            yield settings.read_level(parameter_map, level, dimension, label), parameter_map
        except ImpactregError as error:
            logger.warning("the report cannot read the settings of Impact: %s", error)


def _readers(parameter_map: ParameterMap) -> Iterator[tuple[str, type[ImpactSettings]]]:
    """The labels of the components that use models, with what reads their settings."""
    if not uses_models(parameter_map):
        return
    if parameter_map.first("Registration").startswith("Impact"):
        yield "", DenseModelSettings
    for number, name in enumerate(parameter_map.get("Metric", ())):
        if name == "Impact":
            yield f"Metric{number}", ImpactSettings


def _layers(
    settings: ImpactSettings, parameter_map: ParameterMap, fixed: Image, moving: Image, folders: Sequence[Path]
) -> Iterator[Colours]:
    pairs = zip(settings.fixed, settings.moving, strict=False)
    for of_fixed, of_moving in pairs:
        seen = [
            (model, _extracted(model, image, parameter_map, folders))
            for model, image in ((of_fixed, fixed), (of_moving, moving))
        ]
        for number, (a, b) in enumerate(zip(seen[0][1], seen[1][1], strict=False)):
            if a.channels == b.channels:
                yield _coloured(_name(of_fixed, number, a), a, b)


def _name(model: ModelSettings, number: int, features: Image) -> str:
    layer = [place for place, used in enumerate(model.layers_mask) if used][number]
    voxels = " x ".join(f"{step:.3g}" for step in features.grid.spacing)
    return f"{model.path}, layer {layer}, {features.channels} channels of {voxels} mm"


def _extracted(model: ModelSettings, image: Image, parameter_map: ParameterMap, folders: Sequence[Path]) -> list[Image]:
    most = POINTS_3D if image.dimension == 3 else POINTS_2D
    extents = [n * step for n, step in zip(image.grid.size, image.grid.spacing, strict=True)]
    # In Jacobian mode the voxel sizes are those of the model's axes, which a slice-wise model has fewer of.
    sizes = [*model.voxel_size, *image.grid.spacing[len(model.voxel_size) :]]
    own = zip(sizes, image.grid.spacing, extents, strict=True)
    voxel = [max(size or spacing, extent / most) for size, spacing, extent in own]
    place = parameter_map.source.parent if parameter_map.source else None
    extractor = Extractor.load(locate(model.path, relative_to=place, search=folders), "cpu", name=model.path)
    return extract(
        extractor,
        resample_aligned(image, sampling_grid(image.grid, voxel), 1),
        model_dimension=model.dimension,
        channels=model.channels,
        patch_size=(0,) * model.dimension,
        layers_mask=model.layers_mask,
        statistics=statistics(image),
    )


def _coloured(name: str, fixed: Image, moving: Image) -> Colours:
    """Both in the components of the fixed features, the strongest first; with fewer channels some colours are 0."""
    basis = fit(fixed.data, min(3, fixed.channels)).flip(1)
    # Both around the mean of the fixed features, so that the same colour is the same feature.
    apart = basis.T @ (moving.data.flatten(1).mean(dim=1) - fixed.data.flatten(1).mean(dim=1))
    shifts = (torch.zeros_like(apart), apart)
    maps = [
        _three(project(image.data, basis) + shift.reshape(-1, *[1] * fixed.dimension))
        for image, shift in zip((fixed, moving), shifts, strict=True)
    ]
    values = torch.cat([each.flatten(1)[:, :: 1 + each[0].numel() // 100_000] for each in maps], dim=1).double()
    low, high = torch.quantile(values, torch.tensor([0.01, 0.99], dtype=torch.float64), dim=1)
    return Colours(name, fixed.with_data(maps[0]), moving.with_data(maps[1]), low.float(), high.float())


def _three(data: Tensor) -> Tensor:
    return torch.cat([data, data.new_zeros(3 - len(data), *data.shape[1:])]) if len(data) < 3 else data


def _found(written: str, parameter_map: ParameterMap, folders: Sequence[Path]) -> Path | None:
    try:
        return locate(
            written, relative_to=parameter_map.source.parent if parameter_map.source else None, search=folders
        )
    except ImpactregError:
        return None


def _checksum(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
