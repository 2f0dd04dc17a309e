"""Static mode of Impact: feature maps of whole images, extracted once a resolution and interpolated at the samples.

Both images go through the networks once per resolution. Their feature maps are kept as B-spline coefficients and
evaluated like multi-channel images: fixed features at x, moving features at T(x). The moving features always belong to
the moving image as it is, so that T is applied once, whatever the resolution and the initial transform.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from impactreg.components.aligned import resample_aligned
from impactreg.components.interpolators import Interpolant
from impactreg.components.metrics.impact_mode import Comparison, ImpactMetricSettings, Mode
from impactreg.components.metrics.metric import POINTS_AT_ONCE, ImageMetric, MetricValue
from impactreg.components.samplers import Samples
from impactreg.components.splines import raster_strides
from impactreg.components.transforms.transform import Combination, Mapped
from impactreg.components.warping import jacobians
from impactreg.errors import OutputError
from impactreg.images.files import write_image
from impactreg.images.grid import Grid
from impactreg.images.image import Image
from impactreg.models import reduction
from impactreg.models.features import extract, sampling_grid, statistics
from impactreg.models.precision import reduced
from impactreg.parameters import LayerSettings, ModelSettings

FIXED_ORDER = 3
"""Order of the spline by which the fixed image is brought to `ImpactVoxelSize`."""
FEATURE_ORDER = 3
"""Order of the spline by which feature maps are interpolated."""
MARGIN = 2
"""Voxels by which points may leave a feature map, which can end before the image does."""


@dataclass
class Layer(Comparison):
    """One compared layer with its two feature maps; `basis` holds the principal components of the fixed features, if
    any.
    """

    fixed: Interpolant = field(kw_only=True)
    moving: Interpolant = field(kw_only=True)
    basis: Tensor | None = None

    def subset(self, generator: torch.Generator) -> Tensor | None:
        """A random choice of `ImpactSubsetFeatures` channels, or None for all."""
        chosen = self.chosen(self.fixed.channels, generator)
        return None if chosen is None else chosen.to(self.fixed.device)

    def refresh(self, moving: Image) -> None:
        """Other moving features, in the same principal components."""
        self.moving = _interpolant(moving, self.basis)


class StaticMode(Mode):
    """Interpolated feature maps.

    Deviates from the reference where that is wrong: the moving features are not warped before they are evaluated at
    T(x); direction cosines are honoured; feature grids have exactly the voxel size; a layer whose first value is 0 is
    not divided by it.

    With `ImpactFeaturesMapUpdateInterval`, the moving features are now and then taken from the moving image as the
    transform of that moment, T', warps it. They lie in fixed space then and are evaluated where T' goes to T(x), at
    x + (dT'/dx)^-1 (T(x) - T'(x)), to first order in what has changed since.
    """

    def __init__(self, metric: ImageMetric, settings: ImpactMetricSettings) -> None:
        super().__init__(metric, settings)
        self._warped_by: Combination | None = None

    @cached_property
    def layers(self) -> list[Layer]:
        """The feature maps of both images, extracted when they are first asked for."""
        scene, settings = self.scene, self.settings
        order = scene.interpolator.order
        fixed = self._features(
            "Fixed", scene.fixed.grid, settings.fixed, lambda grid: resample_aligned(scene.fixed, grid, FIXED_ORDER)
        )
        moving = self._features(
            "Moving", scene.moving.grid, settings.moving, lambda grid: resample_aligned(scene.moving, grid, order)
        )
        self.check_widths([f.channels for f in fixed], [m.channels for m in moving])
        return [_layer(f, m, s) for f, m, s in zip(fixed, moving, settings.layers, strict=True)]

    def after_iteration(self, number: int, transform: Combination) -> None:
        """Takes the moving features from the warped image every `ImpactFeaturesMapUpdateInterval` iterations."""
        interval = self.settings.features_map_update_interval
        if interval < 1 or number % interval:
            return
        moving = self.scene.interpolator.of(self.scene.moving)
        warped = self._features(
            "Moving", self.scene.fixed.grid, self.settings.moving, lambda grid: _warped(moving, transform, grid)
        )
        for layer, features in zip(self.layers, warped, strict=True):
            layer.refresh(features)
        self._warped_by = transform

    def evaluate(self, transform: Combination, samples: Samples, *, gradient: bool) -> MetricValue:
        """The weighted sum of the layers' distances and its gradient."""
        ordered = self._in_memory_order(samples.points)
        pieces = [self._piece(transform, points) for points in ordered.split(POINTS_AT_ONCE)]
        self.metric.check(sum(p.counted for p in pieces), len(samples.points))
        value = sum(self._compare(layer, pieces, gradient) for layer in self.layers)
        if not gradient:
            return MetricValue(value, None)
        slope = samples.points.new_zeros(transform.parameters.numel())
        for piece in pieces:
            slope += piece.pull_back(self.metric.gradient_scales)
        return MetricValue(value, slope)

    def _in_memory_order(self, points: Float[Tensor, "points dim"]) -> Float[Tensor, "points dim"]:
        """The points as the fixed voxels lie in memory; features of large images are found up to a third faster so."""
        grid = self.scene.fixed.grid
        strides = torch.tensor(raster_strides(grid.shape), dtype=points.dtype, device=points.device)
        return points[(grid.world_to_index(points).floor() @ strides).argsort()]

    def _features(
        self, side: str, grid: Grid, models: tuple[ModelSettings, ...], sampled: Callable[[Grid], Image]
    ) -> list[Image]:
        """The selected layers of every model, one after the other, from what `sampled` gives on the model's grid.

        `side` is Fixed or Moving, `grid` that of the image. Layers are written as `<side>_<level>_<layer>.mha`, and
        what the models see with its voxel size instead of the layer, where the parameter file asks for them.
        """
        scene = self.scene
        known = statistics(scene.fixed if side == "Fixed" else scene.moving)
        maps: list[Image] = []
        for model in models:
            seen = sampled(sampling_grid(grid, model.voxel_size))
            self._write(seen, f"{side}_{scene.level}_{'_'.join(f'{v:.2f}' for v in model.voxel_size)}mm.mha")
            maps += self._layers_of(model, seen, known)
        for number, features in enumerate(maps):
            self._write(features, f"{side}_{scene.level}_{number}.mha")
        return maps

    def _layers_of(self, model: ModelSettings, seen: Image, known: Sequence[float]) -> list[Image]:
        extractor, mixed = self.extractor(model, seen.data.device), self.settings.use_mixed_precision
        with reduced(extractor, mixed, model.dimension, model.channels, len(model.layers_mask)):
            return extract(
                extractor,
                seen,
                model_dimension=model.dimension,
                channels=model.channels,
                patch_size=model.patch_size,
                layers_mask=model.layers_mask,
                statistics=known,
                mixed_precision=mixed,
            )

    def _write(self, image: Image, name: str) -> None:
        if not self.settings.feature_map_directory:
            return
        folder = Path(self.settings.feature_map_directory)
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise OutputError(f"{folder}: feature maps cannot be written there: {error.strerror or error}") from error
        write_image(image.to(device="cpu"), folder / name, pixel_type="float")

    def _piece(self, transform: Combination, points: Float[Tensor, "points dim"]) -> "_Piece":
        mapped = transform.at(points)
        valid = self.metric.valid(mapped.points)
        piece = _Piece(points, mapped, None if bool(valid.all()) else valid.nonzero()[:, 0])
        if self._warped_by is not None:
            piece.unwarp(self._warped_by)
        return piece

    def _compare(self, layer: Layer, pieces: "list[_Piece]", gradient: bool) -> float:
        """One layer's weighted distance over all pieces; its derivative goes into the pieces.

        A single piece keeps its interpolated blocks; of several, each is interpolated again for its derivative, to
        bound the memory.
        """
        subset = layer.subset(self.scene.generator)
        fixed = torch.cat([layer.fixed.values(p.fixed, subset) for p in pieces])
        kept = layer.moving.at(pieces[0].moving, subset) if len(pieces) == 1 else None
        moving = kept.values if kept else torch.cat([layer.moving.values(p.moving, subset) for p in pieces])
        value, derivative = layer.compare(fixed, moving)
        if gradient:
            for piece, part in zip(pieces, derivative.split([p.counted for p in pieces]), strict=True):
                piece.add((kept or layer.moving.at(piece.moving, subset)).pull_back(part))
        return value


