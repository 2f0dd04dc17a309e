"""The coarse dense stage: a displacement field by discrete search, for what a later stage makes fine."""

import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from impactreg.components.dense import coupled_convex
from impactreg.components.dense.coarse import Comparison, LayeredSide, check_memory, in_cells, upsampled, whole_cells
from impactreg.components.dense.coarse_settings import CoarseSettings
from impactreg.components.dense.coupled_convex import COUPLINGS, Field
from impactreg.components.dense.features import Side, feature_images
from impactreg.components.dense.folding import folding
from impactreg.components.dense.onto_fixed import field_on_top, mask_seen_from, seen_from
from impactreg.components.dense.search import Search
from impactreg.components.optimizers.optimizer import STOPPED, Row
from impactreg.components.transforms.displacement import DeformationFieldTransform
from impactreg.components.transforms.transform import Combination
from impactreg.errors import ModelError
from impactreg.images.grid import Grid
from impactreg.images.image import Image
from impactreg.models import reduction
from impactreg.parameters import RunSettings
from impactreg.registration.case import Case, Iteration, StageResult, Watch
from impactreg.registration.dense import DenseRegistration
from impactreg.registration.dense_estimate import of_coarse
from impactreg.registration.estimate import Estimate
from impactreg.registration.results import Recorder

logger = logging.getLogger(__name__)
DONE = "All passes of the coarse search are done"


class ImpactCoarseRegistration(DenseRegistration, name="ImpactCoarseRegistration"):
    """The displacement of each cell of a coarse grid, chosen from a window of displacements so that neighbours agree.

    Features of the models (or intensities) are averaged over cells. What every displacement of `ImpactGridSpacing`
    times up to `ImpactDisplacementHalfWidth` voxels costs is looked at, so large displacements are found whatever lies
    between. The field is then interpolated to all voxels of the fixed image (`itk::ImpactCoarseRegistration`; Siebert
    et al. 2024).

    The moving image is seen through the transform before, of whatever kind it is. The result is one field that has that
    transform in it: T(x) = T0(x + u(x)). Outside the fixed image it is the identity, as fields of elastix are.
    """

    reads = (CoarseSettings, RunSettings)

    @property
    def levels(self) -> int:
        """One resolution, whatever `NumberOfResolutions` says."""
        return 1

    def check(self, case: Case) -> None:
        """Asks also whether there are cells and memory."""
        super().check(case)
        (settings,) = self.read(case.fixed.dimension)
        search = _search(settings, case.fixed)
        check_memory(search, whole_cells(case.fixed.grid.shape, search), 1, case.device)

    def estimate(self, case: Case) -> Estimate:
        """By the displacements that are tried and the feature maps."""
        return of_coarse(*self.read(case.fixed.dimension), case)

    def run(
        self, case: Case, initial: Combination | None, recorder: Recorder, watch: Watch | None = None
    ) -> StageResult:
        """Registers by discrete search on top of `initial`."""
        (settings,) = self.read(case.fixed.dimension)
        aligned = case if self.settings.use_direction_cosines else case.without_direction()
        start = None if initial is None else initial.to(case.device)
        seed = self.settings.random_seed if case.seed is None else case.seed
        sides = _Features(aligned, settings, self.folder, seed, start).sides()
        search = _search(settings, aligned.fixed)
        weights = tuple(layer.weight for layer in settings.compared)
        comparison = Comparison(*sides, search, weights, settings.normalize_losses)
        return _Run(aligned, settings, comparison, start, recorder, watch).result()

    def read(self, dimension: int) -> tuple[CoarseSettings]:
        """The settings; there is one resolution."""
        return (CoarseSettings.read(self.parameter_map, dimension=dimension),)


def _search(settings: CoarseSettings, fixed: Image) -> Search:
    return Search.of(fixed.grid.spacing, settings.grid_spacing, settings.displacement_half_width)


