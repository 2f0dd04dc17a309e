"""A stage run by itk-elastix: for parameter maps whose components are all elastix's own.

elastix works in a folder and in a process of its own (see `elastix_process`); the files that it writes are read back
here, because the results that it hands over in memory lack values. Its tables are followed while they grow.
"""

import logging
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from impactreg.components import resampling
from impactreg.components.component import available
from impactreg.components.optimizers.optimizer import STOPPED
from impactreg.components.pyramids import ImagePyramid
from impactreg.components.transforms.files import read_transform
from impactreg.components.transforms.transform import Combination
from impactreg.errors import ParameterError, RegistrationError
from impactreg.parameters import ParameterMap, RunSettings
from impactreg.parameters.settings import Unknown
from impactreg.registration import elastix_keys, elastix_process
from impactreg.registration.case import Case, StageResult, Watch
from impactreg.registration.elastix_process import Tables
from impactreg.registration.results import Recorder

logger = logging.getLogger(__name__)

COMPONENTS: Mapping[str, frozenset[str]] = {
    "Registration": frozenset(
        [
            "MultiMetricMultiResolutionRegistration",
            "MultiResolutionRegistration",
            "MultiResolutionRegistrationWithFeatures",
        ]
    ),
    "FixedImagePyramid": frozenset(
        [
            "FixedGenericImagePyramid",
            "FixedRecursiveImagePyramid",
            "FixedShrinkingImagePyramid",
            "FixedSmoothingImagePyramid",
        ]
    ),
    "MovingImagePyramid": frozenset(
        [
            "MovingGenericImagePyramid",
            "MovingRecursiveImagePyramid",
            "MovingShrinkingImagePyramid",
            "MovingSmoothingImagePyramid",
        ]
    ),
    "Interpolator": frozenset(
        [
            "BSplineInterpolator",
            "BSplineInterpolatorFloat",
            "LinearInterpolator",
            "NearestNeighborInterpolator",
            "RayCastInterpolator",
            "ReducedDimensionBSplineInterpolator",
        ]
    ),
    "Metric": frozenset(
        [
            "AdvancedKappaStatistic",
            "AdvancedMattesMutualInformation",
            "AdvancedMeanSquares",
            "AdvancedNormalizedCorrelation",
            "CorrespondingPointsEuclideanDistanceMetric",
            "DisplacementMagnitudePenalty",
            "DistancePreservingRigidityPenalty",
            "GradientDifference",
            "MissingStructurePenalty",
            "NormalizedGradientCorrelation",
            "NormalizedMutualInformation",
            "PCAMetric",
            "PCAMetric2",
            "PatternIntensity",
            "PolydataDummyPenalty",
            "StatisticalShapePenalty",
            "SumOfPairwiseCorrelationCoefficientsMetric",
            "SumSquaredTissueVolumeDifference",
            "TransformBendingEnergyPenalty",
            "TransformRigidityPenalty",
            "VarianceOverLastDimensionMetric",
        ]
    ),
    "ImageSampler": frozenset(
        ["Full", "Grid", "MultiInputRandomCoordinate", "Random", "RandomCoordinate", "RandomSparseMask"]
    ),
    "Optimizer": frozenset(
        [
            "AdaptiveStochasticGradientDescent",
            "CMAEvolutionStrategy",
            "ConjugateGradient",
            "ConjugateGradientFRPR",
            "FiniteDifferenceGradientDescent",
            "FullSearch",
            "Powell",
            "PreconditionedStochasticGradientDescent",
            "QuasiNewtonLBFGS",
            "RSGDEachParameterApart",
            "RegularStepGradientDescent",
            "Simplex",
            "SimultaneousPerturbation",
            "StandardGradientDescent",
        ]
    ),
    "Transform": frozenset(
        [
            "AffineDTITransform",
            "AffineLogStackTransform",
            "AffineLogTransform",
            "AffineTransform",
            "BSplineStackTransform",
            "BSplineTransform",
            "DeformationFieldTransform",
            "EulerStackTransform",
            "EulerTransform",
            "ExternalTransform",
            "MultiBSplineTransformWithNormal",
            "RecursiveBSplineTransform",
            "SimilarityTransform",
            "SplineKernelTransform",
            "TranslationStackTransform",
            "TranslationTransform",
            "WeightedCombinationTransform",
        ]
    ),
    "ResampleInterpolator": frozenset(
        [
            "FinalBSplineInterpolator",
            "FinalBSplineInterpolatorFloat",
            "FinalLinearInterpolator",
            "FinalNearestNeighborInterpolator",
            "FinalRayCastInterpolator",
            "FinalReducedDimensionBSplineInterpolator",
        ]
    ),
    "Resampler": frozenset(["DefaultResampler"]),
}
"""What is compiled into itk-elastix 0.25, in 2D and 3D alike, found by having it create each component."""