class _Piece:
    """Some of the samples under the transform: those that count, and the gradient to their moving points so far."""

    def __init__(self, points: Tensor, mapped: Mapped, inside: Tensor | None) -> None:
        self._mapped = mapped
        self._inside = inside
        self.fixed = points if inside is None else points[inside]
        self.moving = mapped.points if inside is None else mapped.points[inside]
        self._gradient = torch.zeros_like(self.moving)
        self._inverse: Tensor | None = None

    def unwarp(self, transform: Combination) -> None:
        """Moves the moving points to fixed space, where features of the image warped by `transform` lie."""
        self._inverse = torch.linalg.inv(jacobians(transform, self.fixed))
        change = self.moving - transform(self.fixed)
        self.moving = self.fixed + torch.bmm(self._inverse, change[:, :, None])[:, :, 0]

    @property
    def counted(self) -> int:
        return len(self.fixed)

    def add(self, gradient: Float[Tensor, "points dim"]) -> None:
        self._gradient += gradient

    def pull_back(self, scales: Float[Tensor, "dim dim"] | None) -> Float[Tensor, " parameters"]:
        gradient = self._gradient
        if self._inverse is not None:
            gradient = torch.bmm(self._inverse.mT, gradient[:, :, None])[:, :, 0]
        if scales is not None:
            gradient = gradient @ scales.T
        if self._inside is None:
            return self._mapped.pull_back(gradient)
        everywhere = torch.zeros_like(self._mapped.points).index_copy_(0, self._inside, gradient)
        return self._mapped.pull_back(everywhere)


def _warped(moving: Interpolant, transform: Combination, grid: Grid) -> Image:
    """The moving image at T of every voxel of a grid in fixed space."""
    pieces = grid.points(moving.device).split(POINTS_AT_ONCE)
    values = torch.cat([moving.values(transform(points)) for points in pieces])
    return Image(values.T.reshape(-1, *grid.shape), grid)


def _layer(fixed: Image, moving: Image, settings: LayerSettings) -> Layer:
    """Two feature maps, reduced to principal components of the fixed one where asked, as interpolants."""
    basis = reduction.fit(fixed.data, settings.pca) if settings.pca else None
    return Layer(settings, fixed=_interpolant(fixed, basis), moving=_interpolant(moving, basis), basis=basis)


def _interpolant(features: Image, basis: Tensor | None) -> Interpolant:
    if basis is not None:
        features = features.with_data(reduction.project(features.data, basis))
    return Interpolant.of(features, FEATURE_ORDER, margin=MARGIN)
