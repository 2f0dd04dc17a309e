"""The fine stage's numerics: a displacement or velocity field on control grids, from coarse to fine.

Features of both images are extracted once and stay on their own grids. In every iteration the control points are
spread to the lattice where features are compared, the moving features are looked up there, and the exact derivative
goes the same way back; no automatic differentiation sees a feature (`itk::ImpactFineRegistration` is the model).
"""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from math import isfinite
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from impactreg.components.dense.descent import GaussNewton
from impactreg.components.dense.expansion import ControlGrid, smoothed
from impactreg.components.dense.features import LayerPair, feature_images, layer_pairs
from impactreg.components.dense.fine_level import (
    Scene,
    control_grid,
    fixed_on_lattice,
    lattice_step,
    motion_of,
    problem_of,
)
from impactreg.components.dense.fine_settings import FineSettings
from impactreg.components.dense.fine_state import Iterate, State, optimizer_of
from impactreg.components.dense.lattices import axes_in, looked_up
from impactreg.components.dense.motions import Flow
from impactreg.components.dense.problem import Problem
from impactreg.components.dense.start import Start
from impactreg.components.dense.warp import FeatureMap
from impactreg.components.optimizers.optimizer import OUT_OF_ITERATIONS, STOPPED
from impactreg.components.setup import PointMap
from impactreg.errors import RegistrationError
from impactreg.images.image import Image
from impactreg.images.masks import Mask

Field = Float[Tensor, "dim *space"]
OnControl = Float[Tensor, "dim *control"]

READ_AT_ONCE = {"cpu": 1}
"""After how many iterations numbers are read from a kind of device, which has to be waited for then."""
READ_RARELY = 10

CONVERGED = "The metric has converged"


@dataclass(frozen=True, eq=False)
class Found:
    """The displacements u with T(x) = L(x + u(x)) on the fixed grid, mm along its axes, and, for flows, those of the
    inverse flow.
    """

    displacement: Field
    inverse: Field | None


def fine_displacement(
    fixed: Image,
    moving: Image,
    settings: FineSettings | Sequence[FineSettings] | None = None,
    *,
    initial: PointMap | None = None,
    fixed_mask: Mask | None = None,
    moving_mask: Mask | None = None,
    relative_to: Path | None = None,
    folders: Sequence[Path] = (),
    seed: int = 0,
) -> Image:
    """T(x) - x in millimetres along the world axes (LPS) for every fixed voxel x, a channel for each axis: the fine
    stage as a function, T being what takes fixed to moving points.

    The images may lie on any grids; float32, on one device. `settings` are those of each resolution, coarse to fine
    (None: the defaults). `initial` is any map of world points to begin with, and is part of the result. `relative_to`
    and `folders` say where models are looked for. Raises `RegistrationError` where images and masks leave no points.

        settings = FineSettings(models_path=("MIND/R1D2_3D.pt",), grid_shrink_factor=2.0)
        field = fine_displacement(fixed, moving, settings)
    """
    generator = torch.Generator().manual_seed(seed)
    asked = FineSettings(image_dimension=fixed.dimension) if settings is None else settings
    levels = [asked] if isinstance(asked, FineSettings) else asked
    start = Start.of(initial, fixed.grid, fixed.data.device, apart=not levels[0].regularize_linear_part)
    scene = Scene(fixed, moving, start, fixed_mask, moving_mask, relative_to, tuple(folders), generator)
    with torch.no_grad():
        found = FineRegistration(scene, levels).run()
    return start.field(found.displacement, fixed.grid)


