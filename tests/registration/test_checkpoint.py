"""An interrupted run goes on where it was, and ends where it would have ended."""

from dataclasses import replace

import pytest
import torch

from impactreg.components.transforms.bspline import BSplineTransform
from impactreg.components.transforms.displacement import DeformationFieldTransform
from impactreg.components.transforms.rotating import EulerTransform
from impactreg.components.transforms.transform import Combination
from impactreg.components.transforms.weighted import WeightedCombinationTransform
from impactreg.errors import OutputError
from impactreg.images import Grid, Image, write_image
from impactreg.parameters import ParameterMap
from impactreg.registration.checkpoint import FILE
from impactreg.registration.pipeline import register

SHAPE = (14, 16, 18)
RIGID = {
    "Transform": "EulerTransform",
    "Metric": "AdvancedMeanSquares",
    "Optimizer": "AdaptiveStochasticGradientDescent",
    "ImageSampler": "RandomCoordinate",
    "NumberOfSpatialSamples": 200,
    "MaximumNumberOfIterations": 4,
    "NumberOfGradientMeasurements": 2,
    "NumberOfJacobianMeasurements": 40,
    "NumberOfSamplesForExactGradient": 100,
    "NumberOfResolutions": 2,
    "FinalGridSpacingInVoxels": 6,
    "WriteTransformParametersEachResolution": "true",
    "WriteIterationInfo": "true",
}
BSPLINE = {**RIGID, "Transform": "BSplineTransform", "NumberOfResolutions": 3}
IMPACT = {
    **BSPLINE,
    "Metric": "Impact",
    "ImpactMode": "Static",
    "ImpactModelsPath0": "MIND/R1D1_3D.pt",
    "ImpactVoxelSize0": 1,
    "ImpactSubsetFeatures0": 4,
}


@pytest.fixture(autouse=True)
def models(tmp_path_factory, monkeypatch):
    monkeypatch.setenv("IMPACTREG_CACHE", str(tmp_path_factory.getbasetemp() / "models"))


def blobs(shift):
    axes = torch.meshgrid(*(torch.arange(n, dtype=torch.float32) for n in SHAPE), indexing="ij")
    centres = ((5, 6, 7), (9, 10, 8), (7, 4, 12))
    return Image.of(
        sum(
            100 * torch.exp(-sum((a - c - shift) ** 2 for a, c in zip(axes, centre, strict=True)) / 14)
            for centre in centres
        )
    )


FIXED, MOVING = blobs(0.0), blobs(1.3)


class Interrupt:
    """A watcher that interrupts the run as Ctrl-C does, before an iteration of a resolution of a stage is done."""

    def __init__(self, stage, level, number=2):
        self.where = (stage, level, number)

    def __call__(self, iteration):
        if (iteration.stage, iteration.level, iteration.number) == self.where:
            raise KeyboardInterrupt


def weighted(member):
    weights = torch.tensor([1.0], dtype=torch.float64)
    return Combination(WeightedCombinationTransform(weights, (member,), ("member.txt",)))


def run(maps, folder, **how):
    return register(FIXED, MOVING, maps, engine="torch", output_directory=folder, seed=7, **how)


def texts(folder):
    """All written texts but the logs, without times and folders."""
    found = {}
    for path in sorted(folder.glob("*.txt")):
        text = path.read_text().replace(str(folder), "")
        lines = [line.split("\t") for line in text.splitlines()]
        timed = path.name.startswith("IterationInfo")
        drop = {i for i, name in enumerate(lines[0]) if "Time" in name} if timed else set()
        found[path.name] = [[cell for i, cell in enumerate(line) if i not in drop] for line in lines]
    return found


