"""Samplers between voxels that look at several fixed images: where the images overlap, and in all masks."""

import pytest
import torch

from impactreg.components.interpolators import Interpolant
from impactreg.components.samplers import Sampler
from impactreg.errors import ParameterError, RegistrationError
from impactreg.images.grid import Grid
from impactreg.images.image import Image
from impactreg.images.masks import Mask
from impactreg.parameters import ParameterMap

OBLIQUE = ((0.6, -0.8), (0.8, 0.6))
IMAGE = Image.of(torch.rand(12, 15), (0.8, 1.1), (-30.0, 12.0), OBLIQUE)


def shifted(x, y, size=(15, 12), spacing=(0.8, 1.1), direction=OBLIQUE):
    """An image whose first voxel lies x, y mm from IMAGE's along its axes."""
    offset = torch.tensor(OBLIQUE).double() @ torch.tensor([x, y]).double()
    origin = tuple((torch.tensor(IMAGE.grid.origin).double() + offset).tolist())
    return Image.of(torch.rand(size[1], size[0]), spacing, origin, direction)


def mask_of(image, first, last, name):
    inside = torch.zeros(image.grid.shape, dtype=torch.bool)
    inside[first[1] : last[1] + 1, first[0] : last[0] + 1] = True
    return Mask(inside, image.grid, name)


def sampler(others=(), mask=None, image=IMAGE, level=0, name="MultiInputRandomCoordinate", seed=0, **keys):
    component = Sampler.named(name)
    parameters = ParameterMap.from_dict({"NumberOfSpatialSamples": [4000], **keys}, "map.txt")
    settings = component.Settings.read(parameters, level=level, label="ImageSampler0", dimension=image.dimension)
    return component(settings, image, mask, torch.Generator().manual_seed(seed), others=others)


def span(samples, image=IMAGE):
    """Lowest and highest index along x and y."""
    index = image.grid.world_to_index(samples.points)
    return index.amin(dim=0).tolist(), index.amax(dim=0).tolist()


def test_one_image_alone_is_sampled_as_by_the_plain_sampler():
    plain = sampler(name="RandomCoordinate").draw()
    assert torch.equal(sampler().draw().points, plain.points)
    assert torch.equal(sampler().draw().values, plain.values)


def test_samples_lie_where_all_images_overlap():
    # from x = 2.4 mm = 3 voxels on, up to y = (5 - 1) * 2.2 mm = 8 voxels
    others = [(shifted(2.4, -3.3, (20, 20)), None), (shifted(-1.0, 0.0, (30, 5), (0.8, 2.2)), None)]
    low, high = span(sampler(others).draw())
    assert low == pytest.approx([3, 0], abs=0.02)
    assert high == pytest.approx([14, 8], abs=0.02)


def test_values_are_those_of_the_first_image():
    drawn = sampler([(shifted(2.0, 2.0), None)]).draw()
    assert torch.allclose(drawn.values, Interpolant.of(IMAGE, 1).values(drawn.points)[:, 0].double(), atol=1e-6)


@pytest.mark.parametrize("first_has_one", [True, False])
def test_samples_lie_in_all_masks(first_has_one):
    other = shifted(0.8, 1.1)
    own = mask_of(IMAGE, (2, 2), (9, 9), "fixed mask") if first_has_one else None
    drawn = sampler(
        [(other, mask_of(other, (3, 3), (12, 9), "fixed mask 1"))], own, NumberOfSpatialSamples=[500]
    ).draw()
    low, high = span(drawn)
    assert len(drawn) == 500
    assert low == pytest.approx([3.5, 3.5], abs=0.1)
    assert high == pytest.approx([9.5, 9.5] if first_has_one else [13.5, 10.5], abs=0.1)


def test_masks_without_a_common_voxel_are_an_error():
    masks = [mask_of(IMAGE, (0, 0), (3, 3), "fixed mask"), mask_of(IMAGE, (8, 8), (11, 11), "fixed mask 1")]
    with pytest.raises(RegistrationError, match="0 are in the fixed mask and the fixed mask 1; enlarge it"):
        sampler([(IMAGE, masks[1])], masks[0], NumberOfSpatialSamples=[50]).draw()


def test_images_without_a_common_part_are_an_error():
    with pytest.raises(RegistrationError, match="have no common part; look at their origins"):
        sampler([(shifted(50.0, 0.0), None)])


def test_images_of_another_direction_are_an_error():
    turned = shifted(0.0, 0.0, direction=((1.0, 0.0), (0.0, 1.0)))
    with pytest.raises(
        RegistrationError, match=r"need the same direction cosines, but those of another one \(number 2"
    ):
        sampler([(shifted(0.0, 0.0), None), (turned, None)])


def test_the_rounding_of_a_header_is_no_other_direction():
    rounded = tuple(tuple(float(torch.tensor(v, dtype=torch.float32)) for v in row) for row in OBLIQUE)
    assert len(sampler([(shifted(0.0, 0.0, direction=rounded), None)]).draw()) == 4000


def test_a_random_box_lies_in_the_common_part():
    made = sampler([(shifted(2.4, 0.0, (20, 20)), None)], UseRandomSampleRegion=["true"], SampleRegionSize=[3.2, 4.4])
    spans = [span(made.draw()) for _ in range(20)]
    for low, high in spans:
        assert [b - a for a, b in zip(low, high, strict=True)] == pytest.approx([4, 4], abs=0.05)
        assert low[0] > 3 - 1e-9
        assert high[0] < 14 + 1e-9
    assert max(low[0] for low, _ in spans) - min(low[0] for low, _ in spans) > 2


def test_a_random_box_that_is_larger_than_the_common_part_is_all_of_it():
    made = sampler([(shifted(8.0, 0.0, (20, 20)), None)], UseRandomSampleRegion=["true"], SampleRegionSize=[8.0, 4.4])
    low, high = span(made.draw())
    assert (low[0], high[0]) == pytest.approx((10, 14), abs=0.02)


def test_the_whole_sampler_knows_the_other_images_too():
    made = sampler([(shifted(2.4, 0.0, (20, 20)), None)], UseRandomSampleRegion=["true"], SampleRegionSize=[2.0])
    whole = made.without_sample_region()
    assert made.has_sample_region
    assert not whole.has_sample_region
    assert span(whole.draw())[0][0] == pytest.approx(3, abs=0.02)


def test_a_box_larger_than_the_image_is_an_error():
    with pytest.raises(ParameterError, match=r"\(SampleRegionSize 5 20\): 20 mm along y is more than the 12.1 mm"):
        sampler(UseRandomSampleRegion=["true"], SampleRegionSize=[5.0, 20.0])


def test_other_samplers_take_no_notice_of_other_images():
    for name in ("Random", "RandomCoordinate", "Full", "Grid"):
        alone, among = (sampler(others, name=name).draw() for others in ((), [(shifted(5.0, 5.0), None)]))
        assert torch.equal(alone.points, among.points)


def test_boxes_have_a_size_for_each_resolution_and_axis():
    size = {"UseRandomSampleRegion": ["true"], "SampleRegionSize": [8.0, 8.0, 2.4, 3.3]}
    low, high = span(sampler(level=1, **size).draw())
    assert [b - a for a, b in zip(low, high, strict=True)] == pytest.approx([3, 3], abs=0.05)


def test_grids_of_one_voxel_along_an_axis_overlap():
    flat = Grid.of((6, 1), (0.1, 0.3), (0.7, 0.1))
    image = Image.of(torch.rand(1, 6), flat.spacing, flat.origin)
    assert len(sampler([(image, None)], image=image).draw()) == 4000