@dataclass(frozen=True)
class _Features:
    """What both images bring to the comparison; the feature maps of one are gone before the other's are made."""

    case: Case
    settings: CoarseSettings
    folder: Path | None
    seed: int
    initial: Combination | None

    @torch.no_grad()
    def sides(self) -> tuple[LayeredSide, LayeredSide]:
        """Both images in cells of the fixed grid, the moving one as the transform before shows it."""
        case, grid = self.case, self.case.fixed.grid
        bases, chosen = self._reductions(fixed := self._maps(case.fixed, "fixed"))
        one = self._in_cells(fixed, bases, chosen, mask_seen_from(case.fixed_mask, grid))
        del fixed
        moving = self._maps(seen_from(case.moving, grid, self.initial), "moving")
        mask = mask_seen_from(case.moving_mask, grid, self.initial)
        other = self._in_cells(moving, bases, chosen, mask)
        for number, (f, m) in enumerate(zip(one.layers, other.layers, strict=True), start=1):
            if len(f) != len(m):
                raise ModelError(
                    f"layer {number} of the fixed features has {len(f)} channels and its moving counterpart {len(m)}; "
                    "choose models and layers of equal width"
                )
        return one, other

    def _maps(self, image: Image, side: Side) -> list[Tensor]:
        found = feature_images(image, side, self.settings, relative_to=self.folder, folders=self.case.model_folders)
        return [each.data for each in found]

    def _reductions(self, fixed: Sequence[Tensor]) -> tuple[list[Tensor | None], list[Tensor | None]]:
        """For each layer the principal components (`ImpactPCA`) and a random choice of channels
        (`ImpactSubsetFeatures`) that are compared, if these are asked for.
        """
        generator = torch.Generator().manual_seed(self.seed)
        bases, chosen = [], []
        for layer, asked in zip(fixed, self.settings.compared, strict=True):
            bases.append(reduction.fit(layer, asked.pca) if asked.pca else None)
            width, kept = asked.pca or len(layer), asked.subset_features
            random = torch.randperm(width, generator=generator)[:kept] if 0 < kept < width else None
            chosen.append(None if random is None else random.to(layer.device))
        return bases, chosen

    def _in_cells(
        self, maps: list[Tensor], bases: list[Tensor | None], chosen: list[Tensor | None], mask: Tensor | None
    ) -> LayeredSide:
        for place, (basis, channels) in enumerate(zip(bases, chosen, strict=True)):
            if basis is not None:
                maps[place] = reduction.project(maps[place], basis)
            if channels is not None:
                maps[place] = maps[place].index_select(0, channels)
        return in_cells(maps, self.case.fixed.grid.shape, _search(self.settings, self.case.fixed), mask)


class _Run:
    """The passes of one run, each recorded and shown."""

    def __init__(
        self,
        case: Case,
        settings: CoarseSettings,
        comparison: Comparison,
        initial: Combination | None,
        recorder: Recorder,
        watch: Watch | None,
    ) -> None:
        self.case = case
        self.settings = settings
        self.comparison = comparison
        self.initial = initial
        self.recorder = recorder
        self.watch = watch
        self.rows: list[Row] = []
        self.stopped = False

    @torch.no_grad()
    def result(self) -> StageResult:
        """The field of all passes, or of those before the watcher stopped the run."""
        search = self.comparison.search
        field = self._passes("forward")
        if self.settings.inverse_consistency and not self.stopped:
            backward = self._passes("backward")
            if not self.stopped:
                field = coupled_convex.mutually_inverse(field, backward)
        transform = self._transform(upsampled(field, search, self.case.fixed.grid.shape), self.case.fixed.grid)
        logger.info("The coarse field: %s", folding(transform.field))
        reason = STOPPED if self.stopped else DONE
        logger.info("Stopping condition: %s.", reason)
        result = Combination(transform)
        self.recorder.level_done(0, result)
        return StageResult(result, (tuple(self.rows),), (reason,))

    def _passes(self, direction: str) -> Field:
        """The field of the last pass in one direction."""
        passes = self.comparison.passes(
            backward=direction == "backward", initial_coupling=self.settings.initial_coupling
        )
        started = time.perf_counter()
        for each in passes:
            field = each.field
            columns: Row = {"2:Metric": each.cost, "3a:Coupling": each.coupling, "3b:Direction": direction}
            self._show({**columns, "Time[ms]": 1000 * (time.perf_counter() - started)}, field)
            if self.stopped:
                break
            started = time.perf_counter()
        return field

    def _show(self, row: Row, field: Field) -> None:
        number = len(self.rows)
        self.rows.append(row)
        self.recorder.iteration(0, number, row, Combination(self._in_between(field)))
        of = (len(COUPLINGS) + 1) * (2 if self.settings.inverse_consistency else 1)
        told = Iteration(self.recorder.number, 0, 1, number, of, row)
        self.stopped = self.watch is not None and self.watch(told) is True

    def _in_between(self, field: Field) -> DeformationFieldTransform:
        """The field of a pass, on the grid of cells: that is enough for whoever asks for it in between."""
        grid, search = self.case.fixed.grid, self.comparison.search
        factors = torch.tensor(search.factors[::-1], dtype=torch.float64)
        origin = grid.index_to_world((factors - 1)[None] / 2)[0].tolist()
        spacing = [s * f for s, f in zip(grid.spacing, factors.tolist(), strict=True)]
        cells = field[:, 0][-2:] if search.dimension == 2 else field
        coarse = Grid.of(tuple(cells.shape[:0:-1]), spacing, origin, grid.direction)
        return self._transform(cells, coarse)

    def _transform(self, displacement: Tensor, grid: Grid) -> DeformationFieldTransform:
        """The field with the transform before in it."""
        return DeformationFieldTransform(field_on_top(displacement, grid, self.initial))
