"""What lands in the output folder, and what register() returns."""

import pickle

import pytest
import torch

from impactreg.components.transforms.displacement import DeformationFieldTransform
from impactreg.components.transforms.files import read_transform
from impactreg.components.transforms.linear import AffineTransform, TranslationTransform
from impactreg.components.transforms.transform import Combination
from impactreg.errors import OutputError, ParameterError
from impactreg.images import Grid, Image, read_image
from impactreg.parameters import ParameterMap
from impactreg.registration.case import Case, StageResult
from impactreg.registration.results import Recorder, Result, iteration_table, prepare_directory

FIXED = Grid.of((5, 4), (2, 3), (10, 20), [[0, -1], [1, 0]])
MOVING = Grid.of((6, 5), (2, 2), (8, 18))
ROWS = ({"2:Metric": 1.5, "3a:Time": 0.0, "Time[ms]": 12.34}, {"2:Metric": -1.25, "3a:Time": 1.0, "Time[ms]": 3.0})


def numbers(*values):
    return torch.tensor(values, dtype=torch.float64)


def shift(*by):
    return TranslationTransform(numbers(*by), numbers(0, 0))


@pytest.fixture
def case():
    generator = torch.Generator().manual_seed(0)
    fixed, moving = (Image(100 * torch.rand(1, *g.shape, generator=generator), g) for g in (FIXED, MOVING))
    return Case(fixed, moving)


def recorded(case, directory, transform, *, number=0, initial_file="", **keys):
    """One resolution of two iterations, all of it told to a recorder."""
    given = {"ResultImageFormat": "nii", "ResultImagePixelType": "float", **keys}
    recorder = Recorder(directory, number, ParameterMap.from_dict(given), case, initial_file=initial_file)
    for iteration, row in enumerate(ROWS):
        recorder.iteration(0, iteration, row, transform)
    recorder.level_done(0, transform)
    outcome = StageResult(transform, (ROWS,), ("Maximum number of iterations has been reached",))
    recorder.stage_done(outcome)
    return recorder, outcome


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_the_usual_files_are_written(case, tmp_path):
    recorded(case, tmp_path, Combination(shift(1, 2)))
    assert names(tmp_path) == ["IterationInfo.0.R0.txt", "TransformParameters.0.txt", "result.0.nii"]
    assert torch.equal(read_transform(tmp_path / "TransformParameters.0.txt").parameters, numbers(1, 2))
    assert read_image(tmp_path / "result.0.nii").grid.same_as(FIXED)


def test_the_table_is_laid_out_as_elastix_does(case, tmp_path):
    recorded(case, tmp_path, Combination(shift(1, 2)))
    assert (tmp_path / "IterationInfo.0.R0.txt").read_text() == (
        "1:ItNr\t2:Metric\t3a:Time\tTime[ms]\n0\t1.500000\t0.000000\t12.3\n1\t-1.250000\t1.000000\t3.0\n"
    )


def test_a_table_without_iterations_is_empty_and_times_of_metrics_have_one_decimal():
    assert iteration_table([]) == ""
    columns = {"2:Metric0": 1.0, "Time0[ms]": 1.26, "ExactMetric0": float("nan"), "1a:SrchDirNr": 3}
    assert iteration_table([(7, columns)]) == (
        "1:ItNr\t1a:SrchDirNr\t2:Metric0\tExactMetric0\tTime0[ms]\n7\t3\t1.000000\tnan\t1.3\n"
    )


def test_words_and_whole_numbers_stand_in_a_table_as_they_are():
    rows = [(0, {"1a:SrchDirNr": 0, "1b:LineItNr": "start", "2:Metric": 1.5, "6a:Wolfe1": "false"})]
    assert iteration_table(rows) == (
        "1:ItNr\t1a:SrchDirNr\t1b:LineItNr\t2:Metric\t6a:Wolfe1\n0\t0\tstart\t1.500000\tfalse\n"
    )


def test_everything_else_is_written_when_asked(case, tmp_path):
    recorded(
        case,
        tmp_path,
        Combination(shift(1, 2)),
        WriteTransformParametersEachIteration=True,
        WriteTransformParametersEachResolution=True,
        WriteResultImageAfterEachResolution=True,
        WriteResultImageAfterEachIteration=True,
        ResultImageName="warped",
        ITKTransformOutputFileNameExtension="tfm",
        WriteITKCompositeTransform=True,
    )
    stems = ["0.R0.It0000000", "0.R0.It0000001", "0.R0", "0"]
    wanted = {f"TransformParameters.{s}{e}" for s in stems for e in (".txt", ".tfm", "-Composite.tfm")}
    assert set(names(tmp_path)) == wanted | {f"warped.{s}.nii" for s in stems} | {"IterationInfo.0.R0.txt"}


def test_nothing_is_written_when_nothing_is_wanted(case, tmp_path):
    keys = {"WriteResultImage": False, "WriteFinalTransformParameters": False, "WriteIterationInfo": False}
    recorder, outcome = recorded(case, tmp_path, Combination(shift(1, 2)), **keys)
    assert names(tmp_path) == []
    assert Result.of([recorder], [outcome]).image is None


def test_toml_files_are_written_when_asked(case, tmp_path):
    recorded(
        case,
        tmp_path,
        Combination(shift(1, 2)),
        OutputTransformParameterFileFormat="TOML",
        WriteTransformParametersEachResolution=True,
    )
    assert {"TransformParameters.0.toml", "TransformParameters.0.R0.toml"} < set(names(tmp_path))