class FineRegistration:
    """A run over all resolutions of `settings`, coarse to fine; `state` may be that of an earlier run."""

    def __init__(self, scene: Scene, settings: Sequence[FineSettings], state: State | None = None) -> None:
        self.scene = scene
        self.settings = settings
        self.state = self._first() if state is None else state
        self.stop_reasons: list[str] = []
        self._pairs: tuple[FineSettings, list[LayerPair]] | None = None

    def run(
        self,
        show: Callable[[Iterate], bool] = lambda _: False,
        *,
        level_done: Callable[[int], None] = lambda _: None,
        save: Callable[[State], None] = lambda _: None,
    ) -> Found:
        """Iterates through what is left of all resolutions; `show` sees each iteration and stops by returning True.

        `save` is called every `ImpactCheckpointInterval` iterations. Raises `RegistrationError` where the metric has
        no finite value.
        """
        for level in range(self.state.level, len(self.settings)):
            if level != self.state.level:
                self.state = self._next(level)
            self.stop_reasons.append(self._level(show, save))
            level_done(level)
            if self.stop_reasons[-1] == STOPPED:
                break
        return self.found()

    def found(self) -> Found:
        """The displacements of the present state."""
        asked, state = self.settings[self.state.level], self.state
        motion = motion_of(self.scene, asked)
        if isinstance(motion, Flow):
            motion = replace(motion, both_ways=True)
        moved = motion.of(state.parameters)
        forward = self._on_fixed(motion.nodes, moved.forward)
        backward = None if moved.backward is None else self._on_fixed(motion.nodes, moved.backward)
        rest = self.scene.start.displacement
        if rest is not None and isinstance(motion, Flow):
            forward = forward + self._shifted(rest, forward)
        return Found(forward, backward)

    def _first(self) -> State:
        """No displacement, or as much of the initial one as the control points can show."""
        asked, scene = self.settings[0], self.scene
        control = control_grid(scene.grid, asked)
        rest = scene.start.displacement
        if rest is None or asked.fine_transform != "Displacement":
            parameters = scene.fixed.data.new_zeros(scene.grid.dimension, *control.size)
        else:
            parameters = self._fit(control, rest)
        return State(0, 0, parameters, optimizer_of(asked))

    def _next(self, level: int) -> State:
        """The control points of the resolution before, on the next control grid."""
        before, now = (self.settings[number] for number in (level - 1, level))
        old, new = (control_grid(self.scene.grid, each) for each in (before, now))
        passes = before.control_grid_smoothing_iterations
        parameters = self.state.parameters
        if (old, passes) != (new, now.control_grid_smoothing_iterations):
            parameters = self._fit(new, self._on_fixed(old, smoothed(parameters, passes)))
        return State(level, 0, parameters, optimizer_of(now))

    def _level(self, show: Callable[[Iterate], bool], save: Callable[[State], None]) -> str:
        state, asked = self.state, self.settings[self.state.level]
        problem = self._problem()
        if isinstance(state.optimizer, GaussNewton) and not state.optimizer.longest:
            state.optimizer.longest = lattice_step(problem, self.scene, asked)
        waiting = _Waiting(state, READ_AT_ONCE.get(state.parameters.device.type, READ_RARELY))
        while state.iteration < asked.maximum_number_of_iterations:
            waiting.add(*self._step(problem))
            interval, checkpoint = asked.features_map_update_interval, asked.checkpoint_interval
            last = state.iteration == asked.maximum_number_of_iterations
            if interval > 0 and state.iteration % interval == 0 and not last:
                state.reference = state.parameters.clone()
                problem = self._problem()
            saves = checkpoint > 0 and state.iteration % checkpoint == 0
            if waiting.full or last or saves:
                stops = [show(iterate) for iterate in waiting.read()]
                if any(stops):
                    return STOPPED
                if saves:
                    save(state)
                if self._converged(asked):
                    return CONVERGED
        return OUT_OF_ITERATIONS

    def _step(self, problem: Problem) -> tuple[list[Tensor], float]:
        state = self.state
        found = problem.at(state.parameters, curved=isinstance(state.optimizer, GaussNewton))
        numbers = [found.distance, found.regularization, torch.linalg.vector_norm(found.gradient)]
        rate = state.optimizer.step(state.parameters, found)
        state.iteration += 1
        return numbers, rate

    def _converged(self, asked: FineSettings) -> bool:
        window, values = asked.convergence_window, self.state.values
        if asked.convergence_threshold == 0 or len(values) < 2 * window:
            return False
        before, now = (sum(part) / window for part in (values[-2 * window : -window], values[-window:]))
        return before - now < asked.convergence_threshold * abs(before)

    def _problem(self) -> Problem:
        state, scene, asked = self.state, self.scene, self.settings[self.state.level]
        pairs = self._features(asked)
        if self._last_time(asked):
            self._pairs = None
        if state.reference is None:
            return self._scaled(problem_of(scene, asked, pairs))
        warped = feature_images(
            self._warped(state.reference), "moving", asked, relative_to=scene.relative_to, folders=scene.folders
        )
        pairs = [pair.with_moving(features) for pair, features in zip(pairs, warped, strict=True)]
        return self._scaled(problem_of(scene, asked, pairs, state.reference))

    def _scaled(self, problem: Problem) -> Problem:
        """With distances that were 1 when the resolution began, where that is asked for."""
        state = self.state
        if self.settings[state.level].loss_scale != "Start":
            return problem
        state.scales = state.scales or problem.scales(state.parameters)
        return problem.scaled(state.scales)

    def _last_time(self, asked: FineSettings) -> bool:
        """Whether nobody asks for the feature maps of a resolution again."""
        return self.state.level == len(self.settings) - 1 and asked.features_map_update_interval <= 0

    def _features(self, asked: FineSettings) -> list[LayerPair]:
        """The feature maps of a resolution; those of the one before where nothing about models changes."""
        if self._pairs is None or not _alike(self._pairs[0], asked):
            self._pairs = None
            scene = self.scene
            where = {"relative_to": scene.relative_to, "folders": scene.folders}
            lattice = partial(fixed_on_lattice, scene, asked) if self._last_time(asked) else None
            self._pairs = (asked, layer_pairs(scene.fixed, scene.moving, asked, lattice=lattice, **where))
        pairs = zip(self._pairs[1], asked.compared, strict=True)
        return [replace(pair, settings=settings) for pair, settings in pairs]

    def _warped(self, parameters: OnControl) -> Image:
        """The moving image under some parameters, on the fixed grid."""
        scene = self.scene
        motion = motion_of(scene, self.settings[self.state.level])
        displacement = self._on_fixed(motion.nodes, motion.of(parameters).forward).reshape(scene.grid.dimension, -1)
        base = looked_up(scene.start.linear(scene.grid.points(displacement.device)), scene.moving.grid)
        turn = axes_in(scene.grid, scene.moving.grid, scene.start.matrix).to(displacement)
        sampled = FeatureMap.of(scene.moving).at(base.to(displacement) + turn @ displacement, slopes=False)
        return Image(sampled.values.T.reshape(-1, *scene.grid.shape), scene.grid)

    def _on_fixed(self, control: ControlGrid, nodes: OnControl) -> Field:
        """Displacements at nodes (unit of the parameters) as millimetres on the fixed grid."""
        return control.expansion(self.scene.grid, self.scene.grid, nodes)(nodes) * self._unit(nodes)

    def _fit(self, control: ControlGrid, displacement: Field) -> OnControl:
        """The control points nearest to displacements on the fixed grid (mm)."""
        return control.fit(self.scene.grid, displacement / self._unit(displacement))

    def _unit(self, like: Field) -> Tensor:
        unit = torch.tensor(self.scene.unit(self.settings[0])).to(like)
        return unit.reshape(-1, *[1] * (like.ndim - 1))

    def _shifted(self, rest: Field, displacement: Field) -> Field:
        """A displacement of fixed points, looked up at displaced ones; beyond the image its border goes on."""
        grid = self.scene.grid
        spacing = torch.tensor(grid.spacing).to(displacement)[:, None]
        index = grid.indices(rest.device).T.to(displacement) + displacement.reshape(len(rest), -1) / spacing
        last = torch.tensor(grid.size).to(index)[:, None] - 1
        held = torch.minimum(index.clamp(min=0), last)
        return FeatureMap.of(Image(rest, grid)).at(held, slopes=False).values.T.reshape(rest.shape)


