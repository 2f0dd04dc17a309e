"""The fine dense stage: a displacement or velocity field by descent, from coarse to fine control grids."""

import logging
from functools import cached_property

import torch

from impactreg.components.dense.fine import FineRegistration, Found
from impactreg.components.dense.fine_level import Scene
from impactreg.components.dense.fine_settings import FineSettings
from impactreg.components.dense.fine_state import Iterate, State
from impactreg.components.dense.folding import folding
from impactreg.components.dense.start import Start, inverse_field
from impactreg.components.optimizers.optimizer import Row
from impactreg.components.transforms.displacement import DeformationFieldTransform
from impactreg.components.transforms.transform import Combination
from impactreg.parameters import RunSettings
from impactreg.registration.case import Case, Iteration, StageResult, Watch
from impactreg.registration.checkpoint import plain_tables
from impactreg.registration.dense import DenseRegistration
from impactreg.registration.dense_estimate import of_fine
from impactreg.registration.estimate import Estimate
from impactreg.registration.results import Recorder

logger = logging.getLogger(__name__)


class ImpactFineRegistration(DenseRegistration, name="ImpactFineRegistration"):
    """A displacement field, or the flow of a velocity field, on control grids from coarse to fine.

    Features of the models (or intensities) are compared on a lattice, and what keeps the field smooth is weighed
    against that. The moving image stays on its own grid. Steps are Adam's, as in `itk::ImpactFineRegistration`, or
    those of Gauss and Newton, of which far fewer are needed.

    It begins with the transform before, of whatever kind, and the result is one field that has that transform in it:
    T(x) = L(x + u(x)), where L is the linear part of the transform before and u is what is sought. Outside the fixed
    image it is the identity, as fields of elastix are. A flow has an inverse, which is written beside the field as
    `InverseTransformParameters.<number>.txt`.
    """

    reads = (FineSettings, RunSettings)

    @property
    def levels(self) -> int:
        """`NumberOfResolutions`."""
        return self.settings.number_of_resolutions if "NumberOfResolutions" in self.parameter_map else 1

    def estimate(self, case: Case) -> Estimate:
        """By the points and channels that are compared in all iterations."""
        return of_fine(self.read(case.fixed.dimension), case)

    @torch.no_grad()
    def run(
        self, case: Case, initial: Combination | None, recorder: Recorder, watch: Watch | None = None
    ) -> StageResult:
        """Registers by descent, from what `recorder` kept of an interrupted run where there is something."""
        aligned = case if self.settings.use_direction_cosines else case.without_direction()
        return _Run(self, aligned, self.read(case.fixed.dimension), initial, recorder, watch).result()

    def read(self, dimension: int) -> list[FineSettings]:
        """The settings of every resolution."""
        return [FineSettings.read(self.parameter_map, level=n, dimension=dimension) for n in range(self.levels)]


class _Run:
    """One run over all resolutions, or over what an interrupted one has left of them."""

    def __init__(
        self,
        stage: ImpactFineRegistration,
        case: Case,
        settings: list[FineSettings],
        initial: Combination | None,
        recorder: Recorder,
        watch: Watch | None,
    ) -> None:
        self.stage = stage
        self.case = case
        self.settings = settings
        self.recorder = recorder
        self.watch = watch
        self.generator = torch.Generator().manual_seed(stage.settings.random_seed if case.seed is None else case.seed)
        before = None if initial is None else initial.to(case.device)
        self.scene = Scene(
            case.fixed,
            case.moving,
            Start.of(before, case.fixed.grid, case.device, apart=not settings[0].regularize_linear_part),
            case.fixed_mask,
            case.moving_mask,
            stage.folder,
            case.model_folders,
            self.generator,
        )
        self.tables: list[list[Row]] = []
        self.registration = FineRegistration(self.scene, settings, self._kept_state())
        self.registration.stop_reasons += recorder.kept.get("reasons", [])

    def result(self) -> StageResult:
        """Iterates to the end and makes the field of all that was found."""
        logger.info("Resolution: %d", self.registration.state.level)
        found = self.registration.run(self._show, level_done=self._level_done, save=self._save)
        transform = self._transform(found)
        logger.info("The fine field: %s", folding(transform.field))
        reasons = tuple(self.registration.stop_reasons)
        return StageResult(Combination(transform), tuple(map(tuple, self.tables)), reasons, self._inverse(found))

    def _show(self, iterate: Iterate) -> bool:
        while len(self.tables) <= iterate.level:
            self.tables.append([])
        row: Row = {
            "2:Metric": iterate.value,
            "2:Metric0": iterate.distance,
            "2:Metric1": iterate.regularization,
            "3:StepSize": iterate.rate,
            "4:||Gradient||": iterate.gradient,
            "Time[ms]": 1000 * iterate.seconds,
        }
        self.tables[iterate.level].append(row)
        self.recorder.iteration(iterate.level, iterate.number, row, self._present(iterate.level))
        most = self.settings[iterate.level].maximum_number_of_iterations
        told = Iteration(self.recorder.number, iterate.level, len(self.settings), iterate.number, most, row)
        return self.watch is not None and self.watch(told) is True

    def _level_done(self, level: int) -> None:
        logger.info("Stopping condition: %s.", self.registration.stop_reasons[-1])
        self.recorder.level_done(level, self._combination())

    def _present(self, level: int) -> Combination:
        """The transform of an iteration, made only where something is to be written of each of them."""
        asked = RunSettings.read(self.stage.parameter_map, level=level)
        if asked.write_transform_parameters_each_iteration or asked.write_result_image_after_each_iteration:
            return self._combination()
        return self._start

    @cached_property
    def _start(self) -> Combination:
        return self._combination()

    def _combination(self) -> Combination:
        return Combination(self._transform(self.registration.found()))

    def _transform(self, found: Found) -> DeformationFieldTransform:
        field = self.scene.start.field(found.displacement, self.scene.grid)
        return DeformationFieldTransform(field.to(device="cpu"))

    def _inverse(self, found: Found) -> Combination | None:
        """The inverse of a flow, on the moving image's grid; None for a displacement, or after another field."""
        start = self.scene.start
        if found.inverse is None or start.displacement is not None:
            return None
        field = inverse_field(start, found.inverse, self.scene.grid, self.case.moving.grid)
        return Combination(DeformationFieldTransform(field.to(device="cpu")))

    def _save(self, state: State) -> None:
        self.recorder.keep(
            {
                **state.kept(),
                "generator": self.generator.get_state(),
                "tables": plain_tables(self.tables),
                "reasons": list(self.registration.stop_reasons),
            }
        )

    def _kept_state(self) -> State | None:
        kept = self.recorder.kept
        if not kept:
            return None
        self.generator.set_state(kept["generator"])
        self.tables = [list(rows) for rows in kept["tables"]]
        state = State.of(kept, self.settings, self.case.device)
        self.recorder.go_on_after(self.tables[state.level])
        return state
