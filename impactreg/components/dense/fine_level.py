"""One resolution of the fine registration made ready: lattices, feature maps in their places, masks, controls."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from jaxtyping import Bool
from torch import Tensor

from impactreg.components.dense.comparison import Comparison, Joined, MovingMask
from impactreg.components.dense.correlation_ratio import CorrelationRatio
from impactreg.components.dense.expansion import ControlGrid
from impactreg.components.dense.features import LayerPair
from impactreg.components.dense.fine_settings import FineSettings
from impactreg.components.dense.lattices import alike, axes_in, looked_up, pooled, stretched, thinned
from impactreg.components.dense.local_correlation import LocalCorrelation
from impactreg.components.dense.losses import size_of
from impactreg.components.dense.motions import Displacement, Flow
from impactreg.components.dense.problem import Problem, Term
from impactreg.components.dense.start import Start
from impactreg.components.dense.warp import FeatureMap
from impactreg.errors import RegistrationError
from impactreg.images.grid import Grid
from impactreg.images.image import Image
from impactreg.images.masks import Mask


@dataclass(frozen=True, eq=False)
class Scene:
    """What is registered: two images, their masks, where to start; where models are looked for, and random numbers."""

    fixed: Image
    moving: Image
    start: Start
    fixed_mask: Mask | None = None
    moving_mask: Mask | None = None
    relative_to: Path | None = None
    folders: tuple[Path, ...] = ()
    generator: torch.Generator | None = None

    @property
    def grid(self) -> Grid:
        """That of the fixed image."""
        return self.fixed.grid

    def unit(self, settings: FineSettings) -> tuple[float, ...]:
        """How many millimetres the parameters' unit has along each axis (x, y, z)."""
        return self.grid.spacing if settings.units == "Voxels" else (1.0,) * self.grid.dimension


def control_grid(fixed: Grid, settings: FineSettings) -> ControlGrid:
    """The control grid of a resolution."""
    wanted = settings.control_grid_spacing
    steps = [max(wanted / s, 1.0) if wanted else settings.grid_shrink_factor for s in reversed(fixed.spacing)]
    return ControlGrid.of(fixed, steps, settings.control_interpolation)


def lattice_factors(asked: FineSettings, control: ControlGrid, layer: Grid) -> list[float]:
    """By how much the lattice is coarser than a layer along each axis (z, y, x)."""
    if asked.evaluation_spacing:
        return [max(1.0, float(round(asked.evaluation_spacing / s))) for s in reversed(layer.spacing)]
    if asked.evaluation_shrink_factor or asked.control_interpolation == "BSpline":
        return [float(max(1, asked.evaluation_shrink_factor))] * layer.dimension
    return [max(1.0, n / c) for n, c in zip(layer.shape, control.size, strict=True)]


def fixed_on_lattice(scene: Scene, asked: FineSettings, features: Image) -> Image:
    """The fixed features of a layer on the lattice where they are compared."""
    features = _placed(features, scene.fixed, asked)
    shape, factors = features.grid.shape, lattice_factors(asked, control_grid(scene.grid, asked), features.grid)
    if not asked.feature_pooling:
        return thinned(features, [max(1, round(f)) for f in factors])
    cells = [max(1, min(n, int(n / f + 1e-6))) for n, f in zip(shape, factors, strict=True)]
    return pooled(features, cells, corners=asked.control_interpolation == "Corners")


def motion_of(scene: Scene, settings: FineSettings) -> Displacement | Flow:
    """How the control points of a resolution move space."""
    control, passes = control_grid(scene.grid, settings), settings.control_grid_smoothing_iterations
    if settings.fine_transform == "Displacement":
        return Displacement(control, passes)
    lengths = tuple(s / u for s, u in zip(scene.grid.spacing, scene.unit(settings), strict=True))[::-1]
    both = settings.fine_transform == "SymmetricSVF"
    return Flow(control, passes, settings.integration_steps, lengths, scene.fixed.data, both)