# What elastix has to write so that it can be read back, and what is made here instead, from the transform.
_FORCED = {
    "WriteIterationInfo": "true",
    "WriteFinalTransformParameters": "true",
    "WriteTransformParametersEachResolution": "true",
    "OutputTransformParameterFileFormat": "txt",
    "WriteResultImage": "false",
    "WriteResultImageAfterEachResolution": "false",
    "WriteResultImageAfterEachIteration": "false",
    "WritePyramidImagesAfterEachResolution": "false",
}
_OURS = {"Transform": "only these can be read back", "ResampleInterpolator": "the result is made here, by one of these"}
_EACH_ITERATION = ("WriteTransformParametersEachIteration", "WriteResultImageAfterEachIteration")
_NOT_ELASTIX = ("ITKTransformOutputFileNameExtension", "WriteITKCompositeTransform", "WriteInverseTransform")


def missing_components(parameter_map: ParameterMap) -> list[str]:
    """The components that a parameter map names and itk-elastix lacks, each as `Metric "Impact"`; imports no itk."""
    missing = [
        f'{kind} "{name}"'
        for kind, known in COMPONENTS.items()
        for name in parameter_map.get(kind, ())
        if name not in known
    ]
    # elastix would align geometrical centres without a word
    method = "AutomaticTransformInitializationMethod"
    return missing + ([f'{method} "Search"'] if parameter_map.first(method) == "Search" else [])


def to_itk(maps: Sequence[ParameterMap]) -> Any:
    """An `itk.ParameterObject` with these maps; the way back is `ParameterMap.from_itk`."""
    from itk import elxParameterObjectPython  # from its own module: through `itk` itself all of ITK is loaded, in 20 s

    result = elxParameterObjectPython.elastixParameterObject.New()
    for each in maps:
        result.AddParameterMap(each.to_dict())
    return result


def check(parameter_map: ParameterMap) -> None:
    """Raises `ParameterError` for what itk-elastix would not run, or would run to a result that cannot be read."""
    missing = missing_components(parameter_map)
    if missing:
        raise ParameterError(f"{parameter_map.name}: itk-elastix has no {', '.join(missing)}; use the torch engine")
    for kind in ("Metric", "Optimizer", "Transform"):
        if not parameter_map.get(kind):
            raise ParameterError(f'{parameter_map.name}: no {kind} has been specified; add ({kind} "...")')
    for kind, limit in _OURS.items():
        known = sorted(available(kind))
        if parameter_map.first(kind, known[0]) not in known:
            raise parameter_map.error(kind, f"itk-elastix knows this {kind}, but {limit}: {', '.join(known)}")
    resampling.choose(parameter_map)
    for kind in ("FixedImagePyramid", "MovingImagePyramid"):
        for number, name in enumerate(parameter_map.get(kind) or (elastix_keys.DEFAULTS[kind],)):
            ImagePyramid.named(name).Settings.read(parameter_map, label=f"{kind}{number}")
    for key in ("FixedInternalImagePixelType", "MovingInternalImagePixelType"):
        if parameter_map.first(key, "float") not in ("float", "short"):
            raise parameter_map.error(key, 'itk-elastix computes with "float" or "short" only')


def unknown(parameter_map: ParameterMap) -> list[Unknown]:
    """The keys that neither itk-elastix nor this program reads, with the nearest spelling of one that is read."""
    return elastix_keys.unknown(parameter_map)


