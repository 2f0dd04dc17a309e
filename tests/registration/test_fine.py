"""The fine dense stage as a registration that a parameter file names."""

import logging

import pytest
import torch

from impactreg.components.transforms.files import read_transform
from impactreg.components.transforms.linear import TranslationTransform
from impactreg.components.transforms.transform import Combination
from impactreg.components.warping import warp
from impactreg.errors import ParameterError
from impactreg.images import Grid, Image, read_image, write_image
from impactreg.parameters import ParameterMap, presets
from impactreg.registration.case import Case, Further
from impactreg.registration.checkpoint import Checkpoint
from impactreg.registration.fine import ImpactFineRegistration
from impactreg.registration.results import Recorder

TURNED = [[0.8, -0.6, 0], [0.6, 0.8, 0], [0, 0, 1]]
FIXED = Grid.of((20, 18, 16), (2.0, 2.5, 3.0), (-20.0, 10.0, 5.0), TURNED)
MOVING = Grid.of((44, 44, 36), (1.6, 1.7, 2.0), (-58.0, -2.0, -2.0))
KEYS = {
    "Registration": "ImpactFineRegistration",
    "NumberOfResolutions": 2,
    "MaximumNumberOfIterations": 4,
    "ImpactFineOptimizer": "GaussNewton",
    "ImpactControlInterpolation": "BSpline",
    "ImpactControlGridSpacing": [20, 12],
    "ImpactRegularizationWeight": 0.01,
    "ResultImageFormat": "nii.gz",
    "ResultImagePixelType": "float",
}
FLOW = {
    **KEYS,
    "ImpactFineOptimizer": "Adam",
    "ImpactFineTransform": "SVF",
    "ImpactLearningRate": 0.3,
    "MaximumNumberOfIterations": 10,
    "ImpactEvaluationSpacing": 5,
}


def bent(points):
    waves = [torch.sin(points.roll(k + 1, 1)[:, 0] / 16 + k) for k in range(points.shape[1])]
    return points + 2.0 * torch.stack(waves, 1)


def image(grid, where=lambda points: points):
    a, b, c = (where(grid.points()) / torch.tensor([7.0, 8.0, 9.0], dtype=torch.float64)).unbind(1)
    values = torch.sin(a + 0.5 * b) + torch.cos(b - 0.7 * c) + torch.sin(1.3 * c + 0.4 * a) + 0.3 * torch.cos(2 * a - b)
    return Image(values.reshape(1, *grid.shape).float(), grid)


def made_case():
    return Case(image(FIXED, bent), image(MOVING))


def run(keys=KEYS, folder=None, initial=None, watch=None, checkpoint=None, done=False):
    parameter_map = ParameterMap.from_dict(keys, "fine.txt")
    case = made_case()
    recorder = Recorder(folder, 0, parameter_map, case, checkpoint=checkpoint)
    outcome = ImpactFineRegistration(parameter_map).run(case, initial, recorder, watch)
    if done:
        recorder.stage_done(outcome)
    return outcome


def error(transform):
    points = FIXED.points().reshape(*FIXED.shape, 3)[3:-3, 3:-3, 3:-3].reshape(-1, 3)
    return float((transform(points) - bent(points)).norm(dim=1).mean())


def test_a_known_warp_is_found_and_told_in_rows(caplog):
    with caplog.at_level(logging.INFO):
        outcome = run()
    assert error(outcome.transform) < 0.5
    assert [len(rows) for rows in outcome.iterations] == [4, 4]
    columns = {"2:Metric", "2:Metric0", "2:Metric1", "3:StepSize", "4:||Gradient||", "Time[ms]"}
    assert set(outcome.iterations[0][0]) == columns
    assert "% of the voxels are folded, SDlogJ" in caplog.text


def test_a_transform_before_is_part_of_the_field():
    initial = Combination(TranslationTransform(torch.tensor([3.0, -2.0, 2.5], dtype=torch.float64), torch.zeros(3)))
    outcome = run({**KEYS, "MaximumNumberOfIterations": 0}, initial=initial)
    assert outcome.transform.initial is None
    points = FIXED.points()[100:200]
    torch.testing.assert_close(outcome.transform(points), initial(points), atol=1e-5, rtol=0)


def test_the_files_say_what_the_result_is(tmp_path):
    outcome = run(folder=tmp_path, done=True)
    points = FIXED.points()[::37]
    read = read_transform(tmp_path / "TransformParameters.0.txt")
    torch.testing.assert_close(read(points), outcome.transform(points), atol=1e-4, rtol=0)
    assert (tmp_path / "result.0.nii.gz").is_file()
    assert len((tmp_path / "IterationInfo.0.R1.txt").read_text().splitlines()) == 5


