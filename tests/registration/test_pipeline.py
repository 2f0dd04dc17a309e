"""register() and plan(): every way in, everything that comes out, and nothing on the disk unless asked."""

import logging
import pickle
import tempfile

import nibabel
import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813
import torch

import impactreg
from impactreg.components.optimizers.optimizer import STOPPED
from impactreg.components.transforms.files import read_transform
from impactreg.components.transforms.linear import TranslationTransform
from impactreg.components.transforms.transform import Combination
from impactreg.errors import ModelError, OutputError, ParameterError, TransformError
from impactreg.images import Grid, Image, write_image
from impactreg.parameters import ParameterMap
from impactreg.registration import multi_resolution
from impactreg.registration.pipeline import as_maps, plan, register

SPACING, ORIGIN = (2.0, 1.5), (-20.0, 4.0)
KEYS = {
    "Registration": "MultiResolutionRegistration",
    "NumberOfResolutions": 2,
    "Interpolator": "LinearInterpolator",
    "ImageSampler": "RandomCoordinate",
    "NumberOfSpatialSamples": 100,
    "NewSamplesEveryIteration": True,
    "Metric": "AdvancedMeanSquares",
    "Transform": "EulerTransform",
    "Scales": 1000,
    "Optimizer": "StandardGradientDescent",
    "SP_a": 0.05,
    "MaximumNumberOfIterations": 4,
}
STATIC = {
    "Metric": "Impact",
    "ImpactMode": "Static",
    "ImpactModelsPath0": "MIND/R1D2_2D.pt",
    "ImpactVoxelSize0": 2,
    "SP_a": 1,
}


@pytest.fixture(autouse=True)
def models(tmp_path_factory, monkeypatch):
    """Built-in models are made in a folder of this test run."""
    monkeypatch.setenv("IMPACTREG_CACHE", str(tmp_path_factory.getbasetemp() / "models"))


def blob(shift=0.0, direction=None):
    grid = Grid.of((24, 28), SPACING, ORIGIN, direction)
    points = grid.points() - torch.tensor([2.0 + shift, 24.0 - shift])
    values = 100 * torch.exp(-(points**2).sum(dim=1) / 150)
    return Image(values.reshape(1, *grid.shape).float(), grid)


FIXED, MOVING = blob(), blob(2.0)


def run(fixed=FIXED, moving=MOVING, parameters=None, **more):
    return register(fixed, moving, parameters or KEYS, **{"engine": "torch", **more})


def shift(*by):
    return Combination(TranslationTransform(torch.tensor(by, dtype=torch.float64), torch.zeros(len(by)).double()))


@pytest.mark.parametrize(("shape", "second"), [((20, 20, 20), "mind-bspline"), ((20, 20), "mind-bspline-2d")])
def test_without_parameter_maps_those_for_most_pairs_are_taken(shape, second, caplog):
    caplog.set_level("INFO", logger="impactreg")
    image = Image.of(torch.rand(shape))
    stages = plan(image, image)
    assert [s.parameter_map.source.stem for s in stages] == ["rigid", second]
    assert f"No parameter map is named: rigid and {second} are used" in caplog.text


def as_nibabel(image):
    # RAS: x and y turn their signs
    affine = np.diag([-SPACING[0], -SPACING[1], 1, 1])
    affine[:2, 3] = -ORIGIN[0], -ORIGIN[1]
    return nibabel.Nifti1Image(image.numpy().T, affine)


def as_simpleitk(image):
    found = sitk.GetImageFromArray(image.numpy())
    found.SetSpacing(SPACING)
    found.SetOrigin(ORIGIN)
    return found


WAYS = {
    "numpy": lambda image, _: (image.numpy(), SPACING, ORIGIN),
    "torch": lambda image, _: (image.scalar, SPACING, ORIGIN),
    "nibabel": lambda image, _: as_nibabel(image),
    "SimpleITK": lambda image, _: as_simpleitk(image),
    "path": lambda image, folder: write_image(image, folder / "image.nii") or folder / "image.nii",
    "string": lambda image, folder: write_image(image, folder / "image.nii.gz") or str(folder / "image.nii.gz"),
}


