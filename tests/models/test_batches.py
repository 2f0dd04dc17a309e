"""Layers of batches: modules as extractors, statistics of each image, slices with gradients, devices and types."""

import copy
import pickle

import pytest
import torch
from torch import Tensor, nn

from impactreg.errors import ImageError, ModelError
from impactreg.images import Grid, Image
from impactreg.models.batches import View, batch_layers, batch_statistics
from impactreg.models.extractor import Extractor
from impactreg.models.features import statistics


class Selfish(nn.Module):
    """Normalises by the whole batch: images must come alone."""

    def forward(self, x: Tensor) -> list[Tensor]:
        return [x / x.abs().max(), x]


class InPlace(nn.Module):
    def forward(self, x: Tensor) -> list[Tensor]:
        return [x.mul_(2)]


class Weighted(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(1, 3, 3, padding=1)

    def forward(self, x: Tensor, number: Tensor, scale: float = 1.0) -> list[Tensor]:
        return [self.convolution(x) * scale] * int(number)


class Keyed(nn.Module):
    def forward(self, *, x: Tensor) -> list[Tensor]:
        return [x]


@pytest.fixture
def images(generator):
    return torch.rand(3, 1, 4, 5, 6, generator=generator) * torch.tensor([1.0, 10.0, 3.0]).reshape(3, 1, 1, 1, 1)


def test_statistics_are_those_of_each_image(images):
    rows = batch_statistics(images)
    for row, values in zip(rows, images, strict=True):
        known = statistics(Image(values, Grid.of((6, 5, 4))))
        torch.testing.assert_close(row, torch.tensor(known, dtype=torch.float32))
    assert batch_statistics(torch.full((1, 1, 1, 1), 2.0)).tolist() == [[2, 2, 2, 0]]


def test_a_file_that_mixes_the_images_of_a_batch_gets_them_one_by_one(load, images):
    extractor = load(Selfish())
    (found,) = batch_layers(extractor, images, View((True, False)))
    torch.testing.assert_close(found, images / images.amax((1, 2, 3, 4), keepdim=True))
    (sliced,) = batch_layers(extractor, images, View((True, False), dimension=2, axis=1))
    torch.testing.assert_close(sliced, images / images.amax((1, 2, 4), keepdim=True))


def test_images_stay_as_they_are(images):
    before = images.clone().requires_grad_()
    given = images.clone().requires_grad_()
    (found,) = batch_layers(Extractor.of(InPlace()), given, View((True,), channels=2))
    torch.testing.assert_close(found, 2 * before.expand(-1, 2, -1, -1, -1))
    assert torch.equal(given, before)


def test_layers_of_strided_slices_lie_where_the_slices_lay(images):
    extractor = Extractor.of(Strided())
    for axis in range(3):
        (found,) = batch_layers(extractor, images, View((True,), dimension=2, axis=axis, slices_at_once=2))
        index = [slice(None, None, 1 if other == axis else 2) for other in range(3)]
        torch.testing.assert_close(found, images[(..., *index)])


class Strided(nn.Module):
    def forward(self, x: Tensor) -> list[Tensor]:
        return [x[:, :, ::2, ::2]]


def test_a_module_becomes_a_frozen_copy():
    module = Weighted()
    extractor = Extractor.of(module)
    assert (extractor.name, extractor.arguments, extractor.path) == ("Weighted", 2, None)
    assert extractor.dtype == torch.float32
    assert extractor.module is not module
    assert not any(weight.requires_grad for weight in extractor.module.parameters())
    assert not extractor.module.training
    assert Extractor.of(module, frozen=False).module is module
    assert extractor.on(torch.device("cpu")) is extractor
    x = torch.rand(1, 1, 4, 4)
    expected = extractor.layers(x, 1, [0.0] * 4, torch.eye(2))[0]
    for same in (pickle.loads(pickle.dumps(extractor)), copy.deepcopy(extractor)):
        assert torch.equal(same.layers(x, 1, [0.0] * 4, torch.eye(2))[0], expected)


def test_a_module_is_copied_to_another_device():
    meta, extractor = torch.device("meta"), Extractor.of(Weighted())
    moved = extractor.on(meta)
    assert moved.device == meta
    assert {weight.device for weight in moved.module.parameters()} == {meta}
    assert {weight.device for weight in extractor.module.parameters()} == {torch.device("cpu")}


def test_a_model_computes_in_its_own_type(images):
    view = View((True,), dimension=2)
    for kind in (torch.float64, torch.float32):
        (found,) = batch_layers(Extractor.of(Weighted().to(kind)), images, view)
        assert found.dtype == kind
    (found,) = batch_layers(Extractor.of(Strided()), images.double(), view)
    assert found.dtype == torch.float64


def test_a_module_that_takes_no_image_is_refused():
    with pytest.raises(ModelError, match="Keyed: forward takes 0 arguments; 1 to 4 are needed: an image"):
        Extractor.of(Keyed())


def test_what_is_no_batch_is_refused(images):
    extractor = Extractor.of(Strided())
    for wrong in (images[0, 0], images[:0], images.to(torch.complex64)):
        with pytest.raises(ImageError, match=r"images \[batch, channel, y, x\] or"):
            batch_layers(extractor, wrong, View((True,)))
    with pytest.raises(ModelError, match="Strided: a 3D model cannot take 2D images"):
        batch_layers(extractor, images[:, :, 0], View((True,), dimension=3))
    with pytest.raises(ModelError, match="the model takes 2 channels, but the images have 3"):
        batch_layers(extractor, images.expand(-1, 3, -1, -1, -1), View((True,), channels=2))
