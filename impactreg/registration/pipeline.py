"""register(): a fold over parameter maps, each of which runs as one stage on top of the transform before it."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

import impactreg
from impactreg.components.optimizers.optimizer import STOPPED
from impactreg.components.resampling import Output
from impactreg.components.transforms.exchange import as_transform
from impactreg.components.transforms.transform import Combination
from impactreg.errors import ImpactregError, OutputError, ParameterError, TransformError
from impactreg.images import as_image
from impactreg.parameters import ParameterMap, RunSettings, presets
from impactreg.parameters.settings import Unknown
from impactreg.registration import elastix, estimate
from impactreg.registration.case import Case, StageResult, Watch
from impactreg.registration.checkpoint import Checkpoint
from impactreg.registration.estimate import Estimate
from impactreg.registration.fingerprint import fingerprint
from impactreg.registration.logs import log_file
from impactreg.registration.preparation import Inputs, choose_device, make_case
from impactreg.registration.registration import Registration
from impactreg.registration.registrations import missing_components, registration_of
from impactreg.registration.results import Recorder, Result, prepare_directory

logger = logging.getLogger(__name__)
ENGINES = ("torch", "elastix")
"""Who runs a stage: this package, or real elastix."""


@dataclass(frozen=True)
class StagePlan:
    """What one parameter map will do: where it runs, the components and models it takes, keys that nobody reads, and
    about how long it takes and how much memory.
    """

    number: int
    parameter_map: ParameterMap
    engine: str
    levels: int
    components: Mapping[str, tuple[str, ...]]
    models: Sequence[tuple[str, Path]]
    unknown: Sequence[Unknown]
    estimate: Estimate | None = None


def register(
    fixed: Any,
    moving: Any,
    parameters: Any = None,
    *,
    fixed_mask: Any = None,
    moving_mask: Any = None,
    fixed_points: Any = None,
    moving_points: Any = None,
    initial_transform: Any = None,
    output_directory: str | Path | None = None,
    device: str | torch.device | None = None,
    seed: int | None = None,
    models: Sequence[str | Path] | str | Path = (),
    engine: str = "auto",
    callback: Watch | None = None,
    log: str | None = "elastix.log",
    resume: bool = False,
) -> Result:
    """Registers `moving` to `fixed` as one or several parameter maps say, one stage after the other.

    Images and masks are paths, `Image`, itk, SimpleITK or nibabel images, or arrays or tensors in z, y, x order (alone,
    or as a tuple with spacing, origin and direction); a list of images or masks gives one to each metric.
    `fixed_points` and `moving_points` are corresponding landmarks: point files, or arrays [points, dim] of world mm,
    for the metrics and transforms that take them. `parameters` is a path, the name of a shipped map, a `ParameterMap`,
    a dict, or a list of these; by default `rigid` and `mind-bspline`. `initial_transform` is whatever `as_transform`
    takes: a transform file, a transform, a `Result`, a matrix, an itk or SimpleITK transform. Nothing touches the disk
    without `output_directory`. `device` is such as "cpu" or "cuda:0" (default: what `ImpactGPU` says); `seed` replaces
    `RandomSeed`; `models` is a folder with feature extractors, or several; `engine` is "auto" (real elastix runs what
    needs no PyTorch), "torch" or "elastix". `callback` sees every iteration and stops the run by returning True. `log`
    names the log file in `output_directory`; None writes none. `resume` goes on with the same run that was interrupted
    in `output_directory`, after its last complete resolution, to the same result.

    Returns a `Result` with the warped image, the transform, its parameter maps, the tables of iterations and the stop
    reasons. Raises an `ImpactregError` with one line for everything that the caller can mend.
    """
    maps = as_maps(parameters, fixed)
    chosen = choose_device(device, maps)
    inputs = Inputs(fixed, moving, fixed_mask, moving_mask, fixed_points, moving_points)
    case = make_case(inputs, maps, chosen, seed, _folders(models), keeps_device=device is not None)
    stages = [_plan(i, m, case, engine) for i, m in enumerate(maps)]
    before = _before(initial_transform, case)
    directory = prepare_directory(output_directory)
    progress = _checkpoint(directory, case, stages, before, resume=resume)
    try:
        with log_file(directory if log else None, log or "", more=resume):
            _tell_run(case, maps)
            _tell_unknown(stages)
            result = _Run(case, directory, progress, callback).all(stages, before)
    except OutputError as error:
        raise progress.kept_after(error) from error
    except ImpactregError:
        progress.remove()
        raise
    progress.remove()
    return result


def _folders(models: Sequence[str | Path] | str | Path) -> tuple[Path, ...]:
    return tuple(map(Path, [models] if isinstance(models, (str, Path)) else models))


def _before(initial_transform: Any, case: Case) -> Combination | None:
    """The transform to begin with, which is one between images of this dimension."""
    if initial_transform is None:
        return None
    before, dimension = as_transform(initial_transform), case.fixed.dimension
    if before.dimension != dimension:
        raise TransformError(
            f"the initial transform is {before.dimension}D, but the images are {dimension}D; "
            f"give one that was made for {dimension}D images"
        )
    return before


def _checkpoint(
    directory: Path | None, case: Case, stages: Sequence[StagePlan], initial: Combination | None, *, resume: bool
) -> Checkpoint:
    if directory is None and not resume:
        return Checkpoint(None)
    ways = [(stage.engine, *stage.models) for stage in stages]
    run = fingerprint(case, [s.parameter_map for s in stages], initial, ways, impactreg.__version__)
    return Checkpoint.read(directory, run) if resume else Checkpoint.begin(directory, run)


@dataclass(frozen=True)
class _Run:
    """The fold over the stages: each begins where the one before it has ended."""

    case: Case
    directory: Path | None
    progress: Checkpoint
    watch: Watch | None

    def all(self, stages: Sequence[StagePlan], initial: Combination | None) -> Result:
        recorders: list[Recorder] = []
        outcomes: list[StageResult] = []
        previous: StagePlan | None = None
        for stage in stages:
            recorder = self._recorder(stage, previous)
            outcome = self.progress.outcome(stage.number, initial)
            if outcome is None:
                outcome = self._stage(stage, initial, recorder)
                recorder.stage_done(outcome)
            recorders.append(recorder)
            outcomes.append(outcome)
            initial, previous = outcome.transform, stage
            if STOPPED in outcome.stop_reasons:
                break
        return Result.of(recorders, outcomes)

    def _recorder(self, stage: StagePlan, previous: StagePlan | None) -> Recorder:
        written = previous is not None and RunSettings.read(previous.parameter_map).write_final_transform_parameters
        return Recorder(
            self.directory, stage.number, stage.parameter_map, self.case, follows=written, checkpoint=self.progress
        )

    def _stage(self, stage: StagePlan, initial: Combination | None, recorder: Recorder) -> StageResult:
        try:
            if stage.engine == "elastix":
                return elastix.run(self.case, stage.parameter_map, initial, recorder, self.watch)
            return registration_of(stage.parameter_map).run(self.case, initial, recorder, self.watch)
        except KeyboardInterrupt:
            written = recorder.interrupted()
            if written:
                logger.warning("Interrupted; the transform of the last complete resolution is %s", written)
            raise


def plan(
    fixed: Any,
    moving: Any,
    parameters: Any = None,
    *,
    fixed_mask: Any = None,
    moving_mask: Any = None,
    fixed_points: Any = None,
    moving_points: Any = None,
    initial_transform: Any = None,
    device: str | torch.device | None = None,
    models: Sequence[str | Path] | str | Path = (),
    engine: str = "auto",
) -> list[StagePlan]:
    """What `register` would do with the same arguments, after the same checks, without doing it."""
    maps = as_maps(parameters, fixed)
    inputs = Inputs(fixed, moving, fixed_mask, moving_mask, fixed_points, moving_points)
    case = make_case(inputs, maps, choose_device(device, maps), None, _folders(models))
    _before(initial_transform, case)
    return [_plan(i, m, case, engine) for i, m in enumerate(maps)]


def as_maps(parameters: Any, fixed: Any = None) -> list[ParameterMap]:
    """Parameter maps from a path, the name of a shipped map, a `ParameterMap`, a dict, or a list of these.

    None gives those that suit most pairs of images with as many dimensions as the (first) fixed image has.
    """
    if parameters is None:
        dimension = as_image(fixed[0] if isinstance(fixed, list) and fixed else fixed, name="fixed image").dimension
        parameters = presets.FIRST_MAPS[dimension]
        logger.info("No parameter map is named: %s are used", " and ".join(parameters))
    many = parameters if isinstance(parameters, (list, tuple)) else [parameters]
    if not many:
        raise ParameterError("at least one parameter map is needed, such as -p rigid")
    return [_as_map(p) for p in many]


def _as_map(parameters: Any) -> ParameterMap:
    if isinstance(parameters, ParameterMap):
        return parameters
    if isinstance(parameters, (str, Path)):
        return ParameterMap.read(presets.find(parameters))
    if isinstance(parameters, Mapping):
        return ParameterMap.from_dict(parameters)
    raise ParameterError(
        f"a parameter map is a path, a name, a ParameterMap or a dict, not a {type(parameters).__name__}"
    )


def _plan(number: int, parameter_map: ParameterMap, case: Case, engine: str) -> StagePlan:
    """Chooses the engine and checks everything that can be checked before the first iteration of the first stage."""
    chosen = _engine(parameter_map, engine)
    kinds = (
        "Registration",
        "Transform",
        "Metric",
        "Optimizer",
        "ImageSampler",
        "Interpolator",
        "FixedImagePyramid",
        "MovingImagePyramid",
    )
    components = {kind: parameter_map[kind] for kind in kinds if parameter_map.get(kind)}
    levels = RunSettings.read(parameter_map).number_of_resolutions
    if chosen == "elastix":
        elastix.check(parameter_map)
        about = estimate.of_loop(parameter_map, case, levels, chosen)
        return StagePlan(number, parameter_map, chosen, levels, components, (), elastix.unknown(parameter_map), about)
    registration = _registration(parameter_map)
    Output.of(parameter_map, case.fixed.grid)
    registration.check(case)
    models = registration.models(case.fixed.dimension, case.model_folders)
    unknown, needs = registration.unknown(), registration.estimate(case)
    return StagePlan(number, parameter_map, chosen, registration.levels, components, models, unknown, needs)


def _registration(parameter_map: ParameterMap) -> Registration:
    """The registration that a map names; where a component is missing, the message says whether itk-elastix has all."""
    try:
        return registration_of(parameter_map)
    except ParameterError as error:
        if missing_components(parameter_map):
            raise ParameterError(f"{error}; {_elastix_instead(parameter_map)}") from None
        raise


def _elastix_instead(parameter_map: ParameterMap) -> str:
    missing = elastix.missing_components(parameter_map)
    if missing:
        return f"itk-elastix has no {', '.join(missing)}"
    try:
        elastix.check(parameter_map)
    except ParameterError:
        return "itk-elastix cannot run this file either, as --engine elastix tells"
    return "itk-elastix has all that this file names: use --engine elastix"


def _engine(parameter_map: ParameterMap, asked: str) -> str:
    if asked not in ("auto", *ENGINES):
        raise ParameterError(f"engine {asked!r}: there are auto, {', '.join(ENGINES)}")
    missing = elastix.missing_components(parameter_map)
    if asked == "elastix" and missing:
        raise ParameterError(
            f"{parameter_map.source or 'parameters'}: itk-elastix has no {', '.join(missing)}; use --engine torch"
        )
    if asked == "auto":
        return "torch" if missing else "elastix"
    return asked


def _tell_run(case: Case, maps: Sequence[ParameterMap]) -> None:
    logger.info("impactreg %s, PyTorch %s, device %s", impactreg.__version__, torch.__version__, case.device)
    for parameter_map in maps:
        logger.info("parameter map %s:\n%s", parameter_map.source or "", parameter_map.text())


def _tell_unknown(stages: Sequence[StagePlan]) -> None:
    for stage in stages:
        for key, where, suggestion in stage.unknown:
            hint = f"; did you mean {suggestion}?" if suggestion else ""
            logger.warning("%s: (%s ...) is not read by any component%s", where, key, hint)
