"""Stages that are run by itk-elastix."""

import json
import pickle
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from impactreg.components.optimizers.optimizer import STOPPED
from impactreg.components.transforms.linear import TranslationTransform
from impactreg.components.transforms.transform import Combination
from impactreg.errors import MissingExtra, ParameterError, RegistrationError
from impactreg.images import Image, Mask
from impactreg.parameters import ParameterMap
from impactreg.registration import elastix, elastix_process
from impactreg.registration.case import Case, Further, Iteration, StageResult, Watch
from impactreg.registration.results import Recorder

SHIFT = {2: (3.0, -2.0), 3: (3.0, -2.0, 1.5)}


def blob(dimension: int, shift: tuple[float, ...] = (0.0, 0.0, 0.0), *, direction: np.ndarray | None = None) -> Image:
    """Two round spots, of which the world positions are moved by `shift`; the grid may be oblique."""
    size = (28, 30, 26)[:dimension]
    index = np.stack(np.meshgrid(*map(np.arange, size), indexing="ij"), axis=-1).astype(float)
    spacing, origin = np.array((1.0, 1.1, 1.2))[:dimension], np.array((-15.0, -12.0, -10.0))[:dimension]
    world = (index * spacing) @ (np.eye(dimension) if direction is None else direction).T + origin
    centre = np.array((-2.0, 3.0, 4.0))[:dimension] + np.array(shift[:dimension])
    width = np.array((60.0, 110.0, 80.0))[:dimension]
    second = np.array((6.0, -4.0, 2.0))[:dimension]
    values = 100 * np.exp(-(((world - centre) ** 2) / width).sum(-1))
    values += 60 * np.exp(-(((world - centre - second) ** 2) / 30).sum(-1))
    return Image.of(values.T.astype(np.float32), spacing.tolist(), origin.tolist(), direction)


def case_of(dimension: int) -> Case:
    return Case(blob(dimension), blob(dimension, SHIFT[dimension]))


def translation(*shift: float) -> TranslationTransform:
    parameters = torch.tensor(shift, dtype=torch.float64)
    return TranslationTransform(parameters, torch.zeros_like(parameters))


def rigid(**changes: object) -> ParameterMap:
    fast = {
        "Metric": "AdvancedMeanSquares",
        "AutomaticScalesEstimation": True,
        "MaximumNumberOfIterations": 120,
        "NumberOfSpatialSamples": 1500,
    }
    return ParameterMap.default("rigid", 2).replace({**fast, **changes})


def recorder(case: Case, parameter_map: ParameterMap, folder: Path | None = None) -> Recorder:
    return Recorder(folder, 0, parameter_map, case)


def run(
    case: Case, parameter_map: ParameterMap, initial: Combination | None = None, watch: Watch | None = None
) -> StageResult:
    return elastix.run(case, parameter_map, initial, recorder(case, parameter_map), watch)


def distance(result: StageResult, case: Case, shift: tuple[float, ...]) -> float:
    """The largest error (mm) at the image's corners."""
    points = case.fixed.grid.corners()
    wanted = points + torch.tensor(shift, dtype=torch.float64)
    return float((result.transform(points) - wanted).norm(dim=1).max())


@pytest.mark.itk
@pytest.mark.parametrize("dimension", [2, 3])
def test_a_known_translation_is_recovered(dimension: int) -> None:
    case = case_of(dimension)
    result = run(case, rigid())
    assert distance(result, case, SHIFT[dimension]) < 0.3
    assert [len(rows) for rows in result.iterations] == [120, 120]
    assert sorted(result.iterations[0][0]) == ["2:Metric", "3a:Time", "3b:StepSize", "4:||Gradient||", "Time[ms]"]
    assert result.iterations[1][-1]["2:Metric"] < result.iterations[0][0]["2:Metric"]
    assert result.stop_reasons == ("Maximum number of iterations has been reached",) * 2
    assert pickle.loads(pickle.dumps(result)).stop_reasons == result.stop_reasons


