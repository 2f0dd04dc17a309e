"""Image pyramids: schedules and their rules, and every kind against real elastix."""

import logging

import numpy as np
import pytest
import torch

from impactreg.components.pyramid_filters import recursive_gaussian, resampled_grid
from impactreg.components.pyramids import ImagePyramid
from impactreg.errors import ImageError, ParameterError
from impactreg.images.image import Image
from impactreg.parameters import ParameterMap

KINDS = ("Smoothing", "Recursive", "Shrinking", "Generic")


def pyramid(kind, role="fixed", levels=2, dimension=2, label=0, **keys):
    component = ImagePyramid.named(f"{role.title()}{kind}ImagePyramid")
    parameters = ParameterMap.from_dict(keys)
    settings = component.Settings.read(parameters, label=f"{role.title()}ImagePyramid{label}", dimension=dimension)
    return component(settings, role, levels, dimension)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("role", ["fixed", "moving"])
def test_factors_are_powers_of_two_by_default(kind, role):
    made = pyramid(kind, role, levels=3)
    assert [made.factors(level) for level in range(3)] == [(4, 4), (2, 2), (1, 1)]


@pytest.mark.parametrize("role", ["fixed", "moving"])
def test_the_schedule_of_one_image_has_precedence_entry_by_entry(role):
    keys = {
        "ImagePyramidSchedule": [8, 7, 6, 5],
        f"{role.title()}ImagePyramidSchedule": [4, 3],
        f"{role.title()}ImagePyramid1Schedule": [2],
    }
    assert pyramid("Smoothing", role, label=1, **keys).schedule == ((2, 3), (6, 5))
    assert pyramid("Smoothing", role, label=0, **keys).schedule == ((4, 3), (6, 5))


def test_the_schedule_of_the_other_image_does_not_count():
    assert pyramid("Smoothing", "moving", FixedImagePyramidSchedule=[9] * 4).schedule == ((2, 2), (1, 1))


def test_a_schedule_that_is_too_short_is_not_used_at_all(caplog):
    assert pyramid("Smoothing", ImagePyramidSchedule=[4, 4, 2]).schedule == ((2, 2), (1, 1))
    assert "the fixed image pyramid schedule has 3 of 4 values: the default schedule is used" in caplog.text


def test_surplus_values_are_told_and_not_used(caplog):
    assert pyramid("Recursive", ImagePyramidSchedule=[6, 4, 3, 2, 1, 1]).schedule == ((6, 4), (3, 2))
    assert "has 6 values, of which the first 4 are used" in caplog.text


def test_only_the_smoothing_pyramid_takes_zeros_and_rising_factors(caplog):
    keys = {"ImagePyramidSchedule": [2, 0, 4, 1]}
    assert pyramid("Smoothing", **keys).schedule == ((2, 0), (4, 1))
    assert not caplog.records
    for kind in ("Recursive", "Shrinking", "Generic"):
        assert pyramid(kind, **keys).schedule == ((2, 1), (2, 1))
    assert "the fixed image pyramid schedule may not increase nor go below 1" in caplog.text


@pytest.mark.parametrize("value", ["0.5", "-1", "x"])
def test_a_factor_that_is_no_whole_number_is_an_error(value):
    with pytest.raises(ParameterError, match=f"ImagePyramidSchedule.*{value}"):
        pyramid("Shrinking", ImagePyramidSchedule=["1", value, "1", "1"])


def test_an_unknown_pyramid_is_an_error_that_offers_the_nearest():
    with pytest.raises(ParameterError, match="did you mean 'FixedSmoothingImagePyramid'"):
        ImagePyramid.named("FixedSmothingImagePyramid")


def test_an_image_of_another_dimension_is_an_error():
    with pytest.raises(ImageError, match="the fixed image has 2 dimensions, but its pyramid is for 3"):
        pyramid("Smoothing", dimension=3).level(Image.of(torch.rand(8, 8)), 0)


@pytest.mark.parametrize("kind", KINDS)
def test_levels_are_the_images_of_each_level_in_float32(kind):
    image = Image.of(torch.randint(0, 255, (16, 18), dtype=torch.int16))
    made = pyramid(kind, levels=3)
    levels = made.levels(image)
    assert len(levels) == 3
    for level, expected in enumerate(levels):
        found = made.level(image, level)
        assert found.grid == expected.grid
        assert torch.equal(found.data, expected.data)
        assert found.data.dtype == torch.float32


@pytest.mark.parametrize("kind", KINDS)
def test_a_constant_image_stays_constant(kind):
    for level in pyramid(kind, levels=3).levels(Image.of(torch.full((21, 18), 7.0))):
        assert level.data.numpy() == pytest.approx(7.0, abs=1e-5)