class _Waiting:
    """Iterations whose numbers have not been read from the device yet."""

    def __init__(self, state: State, at_once: int) -> None:
        self._state = state
        self._at_once = at_once
        self._numbers: list[Tensor] = []
        self._rates: list[float] = []
        self._since = time.perf_counter()

    @property
    def full(self) -> bool:
        return len(self._rates) >= self._at_once

    def add(self, numbers: list[Tensor], rate: float) -> None:
        self._numbers.append(torch.stack(numbers))
        self._rates.append(rate)

    def read(self) -> Iterator[Iterate]:
        """All that is waiting, in its order."""
        rows, rates = torch.stack(self._numbers).tolist(), self._rates
        self._numbers, self._rates = [], []
        seconds = (time.perf_counter() - self._since) / len(rates)
        self._since = time.perf_counter()
        first = self._state.iteration - len(rates)
        for number, (row, rate) in enumerate(zip(rows, rates, strict=True), start=first):
            distance, regularization, gradient = row
            iterate = Iterate(self._state.level, number, distance, regularization, gradient, rate, seconds)
            if not isfinite(iterate.value) or not isfinite(iterate.gradient):
                raise RegistrationError(
                    f"resolution {iterate.level}, iteration {number}: the metric is {iterate.value:g} and its gradient "
                    f"has length {iterate.gradient:g}; no point may be left in the images and masks, or an image has "
                    "values that are no numbers"
                )
            self._state.values.append(iterate.value)
            yield iterate


def _alike(one: FineSettings, other: FineSettings) -> bool:
    """Whether the same features are compared."""
    if not one.uses_models or not other.uses_models:
        return one.uses_models == other.uses_models
    return (one.fixed, one.moving, one.pca) == (other.fixed, other.moving, other.pca)
