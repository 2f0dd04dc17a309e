"""ImpactLoss: the Static metric's value, exact gradients, slices, copies, training, and mistakes told in one line."""

import copy
import doctest
import pickle

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

import impactreg
from impactreg.components.metrics import loss as room
from impactreg.components.metrics.distances import DISTANCES, RELATIVE_DISTANCES
from impactreg.components.metrics.loss import ImpactLoss
from impactreg.components.samplers import Samples
from impactreg.components.transforms.linear import TranslationTransform
from impactreg.components.transforms.transform import Combination
from impactreg.errors import ImageError, ImpactregError, ModelError, ParameterError
from impactreg.images import Grid
from impactreg.models.extractor import Extractor, torchscript

GRID = Grid.of((11, 9, 10), (1.5, 1.5, 1.5), (-1.0, 0.5, -0.5))


class Convolutions(nn.Module):
    """Two layers of positive features, the second of half the size."""

    def __init__(self, dimension: int = 3, channels: int = 1) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(5)
        convolution = nn.Conv3d if dimension == 3 else nn.Conv2d
        self.first = convolution(channels, 3, 3, padding=1)
        self.second = convolution(3, 4, 3, padding=1, stride=2)
        for parameter in self.parameters():
            parameter.data = torch.randn(parameter.shape, generator=generator) * 0.4

    def forward(self, x: Tensor) -> list[Tensor]:
        first = torch.sigmoid(self.first(x))
        return [first, torch.sigmoid(self.second(first))]


class Standardised(nn.Module):
    """Takes all four arguments."""

    def forward(self, x: Tensor, number: Tensor, statistics: Tensor, direction: Tensor) -> list[Tensor]:
        turned = direction.to(x.dtype).sum() * 0.1
        return [torch.cat([(x - statistics[2]) / statistics[3] + turned, x * x], 1)]


class Counting(nn.Module):
    """Remembers how many images it was given at once."""

    batches: list[int] = []  # noqa: RUF012

    def forward(self, x: Tensor) -> list[Tensor]:
        self.batches.append(len(x))
        return [torch.sin(x)]


