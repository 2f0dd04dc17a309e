"""Samplers: where samples lie, what they hold, and what masks and settings do to them."""

import pytest
import torch

from impactreg.components.interpolators import Interpolant
from impactreg.components.samplers import Sampler, grid_samples
from impactreg.errors import ParameterError, RegistrationError
from impactreg.images.grid import Grid
from impactreg.images.image import Image
from impactreg.images.masks import Mask
from impactreg.parameters import ParameterMap

OBLIQUE = ((0.6, -0.8, 0.0), (0.8, 0.6, 0.0), (0.0, 0.0, 1.0))
RANDOM = ("Random", "RandomCoordinate", "RandomSparseMask")
ALL = (*RANDOM, "Full", "Grid")
IMAGE = Image.of(torch.rand(9, 12, 15), (0.8, 1.1, 2.3), (-30.0, 12.0, 5.0), OBLIQUE)


def sampler(name, image=IMAGE, mask=None, seed=0, level=0, full=None, **keys):
    component = Sampler.named(name)
    parameters = ParameterMap.from_dict(keys, "map.txt")
    settings = component.Settings.read(parameters, level=level, label="ImageSampler0", dimension=image.dimension)
    return component(settings, image, mask, torch.Generator().manual_seed(seed), full=full)


def box_mask(first, last, grid=IMAGE.grid):
    inside = torch.zeros(grid.shape, dtype=torch.bool)
    inside[tuple(slice(a, b + 1) for a, b in zip(first[::-1], last[::-1], strict=True))] = True
    return Mask(inside, grid, "fixed mask")


EVERYWHERE = box_mask((0, 0, 0), (14, 11, 8))


def index_of(samples, image=IMAGE):
    return image.grid.world_to_index(samples.points)


@pytest.mark.parametrize("name", ALL)
def test_samples_are_points_and_values_in_float64(name):
    samples = sampler(name, mask=EVERYWHERE, NumberOfSpatialSamples=[50]).draw()
    assert samples.points.dtype == samples.values.dtype == torch.float64
    assert samples.points.shape == (len(samples), 3)
    assert samples.values.shape == (len(samples),)
    assert (name not in RANDOM) or len(samples) == 50


@pytest.mark.parametrize("name", ["Random", "RandomSparseMask", "Full", "Grid"])
def test_voxel_samples_hold_the_value_of_their_voxel(name):
    samples = sampler(name, mask=EVERYWHERE).draw()
    index = index_of(samples).round().long()
    assert torch.allclose(IMAGE.grid.index_to_world(index.double()), samples.points)
    assert torch.equal(IMAGE.scalar[tuple(index.flip(1).T)].double(), samples.values)


@pytest.mark.parametrize("order", [0, 1, 2, 3])
def test_coordinate_samples_hold_the_interpolated_value(order):
    samples = sampler("RandomCoordinate", FixedImageBSplineInterpolationOrder=[order]).draw()
    assert torch.allclose(samples.values, Interpolant.of(IMAGE, order).values(samples.points)[:, 0].double(), atol=1e-6)


@pytest.mark.parametrize("name", RANDOM)
def test_the_same_seed_draws_the_same_and_every_draw_is_new(name):
    one, two = (sampler(name, mask=EVERYWHERE, seed=5) for _ in range(2))
    first = one.draw()
    assert torch.equal(first.points, two.draw().points)
    assert not torch.equal(first.points, one.draw().points)
    assert not torch.equal(first.points, sampler(name, mask=EVERYWHERE, seed=6).draw().points)


@pytest.mark.parametrize("name", ALL)
def test_without_values_the_points_are_the_same(name):
    one, two = (sampler(name, mask=EVERYWHERE) for _ in range(2))
    bare = one.draw(values=False)
    assert torch.equal(bare.points, two.draw().points)
    assert bare.values.shape == (len(bare),)


@pytest.mark.parametrize("name", RANDOM)
def test_values_that_were_not_asked_for_are_not_numbers(name):
    assert sampler(name, mask=EVERYWHERE).draw(values=False).values.isnan().all()


@pytest.mark.parametrize("name", ["Random", "RandomSparseMask"])
def test_voxels_are_drawn_uniformly(name):
    image = Image.of(torch.zeros(3, 4))
    mask = box_mask((0, 0), (3, 2), image.grid)
    index = index_of(sampler(name, image, mask, NumberOfSpatialSamples=[24000]).draw(), image).round().long()
    counts = torch.bincount(index[:, 0] + 4 * index[:, 1], minlength=12).double()
    assert float(((counts - 2000) ** 2 / 2000).sum()) < 35  # chi square with 11 degrees: 1 in 4000


