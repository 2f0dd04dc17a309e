"""TransformParameters files."""

import logging

import pytest
import torch

from impactreg.components.resampling import Output
from impactreg.components.transforms.displacement import DeformationFieldTransform
from impactreg.components.transforms.files import TransformWriter, read_transform, text_of, transform_map
from impactreg.components.transforms.itk_text import to_itk
from impactreg.components.transforms.transform import Combination
from impactreg.errors import ImpactregError, ParameterError, TransformError
from impactreg.images import Grid, Image
from impactreg.parameters import ParameterMap

GRID = Grid.of((10, 11, 12), (1, 2, 3), (-1, 0.1, 1 / 3), [[0, -1, 0], [1, 0, 0], [0, 0, 1]])
MAP = ParameterMap.from_dict({"ResultImageFormat": "mha", "DefaultPixelValue": -1000})


def writer(parameter_map=MAP, grid=GRID, **more):
    return TransformWriter(Output.of(parameter_map, grid), parameter_map, **more)


def grid_for(transform):
    n = transform.dimension
    return Grid.of(GRID.size[:n], GRID.spacing[:n], GRID.origin[:n], [row[:n] for row in GRID.direction[:n]])


def write_chain(folder, *transforms, compose=True):
    """Files 0, 1, ... that refer to each other."""
    combination, name = None, "NoInitialTransform"
    for number, each in enumerate(transforms):
        combination = Combination(each, combination, compose)
        path, _ = writer(initial=name).write(combination, folder, str(number))
        name = str(path)
    return path, combination


def test_every_transform_comes_back_as_it_was_written(transform, sample, tmp_path):
    points = sample(transform.dimension)
    path, content = writer(grid=grid_for(transform)).write(Combination(transform), tmp_path, "0")
    assert torch.equal(read_transform(path)(points), transform(points))
    assert ParameterMap.read(path) == content
    assert torch.equal(read_transform(content)(points), transform(points))


def test_toml_files_hold_the_same(transform, sample, tmp_path):
    points = sample(transform.dimension)
    path, content = writer(grid=grid_for(transform), toml=True).write(Combination(transform), tmp_path, "0")
    assert path.name == "TransformParameters.0.toml"
    assert ParameterMap.read(path) == content
    assert torch.equal(read_transform(path)(points), transform(points))


def test_the_text_is_laid_out_as_elastix_does(transforms):
    text = text_of(transform_map(Combination(transforms["euler"]), Output.of(MAP, GRID), MAP))
    assert text == (
        "(CenterOfRotationPoint 3 4 5)\n"
        '(ComputeZYX "false")\n'
        "(Direction 0 1 0 -1 0 0 0 0 1)\n"
        "(FixedImageDimension 3)\n"
        '(FixedInternalImagePixelType "float")\n'
        '(HowToCombineTransforms "Compose")\n'
        "(Index 0 0 0)\n"
        '(InitialTransformParameterFileName "NoInitialTransform")\n'
        "(MovingImageDimension 3)\n"
        '(MovingInternalImagePixelType "float")\n'
        "(NumberOfParameters 6)\n"
        "(Origin -1 0.1 0.3333333333333333)\n"
        "(Size 10 11 12)\n"
        "(Spacing 1 2 3)\n"
        '(Transform "EulerTransform")\n'
        "(TransformParameters 0.1 0.2 -0.3 4 5 6)\n"
        '(UseDirectionCosines "true")\n'
        "\n// ResampleInterpolator specific\n"
        "(FinalBSplineInterpolationOrder 3)\n"
        '(ResampleInterpolator "FinalBSplineInterpolator")\n'
        "\n// Resampler specific\n"
        '(CompressResultImage "false")\n'
        "(DefaultPixelValue -1000)\n"
        '(Resampler "DefaultResampler")\n'
        '(ResultImageFormat "mha")\n'
        '(ResultImagePixelType "short")\n'
    )