def test_a_second_parameter_file_refers_to_the_first(case, tmp_path, monkeypatch):
    first = Combination(shift(1, 2))
    second = Combination(shift(3, 4), first, compose=False)
    monkeypatch.chdir(tmp_path)
    folder = prepare_directory("out")
    recorded(case, folder, first)
    recorded(case, folder, second, number=1)
    monkeypatch.chdir(tmp_path.parent)
    written = ParameterMap.read(tmp_path / "out" / "TransformParameters.1.txt")
    assert written.first("InitialTransformParameterFileName") == str(tmp_path / "out" / "TransformParameters.0.txt")
    assert written.first("HowToCombineTransforms") == "Add"
    points = FIXED.points()
    assert torch.equal(read_transform(tmp_path / "out" / "TransformParameters.1.txt")(points), second(points))


def test_an_initial_transform_is_written_too_or_referred_to(case, tmp_path):
    initial = Combination(shift(1, 2), Combination(AffineTransform(numbers(1, 0.1, 0, 1, 0, 0), numbers(3, 4))))
    chain = Combination(shift(5, 6), initial)
    recorded(case, tmp_path, chain)
    assert {"InitialTransformParameters.0.txt", "InitialTransformParameters.1.txt"} < set(names(tmp_path))
    points = FIXED.points()
    assert torch.equal(read_transform(tmp_path / "TransformParameters.0.txt")(points), chain(points))
    other = tmp_path / "other"
    other.mkdir()
    recorded(case, other, chain, initial_file=str(tmp_path / "InitialTransformParameters.1.txt"))
    assert "InitialTransformParameters.0.txt" not in names(other)
    assert torch.equal(read_transform(other / "TransformParameters.0.txt")(points), chain(points))


def test_the_result_image_is_the_moving_image_through_the_whole_chain(case, tmp_path):
    recorder, outcome = recorded(case, tmp_path, Combination(shift(1, 2), Combination(shift(0.5, 0))))
    image, transform = Result.of([recorder], [outcome])
    assert transform(numbers(0, 0)[None]).tolist() == [[1.5, 2.0]]
    assert torch.allclose(read_image(tmp_path / "result.0.nii").data, image.data)
    assert image.grid == FIXED


def test_in_memory_nothing_touches_the_disk_and_the_result_is_complete(case, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    first = Combination(shift(1, 2))
    second = Combination(shift(3, 4), first)
    told = [recorded(case, None, first), recorded(case, None, second, number=1)]
    result = Result.of([r for r, _ in told], [o for _, o in told])
    assert names(tmp_path) == []
    assert result.output_directory is None
    assert result.iterations == ((ROWS,), (ROWS,))
    assert result.stop_reasons == (("Maximum number of iterations has been reached",),) * 2
    points = FIXED.points()
    assert torch.equal(read_transform(result.transform_parameter_maps)(points), second(points))


def test_a_result_can_be_pickled(case, tmp_path):
    result = Result.of(*[[each] for each in recorded(case, None, Combination(shift(1, 2)))])
    copy = pickle.loads(pickle.dumps(result))
    assert torch.equal(copy.image.data, result.image.data)
    assert torch.equal(copy.transform.parameters, result.transform.parameters)
    assert copy.transform_parameter_maps == result.transform_parameter_maps


def test_a_deformation_field_is_stored_with_the_transform(case, tmp_path):
    field = DeformationFieldTransform(Image(torch.zeros(2, *FIXED.shape), FIXED))
    recorded(case, tmp_path, Combination(shift(1, 2), Combination(field)))
    assert "InitialDeformationFieldImage.0.mha" in names(tmp_path)


def test_without_direction_cosines_files_still_have_the_direction(case, tmp_path):
    recorded(case, tmp_path, Combination(shift(1, 2)), UseDirectionCosines=False)
    written = ParameterMap.read(tmp_path / "TransformParameters.0.txt")
    assert written["Direction"] == ("0", "1", "-1", "0")
    assert written.first("UseDirectionCosines") == "false"
    assert read_image(tmp_path / "result.0.nii").grid.same_as(FIXED)


def test_tables_of_an_engine_that_does_not_tell_its_iterations_are_written_in_the_end(case, tmp_path):
    recorder = Recorder(tmp_path, 0, ParameterMap.from_dict({"WriteResultImage": False}), case)
    recorder.stage_done(StageResult(Combination(shift(1, 2)), (ROWS, ROWS), ("a", "b")))
    assert {"IterationInfo.0.R0.txt", "IterationInfo.0.R1.txt"} < set(names(tmp_path))


def test_the_output_folder_is_made_and_a_file_in_its_place_is_told(tmp_path):
    assert prepare_directory(None) is None
    assert prepare_directory(tmp_path / "a" / "b").is_dir()
    (tmp_path / "file").touch()
    for path in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(OutputError, match=r"output folder cannot be written.*choose another") as error:
            prepare_directory(path)
        assert "\n" not in str(error.value)


def test_a_file_that_cannot_be_written_leaves_nothing_behind(case, tmp_path):
    (tmp_path / "TransformParameters.0.txt").mkdir()
    with pytest.raises(OutputError, match=r"TransformParameters\.0\.txt"):
        recorded(case, tmp_path, Combination(shift(1, 2)))
    assert names(tmp_path) == ["IterationInfo.0.R0.txt", "TransformParameters.0.txt"]


def test_wrong_settings_are_told_before_anything_runs(case, tmp_path):
    with pytest.raises(ParameterError, match="FinalBSplineInterpolationOrder"):
        Recorder(tmp_path, 0, ParameterMap.from_dict({"FinalBSplineInterpolationOrder": 5}), case)
