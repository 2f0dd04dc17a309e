"""Feature maps of the dense stages: what a cost volume or a warp compares, extracted once from each image.

Without a model the intensities themselves are the features. The keys are those of the IMPACT metric in its static mode;
whole images go through the models, and every layer stays on its own grid, never made finer
(`itk::Impact::ExtractFeatureLayers`).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor

from impactreg.components.aligned import resample_aligned
from impactreg.errors import ModelError
from impactreg.images.grid import Grid
from impactreg.images.image import Image
from impactreg.models import reduction
from impactreg.models.catalogue import locate
from impactreg.models.extractor import Extractor
from impactreg.models.features import extract, sampling_grid, statistics
from impactreg.parameters import ImpactSettings, LayerSettings, ModelSettings, Refused

ORDER = 3
"""Order of the spline by which an image is brought to `ImpactVoxelSize`."""
OWN = 0.0
"""Stands for the image's own spacing in a voxel size."""
INTENSITIES = LayerSettings(0, 0, 1.0, "L2")

Side = Literal["fixed", "moving"]


class DenseModelSettings(ImpactSettings):
    """The models of a dense stage, by the keys of `Impact` in static mode.

    Without `ImpactModelsPath` intensities are compared, and without `ImpactVoxelSize` the models see the images with
    the spacing that they have.
    """

    mode: Literal["Static", "Jacobian"] = Field(
        "Static", description="Only Static: the dense stages extract features of whole images."
    )

    compare: Literal["Models", "Intensities"] = Field(
        "Models", description="What is compared: features of the models where there are any, or intensities."
    )

    @property
    def uses_models(self) -> bool:
        """Whether features are compared, not intensities."""
        if self.compare == "Intensities":
            return False
        return bool(self.models_path or (self.fixed_models_path and self.moving_models_path))

    @property
    def compared(self) -> tuple[LayerSettings, ...]:
        """How each layer counts; the intensities are one layer."""
        return self.layers if self.uses_models else (INTENSITIES,)

    def models_of(self, side: Side) -> tuple[ModelSettings, ...]:
        """The models for one image; none for intensities."""
        if not self.uses_models:
            return ()
        return self.fixed if side == "fixed" else self.moving

    def check(self) -> None:
        """As `Impact`, where there are models."""
        if self.mode != "Static":
            raise Refused("mode", 'the dense stages know "Static" alone')
        if self.uses_models:
            super().check()
        elif self.compare == "Models" and (self.fixed_models_path or self.moving_models_path):
            given = "fixed" if self.fixed_models_path else "moving"
            raise Refused(f"{given}_models_path", "the other image needs a model too; give ImpactModelsPath for both")

    def _voxel_size(self, side: str) -> tuple[float, ...]:
        return tuple(self._values(side, "voxel_size")) or (OWN,)


@dataclass(frozen=True, eq=False)
class LayerPair:
    """One layer of both images: its feature maps [channel, *space], each on its own grid, and how it counts.

    `basis` holds the principal components that both are reduced to, if any. `on_lattice` says that the fixed ones are
    where they are compared already.
    """

    settings: LayerSettings
    fixed: Image
    moving: Image
    basis: Float[Tensor, "channel component"] | None = None
    on_lattice: bool = False

    def with_moving(self, features: Image) -> "LayerPair":
        """Other moving features, as a model gives them, in the same principal components."""
        if self.basis is not None:
            features = features.with_data(reduction.project(features.data, self.basis))
        return replace(self, moving=features)


def feature_images(
    image: Image,
    side: Side,
    settings: DenseModelSettings,
    *,
    relative_to: Path | None = None,
    folders: Sequence[Path] = (),
    device: "torch.device | str | None" = None,
) -> list[Image]:
    """The feature map of every selected layer of an image, each float32 on its own exact grid; the intensities without
    a model.

    `relative_to` is the folder of the parameter file and `folders` are those of models (`catalogue.locate`). The
    statistics that models normalise by are those of the whole image. Principal components are not taken yet. Raises
    `ModelError` where a model is missing or does not fit.
    """
    image = image.to(device=device, dtype=torch.float32)
    if not settings.uses_models:
        return [image]
    known = statistics(image)
    maps: list[Image] = []
    for model in settings.models_of(side):
        path = locate(model.path, relative_to=relative_to, search=folders)
        extractor = Extractor.load(path, image.data.device, name=model.path)
        maps += extract(
            extractor,
            seen_by(model, image),
            model_dimension=model.dimension,
            channels=model.channels,
            patch_size=model.patch_size,
            layers_mask=model.layers_mask,
            statistics=known,
            mixed_precision=settings.use_mixed_precision,
        )
    return maps


def layer_pairs(
    fixed: Image,
    moving: Image,
    settings: DenseModelSettings,
    *,
    lattice: Callable[[Image], Image] | None = None,
    **where: Any,
) -> list[LayerPair]:
    """The layers of both images side by side, reduced to principal components of the fixed one where asked
    (`ImpactPCA`).

    `lattice` puts the fixed features where they are compared, before there are moving ones, which saves memory. `where`
    is passed on to `feature_images`. Raises `ModelError` where layers have unlike numbers of channels.
    """
    maps = feature_images(fixed, "fixed", settings, **where)
    widths, halves = [each.channels for each in maps], []
    for asked in settings.compared:
        basis, features = _reduced(asked, maps.pop(0))
        placed = features if lattice is None else lattice(features)
        halves.append(LayerPair(asked, placed, placed, basis, lattice is not None))
        del features
    maps, pairs = feature_images(moving, "moving", settings, **where), []
    for number, (half, width, m) in enumerate(zip(halves, widths, maps, strict=True), start=1):
        if width != m.channels:
            raise ModelError(
                f"layer {number} of the fixed features has {width} channels and its moving counterpart "
                f"{m.channels}; choose models and layers of equal width"
            )
        pairs.append(half.with_moving(m))
    return pairs


def grid_for(model: ModelSettings, grid: Grid) -> Grid:
    """The grid of what a model sees of an image on `grid`: that with the model's voxel size."""
    sizes = zip(model.voxel_size, grid.spacing, strict=True)
    return sampling_grid(grid, [step if size == OWN else size for size, step in sizes])


def seen_by(model: ModelSettings, image: Image) -> Image:
    """What a model sees: the image with the model's voxel size."""
    grid = grid_for(model, image.grid)
    return image if _same(grid, image.grid) else resample_aligned(image, grid, ORDER)


def _reduced(asked: LayerSettings, features: Image) -> tuple[Tensor | None, Image]:
    """The principal components of fixed features, if any, and the features in them."""
    if not asked.pca:
        return None, features
    basis = reduction.fit(features.data, asked.pca)
    return basis, features.with_data(reduction.project(features.data, basis))


def _same(one: Grid, other: Grid) -> bool:
    return one.size == other.size and one.same_as(other, 1e-6)