@pytest.mark.parametrize("way", WAYS)
def test_images_may_be_anything(way, tmp_path):
    expected = run()
    found = run(moving=WAYS[way](MOVING, tmp_path))
    torch.testing.assert_close(found.transform.parameters, expected.transform.parameters, rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(found.image.data, expected.image.data, rtol=0, atol=1e-2)


def test_an_array_alone_has_voxels_of_one_millimetre():
    result = run(FIXED.numpy(), MOVING.numpy())
    assert result.image.grid == Grid.of((24, 28))


def test_parameters_may_be_a_dict_a_map_a_path_or_a_list_of_them(tmp_path):
    given = ParameterMap.from_dict(KEYS)
    given.write(tmp_path / "map.txt")
    ways = [KEYS, given, tmp_path / "map.txt", str(tmp_path / "map.txt"), [given], (KEYS,)]
    results = [run(parameters=way).transform.parameters for way in ways]
    assert all(torch.equal(found, results[0]) for found in results)


def test_a_shipped_map_is_found_by_its_name():
    (found,) = as_maps("rigid")
    assert found["Transform"] == ("EulerTransform",)


@pytest.mark.parametrize(
    ("given", "message"), [([], "at least one parameter map is needed"), (3, "a parameter map is a path"), ([3], "int")]
)
def test_something_else_is_no_parameter_map(given, message):
    with pytest.raises(ParameterError, match=message):
        as_maps(given)


def test_the_result_holds_everything():
    result = run()
    image, transform = result
    assert image.grid == FIXED.grid
    assert transform is result.transform
    before, after = (float((i.data - FIXED.data).abs().mean()) for i in (MOVING, image))
    assert after < 0.7 * before
    (parameters,) = result.transform_parameter_maps
    assert parameters.numbers("TransformParameters") == pytest.approx(transform.parameters.tolist())
    assert [len(rows) for rows in result.iterations[0]] == [4, 4]
    assert len(result.stop_reasons[0]) == 2
    assert result.output_directory is None


@pytest.mark.parametrize("keys", [KEYS, {**KEYS, **STATIC, "Transform": "BSplineTransform"}])
def test_in_memory_the_disk_is_not_touched(tmp_path, monkeypatch, keys):
    plan(FIXED, MOVING, keys, engine="torch")  # makes the built-in model, once for all runs
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    run(parameters=keys)
    assert list(tmp_path.iterdir()) == []


def test_a_result_can_be_pickled():
    result = run(parameters=[KEYS, {**KEYS, "Transform": "BSplineTransform"}])
    again = pickle.loads(pickle.dumps(result))
    points = FIXED.grid.points()
    assert torch.equal(again.transform(points), result.transform(points))
    assert torch.equal(again.image.data, result.image.data)
    assert again.transform_parameter_maps == result.transform_parameter_maps
    assert again.iterations == result.iterations


def test_a_folder_gets_the_files_of_every_stage(tmp_path):
    result = run(parameters=[KEYS, KEYS], output_directory=tmp_path / "out")
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert {f"TransformParameters.{i}.txt" for i in (0, 1)} <= names
    assert {f"IterationInfo.{i}.R{k}.txt" for i in (0, 1) for k in (0, 1)} <= names
    assert result.output_directory == tmp_path / "out"


def test_a_folder_that_cannot_be_written_is_told_before_the_run(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match="the output folder cannot be written"):
        run(output_directory=tmp_path / "file", callback=pytest.fail)


def test_the_same_seed_gives_the_same_result_and_another_one_another():
    first, again, other = (run(seed=seed).transform.parameters for seed in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_global_random_numbers_neither_matter_nor_change():
    torch.manual_seed(0)
    before = torch.get_rng_state()
    first = run().transform.parameters
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(1)
    assert torch.equal(run().transform.parameters, first)


def test_a_chain_of_two_maps_equals_the_second_started_with_the_transform_of_the_first():
    first, second = KEYS, {**KEYS, "Transform": "BSplineTransform", "FinalGridSpacingInPhysicalUnits": 16, "SP_a": 1}
    chain = run(parameters=[first, second])
    apart = run(parameters=second, initial_transform=run(parameters=first).transform)
    points = FIXED.grid.points()
    assert torch.equal(chain.transform(points), apart.transform(points))
    assert len(chain.iterations) == len(chain.transform_parameter_maps) == 2
    assert [len(c.chain()) for c in (chain.transform, apart.transform)] == [2, 2]


def test_an_initial_transform_may_be_a_file_a_map_or_a_transform(tmp_path):
    keys = {"Transform": "TranslationTransform", "NumberOfParameters": 2, "TransformParameters": [2, -2]}
    given = ParameterMap.from_dict(keys)
    given.write(tmp_path / "initial.txt")
    matrix = [[1.0, 0, 2], [0, 1, -2], [0, 0, 1]]
    ways = [given, tmp_path / "initial.txt", str(tmp_path / "initial.txt"), shift(2, -2), torch.tensor(matrix)]
    results = [run(initial_transform=way).transform(FIXED.grid.points()) for way in ways]
    assert all(torch.allclose(found, results[0]) for found in results)
    assert not torch.allclose(run().transform(FIXED.grid.points()), results[0])


def test_an_initial_transform_that_is_missing_is_told(tmp_path):
    with pytest.raises((TransformError, ParameterError), match=r"none\.txt"):
        run(initial_transform=tmp_path / "none.txt")


def test_an_initial_transform_of_another_dimension_is_told():
    with pytest.raises(TransformError, match="the initial transform is 3D, but the images are 2D; give one that was"):
        run(initial_transform=shift(1, 2, 3))
    with pytest.raises(TransformError, match="the initial transform is 3D"):
        plan(FIXED, MOVING, KEYS, initial_transform=shift(1, 2, 3))


def test_a_file_of_an_earlier_run_is_not_taken_for_the_transform_before(tmp_path):
    maps = [{**KEYS, "NumberOfResolutions": 1}] * 2
    run(parameters=maps, output_directory=tmp_path)
    silent = {**maps[0], "SP_a": 0.5, "WriteFinalTransformParameters": "false"}
    result = run(parameters=[silent, maps[1]], output_directory=tmp_path)
    points = FIXED.grid.points()
    read = read_transform(tmp_path / "TransformParameters.1.txt")
    torch.testing.assert_close(read(points), result.transform(points), atol=1e-6, rtol=0)


def test_a_log_that_cannot_be_written_leaves_nothing_to_resume(tmp_path):
    with pytest.raises(OutputError, match="cannot be written"):
        run(output_directory=tmp_path, log="nowhere/elastix.log")
    assert not list(tmp_path.iterdir())


def test_masks_may_be_anything_as_well():
    inside = np.zeros(FIXED.grid.shape, dtype=np.uint8)
    inside[4:-4, 6:-4] = 1
    mask = FIXED.with_data(torch.as_tensor(inside)[None])
    expected = run(fixed_mask=mask)
    found = run(fixed_mask=(inside, SPACING, ORIGIN))
    assert torch.equal(found.transform.parameters, expected.transform.parameters)
    assert not torch.equal(found.transform.parameters, run().transform.parameters)


def test_the_callback_stops_all_stages():
    seen = []

    def watch(iteration):
        seen.append((iteration.stage, iteration.level, iteration.number))
        return iteration.stage == 1

    result = run(parameters=[KEYS] * 3, callback=watch)
    assert seen[-2:] == [(0, 1, 3), (1, 0, 0)]
    assert len(result.iterations) == 2
    assert result.stop_reasons[1] == (STOPPED,)
    assert result.image is not None


def test_an_unknown_key_is_told_with_its_nearest_spelling(caplog, tmp_path):
    ParameterMap.from_dict({**KEYS, "NumberOfSpatialSample": 7}).write(tmp_path / "map.txt")
    run(parameters=tmp_path / "map.txt", output_directory=tmp_path / "out")
    (told,) = [r.getMessage() for r in caplog.records if r.levelno == logging.WARNING]
    assert "map.txt:" in told
    assert "(NumberOfSpatialSample ...) is not read by any component; did you mean NumberOfSpatialSamples?" in told
    assert told in (tmp_path / "out" / "elastix.log").read_text()


def test_known_keys_are_not_warned_of(caplog):
    run()
    assert not [r for r in caplog.records if r.levelno >= logging.WARNING]


def test_a_run_that_moves_to_another_device_goes_on_as_before(monkeypatch, caplog):
    keys = {**KEYS, "NumberOfResolutions": 2, "ImpactGPU": -1}
    expected = run(parameters=keys)
    # The only device that is everywhere, under another name.
    monkeypatch.setattr(
        multi_resolution, "device_of_level", lambda _, level, here: torch.device("cpu", 0) if level else here
    )
    with caplog.at_level("INFO", logger="impactreg"):
        found = run(parameters=keys)
    assert "Resolution 1 runs on cpu:0" in caplog.text
    assert torch.equal(found.transform.parameters, expected.transform.parameters)


def test_a_gpu_that_is_not_there_is_warned_of_once(caplog, monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    keys = {**KEYS, **STATIC, "NumberOfResolutions": 1, "ImpactGPU": 0}
    result = run(parameters=[keys, keys])
    told = [r.getMessage() for r in caplog.records if "CUDA" in r.getMessage()]
    assert told == ["(ImpactGPU 0): there is no such CUDA device; the registration runs on the CPU"]
    assert result.transform.parameters.device.type == "cpu"


def test_nothing_runs_when_a_later_map_is_wrong():
    with pytest.raises(ParameterError, match="SP_a"):
        run(parameters=[KEYS, {**KEYS, "SP_a": "much"}], callback=pytest.fail)
    with pytest.raises(ModelError, match="nowhere"):
        run(parameters=[KEYS, {**KEYS, **STATIC, "ImpactModelsPath0": "nowhere.pt"}], callback=pytest.fail)


@pytest.mark.parametrize("engine", ["torch", "auto"])
@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"Metric": "AdvancedMeanSquare"}, r"did you mean 'AdvancedMeanSquares'\?"),
        ({"Transform": "SplineTransform"}, "did you mean"),
        ({"Optimizer": "None"}, "no such Optimizer"),
        ({"NumberOfResolutions": "many"}, "NumberOfResolutions"),
        ({"NumberOfResolutions": 0}, "NumberOfResolutions"),
        ({"FixedImageDimension": "two"}, "FixedImageDimension"),
        ({"ImpactGPU": "yes"}, "ImpactGPU"),
    ],
)
def test_a_wrong_name_or_number_is_told(keys, message, engine):
    with pytest.raises(ParameterError, match=message):
        plan(FIXED, MOVING, {**KEYS, **keys}, engine=engine)