def test_coordinates_are_drawn_uniformly_between_the_outermost_centres():
    index = index_of(sampler("RandomCoordinate", NumberOfSpatialSamples=[40000]).draw())
    last = torch.tensor([14.0, 11.0, 8.0]).double()
    assert bool(((index > -1e-9) & (index < last + 1e-9)).all())
    assert (index / last).mean(dim=0).tolist() == pytest.approx([0.5] * 3, abs=0.01)
    assert (index / last).var(dim=0).tolist() == pytest.approx([1 / 12] * 3, abs=0.002)
    assert (index / last).amax(dim=0).tolist() == pytest.approx([1] * 3, abs=1e-3)


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("other_grid", [False, True])
def test_all_samples_are_inside_the_mask(name, other_grid):
    grid = IMAGE.grid if not other_grid else Grid.of((9, 9, 9), (2.0, 2.0, 2.0), (-35.0, 14.0, 8.0))
    inside = torch.rand(grid.shape, generator=torch.Generator().manual_seed(1)) < 0.5
    mask = Mask(inside, grid, "fixed mask")
    samples = sampler(name, mask=mask, NumberOfSpatialSamples=[300]).draw()
    assert mask.contains(samples.points).all()
    assert name not in RANDOM or len(samples) == 300


@pytest.mark.parametrize("name", ["Random", "RandomCoordinate"])
def test_masked_samples_are_spread_over_the_whole_mask(name):
    mask = box_mask((3, 2, 1), (12, 9, 6))
    index = index_of(sampler(name, mask=mask, NumberOfSpatialSamples=[20000]).draw())
    assert index.mean(dim=0).tolist() == pytest.approx([7.5, 5.5, 3.5], abs=0.1)


@pytest.mark.parametrize("name", ["Random", "RandomCoordinate"])
def test_a_mask_that_too_few_random_points_hit_is_an_error(name):
    inside = torch.zeros(IMAGE.grid.shape, dtype=torch.bool)
    inside[0, 0, 0] = inside[-1, -1, -1] = True
    message = (
        "Could not find enough image samples within reasonable time. Probably the mask is too small: of 1000 random "
        r"points \d+ are in the fixed mask; enlarge it"
    )
    with pytest.raises(RegistrationError, match=message):
        sampler(name, mask=Mask(inside, IMAGE.grid, "fixed mask"), NumberOfSpatialSamples=[100]).draw()


def test_a_sparse_mask_is_no_hindrance_to_its_own_sampler():
    inside = torch.zeros(IMAGE.grid.shape, dtype=torch.bool)
    inside[0, 0, 0] = inside[-1, -1, -1] = True
    index = index_of(sampler("RandomSparseMask", mask=Mask(inside, IMAGE.grid), NumberOfSpatialSamples=[100]).draw())
    assert {tuple(row) for row in index.round().long().tolist()} == {(0, 0, 0), (14, 11, 8)}


def test_a_sparse_mask_sampler_needs_a_mask():
    with pytest.raises(RegistrationError, match="needs a fixed mask: give one with -fMask"):
        sampler("RandomSparseMask")


def test_a_mask_without_any_voxel_of_the_grid_is_an_error():
    with pytest.raises(RegistrationError, match="no sample is inside the fixed mask"):
        sampler("Grid", mask=box_mask((1, 1, 1), (1, 1, 1)), SampleGridSpacing=[3, 3, 3]).draw()


def test_full_samples_are_all_voxels_in_raster_order():
    samples = sampler("Full").draw()
    assert torch.allclose(samples.points, IMAGE.grid.points())
    assert torch.equal(samples.values, IMAGE.scalar.reshape(-1).double())


def test_full_samples_of_a_mask_are_its_voxels():
    samples = sampler("Full", mask=box_mask((2, 3, 4), (4, 4, 4))).draw()
    assert index_of(samples).round().long().tolist() == [[x, y, 4] for y in (3, 4) for x in (2, 3, 4)]


def test_grid_samples_have_the_spacing_of_the_resolution():
    found = sampler("Grid", level=1, SampleGridSpacing=[9, 9, 9, 5, 4, 6]).draw()
    expected = [[x, y, z] for z in (1, 7) for y in (1, 5, 9) for x in (2, 7, 12)]
    assert index_of(found).round().long().tolist() == expected


def test_missing_grid_spacings_are_two():
    found = index_of(sampler("Grid", level=1, SampleGridSpacing=[9, 9, 9, 5]).draw()).round().long()
    assert [len(set(axis)) for axis in found.T.tolist()] == [3, 6, 5]


@pytest.mark.parametrize("name", ["Full", "Grid"])
def test_samples_that_are_not_random_are_made_once(name):
    made = sampler(name)
    assert made.draw() is made.draw()
    assert not made.is_random


def test_a_sample_region_is_a_small_box_at_a_new_place_each_time():
    made = sampler("RandomCoordinate", UseRandomSampleRegion=["true"], SampleRegionSize=[3.2, 4.4, 4.6])
    first, second = (index_of(made.draw()) for _ in range(2))
    for index in (first, second):
        extent = index.amax(dim=0) - index.amin(dim=0)
        assert extent.tolist() == pytest.approx([4, 4, 2], abs=0.02)
        assert bool(((index > -1e-9) & (index < torch.tensor([14.0, 11.0, 8.0]) + 1e-9)).all())
    assert not torch.allclose(first.amin(dim=0), second.amin(dim=0), atol=0.05)