def run(
    case: Case, parameter_map: ParameterMap, initial: Combination | None, recorder: Recorder, watch: Watch | None = None
) -> StageResult:
    """Registers by itk-elastix and returns the transform on top of `initial`.

    `watch` sees the iterations a fraction of a second late; when it returns True, elastix is stopped at the end of that
    resolution, the earliest point at which its transform is known. Raises `ParameterError` for a map that itk-elastix
    cannot run, and `RegistrationError` with its reason where it fails.
    """
    check(parameter_map)
    settings = RunSettings.read(parameter_map)
    seen = case if settings.use_direction_cosines else case.without_direction()
    logger.info("itk-elastix runs %s", parameter_map.name)
    with elastix_process.folder() as folder:
        elastix_process.write_job(folder, seen, _map_for_elastix(parameter_map, case.seed), initial)
        tables = Tables(folder, parameter_map, recorder.number, settings.number_of_resolutions)
        try:
            stopped = elastix_process.follow(folder, tables, watch)
        except KeyboardInterrupt:
            _keep_complete(folder, tables, initial, recorder, case)
            raise
        return _collect(folder, tables, initial, recorder, case, stopped=stopped)


def _map_for_elastix(parameter_map: ParameterMap, seed: int | None) -> ParameterMap:
    """The map with what elastix must write; a given seed replaces `RandomSeed`."""
    changes: dict[str, object] = dict(_FORCED)
    if seed is not None:
        logger.info("(RandomSeed %d) replaces the seed of the parameter map", seed)
        changes["RandomSeed"] = seed
    each = any("true" in parameter_map.get(key, ()) for key in _EACH_ITERATION)
    changes[_EACH_ITERATION[0]] = str(each).lower()
    return parameter_map.without(*_NOT_ELASTIX).replace(changes)


def _collect(
    folder: Path, tables: Tables, initial: Combination | None, recorder: Recorder, case: Case, *, stopped: bool
) -> StageResult:
    """Reads elastix's transforms and hands them on; resolutions that were begun but not finished do not count."""
    log = (folder / "elastix.log").read_text(encoding="utf-8", errors="replace")
    logger.debug("elastix.log of itk-elastix:\n%s", log)
    done = [level for level in range(len(tables.rows)) if (folder / f"TransformParameters.0.R{level}.txt").exists()]
    if not done:
        name = tables.parameter_map.name
        raise RegistrationError(f"{name}: itk-elastix ended without a result; use the torch engine")
    for level in done:
        transform = _read(folder / f"TransformParameters.0.R{level}.txt", initial, case)
        for number, row in enumerate(tables.rows[level]):
            file = folder / f"TransformParameters.0.R{level}.It{number:07d}.txt"
            recorder.iteration(level, number, row, _read(file, initial, case) if file.exists() else transform)
        recorder.level_done(level, transform)
    reasons = [*re.findall(r"^Stopping condition: (.*?)\.?$", log, re.MULTILINE), *[""] * len(done)]
    ends = [STOPPED if stopped and level == done[-1] else reasons[level] for level in done]
    for reason in ends:
        logger.info("Stopping condition: %s.", reason)
    return StageResult(transform, tuple(tuple(tables.rows[level]) for level in done), tuple(ends))


def _keep_complete(folder: Path, tables: Tables, initial: Combination | None, recorder: Recorder, case: Case) -> None:
    """Hands on the transform of the last resolution after which another one had begun, if there is one."""
    level = len(tables.rows) - 2
    file = folder / f"TransformParameters.0.R{level}.txt"
    if level >= 0 and file.exists():
        recorder.complete(level, _read(file, initial, case))


def _read(file: Path, initial: Combination | None, case: Case) -> Combination:
    # As the only map of a chain, so that its reference to the initial transform's temporary file does not count.
    read = read_transform([ParameterMap.read(file)])
    current = read.current
    if not current.linear:
        current = current.with_parameters(current.parameters.to(case.device))
    return replace(read, current=current, initial=initial)