def test_the_name_that_the_parameter_file_gave_is_kept(transforms):
    named = ParameterMap.from_dict({"Transform": "RecursiveBSplineTransform"})
    content = transform_map(Combination(transforms["spline 3"]), Output.of(named, GRID), named)
    assert content.first("Transform") == "RecursiveBSplineTransform"


@pytest.mark.parametrize("compose", [True, False])
def test_a_chain_of_files_is_followed(transforms, sample, tmp_path, compose):
    members = [transforms[name] for name in ("euler", "spline 3", "affine")]
    path, combination = write_chain(tmp_path, *members, compose=compose)
    read = read_transform(path)
    assert len(read.chain()) == 3
    assert torch.equal(read(sample(3)), combination(sample(3)))


def test_maps_in_a_list_are_a_chain_whose_references_are_ignored(transforms, sample, tmp_path):
    path, combination = write_chain(tmp_path, transforms["euler"], transforms["affine"])
    maps = [ParameterMap.read(p) for p in sorted(tmp_path.glob("*.txt"))]
    path.unlink()
    (tmp_path / "TransformParameters.0.txt").unlink()
    assert torch.equal(read_transform(maps)(sample(3)), combination(sample(3)))


def test_a_relative_name_means_the_working_folder_first_and_then_the_folder_of_the_file(
    transforms, sample, tmp_path, monkeypatch
):
    for folder, name in (("here", "euler"), ("there", "affine")):
        (tmp_path / folder).mkdir()
        writer().write(Combination(transforms[name]), tmp_path / folder, "0")
    on_top = writer(initial="TransformParameters.0.txt")
    path, _ = on_top.write(Combination(transforms["translation"]), tmp_path / "there", "1")
    points = sample(3)
    shift = transforms["translation"]
    monkeypatch.chdir(tmp_path)
    assert torch.equal(read_transform(path)(points), shift(transforms["affine"](points)))
    monkeypatch.chdir(tmp_path / "here")
    assert torch.equal(read_transform(path)(points), shift(transforms["euler"](points)))


def test_a_folder_that_has_moved_is_still_read_and_a_warning_tells(transforms, sample, tmp_path, caplog):
    (tmp_path / "old").mkdir()
    path, combination = write_chain(tmp_path / "old", transforms["euler"], transforms["affine"])
    (tmp_path / "old").rename(tmp_path / "new")
    with caplog.at_level(logging.WARNING):
        read = read_transform(tmp_path / "new" / path.name)
    assert torch.equal(read(sample(3)), combination(sample(3)))
    assert "beside it" in caplog.text


def test_the_old_spelling_is_read_with_a_warning(transforms, sample, tmp_path, caplog):
    path, combination = write_chain(tmp_path, transforms["euler"], transforms["affine"])
    path.write_text(path.read_text().replace("InitialTransformParameterFile", "InitialTransformParametersFile"))
    with caplog.at_level(logging.WARNING):
        read = read_transform(path)
    assert torch.equal(read(sample(3)), combination(sample(3)))
    assert "old spelling" in caplog.text


def test_a_chain_of_five_over_several_folders_is_followed(transforms, sample, tmp_path, monkeypatch):
    """Each file names the one before it relative to its own folder."""
    names = ("euler", "affine", "spline 3", "similarity", "translation")
    folders = [tmp_path / "a", tmp_path / "a" / "b", tmp_path, tmp_path / "c", tmp_path / "c"]
    initials = ["NoInitialTransform", "../TransformParameters.0.txt", "a/b/TransformParameters.1.txt"]
    initials += ["../TransformParameters.2.txt", "TransformParameters.3.txt"]
    chain = None
    for number, (name, folder, initial) in enumerate(zip(names, folders, initials, strict=True)):
        folder.mkdir(parents=True, exist_ok=True)
        chain = Combination(transforms[name], chain)
        path, _ = writer(initial=initial).write(chain, folder, str(number))
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    read = read_transform(path)
    assert len(read.chain()) == 5
    assert torch.equal(read(sample(3)), chain(sample(3)))


