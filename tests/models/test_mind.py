"""MIND-SSC: closed forms, the published channel order, gradients."""

import pytest
import torch
from torch.nn import functional

from impactreg.errors import ModelError
from impactreg.models.extractor import torchscript
from impactreg.models.mind import MIND, NO_TENSOR, ONE_LAYER, example, neighbour_pairs, variants

SIZES = [(2, 1, 1), (2, 2, 2), (3, 1, 2), (3, 2, 1)]


def by_definition(image, dimension, radius, dilation):
    """Voxel by voxel from the text of the paper, in float64, for an image [z, y, x] or [y, x]."""
    image = (image - image.min()) / (image.max() - image.min() + 1e-6)
    last = torch.tensor(image.shape) - 1
    places = torch.cartesian_prod(*[torch.arange(n) for n in image.shape])
    patch = torch.cartesian_prod(*[torch.arange(-radius, radius + 1)] * dimension)
    channels = []
    for pair in neighbour_pairs(dimension):
        first, second = ((torch.tensor(position) - 1) * dilation for position in pair)
        total = torch.zeros(len(places), dtype=torch.float64)
        for step in patch:
            middle = (places + step).clamp(min=torch.zeros(dimension, dtype=torch.long), max=last)
            a, b = (image[tuple((middle + o).clamp(torch.zeros_like(last), last).T)].double() for o in (first, second))
            total += (a - b) ** 2
        channels.append((total / len(patch)).reshape(image.shape))
    distance = torch.stack(channels)
    distance = distance - distance.amin(0)
    variance = distance.mean(0)
    return torch.exp(-distance / variance.clamp(variance.mean() * 0.001, variance.mean() * 1000))


@pytest.mark.parametrize(("dimension", "radius", "dilation"), SIZES)
def test_it_is_the_published_descriptor(dimension, radius, dilation):
    image = torch.randn((6, 7, 8)[-dimension:], dtype=torch.float64)
    (found,) = MIND(dimension, radius, dilation)(image[None, None])
    torch.testing.assert_close(found[0], by_definition(image, dimension, radius, dilation), rtol=0, atol=1e-9)


def test_channels_stand_in_the_published_order():
    # Neighbours z-, x-... as (z, y, x): the pairs that IMPACT's models compare, channel by channel.
    up, left, front, right, down, back = [0, 1, 1], [1, 1, 0], [1, 0, 1], [1, 1, 2], [2, 1, 1], [1, 2, 1]
    assert neighbour_pairs(3) == [
        (left, up),
        (front, up),
        (front, left),
        (right, up),
        (right, front),
        (down, left),
        (down, front),
        (down, right),
        (back, up),
        (back, left),
        (back, right),
        (back, down),
    ]
    assert neighbour_pairs(2) == [([0, 1], [1, 0]), ([1, 2], [0, 1]), ([2, 1], [1, 0]), ([2, 1], [1, 2])]


@pytest.mark.parametrize(("dimension", "channels"), [(2, 4), (3, 12)])
def test_a_constant_image_has_finite_features_of_one_and_no_gradient(dimension, channels):
    image = torch.full((1, 1, *[6] * dimension), 7.0, requires_grad=True)
    (found,) = MIND(dimension)(image)
    assert torch.equal(found, torch.ones(1, channels, *[6] * dimension))
    found.sum().backward()
    assert torch.equal(image.grad, torch.zeros_like(image))


def test_a_linear_ramp_has_its_closed_form_in_the_interior():
    # Along x alone: pairs (a, b) differ by d (b_x - a_x), so D is d² for 8 of 12 pairs and 0 for the others.
    image = torch.arange(20.0, dtype=torch.float64).expand(1, 1, 16, 16, 20)
    (found,) = MIND(3, radius=1, dilation=2)(image)
    moved = torch.tensor([a[2] != b[2] for a, b in neighbour_pairs(3)])
    middle = found[0, :, 8, 8, 10]
    expected = torch.where(moved, -1 / moved.double().mean(), torch.tensor(0.0)).exp()
    torch.testing.assert_close(middle, expected, rtol=1e-6, atol=0)