@pytest.mark.itk
def test_the_transform_comes_on_top_of_the_chain_before() -> None:
    case = case_of(3)
    first = Combination(translation(30.0, 0.0, 0.0))
    second = Combination(translation(-28.0, -1.0, 0.0), first)
    parameter_map = rigid(Transform="TranslationTransform", AutomaticScalesEstimation=False)
    result = run(case, parameter_map, second)
    assert result.transform.initial is second
    assert result.transform.current.parameters.tolist() == pytest.approx([1.0, -1.0, 1.5], abs=0.05)
    assert distance(result, case, SHIFT[3]) < 0.1


@pytest.mark.itk
def test_masks_with_another_grid_decide_what_is_seen() -> None:
    """A bright false spot in the moving image is outside the masks; without them the error is several mm."""
    case = case_of(3)
    spoiled = case.moving.data.clone()
    spoiled[0, 17:24, 18:27, 4:20] += 300
    mask = torch.ones(13, 15, 14, dtype=torch.uint8)
    mask[8:] = 0
    size, spacing, origin = (14, 15, 13), (2.0, 2.2, 2.4), case.fixed.grid.origin
    seen = Mask.of(Image(mask[None], type(case.fixed.grid).of(size, spacing, origin)))
    masked = Case(case.fixed, case.moving.with_data(spoiled), seen, seen)
    parameter_map = rigid(ErodeMask=False, AutomaticTransformInitialization=False)
    assert distance(run(masked, parameter_map), case, SHIFT[3]) < 0.7


@pytest.mark.itk
def test_without_direction_cosines_the_grids_lie_along_the_world_axes() -> None:
    angle = np.deg2rad(30)
    turned = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    plain = case_of(2)
    fixed, moving = (Image.of(i.data[0], i.grid.spacing, i.grid.origin, turned) for i in (plain.fixed, plain.moving))
    oblique = Case(fixed, moving)
    parameter_map = rigid(UseDirectionCosines=False)
    assert distance(run(oblique, parameter_map), plain, SHIFT[2]) < 0.3


@pytest.mark.itk
def test_a_b_spline_with_two_metrics_is_read_back_with_its_tables(tmp_path: Path) -> None:
    case = case_of(2)
    parameter_map = ParameterMap.default("bspline", 2).replace(
        MaximumNumberOfIterations=3,
        WriteIterationInfo=True,
        WriteTransformParametersEachIteration=True,
        WriteTransformParametersEachResolution=True,
    )
    result = elastix.run(case, parameter_map, None, recorder(case, parameter_map, tmp_path))
    assert {"2:Metric", "2:Metric0", "2:Metric1"} <= set(result.iterations[0][0])
    names = {file.name for file in tmp_path.iterdir()}
    assert {"IterationInfo.0.R0.txt", "IterationInfo.0.R1.txt", "TransformParameters.0.R0.txt"} <= names
    first, last = (
        ParameterMap.read(tmp_path / f"TransformParameters.0.R1.It000000{k}.txt").numbers("TransformParameters")
        for k in (0, 2)
    )
    assert first != last
    assert last == pytest.approx(result.transform.parameters.tolist(), abs=1e-9)


@pytest.mark.itk
def test_a_watcher_sees_iterations_and_stops_at_the_end_of_a_resolution() -> None:
    seen: list[Iteration] = []

    def watch(iteration: Iteration) -> bool:
        seen.append(iteration)
        return iteration.level == 0 and iteration.number == 2

    result = run(case_of(2), rigid(MaximumNumberOfIterations=[8, 9000], NumberOfResolutions=2), watch=watch)
    assert [(i.number, i.level, i.levels, i.of) for i in seen] == [(k, 0, 2, 8) for k in range(3)]
    assert [len(rows) for rows in result.iterations] == [8]
    assert result.stop_reasons == (STOPPED,)