def problem_of(
    scene: Scene, settings: FineSettings, pairs: Sequence[LayerPair], reference: Tensor | None = None
) -> Problem:
    """The problem of a resolution for some feature maps; `reference` as in `Problem`, where the moving ones are of a
    warped image.

    Raises `RegistrationError` where the fixed mask has no point of a lattice.
    """
    motion, unit = motion_of(scene, settings), scene.unit(settings)
    terms: list[Term] = []
    for pair in pairs:
        terms += _Layer(scene, settings, pair, motion, warped=reference is not None).terms()
    lengths = zip(motion.control.step, reversed(scene.grid.spacing), reversed(unit), strict=True)
    steps = tuple(step * spacing / one for step, spacing, one in lengths)
    return Problem(motion, terms, steps, settings.regularization, settings.regularization_weight, reference)


def lattice_step(problem: Problem, scene: Scene, settings: FineSettings) -> float:
    """The distance between lattice points of the finest term, in the parameters' unit."""
    spans = [n / max(term.shape[axis], 1) for term in problem.terms for axis, n in enumerate(scene.grid.shape)]
    return min(spans) * min(s / u for s, u in zip(scene.grid.spacing, scene.unit(settings), strict=True))


@dataclass(frozen=True, eq=False)
class _Layer:
    """One layer of both images on its way to a term, or to two for a symmetric flow."""

    scene: Scene
    settings: FineSettings
    pair: LayerPair
    motion: Displacement | Flow
    warped: bool

    def terms(self) -> list[Term]:
        pair, asked = self.pair, self.settings
        fixed = pair.fixed if pair.on_lattice else fixed_on_lattice(self.scene, asked, pair.fixed)
        moving = _placed(pair.moving, self.scene.fixed if self.warped else self.scene.moving, asked)
        if asked.feature_pooling:
            moving = alike(moving, fixed.grid, corners=asked.control_interpolation == "Corners")
        start, mask = self.scene.start, _mask_in(self.scene.moving_mask, moving)
        if self.warped:
            start, mask = Start.of(None, self.scene.grid), None
        elif isinstance(self.motion, Flow) and start.displacement is not None:
            moving, known = self._carried(moving, mask, fixed.grid)
            start, mask = Start.of(None, self.scene.grid), _mask_in(known, moving)
        expansion = self.motion.nodes.expansion(self.scene.grid, fixed.grid, fixed.data)
        forward = self._compared(fixed, self.scene.fixed_mask, moving, start, mask)
        if self.settings.fine_transform != "SymmetricSVF":
            return [Term(forward, expansion, fixed.grid.shape)]
        here, known = self._carried(moving, mask, fixed.grid, start)
        still = Start.of(None, self.scene.grid)
        backward = self._compared(here, known, fixed, still, _mask_in(self.scene.fixed_mask, fixed))
        halves = [replace(each, weight=each.weight / 2) for each in (forward, backward)]
        return [Term(each, expansion, fixed.grid.shape, bool(n)) for n, each in enumerate(halves)]

    def _compared(
        self, lattice: Image, known: Mask | None, moving: Image, start: Start, mask: MovingMask | None
    ) -> Comparison:
        """Features at lattice points, of which those in `known` count, compared with a map behind a linear map."""
        asked, settings = self.pair.settings, self.settings
        points = lattice.grid.points(lattice.data.device)
        counted = None if known is None else known.contains(points)
        if counted is not None and not bool(counted.any()):
            raise RegistrationError(f"{known and known.name}: no point of the compared lattice lies in it")
        rows, chosen = lattice.data.reshape(lattice.channels, -1).T, None
        joined = (
            None
            if settings.uses_models or settings.intensity_distance == "MSE"
            else self._joined(lattice, counted, moving)
        )
        if counted is not None and joined is None and not bool(counted.all()):
            chosen = counted.nonzero()[:, 0]
            rows, points = rows[chosen], points[chosen]
        rows = rows.contiguous()
        size = 1.0 if joined is not None else self._size(rows)
        unit = torch.tensor(self.scene.unit(settings), dtype=torch.float64)
        return Comparison(
            asked.distance,
            asked.weight / size,
            rows,
            FeatureMap.of(moving),
            looked_up(start.linear(points), moving.grid).to(rows),
            (axes_in(self.scene.grid, moving.grid, start.matrix) * unit).to(rows),
            chosen,
            mask,
            settings.outside == "Zero",
            joined,
            asked.subset_features,
            self.scene.generator,
        )

    def _size(self, rows: Tensor) -> float:
        """What the distance of the layer is divided by, as far as features alone tell it."""
        name, scale = self.pair.settings.distance, self.settings.loss_scale
        if scale == "Spread":
            return size_of(name, rows)
        return 1 / rows.shape[1] if scale == "Sum" and name in ("L1", "L2") else 1.0

    def _joined(self, lattice: Image, counted: Bool[Tensor, " points"] | None, looked_at: Image) -> Joined:
        """The distance of intensities at all points together."""
        asked, shape = self.settings, lattice.grid.shape
        if asked.intensity_distance == "CorrelationRatio":
            variance = float(looked_at.data.var(correction=0))
            ratio = CorrelationRatio(lattice.scalar.reshape(-1), asked.correlation_ratio_bins, variance)

            def joined(moving: Tensor, weights: Tensor) -> tuple[Tensor, Tensor, Tensor]:
                value, slope, bend = ratio(moving[:, 0], weights if counted is None else weights * counted)
                return value, slope[:, None], bend[:, None]

            return joined
        correlation = LocalCorrelation(lattice.scalar, asked.local_correlation_radius)

        def local(moving: Tensor, weights: Tensor) -> tuple[Tensor, Tensor, Tensor]:
            held = weights if counted is None else weights * counted
            value, slope, bend = correlation(moving[:, 0].reshape(shape), held.reshape(shape))
            return value, slope.reshape(-1, 1), bend.reshape(-1, 1)

        return local

    def _carried(
        self, moving: Image, mask: MovingMask | None, lattice: Grid, start: Start | None = None
    ) -> tuple[Image, Mask]:
        """The moving features where the start takes the points of a lattice, and where they are known."""
        start = self.scene.start if start is None else start
        index = looked_up(start.linear(lattice.points(moving.data.device)), moving.grid).to(moving.data)
        if start.displacement is not None:
            one = ControlGrid.of(self.scene.grid, [1.0] * lattice.dimension, "Linear")
            rest = one.expansion(self.scene.grid, lattice, start.displacement)(start.displacement)
            index += axes_in(self.scene.grid, moving.grid, start.matrix).to(rest) @ rest.reshape(len(rest), -1)
        sampled = FeatureMap.of(moving).at(index, slopes=False)
        inside = sampled.inside if mask is None else sampled.inside & mask.contains(index)
        known = Mask(inside.reshape(lattice.shape), lattice, "what is known of the moving image in fixed space")
        return Image(sampled.values.T.reshape(-1, *lattice.shape), lattice), known


def _placed(features: Image, image: Image, asked: FineSettings) -> Image:
    """A feature map where it is, or from corner to corner of the image that it is of."""
    if asked.control_interpolation != "Corners" or features.grid.same_as(image.grid):
        return features
    return stretched(features.data, image.grid)


def _mask_in(mask: Mask | None, features: Image) -> MovingMask | None:
    """A mask for points in the voxels of a map."""
    if mask is None:
        return None
    inverse = torch.tensor(mask.grid.inverse_matrix.copy())
    origins = torch.tensor([features.grid.origin, mask.grid.origin], dtype=torch.float64)
    turn = inverse @ torch.tensor(features.grid.matrix.copy())
    shift = inverse @ (origins[0] - origins[1])[:, None]
    return MovingMask(mask.inside, turn.to(features.data), shift.to(features.data))