@pytest.mark.parametrize(
    ("second", "stage", "level"),
    [(BSPLINE, 0, 0), (BSPLINE, 0, 1), (BSPLINE, 1, 0), (BSPLINE, 1, 2), (IMPACT, 1, 0), (IMPACT, 1, 1)],
)
def test_a_resumed_run_equals_one_that_was_never_interrupted(tmp_path, second, stage, level):
    maps = [RIGID, second]
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    expected = run(maps, whole)
    with pytest.raises(KeyboardInterrupt):
        run(maps, parts, callback=Interrupt(stage, level))
    assert (parts / FILE).is_file()
    seen = []
    result = run(maps, parts, resume=True, callback=seen.append)
    assert (seen[0].stage, seen[0].level, seen[0].number) == (stage, level, 0)
    assert torch.equal(result.transform.parameters, expected.transform.parameters)
    assert torch.equal(result.image.data, expected.image.data)
    assert texts(parts) == texts(whole)
    assert result.stop_reasons == expected.stop_reasons
    assert [len(t) for s in result.iterations for t in s] == [len(t) for s in expected.iterations for t in s]
    assert not (parts / FILE).exists()


def test_a_run_may_be_interrupted_more_than_once(tmp_path):
    expected = run([RIGID, BSPLINE], tmp_path / "whole")
    for number, where in enumerate([(0, 1), (1, 0), (1, 2)]):
        with pytest.raises(KeyboardInterrupt):
            run([RIGID, BSPLINE], tmp_path / "parts", resume=number > 0, callback=Interrupt(*where))
    result = run([RIGID, BSPLINE], tmp_path / "parts", resume=True)
    assert torch.equal(result.transform.parameters, expected.transform.parameters)


def test_an_interrupted_run_leaves_the_transform_of_its_last_complete_resolution(tmp_path):
    maps = [{**BSPLINE, "WriteTransformParametersEachResolution": "false"}]
    with pytest.raises(KeyboardInterrupt):
        run(maps, tmp_path, callback=Interrupt(0, 2))
    left = {path.name for path in tmp_path.glob("TransformParameters*")}
    assert left == {"TransformParameters.0.R1.txt"}
    assert ParameterMap.read(tmp_path / "TransformParameters.0.R1.txt").first("Transform") == "BSplineTransform"
    assert "last complete resolution" in (tmp_path / "elastix.log").read_text()


def test_the_log_of_a_resumed_run_goes_on(tmp_path):
    with pytest.raises(KeyboardInterrupt):
        run([RIGID], tmp_path, callback=Interrupt(0, 1))
    before = (tmp_path / "elastix.log").read_text()
    run([RIGID], tmp_path, resume=True)
    after = (tmp_path / "elastix.log").read_text()
    assert after.startswith(before)
    assert len(after) > len(before)


def test_only_the_same_run_is_resumed(tmp_path):
    with pytest.raises(KeyboardInterrupt):
        run([RIGID], tmp_path, callback=Interrupt(0, 1))
    with pytest.raises(OutputError, match="other images, parameters, seed or version"):
        run([{**RIGID, "NumberOfSpatialSamples": 201}], tmp_path, resume=True)
    with pytest.raises(OutputError, match="other images, parameters, seed or version"):
        register(MOVING, FIXED, [RIGID], engine="torch", output_directory=tmp_path, seed=7, resume=True)