def test_a_flow_has_its_inverse_beside_it(tmp_path):
    outcome = run(FLOW, tmp_path, done=True)
    inverse = read_transform(tmp_path / "InverseTransformParameters.0.txt")
    points = FIXED.points().reshape(*FIXED.shape, 3)[3:-3, 3:-3, 3:-3].reshape(-1, 3)
    there_and_back = inverse(outcome.transform(points)) - points
    assert float(there_and_back.norm(dim=1).mean()) < 0.1 * min(FIXED.spacing)


@pytest.mark.parametrize("keys", [KEYS, FLOW], ids=["GaussNewton", "SVF"])
def test_an_interrupted_run_goes_on_to_the_same_end_bit_for_bit(keys, tmp_path):
    keys = {**keys, "ImpactCheckpointInterval": 3}
    whole = run(keys)

    def stop(iteration):
        if (iteration.level, iteration.number) == (1, 3):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(keys, tmp_path, watch=stop, checkpoint=Checkpoint.begin(tmp_path, "this run"))
    rest = run(keys, tmp_path, checkpoint=Checkpoint.read(tmp_path, "this run"))
    assert torch.equal(rest.transform.current.field.data, whole.transform.current.field.data)
    assert [len(rows) for rows in rest.iterations] == [len(rows) for rows in whole.iterations]
    assert rest.stop_reasons == whole.stop_reasons


def test_the_tables_of_a_resumed_run_are_whole(tmp_path):
    keys = {**KEYS, "ImpactCheckpointInterval": 3}

    def stop(iteration):
        if (iteration.level, iteration.number) == (1, 3):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(keys, tmp_path, watch=stop, checkpoint=Checkpoint.begin(tmp_path, "this run"))
    run(keys, tmp_path, checkpoint=Checkpoint.read(tmp_path, "this run"), done=True)
    for level in (0, 1):
        lines = (tmp_path / f"IterationInfo.0.R{level}.txt").read_text().splitlines()
        assert [line.split("\t")[0] for line in lines] == ["1:ItNr", "0", "1", "2", "3"]


def test_a_watcher_stops_the_run():
    outcome = run(watch=lambda iteration: iteration.number == 1)
    assert [len(rows) for rows in outcome.iterations] == [2]
    assert "stopped" in outcome.stop_reasons[0]


def test_mistakes_are_told_before_a_run():
    with pytest.raises(ParameterError, match=r"fine.txt.*ImpactFineTransform"):
        ImpactFineRegistration(ParameterMap.from_dict({**KEYS, "ImpactFineTransform": "SVG"}, "fine.txt"))
    stage = ImpactFineRegistration(ParameterMap.from_dict({**KEYS, "ImpactControlGridSpacin": 3}, "fine.txt"))
    assert [(each.key, each.suggestion) for each in stage.unknown()] == [
        ("ImpactControlGridSpacin", "ImpactControlGridSpacing")
    ]
    one = made_case()
    with pytest.raises(ParameterError, match="one fixed and one moving"):
        stage.check(Case(one.fixed, one.moving, further=Further(fixed=(one.fixed,))))


@pytest.mark.parametrize("name", ["dense-fast", "dense-accurate", "dense-lung", "dense-multimodal"])
def test_presets_are_read_to_the_last_key(name):
    stage = ImpactFineRegistration(ParameterMap.read(presets.find(name)))
    stage.check(made_case())
    assert stage.unknown() == []
    assert all(path.is_file() for _, path in stage.models(3, ()))
    assert stage.levels == 3


@pytest.mark.itk
def test_elastix_transformix_reads_the_field(tmp_path):
    import itk

    outcome = run(folder=tmp_path, done=True)
    write_image(made_case().moving, tmp_path / "moving.mha")
    parameters = itk.ParameterObject.New()
    parameters.AddParameterFile(str(tmp_path / "TransformParameters.0.txt"))
    parameters.SetParameter(0, "ResultImagePixelType", "float")
    warped = itk.transformix_filter(itk.imread(str(tmp_path / "moving.mha"), itk.F), parameters)
    itk.imwrite(warped, str(tmp_path / "warped.mha"))
    expected = warp(made_case().moving, outcome.transform, FIXED, order=3)
    torch.testing.assert_close(read_image(tmp_path / "warped.mha").data, expected.data, atol=2e-3, rtol=0)