@pytest.mark.itk
def test_an_interrupt_ends_elastix_and_leaves_no_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))

    def watch(iteration: Iteration) -> bool:
        del iteration
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(case_of(2), rigid(MaximumNumberOfIterations=100000), watch=watch)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.itk
def test_what_elastix_says_in_its_log_is_told_in_one_line(capfd: pytest.CaptureFixture[str]) -> None:
    case = case_of(2)
    far = Case(case.fixed, Image.of(case.moving.data[0], origin=[500.0, 0.0]))
    with pytest.raises(
        RegistrationError, match=r"^default rigid map: .*Too many samples map outside moving image buffer"
    ):
        run(far, rigid(AutomaticTransformInitialization=False))
    assert capfd.readouterr() == ("", "")


@pytest.mark.itk
def test_a_bad_value_is_told_with_its_line(tmp_path: Path) -> None:
    file = tmp_path / "rigid.txt"
    file.write_text(rigid(NumberOfSpatialSamples="many").text())
    line = 1 + next(i for i, text in enumerate(file.read_text().splitlines()) if "NumberOfSpatialSamples" in text)
    with pytest.raises(RegistrationError, match=f"rigid.txt:{line}: itk-elastix stopped: Casting entry number 0"):
        run(case_of(2), ParameterMap.read(file))


@pytest.mark.itk
def test_maps_go_to_itk_and_back() -> None:
    maps = [ParameterMap.default("rigid"), ParameterMap.default("bspline", 2)]
    assert ParameterMap.from_itk(elastix.to_itk(maps)) == maps


def test_a_given_seed_replaces_that_of_the_map() -> None:
    assert elastix._map_for_elastix(rigid(RandomSeed=1), 5).first("RandomSeed") == "5"
    assert elastix._map_for_elastix(rigid(RandomSeed=1), None).first("RandomSeed") == "1"


def test_what_itk_elastix_lacks_is_known_without_itk() -> None:
    parameter_map = rigid(Metric=["Impact", "AdvancedMeanSquares"], Optimizer="Adam")
    assert elastix.missing_components(parameter_map) == ['Metric "Impact"', 'Optimizer "Adam"']
    code = (
        "import sys\nfrom impactreg.parameters import ParameterMap\nfrom impactreg.registration import elastix\n"
        "names = 'translation', 'rigid', 'affine', 'bspline'\n"
        "assert not any(elastix.missing_components(ParameterMap.default(n)) for n in names)\n"
        "assert 'itk' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"Metric": "Impact"}, 'has no Metric "Impact"; use the torch engine'),
        ({"Metric": ()}, "no Metric has been specified"),
        ({"Transform": "ExternalTransform"}, "only these can be read back: Affine"),
        ({"FixedInternalImagePixelType": "double"}, '"float" or "short" only'),
    ],
)
def test_maps_that_cannot_be_delegated_are_refused_before_anything_starts(
    changes: dict[str, object], message: str
) -> None:
    with pytest.raises(ParameterError, match=message):
        run(case_of(2), rigid(**changes))


def test_a_result_that_is_not_made_here_is_refused() -> None:
    with pytest.raises(ParameterError, match="but the result is made here, by one of these: FinalBSplineInterpolator"):
        elastix.check(rigid(ResampleInterpolator="FinalRayCastInterpolator"))


def test_a_schedule_that_elastix_cannot_read_is_refused() -> None:
    with pytest.raises(ParameterError, match="a whole number is needed"):
        elastix.check(rigid(ImagePyramidSchedule=[2, 2, 0.5, 1]))


@pytest.mark.parametrize(
    ("log", "reason"),
    [
        ("Reading images...\n", "it is gone"),
        (
            "Description: ITK ERROR: Foo(0x12ab): it\n  broke\n\n\nERROR: Error occurred during actual registration.\n",
            "it broke",
        ),
        ("ERROR: the mask is empty\nERROR: One or more components could not be created.\n", "the mask is empty"),
    ],
)
def test_the_reason_of_a_failure_is_dug_out_of_the_logs(tmp_path: Path, log: str, reason: str) -> None:
    (tmp_path / "elastix.log").write_text(log)
    (tmp_path / "worker.log").write_text("Traceback ...\nRuntimeError: ITK ERROR: it is gone\n")
    error = elastix_process._failure(tmp_path, 1, rigid())
    assert isinstance(error, RegistrationError)
    assert str(error) == f"default rigid map: itk-elastix stopped: {reason}"