def test_an_engine_that_is_not_there_is_told():
    with pytest.raises(ParameterError, match="engine 'itk': there are auto, torch, elastix"):
        run(engine="itk")


def test_the_elastix_engine_refuses_what_only_the_torch_loop_has():
    with pytest.raises(ParameterError, match=r"itk-elastix has no .*Impact.*; use --engine torch"):
        run(parameters={**KEYS, **STATIC}, engine="elastix")


def test_the_plan_tells_engine_components_models_and_unknown_keys():
    maps = [{**KEYS, "Typo": 1}, {**KEYS, **STATIC}, KEYS]
    plain, static, delegated = plan(FIXED, MOVING, maps[:1], engine="torch") + plan(FIXED, MOVING, maps[1:])
    assert (plain.engine, static.engine, delegated.engine) == ("torch", "torch", "elastix")
    assert (plain.number, static.number, delegated.number) == (0, 0, 1)
    assert plain.levels == 2
    assert plain.components["Transform"] == ("EulerTransform",)
    assert [u.key for u in plain.unknown] == ["Typo"]
    ((written, path),) = static.models
    assert written == "MIND/R1D2_2D.pt"
    assert path.is_file()


def test_a_plan_is_refused_as_the_run_would_be():
    with pytest.raises(ParameterError, match="SP_a"):
        plan(FIXED, MOVING, {**KEYS, "SP_a": "much"}, engine="torch")
    with pytest.raises(ModelError, match="nowhere"):
        plan(FIXED, MOVING, {**KEYS, **STATIC, "ImpactModelsPath0": "nowhere.pt"})