def test_brightness_and_contrast_do_not_matter():
    image = torch.randn(1, 1, 9, 10, 11, dtype=torch.float64)
    statistics = torch.tensor([image.min(), image.max(), 0, 1], dtype=torch.float64)
    brighter = statistics * torch.tensor([-30.0, -30.0, 1.0, 1.0]) + torch.tensor([500.0, 500.0, 0.0, 0.0])
    (first,) = MIND()(image, ONE_LAYER, statistics)
    (second,) = MIND()(500 - 30 * image, ONE_LAYER, brighter[[1, 0, 2, 3]])
    torch.testing.assert_close(first, second, rtol=0, atol=1e-6)


def test_mirroring_the_image_mirrors_the_features_and_swaps_channels():
    image = torch.randn(1, 1, 7, 8, 9, dtype=torch.float64)
    pairs = [tuple(sorted(map(tuple, pair))) for pair in neighbour_pairs(3)]
    mirrored = [tuple(sorted((z, y, 2 - x) for z, y, x in pair)) for pair in pairs]
    order = [pairs.index(pair) for pair in mirrored]
    (found,) = MIND()(image)
    (turned,) = MIND()(image.flip(-1))
    torch.testing.assert_close(turned.flip(-1), found[:, order])


def test_the_statistics_of_the_whole_image_replace_those_of_a_patch():
    image = torch.randn(1, 1, 10, 10) * 5
    statistics = torch.tensor([-40.0, 30.0, 0.0, 1.0])
    (found,) = MIND(2)(image, ONE_LAYER, statistics)
    (scaled,) = MIND(2)((image + 40) / (70 + 1e-6), ONE_LAYER, torch.tensor([0.0, 1 - 1e-6, 0.0, 1.0]))
    torch.testing.assert_close(found, scaled, rtol=0, atol=1e-5)


def test_images_of_a_batch_do_not_influence_each_other():
    images = torch.randn(2, 1, 8, 8, 8) * torch.tensor([1.0, 100.0]).reshape(2, 1, 1, 1, 1)
    (both,) = MIND()(images)
    for image, found in zip(images.split(1), both.split(1), strict=True):
        torch.testing.assert_close(MIND()(image)[0], found)


@pytest.mark.parametrize(("dimension", "radius", "dilation"), SIZES)
def test_the_scripted_descriptor_equals_the_module(dimension, radius, dilation):
    module = MIND(dimension, radius, dilation)
    with torchscript():
        scripted = torch.jit.script(module)
    image = torch.randn(1, 1, *(9, 8, 7)[:dimension])
    torch.testing.assert_close(scripted(image)[0], module(image)[0], rtol=0, atol=1e-6)


@pytest.mark.parametrize(("dimension", "statistics"), [(2, NO_TENSOR), (3, torch.tensor([-4.0, 4.0, 0.0, 1.0]))])
def test_its_gradient_is_right(dimension, statistics):
    image = torch.randn(1, 1, *[3] * dimension, dtype=torch.float64, requires_grad=True)
    module = MIND(dimension, 1, 1)
    assert torch.autograd.gradcheck(
        lambda x: module(x, ONE_LAYER, statistics.double())[0], image, fast_mode=dimension == 3
    )


def test_an_image_of_one_voxel_is_enough():
    assert torch.isfinite(MIND()(torch.ones(1, 1, 1, 1, 1))[0]).all()


@pytest.mark.parametrize("shape", [(1, 2, 5, 5, 5), (1, 1, 5, 5)])
def test_other_channels_or_dimensions_are_refused(shape):
    with pytest.raises(RuntimeError, match="one channel and of its own dimension"):
        MIND(3)(torch.zeros(shape))


@pytest.mark.parametrize("sizes", [(4, 1, 1), (3, 0, 1), (3, 1, 0)])
def test_impossible_sizes_are_refused(sizes):
    with pytest.raises(ModelError, match="MIND has dimension 2 or 3"):
        MIND(*sizes)


def test_the_patch_mean_is_an_average_pooling():
    values = torch.randn(1, 3, 9, 8, 7)
    expected = functional.avg_pool3d(values, 5, stride=1)
    torch.testing.assert_close(MIND(3, radius=2).patch_mean(values), expected)


def test_older_names_are_3d():
    assert variants()["MIND/R1D2.pt"] == variants()["MIND/R1D2_3D.pt"] == (3, 1, 2)
    assert variants()["MIND/R2D1_2D.pt"] == (2, 2, 1)


def test_the_example_image_has_contrast_everywhere():
    assert float(example(3).diff(dim=-1).abs().max()) > 0.1