def test_a_chain_that_comes_back_to_itself_is_refused(transforms, tmp_path):
    for number, other in ((0, 1), (1, 0)):
        initial = str(tmp_path / f"TransformParameters.{other}.txt")
        path, _ = writer(initial=initial).write(Combination(transforms["euler"]), tmp_path, str(number))
    with pytest.raises(TransformError, match="never ends"):
        read_transform(path)
    writer(initial=str(path)).write(Combination(transforms["euler"]), tmp_path, "1")
    with pytest.raises(TransformError, match="never ends"):
        read_transform(path)


@pytest.mark.parametrize(
    ("keys", "extension", "message"),
    [
        ({}, "foo", r"ITKTransformOutputFileNameExtension.*one of h5, tfm"),
        ({}, "txt", "itk.txt"),
        ({"Transform": "BSplineTransform", "BSplineTransformSplineOrder": 2}, "h5", "order 3 alone"),
    ],
)
def test_an_itk_file_that_could_not_be_written_is_told_before_anything_runs(keys, extension, message):
    given = {**keys, "ITKTransformOutputFileNameExtension": extension}
    with pytest.raises(ParameterError, match=message):
        writer(ParameterMap.from_dict(given), extension=extension)


def test_a_composite_that_itk_cannot_hold_costs_no_results(transforms, tmp_path, caplog):
    chain = Combination(transforms["euler"], transforms["affine"], compose=False)
    path, _ = writer(extension="tfm", composite=True).write(chain, tmp_path, "1")
    assert path.exists()
    assert "Composite.tfm is not written" in caplog.text


@pytest.mark.parametrize("extension", ["tfm", "itk.txt"])
def test_an_itk_transform_is_written_and_referred_to(transform, sample, tmp_path, extension):
    grid = grid_for(transform)
    path, content = writer(grid=grid, extension=extension).write(Combination(transform), tmp_path, "0")
    assert (tmp_path / f"TransformParameters.0.{extension}").exists()
    assert content.first("Transform") == "File"
    assert "NumberOfParameters" in content
    assert not {"TransformParameters", "CenterOfRotationPoint", "GridSize"} & set(content)
    points = sample(transform.dimension)
    assert torch.allclose(read_transform(path)(points), transform(points), rtol=0, atol=1e-12)


def test_a_composite_of_the_whole_chain_is_written_when_asked(transforms, sample, tmp_path):
    chain = Combination(transforms["spline 3"], Combination(transforms["euler"]))
    writer(extension="tfm", composite=True).write(chain, tmp_path, "1")
    read = read_transform(tmp_path / "TransformParameters.1-Composite.tfm")
    assert torch.allclose(read(sample(3)), chain(sample(3)), rtol=0, atol=1e-12)


def test_itk_parameters_stand_in_for_elastix_ones(transform, sample):
    itk, n = to_itk(transform), transform.dimension
    given = {
        "Transform": transform.names[0],
        "ITKTransformParameters": list(itk.parameters),
        "ITKTransformFixedParameters": list(itk.fixed_parameters),
        "BSplineTransformSplineOrder": itk.order,
        "FixedImageDimension": n,
    }
    read = read_transform(ParameterMap.from_dict(given))
    assert torch.allclose(read(sample(n)), transform(sample(n)), rtol=0, atol=1e-12)


def test_a_field_in_memory_is_stored_beside_its_file(sample, tmp_path):
    grid = Grid.of((5, 6, 7), (5, 4, 3.5), (-11, -12, -9))
    transform = DeformationFieldTransform(Image(torch.randn(3, *grid.shape), grid), 1)
    path, content = writer(MAP).write(Combination(transform), tmp_path, "2")
    assert content.first("DeformationFieldFileName") == str(tmp_path / "DeformationFieldImage.2.mha")
    assert (tmp_path / "DeformationFieldImage.2.mha").exists()
    assert path.exists()