def test_smoothing_is_half_the_factor_along_each_axis_and_factor_zero_none():
    image = Image.of(torch.rand(12, 10, dtype=torch.float64), (0.3, 2.0))
    smoothed = pyramid("Smoothing", ImagePyramidSchedule=[4, 0, 1, 1]).level(image, 0)
    assert smoothed.grid == image.grid
    assert torch.allclose(smoothed.scalar, image.scalar @ recursive_gaussian(10, 2.0).T)


@pytest.mark.parametrize("kind", ["Recursive", "Shrinking", "Generic"])
def test_the_finest_level_of_factor_one_is_the_image(kind):
    image = Image.of(torch.rand(12, 10))
    assert torch.equal(pyramid(kind).level(image, 1).data, image.data)


def test_factors_that_do_not_divide_smooth_every_axis_of_the_recursive_pyramid():
    image = Image.of(torch.rand(12, 10))
    finest = pyramid("Recursive", ImagePyramidSchedule=[3, 2, 2, 1]).level(image, 1)
    assert finest.grid.size == (5, 12)
    assert not torch.equal(finest.data, pyramid("Shrinking", ImagePyramidSchedule=[3, 2, 2, 1]).level(image, 1).data)


def test_the_generic_pyramid_smooths_half_a_coarse_voxel_by_default():
    made = pyramid("Generic", ImagePyramidSchedule=[4, 2, 2, 1])
    assert made.sigmas(0, (0.5, 3.0)) == (1.0, 3.0)
    assert made.sigmas(1, (0.5, 3.0)) == (0.5, 0.0)


def test_the_generic_pyramid_smooths_nothing_where_all_factors_are_one():
    assert pyramid("Generic", ImagePyramidSchedule=[1] * 4).sigmas(0, (0.5, 3.0)) == (0.0, 0.0)


def test_the_generic_smoothing_schedule_is_in_millimetres_and_does_not_increase(caplog):
    made = pyramid("Generic", ImagePyramidSmoothingSchedule=[2.5, 1.0, 3.0, -1.0])
    assert made.sigmas(0, (9.0, 9.0)) == (2.5, 1.0)
    assert made.sigmas(1, (9.0, 9.0)) == (2.5, 0.0)
    assert "smoothing schedule may not increase nor go below 0" in caplog.text


def test_a_generic_smoothing_schedule_of_zeros_counts_as_none(caplog):
    made = pyramid("Generic", ImagePyramidSmoothingSchedule=[0.0] * 4)
    assert made.sigmas(0, (1.0, 2.0)) == (1.0, 2.0)
    assert "is all 0, which elastix takes for no schedule" in caplog.text


def test_the_more_special_generic_schedule_has_precedence():
    keys = {
        "ImagePyramidRescaleSchedule": [9, 9, 8, 8],
        "ImagePyramidSchedule": [7, 7, 6],
        "FixedImagePyramidRescaleSchedule": [5, 4],
        "FixedImagePyramidSchedule": [3],
        "FixedImagePyramid0Schedule": [1] * 4,
    }
    assert pyramid("Generic", **keys).schedule == ((3, 4), (3, 4))
    assert pyramid("Generic", "moving", **keys).schedule == ((7, 7), (6, 7))


def test_channels_are_filtered_each_by_itself():
    data = torch.rand(3, 12, 14)
    image = Image(data, Image.of(data[0]).grid)
    for kind in KINDS:
        for level, found in enumerate(pyramid(kind).levels(image)):
            alone = pyramid(kind).level(Image(data[1:2], image.grid), level)
            assert torch.allclose(found.data[1:2], alone.data, atol=1e-6)


# --- against elastix -------------------------------------------------------------------------------------------------

RUN = {
    "Registration": ["MultiResolutionRegistration"],
    "Interpolator": ["LinearInterpolator"],
    "ResampleInterpolator": ["FinalLinearInterpolator"],
    "Resampler": ["DefaultResampler"],
    "Metric": ["AdvancedMeanSquares"],
    "Optimizer": ["StandardGradientDescent"],
    "Transform": ["TranslationTransform"],
    "ImageSampler": ["Random"],
    "NumberOfSpatialSamples": ["20"],
    "MaximumNumberOfIterations": ["1"],
    "CheckNumberOfSamples": ["false"],
    "AutomaticTransformInitialization": ["false"],
    "SP_a": ["0.0001"],
    "WritePyramidImagesAfterEachResolution": ["true"],
    "ResultImageFormat": ["mha"],
    "ResultImagePixelType": ["float"],
    "WriteResultImage": ["false"],
}
GEOMETRIES = {
    "2D": ((37, 30), (0.7, 1.3), (-31.7, 12.3), ((0.8, -0.6), (0.6, 0.8))),
    "3D": (
        (27, 22, 19),
        (0.8, 1.1, 2.3),
        (-31.7, 12.3, 5.9),
        ((0.36, 0.48, -0.8), (-0.8, 0.6, 0.0), (0.48, 0.64, 0.6)),
    ),
}