def test_the_sample_region_is_a_third_of_the_longest_side_by_default():
    index = index_of(sampler("RandomCoordinate", UseRandomSampleRegion=["true"]).draw())
    extent = (index.amax(dim=0) - index.amin(dim=0)) * torch.tensor(IMAGE.grid.spacing)
    assert extent.tolist() == pytest.approx([18.4 / 3] * 3, rel=0.01)


def test_the_sample_region_of_a_coarse_level_has_its_size_in_millimetres():
    coarse = Image.of(torch.rand(9, 12, 15), (1.6, 2.2, 4.6))
    full = Grid.of((30, 24, 18), (0.8, 1.1, 2.3), (-0.4, -0.55, -1.15))
    keys = {"UseRandomSampleRegion": ["true"], "SampleRegionSize": [8.0]}
    index = index_of(sampler("RandomCoordinate", coarse, full=full, **keys).draw(), coarse)
    assert (index.amax(dim=0) - index.amin(dim=0)).tolist() == pytest.approx([5, 8 / 2.2, 8 / 4.6], rel=0.01)


def test_without_its_sample_region_a_sampler_takes_the_whole_image():
    made = sampler("RandomCoordinate", UseRandomSampleRegion=["true"], SampleRegionSize=[2.0])
    whole = made.without_sample_region()
    assert made.has_sample_region
    assert not whole.has_sample_region
    assert whole.generator is made.generator
    index = index_of(whole.draw())
    assert (index.amax(dim=0) - index.amin(dim=0)).tolist() == pytest.approx([14, 11, 8], rel=0.01)


def test_a_sample_region_larger_than_the_image_is_an_error():
    message = r"\(SampleRegionSize 5 20 5\): 20 mm along y is more than the 12.1 mm of the fixed image; give less"
    with pytest.raises(ParameterError, match=message):
        sampler("RandomCoordinate", UseRandomSampleRegion=["true"], SampleRegionSize=[5.0, 20.0, 5.0])


@pytest.mark.parametrize(
    ("name", "key", "value"),
    [
        ("Random", "NumberOfSpatialSamples", "0"),
        ("Random", "NumberOfSpatialSamples", "2000.5"),
        ("RandomCoordinate", "FixedImageBSplineInterpolationOrder", "4"),
        ("RandomCoordinate", "SampleRegionSize", "wide"),
        ("Grid", "SampleGridSpacing", "0"),
    ],
)
def test_a_wrong_setting_is_an_error_that_names_key_and_value(name, key, value):
    with pytest.raises(ParameterError, match=rf"map.txt.*\({key} .*{value}"):
        sampler(name, **{key: [value]})


def test_one_value_in_python_stands_for_all_axes_but_two_do_not():
    component = Sampler.named("Grid")
    make = torch.Generator()
    samples = component(component.Settings(sample_grid_spacing=(5,)), IMAGE, None, make).draw()
    assert len(samples) == 3 * 3 * 2
    with pytest.raises(ParameterError, match=r"\(SampleGridSpacing 5 4\): 1 or 3 values are needed"):
        component(component.Settings(sample_grid_spacing=(5, 4)), IMAGE, None, make).draw()


def test_only_voxels_between_the_centres_of_the_full_image_are_taken():
    full = Grid.of((13, 12, 9), IMAGE.grid.spacing, IMAGE.grid.origin, OBLIQUE)
    assert float(index_of(sampler("Full", full=full).draw())[:, 0].max()) == pytest.approx(12)


def test_internal_grids_have_about_as_many_voxels_as_asked_for():
    samples = grid_samples(IMAGE, None, 60)
    expected = [[x, y, z] for z in (1, 4, 7) for y in (1, 4, 7, 10) for x in (1, 4, 7, 10, 13)]
    assert index_of(samples).round().long().tolist() == expected
    assert len(grid_samples(IMAGE, None, 10**6)) == IMAGE.grid.number_of_voxels


def test_internal_grids_fill_the_box_of_a_mask_and_leave_out_what_is_outside():
    image = Image.of(IMAGE.scalar, IMAGE.grid.spacing)
    mask = box_mask((3, 3, 3), (8, 6, 5), image.grid)
    found = index_of(grid_samples(image, mask, 30), image).round().long().tolist()
    # the box is one voxel larger than the mask on every side: 8 x 6 x 5 voxels from (2, 2, 2), in steps of 2
    assert found == [[x, y, 4] for y in (4, 6) for x in (4, 6, 8)]


@pytest.mark.parametrize("name", ALL)
def test_flat_images_are_sampled_too(name):
    image = Image.of(torch.rand(12, 15), (0.8, 1.1))
    mask = box_mask((0, 0), (14, 11), image.grid)
    samples = sampler(name, image, mask, NumberOfSpatialSamples=[30]).draw()
    assert samples.points.shape[1] == 2
    assert not samples.values.isnan().any()