def test_model_folders_are_searched(tmp_path):
    plan(FIXED, MOVING, {**KEYS, **STATIC})
    ((_, made),) = plan(FIXED, MOVING, {**KEYS, **STATIC})[0].models
    (tmp_path / "own.pt").write_bytes(made.read_bytes())
    keys = {**KEYS, **STATIC, "ImpactModelsPath0": "/Data/Models/own.pt"}
    ((_, found),) = plan(FIXED, MOVING, keys, models=[tmp_path])[0].models
    assert found == tmp_path / "own.pt"
    assert len(run(parameters=keys, models=[str(tmp_path)]).iterations[0][0]) == 4
    assert plan(FIXED, MOVING, keys, models=str(tmp_path))[0].models[0][1] == found


def test_the_face_of_the_package_is_this_function():
    assert impactreg.register is register


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        (
            {"Optimizer": "Powell"},
            "no such Optimizer.*; itk-elastix has all that this file names: use --engine elastix",
        ),
        ({"Optimizer": "Foo"}, 'no such Optimizer.*; itk-elastix has no Optimizer "Foo"'),
        ({"ResampleInterpolator": "FinalRayCastInterpolator"}, "itk-elastix cannot run this file either"),
        (
            {"Optimizer": "Powell", "Interpolator": "RayCastInterpolator"},
            'the PyTorch loop has no Interpolator "RayCastInterpolator", Optimizer "Powell"; .*use --engine elastix',
        ),
        ({"Registration": "MultiResolutionRegistrationWithFeatures"}, "use --engine elastix"),
    ],
)
def test_what_the_loop_lacks_is_told_with_the_engine_that_has_it(keys, message):
    with pytest.raises(ParameterError, match=message):
        plan(FIXED, MOVING, {**KEYS, **keys}, engine="torch")


def test_keys_of_a_delegated_stage_are_checked_too():
    (stage,) = plan(FIXED, MOVING, {**KEYS, "RandomSed": 1}, engine="elastix")
    assert [(each.key, each.suggestion) for each in stage.unknown] == [("RandomSed", "RandomSeed")]