def cases(d):
    """Kind, name and keys of every run, for images of `d` dimensions."""
    schedules = {
        "default": {},
        "divisible": {"ImagePyramidSchedule": [6, 4, 3][:d] + [3, 2, 1][:d] + [1] * d},
        "not divisible": {"ImagePyramidSchedule": [5, 3, 4][:d] + [3, 2, 3][:d] + [2, 1, 2][:d]},
    }
    generic = {
        "smoothing alone": {
            "ImagePyramidRescaleSchedule": [1] * 3 * d,
            "ImagePyramidSmoothingSchedule": [4.0] * d + [2.5] * d + [1.0] * d,
        },
        "shrinking": {"ImagePyramidUseShrinkImageFilter": ["true"]},
        "zero smoothing": {"ImagePyramidSmoothingSchedule": [0] * 3 * d},
        "no rescaling": {"ImagePyramidSchedule": [1] * 3 * d},
        "rising": {
            "FixedImagePyramidSchedule": [2] * d + [4] * 2 * d,
            "ImagePyramidSmoothingSchedule": [1.0] * d + [3.0] * 2 * d,
        },
    }
    found = [(kind, name, schedules[name]) for kind in KINDS for name in schedules]
    # elastix refuses to smooth some axes and not others
    found = [case for case in found if case[:2] != ("Generic", "not divisible")]
    return found + [("Generic", name, generic[name]) for name in generic]


def run_elastix(image, kind, keys, folder):
    """The fixed pyramid images that elastix writes, coarsest first, as arrays with spacing and origin."""
    import itk

    fixed = itk.image_from_array(image.numpy())
    fixed.SetSpacing(image.grid.spacing)
    fixed.SetOrigin(image.grid.origin)
    fixed.SetDirection(np.array(image.grid.direction))
    pyramids = {f"{role}ImagePyramid": [f"{role}{kind}ImagePyramid"] for role in ("Fixed", "Moving")}
    parameters = itk.ParameterObject.New()
    parameters.AddParameterMap(RUN | pyramids | {key: [str(v) for v in values] for key, values in keys.items()})
    elastix = itk.ElastixRegistrationMethod.New(fixed, fixed)
    elastix.SetParameterObject(parameters)
    elastix.SetOutputDirectory(str(folder))
    elastix.SetLogToConsole(False)
    elastix.UpdateLargestPossibleRegion()
    written = [itk.imread(str(path)) for path in sorted(folder.glob("FixedImagePyramid0.0.R*.mha"))]
    return [(itk.array_from_image(i).copy(), tuple(i.GetSpacing()), tuple(i.GetOrigin())) for i in written]


@pytest.mark.itk
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("dimension", GEOMETRIES)
def test_every_pyramid_is_that_of_elastix(dimension, tmp_path, caplog):
    caplog.set_level(logging.ERROR)
    size, *geometry = GEOMETRIES[dimension]
    image = Image.of(torch.randn(*size[::-1], generator=torch.Generator().manual_seed(3)) * 50 + 100, *geometry)
    extent = float(image.data.max() - image.data.min())
    for number, (kind, name, schedule) in enumerate(cases(len(size))):
        keys = {"NumberOfResolutions": [3], **schedule}
        folder = tmp_path / str(number)
        folder.mkdir()
        made = pyramid(kind, levels=3, dimension=len(size), **keys).levels(image)
        expected = run_elastix(image, kind, keys, folder)
        assert len(expected) == 3
        for level, (ours, (array, spacing, origin)) in enumerate(zip(made, expected, strict=True)):
            where = f"{kind}, {name}, level {level}"
            assert ours.numpy().shape == array.shape, where
            assert np.abs(ours.numpy() - array).max() < 1e-6 * extent, where
            assert ours.grid.spacing == pytest.approx(spacing), where
            # elastix writes shrunken images with either of two origins, at random: that of the shrink filter, which is
            # where the picked voxels are, or that which the pyramid gave it before
            factors = [round(b / a) for a, b in zip(geometry[0], spacing, strict=True)]
            either = ours.grid, resampled_grid(image.grid, factors)
            assert any(origin == pytest.approx(grid.origin, abs=1e-6) for grid in either), where
