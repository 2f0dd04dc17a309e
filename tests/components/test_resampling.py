"""Resample interpolators, the resampler, and the grid of the result."""

import pytest
import torch

from impactreg.components.resampling import Output, ResampleInterpolator, Resampler, grid_of
from impactreg.components.transforms.linear import TranslationTransform
from impactreg.errors import ParameterError, TransformError
from impactreg.images import Grid, Image
from impactreg.parameters import ParameterMap

GRID = Grid.of((4, 3), (2, 3), (1, 2), [[0, -1], [1, 0]])


def output(grid=GRID, **keys):
    return Output.of(ParameterMap.from_dict(keys), grid)


def test_the_defaults_are_elastix_s():
    interpolator, resampler = output().written()
    assert interpolator == {"ResampleInterpolator": ["FinalBSplineInterpolator"], "FinalBSplineInterpolationOrder": [3]}
    assert resampler == {
        "Resampler": ["DefaultResampler"],
        "DefaultPixelValue": [0.0],
        "ResultImageFormat": ["mhd"],
        "ResultImagePixelType": ["short"],
        "CompressResultImage": ["false"],
    }


@pytest.mark.parametrize(
    ("name", "order", "clamped"),
    [
        ("FinalBSplineInterpolator", 3, False),
        ("FinalBSplineInterpolatorFloat", 3, False),
        ("FinalLinearInterpolator", 1, True),
        ("FinalNearestNeighborInterpolator", 0, False),
    ],
)
def test_every_interpolator_has_its_order(name, order, clamped):
    interpolator = output(ResampleInterpolator=name).interpolator
    assert (interpolator.order, interpolator.clamped) == (order, clamped)
    assert interpolator.written()["ResampleInterpolator"] == [name]


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"FinalBSplineInterpolationOrder": 4}, "0, 1, 2 or 3 is needed"),
        ({"ResultImagePixelType": "colour"}, 'pixel type "colour" is not known'),
        ({"ResultImageFormat": "jpg"}, "one of nii, nii.gz, mha, mhd, nrrd"),
        (
            {"ResultImageFormat": "dcm", "ResultImagePixelType": "float"},
            'a DICOM file takes "short" or "unsigned short"',
        ),
        ({"ResampleInterpolator": "FinalLinearInterpolatr"}, "did you mean 'FinalLinearInterpolator'"),
        ({"Resampler": "MyResampler"}, "no such Resampler"),
        ({"CompressResultImage": "yes"}, '"true" or "false" is needed'),
    ],
)
def test_wrong_values_are_told(keys, message):
    with pytest.raises(ParameterError, match=message):
        output(**keys)


def test_all_components_can_be_found_by_name():
    assert Resampler.named("DefaultResampler").kind == "Resampler"
    assert ResampleInterpolator.named("FinalLinearInterpolator").kind == "ResampleInterpolator"


def test_the_default_pixel_value_fills_what_lies_outside():
    image = Image(torch.ones(1, *GRID.shape), GRID)
    far = TranslationTransform(torch.tensor([1e4, 0]).double(), torch.zeros(2).double())
    assert (output(DefaultPixelValue=-7.5).resample(image, far).data == -7.5).all()


def test_without_direction_cosines_axes_are_the_world_s_and_the_result_gets_its_direction_back():
    image = Image(torch.arange(12.0).reshape(1, *GRID.shape), GRID)
    one_voxel = TranslationTransform(torch.tensor([2.0, 0]).double(), torch.zeros(2).double())
    result = output(UseDirectionCosines=False, FinalBSplineInterpolationOrder=1).resample(image, one_voxel)
    assert result.grid == GRID
    assert torch.allclose(result.scalar[:, :-1], image.scalar[:, 1:])


def test_a_grid_is_read_as_it_is_written_column_by_column():
    keys = {"Size": [4, 3], "Spacing": [2, 3], "Origin": [1, 2], "Direction": [0, 1, -1, 0]}
    assert grid_of(ParameterMap.from_dict(keys)) == GRID
    shifted = grid_of(ParameterMap.from_dict({**keys, "Index": [2, 0]}))
    assert shifted.origin == (1, 6)


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({}, r"\(Size \.\.\.\) with 2 or 3 numbers is needed"),
        (
            {"Size": [4, 3], "Spacing": [1, 1], "Origin": [0, 0], "Direction": [1, 0]},
            r"\(Direction \.\.\.\) with 4 numbers",
        ),
        ({"Size": [4, 0], "Spacing": [1, 1], "Origin": [0, 0], "Direction": [1, 0, 0, 1]}, "positive"),
    ],
)
def test_a_file_without_a_grid_is_told(keys, message):
    with pytest.raises(TransformError, match=message):
        grid_of(ParameterMap.from_dict(keys))