def test_numbers_are_written_so_that_they_come_back_exactly(transforms, tmp_path):
    odd = transforms["euler"].with_parameters(
        torch.tensor([1 / 3, 1e-17, -1e300, 2.5e-7, 0.0, 123456789.123456789], dtype=torch.float64)
    )
    path, _ = writer().write(Combination(odd), tmp_path, "0")
    assert torch.equal(read_transform(path).parameters, odd.parameters)


BAD = {
    "external": (
        '(Transform "ExternalTransform")\n(TransformAddress "0x1")',
        "in the memory of the program that wrote",
    ),
    "labels": ('(Transform "MultiBSplineTransformWithNormal")', "use elastix's transformix"),
    "four dimensions": (
        '(FixedImageDimension 4)\n(Transform "TranslationTransform")\n(TransformParameters 1 2 3 4)',
        "t.txt:1: transforms of 2D and 3D images are read here, and this one is 4D; use elastix's own transformix",
    ),
    "four dimensions by its size": ('(Size 1 1 1 1)\n(Transform "EulerStackTransform")', "this one is 4D"),
    "no transform": ("(Size 1 1 1)", "is missing, so this is no transform parameter file"),
    "unknown": ('(Transform "EulerTransfrom")', "did you mean 'EulerTransform'"),
    "a registration file": ('(Transform "EulerTransform")\n(CenterOfRotationPoint 0 0 0)', "TransformParameters"),
    "too few": (
        '(Transform "EulerTransform")\n(CenterOfRotationPoint 0 0 0)\n(TransformParameters 1 2 3)',
        "6 are needed",
    ),
    "count": (
        '(Transform "TranslationTransform")\n(NumberOfParameters 4)\n(TransformParameters 1 2 3)',
        "3 TransformParameters are given",
    ),
    "word": ('(Transform "TranslationTransform")\n(TransformParameters 1 2 "x")', "a number is needed"),
    "odd count": ('(Transform "TranslationTransform")\n(NumberOfParameters x)\n(TransformParameters 1 2 3)', "t.txt"),
    "no initial": (
        '(Transform "TranslationTransform")\n(TransformParameters 1 2 3)\n'
        '(InitialTransformParameterFileName "gone.txt")',
        'gone.txt"): there is no such file',
    ),
    "no itk file": ('(Transform "File")\n(TransformFileName "gone.tfm")', "no such file"),
    "grid": (
        '(Transform "BSplineTransform")\n(GridSize 4 4)\n(GridSpacing 0 1)\n(TransformParameters ' + "0 " * 32 + ")",
        "positive",
    ),
    "order": (
        '(Transform "BSplineTransform")\n(GridSize 4 4)\n(BSplineTransformSplineOrder 5)\n(TransformParameters '
        + "0 " * 32
        + ")",
        "1, 2 or 3",
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_a_bad_file_is_one_clear_line(tmp_path, name):
    text, message = BAD[name]
    (tmp_path / "t.txt").write_text(text)
    with pytest.raises(ImpactregError) as error:
        read_transform(tmp_path / "t.txt")
    assert message in str(error.value)
    assert "t.txt" in str(error.value)
    assert "\n" not in str(error.value)


def test_a_missing_file_and_another_kind_of_file_are_told(tmp_path):
    with pytest.raises(TransformError, match="no such transform file"):
        read_transform(tmp_path / "t.txt")
    (tmp_path / "t.doc").write_text("x")
    with pytest.raises(ParameterError, match=r"\.txt or \.toml"):
        read_transform(tmp_path / "t.doc")
    with pytest.raises(TransformError, match="at least one"):
        read_transform([])


def test_two_and_three_dimensions_do_not_mix(transforms, tmp_path):
    maps = [
        transform_map(Combination(transforms[n]), Output.of(MAP, grid_for(transforms[n])), MAP)
        for n in ("euler", "euler 2D")
    ]
    with pytest.raises(TransformError, match="2D transform cannot follow a 3D one"):
        read_transform(maps)