def bump(values, by):
    """Values that differ in one inner place alone."""
    changed = values.clone()
    changed.reshape(-1)[changed.numel() // 2] += by
    return changed


def spline(by=0.0):
    grid = Grid.of((12, 11, 10), (2.0,) * 3, (-2.0,) * 3)
    return Combination(BSplineTransform(bump(torch.zeros(3 * grid.number_of_voxels, dtype=torch.float64), by), grid))


def flow(by=0.0):
    return Combination(DeformationFieldTransform(Image(bump(torch.zeros(3, *SHAPE), by), FIXED.grid)))


def turned(centre=0.0):
    parameters = torch.tensor([0.02, 0.0, 0.0, 0.5, 0.0, 0.0], dtype=torch.float64)
    return Combination(EulerTransform(parameters, torch.full((3,), centre, dtype=torch.float64)))


@pytest.mark.parametrize(
    ("first", "other"),
    [
        (spline(), spline(0.1)),
        (flow(), flow(0.1)),
        (turned(), turned(1.0)),
        (replace(spline(0.1), initial=turned()), replace(spline(0.1), initial=turned(), compose=False)),
        (replace(spline(), initial=flow()), replace(spline(), initial=flow(0.1))),
        (weighted(flow()), weighted(flow(0.1))),
    ],
    ids=["coefficient", "field", "centre", "how they combine", "first of a chain", "member"],
)
def test_no_run_goes_on_from_another_initial_transform(tmp_path, first, other):
    with pytest.raises(KeyboardInterrupt):
        run([RIGID], tmp_path, callback=Interrupt(0, 1), initial_transform=first)
    for initial in (other, None):
        with pytest.raises(OutputError, match="another initial transform"):
            run([RIGID], tmp_path, resume=True, initial_transform=initial)
    assert run([RIGID], tmp_path, resume=True, initial_transform=first).stop_reasons


def test_no_run_goes_on_from_a_field_whose_file_has_changed(tmp_path):
    field, out = tmp_path / "field.nii.gz", tmp_path / "out"
    write_image(flow().current.field, field)
    with pytest.raises(KeyboardInterrupt):
        run([RIGID], out, callback=Interrupt(0, 1), initial_transform=field)
    write_image(flow(0.1).current.field, field)
    with pytest.raises(OutputError, match="another initial transform"):
        run([RIGID], out, resume=True, initial_transform=field)


def test_a_mask_of_the_other_image_is_another_run(tmp_path):
    mask = Image(torch.ones(1, *SHAPE), FIXED.grid)
    with pytest.raises(KeyboardInterrupt):
        run([RIGID], tmp_path, callback=Interrupt(0, 1), fixed_mask=mask)
    with pytest.raises(OutputError, match="other images"):
        run([RIGID], tmp_path, resume=True, moving_mask=mask)


def test_what_cannot_be_resumed_is_told_in_one_line(tmp_path):
    with pytest.raises(OutputError, match=r"no run was interrupted in this folder; run without resuming"):
        run([RIGID], tmp_path, resume=True)
    with pytest.raises(OutputError, match="output folder is needed"):
        run([RIGID], None, resume=True)
    (tmp_path / FILE).write_bytes(b"PK nothing")
    with pytest.raises(OutputError, match=r"cannot be read; run without resuming"):
        run([RIGID], tmp_path, resume=True)


def test_a_run_that_fails_leaves_nothing_to_resume(tmp_path):
    far = {**RIGID, "AutomaticTransformInitialization": "false"}
    away = Image(MOVING.data, replace(MOVING.grid, origin=(500.0, 0.0, 0.0)))
    with pytest.raises(Exception, match="map outside"):
        register(FIXED, away, [far], engine="torch", output_directory=tmp_path)
    assert not (tmp_path / FILE).exists()


class FullDisk(Interrupt):
    """A watcher that fails as a result does that cannot be written."""

    def __call__(self, iteration):
        try:
            super().__call__(iteration)
        except KeyboardInterrupt:
            raise OutputError("result.0.nii: cannot be written: No space left on device") from None


def test_a_full_disk_loses_no_resolution_that_is_done(tmp_path):
    whole = run([RIGID], None)
    with pytest.raises(OutputError, match=r"No space left on device; what was done until then is kept: .* resume"):
        run([RIGID], tmp_path, callback=FullDisk(stage=0, level=1))
    resumed = run([RIGID], tmp_path, resume=True)
    assert torch.equal(resumed.transform.parameters, whole.transform.parameters)
    assert not (tmp_path / FILE).exists()


def test_a_full_disk_before_anything_is_done_leaves_nothing_to_resume(tmp_path):
    with pytest.raises(OutputError, match=r"No space left on device$"):
        run([RIGID], tmp_path, callback=FullDisk(stage=0, level=0))
    assert not (tmp_path / FILE).exists()


@pytest.mark.itk
def test_an_interrupted_elastix_stage_leaves_the_transform_of_its_last_complete_resolution(tmp_path):
    maps = ParameterMap.default("rigid", 2).replace({"MaximumNumberOfIterations": 100, "NumberOfSpatialSamples": 300})
    with pytest.raises(KeyboardInterrupt):
        register(FIXED, MOVING, maps, output_directory=tmp_path, callback=Interrupt(0, 1, 0))
    assert {path.name for path in tmp_path.glob("Transform*")} == {"TransformParameters.0.R0.txt"}
    result = register(FIXED, MOVING, maps, output_directory=tmp_path, resume=True)
    assert [len(rows) for rows in result.iterations[0]] == [100, 100]