class NoList(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x


@pytest.fixture
def images(generator):
    """A batch of two pairs of volumes."""
    return tuple(torch.rand(2, 1, 6, 7, 8, generator=generator) for _ in range(2))


def blob(shift, size=20):
    """A bright ellipsoid with a dark core, `shift` voxels (z, y, x) from the middle."""
    axes = torch.meshgrid(*[torch.arange(size, dtype=torch.float32) - (size - 1) / 2] * 3, indexing="ij")
    squared = sum(((a - s) / w) ** 2 for a, s, w in zip(axes, shift, (3, 3.5, 4), strict=True))
    return (torch.exp(-squared) - 0.6 * torch.exp(-squared * 5))[None, None]


def test_the_example_of_the_docstring_runs():
    (example,) = doctest.DocTestFinder().find(ImpactLoss, "ImpactLoss", globs={**vars(room), "torch": torch})[:1]
    assert example.examples
    assert doctest.DocTestRunner().run(example).failed == 0


def test_the_package_shows_it():
    assert impactreg.ImpactLoss is ImpactLoss


@pytest.mark.parametrize("distance", DISTANCES)
def test_the_value_is_that_of_the_static_metric_on_all_voxels(metric, network, image, distance):
    fixed, moving, model = image(GRID), image(GRID, 0.8), network(Standardised())
    keys = {"ImpactModelsPath0": model, "ImpactVoxelSize0": 1.5, "ImpactDistance0": distance}
    static = metric("Impact", fixed, moving, **keys)
    loss = ImpactLoss(model, distance=distance)
    ((f,), (m,)) = (loss.features(each.data[None]) for each in (fixed, moving))
    points = GRID.points()[torch.arange(GRID.number_of_voxels) % 11 < 10]
    samples = Samples(points, points[:, 0])
    start, later = (static.evaluate(along_x(step), samples, gradient=False).value for step in (0.0, 1.5))
    here, there = (loss.compare([f[..., :-1]], [m[..., i : i + 10]]).item() for i in (0, 1))
    if distance in RELATIVE_DISTANCES:
        here, there = 1.0, there / here
    assert start == pytest.approx(here, rel=1e-4)
    assert later == pytest.approx(there, rel=1e-4)


def along_x(step):
    return Combination(TranslationTransform(torch.tensor([step, 0, 0]).double(), torch.zeros(3).double()))


@pytest.mark.parametrize("distance", DISTANCES)
def test_gradients_to_both_images_pass_gradcheck(distance, generator):
    loss = ImpactLoss(Convolutions().double(), layers_mask="11", distance=distance, weights=[1.0, 0.3])
    fixed, moving = (
        torch.rand(1, 1, 3, 3, 4, generator=generator, dtype=torch.float64, requires_grad=True) for _ in range(2)
    )
    mask = torch.ones(1, 1, 3, 3, 4)
    mask[..., 0] = 0
    assert torch.autograd.gradcheck(lambda f, m: loss(f, m, mask), (fixed, moving))


@pytest.mark.parametrize("distance", ["L2", "L1Cosine", "NCC"])
def test_a_batch_gives_the_mean_of_its_pairs(images, distance):
    for model in (Convolutions(), Standardised()):
        loss = ImpactLoss(model, distance=distance)
        alone = [loss(f[None], m[None]) for f, m in zip(*images, strict=True)]
        torch.testing.assert_close(loss(*images), torch.stack(alone).mean())


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_a_2d_model_sees_volumes_slice_by_slice(images, axis):
    fixed, moving = images
    moving.requires_grad_()
    keys = {"layers_mask": "11", "distance": ["L2", "Dice"]}
    flat = ImpactLoss(Convolutions(2), **keys)
    pairs = zip(fixed.unbind(2 + axis), moving.unbind(2 + axis), strict=True)
    expected = torch.stack([flat(f, m) for f, m in pairs]).mean()
    (slope,) = torch.autograd.grad(expected, moving)
    for at_once in (None, 1, 3):
        loss = ImpactLoss(Convolutions(2), dimension=2, axis=axis, slices_at_once=at_once, **keys)
        found = loss(fixed, moving)
        torch.testing.assert_close(found, expected)
        torch.testing.assert_close(torch.autograd.grad(found, moving)[0], slope)


def test_so_many_slices_at_once_bound_the_memory(images):
    Counting.batches.clear()
    fixed, moving = images
    ImpactLoss(Counting(), dimension=2, slices_at_once=5)(fixed, moving.requires_grad_()).backward()
    # twelve slices of the fixed image, as many of the moving one, and these again for the gradient
    assert sorted(Counting.batches) == sorted([5, 5, 2] * 3)


def test_models_are_given_statistics_and_directions(images):
    fixed, moving = images
    loss = ImpactLoss(Standardised())
    plain = loss(fixed, moving)
    rows = [[float(v.min()), float(v.max()), float(v.mean()), float(v.std())] for v in moving]
    torch.testing.assert_close(loss(fixed, moving, moving_statistics=rows), plain)
    given = [0.0, 1.0, 0.0, 2.0]
    expected = (torch.cat([fixed - moving, 2 * (fixed**2 - moving**2)], 1) / 2).square().mean()
    torch.testing.assert_close(loss(fixed, moving, fixed_statistics=given, moving_statistics=given), expected)
    (turned,) = loss.features(fixed, statistics=given, direction=-torch.eye(3))
    torch.testing.assert_close(turned[:, :1], fixed / 2 - 0.3)


def test_only_the_voxels_of_the_mask_count(images):
    fixed, moving = images
    mask = torch.zeros(2, 1, 6, 7, 8, dtype=torch.bool)
    mask[0, :, 1:3, 2:5] = True
    mask[1, :, :, :, ::2] = True
    (f,), (m,) = (ImpactLoss(Convolutions()).features(each) for each in images)
    chosen = [mask[i].expand(3, -1, -1, -1) for i in (0, 1)]
    expected = sum((f[i][chosen[i]] - m[i][chosen[i]]).square().mean() for i in (0, 1)) / 2
    torch.testing.assert_close(ImpactLoss(Convolutions())(fixed, moving, mask), expected)
    everywhere = ImpactLoss(Convolutions(), layers_mask="01")
    torch.testing.assert_close(everywhere(fixed, moving, torch.ones(1, 1, 6, 7, 8)), everywhere(fixed, moving))


def test_images_of_one_channel_are_repeated(images):
    fixed, moving = (each[:, 0] for each in images)
    thrice = [each[:, :1].expand(-1, 3, -1, -1) for each in (fixed, moving)]
    expected = ImpactLoss(Convolutions(2, 3))(*thrice)
    torch.testing.assert_close(ImpactLoss(Convolutions(2, 3), channels=3)(fixed[:, :1], moving[:, :1]), expected)


def test_several_models_add_up(images, network):
    path = network(Standardised())
    both = ImpactLoss([Convolutions(), path], layers_mask=["01", "1"], distance=["Cosine", "L1"], weights=[2.0, 0.5])
    one = ImpactLoss(Convolutions(), layers_mask="01", distance="Cosine", weights=2.0)
    other = ImpactLoss(Extractor.load(room.Path(path)), distance="L1", weights=0.5)
    torch.testing.assert_close(both(*images), one(*images) + other(*images))
    assert repr(both) == "ImpactLoss(Convolutions 01, " + f"{path} 1, 2 Cosine, 0.5 L1)"


def test_a_subset_of_features_follows_the_seed(images):
    loss = ImpactLoss(Convolutions(), subset_features=1)
    singles = [float((f - m).square().mean()) for f, m in channels(loss, images)]
    drawn = set()
    for seed in range(12):
        torch.manual_seed(seed)
        first = float(loss(*images))
        torch.manual_seed(seed)
        assert float(loss(*images)) == first
        drawn.add(min(range(3), key=lambda channel: abs(singles[channel] - first)))
        assert min(abs(single - first) for single in singles) < 1e-6
    assert drawn == {0, 1, 2}


def channels(loss, images):
    (fixed,), (moving,) = map(loss.features, images)
    return list(zip(fixed.unbind(1), moving.unbind(1), strict=True))


def test_features_of_the_fixed_images_can_be_kept(images):
    loss = ImpactLoss(Convolutions())
    assert torch.equal(loss.compare(loss.features(images[0]), loss.features(images[1])), loss(*images))


def test_a_model_is_frozen_and_no_part_of_the_loss(images):
    model = Convolutions().train()
    loss = ImpactLoss(model)
    fixed, moving = images
    loss(fixed.requires_grad_(), moving).backward()
    assert fixed.grad is not None
    assert not list(loss.parameters())
    assert not loss.state_dict()
    assert model.training
    assert all(parameter.requires_grad and parameter.grad is None for parameter in model.parameters())


def test_a_trainable_model_is_a_part_of_the_loss(images):
    model = Convolutions()
    loss = ImpactLoss(model, trainable=True)
    loss(*images).backward()
    assert model.first.weight.grad is not None
    assert [id(p) for p in loss.parameters()] == [id(p) for p in model.parameters()]
    frozen = ImpactLoss(model)(*images)
    torch.testing.assert_close(loss._replicate_for_data_parallel()(*images), frozen)
    copied = copy.deepcopy(loss)
    copied.double()
    torch.testing.assert_close(copied(*images), frozen.double())
    assert model.first.weight.dtype == torch.float32


def test_copies_and_pickles_give_the_same(images, network):
    for model in (Convolutions(), network(Convolutions())):
        loss = ImpactLoss(model, layers_mask="11")
        expected = loss(*images)
        for same in (copy.deepcopy(loss), pickle.loads(pickle.dumps(loss)), loss._replicate_for_data_parallel()):
            assert torch.equal(same(*images), expected)


def test_without_gradients_it_is_the_same_number(images):
    loss = ImpactLoss(Convolutions(2), dimension=2, slices_at_once=4)
    expected = loss(images[0], images[1].clone().requires_grad_()).detach()
    with torch.no_grad():
        assert torch.equal(loss(*images), expected)
    with torch.inference_mode():
        assert torch.equal(loss(*images), expected)


def test_whole_numbers_and_double_precision_are_taken(images):
    loss = ImpactLoss(Convolutions())
    fixed, moving = ((each * 10).to(torch.int16) for each in images)
    torch.testing.assert_close(loss(fixed, moving), loss(fixed.float(), moving.float()))
    doubles = [each.double().requires_grad_() for each in images]
    loss(*doubles).backward()
    assert doubles[1].grad.dtype == torch.float64


def test_autocast_is_followed_by_the_model_and_not_by_the_distance(images):
    loss = ImpactLoss(Convolutions(), layers_mask="11", distance="Cosine")
    plain = loss(*images)
    fixed, moving = images[0], images[1].clone().requires_grad_()
    with torch.autocast("cpu", torch.bfloat16):
        features = loss.features(fixed)
        value = loss(fixed, moving)
    value.backward()
    assert {layer.dtype for layer in features} == {torch.bfloat16}
    assert value.dtype == moving.grad.dtype == torch.float32
    torch.testing.assert_close(value, plain, rtol=1e-3, atol=1e-3)
    mixed = ImpactLoss(Convolutions(), layers_mask="11", distance="Cosine", mixed_precision=True)
    torch.testing.assert_close(mixed(*images), plain)


def test_models_are_found_in_folders_and_scripted_modules_taken(images, network, tmp_path):
    expected = ImpactLoss(network(Convolutions()))(*images)
    assert torch.equal(ImpactLoss("some/net.pt", folders=[tmp_path])(*images), expected)
    with torchscript():
        scripted = torch.jit.load(tmp_path / "net.pt")
    loss = ImpactLoss(scripted, trainable=True)
    loss(*images).backward()
    assert all(weight.grad is not None for weight in scripted.first.parameters())
    torch.testing.assert_close(loss(*images).detach(), expected)


def test_training_a_translation_finds_the_shift_of_another_contrast():
    shift = torch.tensor([1.6, -1.1, 2.3])
    fixed, moving = blob((0, 0, 0)), 3 - 2 * blob(shift)
    loss = ImpactLoss("MIND/R1D2_3D.pt")
    with torch.no_grad():
        known = loss.features(fixed)
    inside = functional.pad(torch.ones(1, 1, 12, 12, 12), [4] * 6)
    found = torch.zeros(3, requires_grad=True)
    optimizer = torch.optim.Adam([found], lr=0.2)
    for _ in range(60):
        optimizer.zero_grad()
        # grid_sample counts x first, in halves of the image
        to_moving = torch.cat([torch.eye(3), (found.flip(0) * 2 / 19)[:, None]], 1)[None]
        grid = functional.affine_grid(to_moving, [1, 1, 20, 20, 20], align_corners=True)
        warped = functional.grid_sample(moving, grid, align_corners=True, padding_mode="border")
        loss.compare(known, loss.features(warped), inside).backward()
        optimizer.step()
    torch.testing.assert_close(found.detach(), shift, rtol=0, atol=0.1)


@pytest.mark.parametrize(
    ("keys", "kind", "words"),
    [
        ({"model": NoList()}, ModelError, "NoList: the model returns a Tensor; a list of tensors is needed"),
        ({"layers_mask": "111"}, ModelError, "returns 2 layers; 3 are asked for"),
        ({"layers_mask": "12"}, ParameterError, "layers_mask '12'"),
        ({"layers_mask": "00"}, ParameterError, "at least one 1"),
        ({"distance": "L3"}, ParameterError, "did you mean L"),
        ({"weights": [1.0, 2.0]}, ParameterError, "one value, or 1"),
        ({"weights": float("nan")}, ParameterError, "finite weight"),
        ({"subset_features": -1}, ParameterError, "subset of 0"),
        ({"dimension": 4}, ParameterError, "dimension 2 or 3"),
        ({"slices_at_once": 0}, ParameterError, "slices_at_once of at least 1"),
        ({"axis": 3}, ParameterError, "axis 0, 1 or 2"),
        ({"channels": 2, "model": Convolutions(3, 2)}, None, ""),
        ({"channels": 3}, ModelError, "expected input"),
        ({"model": []}, ParameterError, "at least one model"),
        ({"model": 3}, ModelError, "not int"),
        ({"model": "nowhere.pt"}, ModelError, "there is no such model file"),
        ({"model": "MIND/R1D2_3D.pt", "trainable": True}, ModelError, "only train modules"),
    ],
)
def test_a_mistake_in_the_making_is_told_in_one_line(images, keys, kind, words):
    asked = {"model": Convolutions(), **keys}
    if kind is None:
        assert bool(ImpactLoss(**asked)(*images).isfinite())
        return
    with pytest.raises(kind) as told:
        ImpactLoss(**asked)(*images)
    assert words in str(told.value)
    assert "\n" not in str(told.value)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda f, m: (f, m[:, :, :-1]), "need the same shape and device"),
        (lambda f, m: (f[0, 0], m[0, 0]), "images [batch, channel, y, x]"),
        (lambda f, m: (f[:0], m[:0]), "images [batch, channel, y, x]"),
        (lambda f, m: (f, m, f[..., 0]), "does not fit images"),
        (lambda f, m: (f, m, f.expand(-1, 2, -1, -1, -1)), "a mask [2 or 1, 1, *space]"),
        (lambda f, m: (f, m, torch.zeros(1, 1, 6, 7, 8)), "mask 1 of the batch has no voxel"),
        (lambda f, m: (f[:, :, 0], m[:, :, 0]), "a 3D model cannot take 2D images"),
        (lambda f, m: (f * float("nan"), m), "not finite numbers, as has its input"),
        (lambda f, m: (f.expand(-1, 2, -1, -1, -1), m.expand(-1, 2, -1, -1, -1)), "takes 1 channels"),
    ],
)
def test_a_mistake_in_the_images_is_told_in_one_line(images, change, words):
    loss = ImpactLoss(Convolutions(), dimension=3, channels=1)
    with pytest.raises(ImpactregError) as told:
        loss(*change(*images))
    assert words in str(told.value)
    assert "\n" not in str(told.value)


def test_features_that_do_not_fit_are_told(images):
    loss = ImpactLoss(Convolutions())
    features = loss.features(images[0])
    with pytest.raises(ModelError, match="1 layers are compared, not 2 fixed and 1 moving"):
        loss.compare(features * 2, features)
    with pytest.raises(ModelError, match="layers of equal shape"):
        loss.compare(features, [features[0][:, :2]])
    with pytest.raises(ImageError, match="statistics are"):
        ImpactLoss(Standardised())(*images, fixed_statistics=[1.0, 2.0])
    with pytest.raises(ImageError, match="direction is a matrix"):
        loss(*images, direction=torch.eye(2))