def test_a_crash_and_a_missing_package_are_told(tmp_path: Path) -> None:
    (tmp_path / "elastix.log").write_text("Resolution: 1\n")
    crashed = elastix_process._failure(tmp_path, -11, rigid())
    assert str(crashed) == "default rigid map: itk-elastix crashed (signal 11) in resolution 1; use the torch engine"
    (tmp_path / "worker.log").write_text("ModuleNotFoundError: No module named 'itk'\n")
    missing = elastix_process._failure(tmp_path, 1, rigid())
    assert isinstance(missing, MissingExtra)
    assert "pip install itk-elastix" in str(missing)


def test_tables_are_read_while_they_grow(tmp_path: Path) -> None:
    tables = elastix_process.Tables(tmp_path, rigid(MaximumNumberOfIterations=[4, 7]), stage=2, levels=2)
    assert list(tables.new()) == []
    first, second = (tmp_path / f"IterationInfo.0.R{level}.txt" for level in (0, 1))
    first.write_text("1:ItNr\t2:Metric\t5:Phase\tTime[ms]\n0\t1.5\tMain\t2.0\n1\t1.2")
    assert list(tables.new()) == [Iteration(2, 0, 2, 0, 4, {"2:Metric": 1.5, "5:Phase": "Main", "Time[ms]": 2.0})]
    with first.open("a") as stream:
        stream.write("5\tMain\t1.0\n")
    second.write_text("1:ItNr\t2:Metric\n0\t0.5\n")
    assert [(i.level, i.number, i.of, i.columns["2:Metric"]) for i in tables.new()] == [(0, 1, 4, 1.25), (1, 0, 7, 0.5)]
    assert list(tables.new()) == []


def test_the_job_names_grids_and_the_last_of_the_transforms_before(tmp_path: Path) -> None:
    first = Combination(translation(1.0, 0.0))
    elastix_process.write_job(tmp_path, case_of(2), rigid(), Combination(first.current, first))
    job = json.loads((tmp_path / "job.json").read_text())
    assert job["images"]["moving"][0]["spacing"] == [1.0, 1.1]
    last = ParameterMap.read(job["initial"])
    assert ParameterMap.read(last.first("InitialTransformParameterFileName")).numbers("TransformParameters") == (
        1.0,
        0.0,
    )


@pytest.mark.itk
def test_several_images_and_landmarks_reach_elastix(tmp_path: Path) -> None:
    case = case_of(2)
    points = torch.tensor([[3.0, 4.0], [8.0, 5.0], [6.0, 9.0]], dtype=torch.float64)
    further = Further((case.fixed,), (case.moving,), fixed_points=points, moving_points=points + 1)
    keys = {
        "Registration": "MultiMetricMultiResolutionRegistration",
        "Metric": ["AdvancedMeanSquares", "CorrespondingPointsEuclideanDistanceMetric"],
        "Metric0Weight": 0,
        "ImageSampler": ["Full", "Full"],
        **{key: [f"{side}SmoothingImagePyramid"] * 2 for key, side in PYRAMIDS.items()},
        "Interpolator": ["LinearInterpolator"] * 2,
        "NumberOfResolutions": 1,
        "MaximumNumberOfIterations": 2,
    }
    parameter_map = rigid().replace(keys)
    result = elastix.run(replace(case, further=further), parameter_map, None, Recorder(None, 0, parameter_map, case))
    # both landmarks are sqrt(2) mm away at the start
    assert result.iterations[0][0]["2:Metric1"] == pytest.approx(2**0.5, abs=1e-6)


PYRAMIDS = {"FixedImagePyramid": "Fixed", "MovingImagePyramid": "Moving"}
