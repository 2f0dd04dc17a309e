"""Jacobian mode of Impact: patches around the samples go through the networks in every iteration.

Patches of `ImpactPatchSize` voxels of `ImpactVoxelSize` lie along the axes of the fixed image around each sample. The
models see the fixed image there and the moving image through the current transform, and the features in the middle are
compared. The gradient is the exact derivative: through the network by automatic differentiation, through moving image
and transform at every point of every patch in closed form.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from impactreg.components.boxes import BoxInterpolant, mapped
from impactreg.components.interpolators import Interpolant, Interpolated
from impactreg.components.memory import free_memory
from impactreg.components.metrics.extents import Told, told
from impactreg.components.metrics.fixed_features import FixedFeatures
from impactreg.components.metrics.impact_mode import Comparison, Features, ImpactMetricSettings, Mode
from impactreg.components.metrics.metric import ImageMetric, MetricValue
from impactreg.components.metrics.patch_models import PatchModel
from impactreg.components.metrics.tiles import Batch, Tiles
from impactreg.components.samplers import Samples
from impactreg.components.transforms.transform import Combination, Mapped
from impactreg.errors import ModelError
from impactreg.models import reduction

VOXELS_IN_MEMORY = 1 << 20
"""Voxels that go through a model together on a processor; small networks need some hundred bytes for each."""
FIXED_ORDER = 3
"""Order of the spline by which the fixed image is interpolated."""


@dataclass
class PatchComparison(Comparison):
    """One compared layer; `basis` are the principal components of the first fixed features of the resolution, whose
    means, and those of the first moving features, are taken away from all later ones.
    """

    basis: Float[Tensor, "channel component"] | None = None
    means: tuple[Tensor, Tensor] | None = None

    def evaluate(self, fixed: Features, moving: Features, generator: torch.Generator) -> tuple[float, Features]:
        """The weighted distance and its derivative to the moving features."""
        f, m = self._reduced(fixed, moving)
        chosen = self.chosen(f.shape[1], generator)
        if chosen is None:
            value, derivative = self.compare(f, m)
        else:
            some = chosen.to(f.device)
            value, slope = self.compare(f[:, some], m[:, some])
            derivative = torch.zeros_like(m).index_copy_(1, some, slope)
        return value, derivative if self.basis is None else derivative @ self.basis.T

    def _reduced(self, fixed: Features, moving: Features) -> tuple[Tensor, Tensor]:
        if not self.settings.pca:
            return fixed, moving
        if self.basis is None or self.means is None:
            self.basis = reduction.fit(fixed.T, self.settings.pca)
            self.means = fixed.mean(dim=0), moving.mean(dim=0)
        return (fixed - self.means[0]) @ self.basis, (moving - self.means[1]) @ self.basis


@dataclass(eq=False)
class Layout:
    """What does not change while the samples stay: the tiles of the moving models, and the fixed features.

    `checked` are the patches whose points must all be inside the moving image, where the tiles do not show them.
    """

    tiles: Sequence[Tiles]
    checked: Sequence[Tiles | None]
    fixed: Sequence[Tensor]


class JacobianMode(Mode):
    """Features of patches, in every iteration.

    Deviates from the reference where that is wrong: the derivative of the transform is taken at every point of a patch
    and not at its centre for all of them; anisotropic patches keep their axes; principal components are taken. Patches
    lie along the axes of the fixed image, whose direction matrix therefore goes to the models for both images; the
    planes of 2D models in 3D images are turned at random, and stay as long as the samples do. Fixed and moving patches
    may differ in size: each moving patch must be inside the moving image and its mask.
    """

    def __init__(self, metric: ImageMetric, settings: ImpactMetricSettings) -> None:
        super().__init__(metric, settings)
        self._last: tuple[Tensor, Layout] | None = None

    @cached_property
    def models(self) -> list[tuple[PatchModel, PatchModel]]:
        """The fixed and the moving models, pair by pair."""
        fixed, moving = (
            [PatchModel(self, side, settings) for settings in given]
            for side, given in (("Fixed", self.settings.fixed), ("Moving", self.settings.moving))
        )
        self.check_widths([c for m in fixed for c in m.channels], [c for m in moving for c in m.channels])
        return list(zip(fixed, moving, strict=True))

    @cached_property
    def comparisons(self) -> list[PatchComparison]:
        """How each selected layer is compared."""
        return [PatchComparison(settings) for settings in self.settings.layers]

    @cached_property
    def moving(self) -> Interpolant:
        """The moving image between its voxels."""
        return self.scene.interpolator.of(self.scene.moving)

    @cached_property
    def fixed(self) -> BoxInterpolant:
        """The fixed image between its voxels."""
        return BoxInterpolant(self.scene.fixed, FIXED_ORDER, max(model.reach for model, _ in self.models))

    def evaluate(self, transform: Combination, samples: Samples, *, gradient: bool) -> MetricValue:
        """The weighted sum of the layers' distances and its gradient."""
        layout = self._layout(samples.points)
        seen = [whole or tiles for tiles, whole in zip(layout.tiles, layout.checked, strict=True)]
        valid = torch.stack([self._inside(each, transform) for each in seen]).all(dim=0)
        self.metric.check(int(valid.sum()), len(samples.points))
        passes = [
            MovingPass(self, model, tiles.only(valid), transform, gradient)
            for (_, model), tiles in zip(self.models, layout.tiles, strict=True)
        ]
        total, derivatives = 0.0, []
        moving = [features for p in passes for features in p.features]
        for comparison, f, m in zip(self.comparisons, layout.fixed, moving, strict=True):
            value, slope = comparison.evaluate(f[valid], m, self.scene.generator)
            derivatives.append(slope)
            total += value
        if not math.isfinite(total):
            names = ", ".join(dict.fromkeys(model.path for model in self.settings.moving))
            raise ModelError(f"{names}: the distance between the features is not a finite number")
        if not gradient:
            return MetricValue(total, None)
        pulled = samples.points.new_zeros(transform.parameters.numel())
        for one in passes:
            own, derivatives = derivatives[: len(one.features)], derivatives[len(one.features) :]
            pulled += one.pull_back(own).to(pulled)
        return MetricValue(total, pulled)

    def at_once(self, tiles: Tiles) -> int:
        """How many tiles go through a model together."""
        if self.settings.batch_size:
            return max(1, self.settings.batch_size * len(tiles.boxes) // tiles.samples)
        return max(1, self._room // tiles.boxes.points_each)

    @cached_property
    def _room(self) -> int:
        return room(self.scene.moving.data.device)

    def _layout(self, points: Float[Tensor, "points dim"]) -> Layout:
        if self._last is None or not self._last[0].is_set_to(points):
            self._last = points, self._laid_out(points)
        return self._last[1]

    @torch.no_grad()
    def _laid_out(self, points: Float[Tensor, "points dim"]) -> Layout:
        fixed: list[Tensor] = []
        moving, checked = [], []
        for (one, other), features in zip(self.models, self._fixed_features, strict=True):
            turns = (
                random_turns(len(points), self.scene.generator).to(points) if one.is_plane or other.is_plane else None
            )
            fixed += features.at(points, turns)
            tiles, whole = other.tiles(points, turns)
            moving.append(tiles)
            checked.append(whole)
        return Layout(moving, checked, fixed)

    def _inside(self, patches: Tiles, transform: Combination) -> Bool[Tensor, " samples"]:
        """Of which samples the whole patch is inside the moving image and its mask."""
        parts = [self._all_inside(patches, batch, transform) for batch in patches.batches(self.at_once(patches))]
        return patches.in_sample_order(torch.cat(parts))

    def _all_inside(self, patches: Tiles, batch: Batch, transform: Combination) -> Bool[Tensor, " samples"]:
        """The same for the samples of a batch; points are looked at where bounds leave it open."""
        boxes = patches.boxes[batch.tiles]
        nothing = torch.zeros(len(boxes), dtype=torch.bool, device=boxes.corners.device)
        bounds = told(transform, boxes, self.scene.moving.grid) or Told(nothing, nothing)
        sure = bounds.inside if self.scene.moving_mask is None else nothing
        # of a patch that has a point outside, it does not matter which; of a tile it does
        known = sure | bounds.outside if boxes.shape == patches.view.shape else sure
        held = sure[:, None].repeat(1, boxes.points_each)
        left = (~known).nonzero()[:, 0]
        if len(left):
            points = mapped(transform, boxes.some(left)).points
            held[left] = self.metric.valid(points).reshape(len(left), -1)
        return patches.all_of_patch(batch, held.flatten())

    @cached_property
    def _fixed_features(self) -> list[FixedFeatures]:
        scene = self.scene
        return [FixedFeatures(model, scene.fixed.grid, scene.fixed_mask, self._features_of) for model, _ in self.models]

    def _features_of(self, model: PatchModel, tiles: Tiles) -> list[Tensor]:
        parts = []
        for batch in tiles.batches(self.at_once(tiles)):
            layers = model.layers(self.fixed.values(tiles.boxes[batch.tiles]))
            parts.append(tiles.features(batch, layers))
        return [tiles.in_sample_order(torch.cat(layer)) for layer in zip(*parts, strict=True)]


@dataclass(eq=False)
class _Forward:
    """A batch of tiles that went through a model, ready to be differentiated."""

    mapped: Mapped
    found: Interpolated
    seen: Tensor
    features: list[Tensor]


class MovingPass:
    """One model's features of the moving image under a transform.

    All that a gradient needs is kept where one batch holds all tiles; else each batch is computed again for it.
    """

    def __init__(
        self, mode: JacobianMode, model: PatchModel, tiles: Tiles, transform: Combination, gradient: bool
    ) -> None:
        self._mode = mode
        self._model = model
        self._tiles = tiles
        self._transform = transform
        self._batches = tiles.batches(mode.at_once(tiles))
        keep = gradient and len(self._batches) == 1
        self._kept: _Forward | None = None
        parts = []
        for batch in self._batches:
            forward = self._forward(batch, keep)
            parts.append([f.detach() for f in forward.features])
            self._kept = forward if keep else None
        self.features = [tiles.in_sample_order(torch.cat(layer)) for layer in zip(*parts, strict=True)]

    def pull_back(self, derivatives: Sequence[Tensor]) -> Float[Tensor, " parameters"]:
        """What derivatives to the features are to the parameters of the transform; to be asked for once."""
        ordered = [self._tiles.in_tile_order(d) for d in derivatives]
        pulled = [self._pulled(batch, [d[batch.samples] for d in ordered]) for batch in self._batches]
        return torch.stack(pulled).sum(dim=0)

    def _pulled(self, batch: Batch, derivatives: list[Tensor]) -> Float[Tensor, " parameters"]:
        forward, self._kept = self._kept or self._forward(batch, True), None
        (slopes,) = torch.autograd.grad(forward.features, forward.seen, derivatives)
        along = slopes.movedim(1, -1).reshape(-1, slopes.shape[1]).to(forward.found.values)
        gradient = forward.found.pull_back(along).to(forward.mapped.points)
        scales = self._mode.metric.gradient_scales
        return forward.mapped.pull_back(gradient if scales is None else gradient @ scales.T)

    def _forward(self, batch: Batch, gradient: bool) -> _Forward:
        boxes = self._tiles.boxes[batch.tiles]
        moved = mapped(self._transform, boxes)
        found = self._mode.moving.at(moved.points)
        seen = found.values.reshape(len(boxes), *boxes.shape, -1).movedim(-1, 1).detach().requires_grad_(gradient)
        with torch.set_grad_enabled(gradient):
            layers = self._model.layers(seen)
            return _Forward(moved, found, seen, self._tiles.features(batch, layers))


def random_turns(count: int, generator: torch.Generator) -> Float[Tensor, "turns 3 3"]:
    """Rotations by three angles drawn evenly, about x, then y, then z (`ImpactTensorUtils::GetPatchIndex`)."""
    angles = torch.rand(count, 3, generator=generator, dtype=torch.float64) * (2 * math.pi)
    turns = torch.eye(3, dtype=torch.float64).expand(count, 3, 3)
    for axis in range(3):
        one, other = (a for a in range(3) if a != axis)
        c, s = angles[:, axis].cos(), angles[:, axis].sin() * (-1 if axis == 1 else 1)
        turn = torch.eye(3, dtype=torch.float64).repeat(count, 1, 1)
        turn[:, one, one], turn[:, other, other] = c, c
        turn[:, one, other], turn[:, other, one] = -s, s
        turns = torch.bmm(turn, turns)
    return turns


def room(device: torch.device) -> int:
    """For how many voxels a device has room in one pass: a quarter of what is free on a GPU, at 4 kB a voxel."""
    if device.type != "cuda":
        return VOXELS_IN_MEMORY
    return max(1 << 16, free_memory(device) // 4 // 4096)
