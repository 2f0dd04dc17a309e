"""Impact in Jacobian mode: the reference's numbers, exact gradients, shared tiles, planes, and what it refuses."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from impactreg.components.boxes import Boxes
from impactreg.components.metrics import impact_jacobian
from impactreg.components.metrics.distances import DISTANCES
from impactreg.components.metrics.metric import Metric
from impactreg.components.samplers import FullSampler, GridSampler, Samples
from impactreg.components.setup import Setup
from impactreg.components.transforms.linear import TranslationTransform
from impactreg.components.transforms.transform import Combination, Transform
from impactreg.errors import RegistrationError
from impactreg.images import Grid, Image, Mask
from impactreg.images.files import read_image
from impactreg.parameters import ParameterMap

CASES = [f"{distance}_{kind}" for distance in DISTANCES for kind in ("translation", "bspline")]
MIND = "MIND/R1D1_3D.pt"


class Flat(nn.Module):
    """A layer of 3x3 convolutions of a 2D image."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first = nn.Conv2d(1, 4, 3, padding=1)

    def forward(self, x: Tensor) -> list[Tensor]:
        return [torch.tanh(self.first(x))]


class Told(nn.Module):
    """What a model of four arguments is told, as features."""

    def forward(self, x: Tensor, number: Tensor, statistics: Tensor, direction: Tensor) -> list[Tensor]:
        told = torch.cat([statistics, direction.flatten().float(), number.float()[None]])
        return [x + told[None, :, None, None, None]]


def keys(path, **more):
    given = {"ImpactMode": "Jacobian", "ImpactModelsPath0": path, "ImpactVoxelSize0": 1.5, "ImpactPatchSize0": 7}
    return given | more


def shift(*by):
    return Combination(TranslationTransform(torch.tensor(by, dtype=torch.float64), torch.zeros(len(by)).double()))


def at_points(points):
    return Samples(points, torch.zeros(len(points), dtype=torch.float64))


def shown(given, samples):
    """The layout of the patches of a metric, and the features that it compares."""
    return given.mode._layout(samples.points)


# What the reference gets right.


def reference(shared, scene, case, **changes):
    root = shared / "reference/impact_elastix"
    parameters = ParameterMap.read(root / f"Jacobian_{case}" / "map.txt")
    parameters = parameters.replace(ImpactModelsPath0=str(root / "inputs/toy_2_layers.pt"), **changes)
    fixed, moving = (read_image(root / f"inputs/{name}.mha").to(dtype=torch.float32) for name in ("fixed", "moving"))
    component = Metric.named("Impact")
    metric = component(component.Settings.read(parameters), replace(scene(fixed, moving), parameter_map=parameters))
    kind = Transform.named(parameters["Transform"][0])
    transform = Combination(kind.begin(kind.Settings.read(parameters), Setup(fixed, moving)))
    samples = GridSampler(GridSampler.Settings.read(parameters), fixed, None, torch.Generator()).draw(values=False)
    return root / f"Jacobian_{case}", metric, transform, samples


@pytest.mark.parametrize("evaluation", ["Patches", "Dense"])
@pytest.mark.parametrize("case", CASES)
def test_the_metric_is_that_of_the_reference_at_its_parameters(shared, scene, case, evaluation):
    folder, metric, transform, samples = reference(shared, scene, case, ImpactEvaluation=evaluation)
    rows = (folder / "IterationInfo.0.R0.txt").read_text(encoding="utf-8").splitlines()[1:]
    files = [folder / f"TransformParameters.0.R0.It{i:07d}.txt" for i in range(len(rows) - 1)]
    steps = [torch.tensor(ParameterMap.read(f).numbers("TransformParameters")).double() for f in files]
    for step, row in zip([transform.parameters, *steps], rows, strict=True):
        found = metric.evaluate(transform.with_parameters(step), samples, gradient=False)
        assert found.value == pytest.approx(float(row.split("\t")[1]), rel=1e-5)


@pytest.mark.parametrize("distance", ["L1", "L2", "NCC", "DotProduct"])
def test_the_gradient_to_a_translation_has_the_length_that_the_reference_writes(shared, scene, distance):
    folder, metric, transform, samples = reference(shared, scene, f"{distance}_translation")
    first = (folder / "IterationInfo.0.R0.txt").read_text(encoding="utf-8").splitlines()[1]
    found = metric.evaluate(transform, samples)
    assert float(found.gradient.norm()) == pytest.approx(float(first.split("\t")[3]), rel=1e-4)


# What it gets wrong: derivatives are exact, at every point of a patch.


@pytest.fixture
def precise(pair):
    return tuple(image.to(dtype=torch.float64) for image in pair)


@pytest.mark.parametrize("kind", ["euler", "affine", "spline"])
@pytest.mark.parametrize("distance", DISTANCES)
def test_the_gradient_is_that_of_the_value(
    metric, network, precise, samples, transforms, assert_slopes, distance, kind
):
    given = metric(
        "Impact",
        *precise,
        **keys(network("Convolutions", dtype=torch.float64), ImpactLayersMask0="11", ImpactDistance0=distance),
    )
    assert_slopes(given, transforms[kind], samples, rtol=1e-5, step=1e-5)


@pytest.mark.parametrize("kind", ["affine", "spline"])
def test_the_gradient_of_mind_is_that_of_the_value(metric, precise, samples, transforms, assert_slopes, kind):
    given = metric("Impact", *precise, **keys(MIND, ImpactPatchSize0=[5, 6, 7], ImpactVoxelSize0=[1, 1.5, 1.2]))
    assert_slopes(given, transforms[kind], samples, rtol=1e-5, step=1e-5)


@pytest.mark.parametrize("compose", [True, False])
@pytest.mark.parametrize(("current", "initial"), [("affine", "spline"), ("spline", "affine"), ("spline", "spline")])
def test_the_gradient_on_top_of_an_initial_transform_is_that_of_the_value(
    metric, network, precise, samples, transforms, assert_slopes, current, initial, compose
):
    given = metric("Impact", *precise, **keys(network("Convolutions", dtype=torch.float64)))
    both = Combination(transforms[current].current, transforms[initial], compose)
    assert_slopes(given, both, samples, rtol=1e-5, step=1e-5)


@pytest.mark.parametrize("kind", ["affine", "spline"])
def test_the_gradient_with_a_mask_and_an_oblique_fixed_image_is_that_of_the_value(
    metric, network, precise, samples, transforms, assert_slopes, image, kind
):
    turn = torch.linalg.qr(torch.randn(3, 3, generator=torch.Generator().manual_seed(4)).double())[0]
    corner = torch.tensor([10.0, 12, 11]).double() - turn @ torch.tensor([12.0, 12, 12]).double()
    oblique = image(Grid.of((25, 25, 25), None, corner.numpy(), turn.numpy())).to(dtype=torch.float64)
    moving = precise[1]
    inside = moving.grid.points()[:, 0].reshape(moving.grid.shape) < 14
    given = metric(
        "Impact",
        oblique,
        moving,
        changes={"moving_mask": Mask(inside, moving.grid)},
        **keys(network("Convolutions", dtype=torch.float64), ImpactLayersMask0="01", RequiredRatioOfValidSamples=0.05),
    )
    assert_slopes(given, transforms[kind], samples, rtol=1e-5, step=1e-5)


def test_the_gradient_may_be_scaled(metric, network, pair, samples, transforms):
    plain, scaled = (
        metric("Impact", *pair, **keys(network("Convolutions")), **scales).evaluate(transforms["translation"], samples)
        for scales in ({}, {"MovingImageDerivativeScales": [1, 0.5, 0]})
    )
    assert scaled.value == plain.value
    torch.testing.assert_close(scaled.gradient, plain.gradient * torch.tensor([1, 0.5, 0]).double())


# The same features, by cheaper ways.


@pytest.mark.parametrize("times", [1, 2, 0.5])
@pytest.mark.parametrize(
    ("net", "mask", "patch"),
    [("Convolutions", "11", 5), ("Convolutions", "10", 5), ("SmallUNet", "1", 14), ("SmallUNet", "1", 12)],
)
def test_shared_tiles_give_the_metric_and_the_gradient_of_patches(
    metric, network, pair, voxels, transforms, net, mask, patch, times
):
    path, voxel = network(net), [times * s for s in pair[0].grid.spacing]
    patches, dense = (
        metric(
            "Impact",
            *pair,
            **keys(
                path,
                ImpactEvaluation=evaluation,
                ImpactLayersMask0=mask,
                ImpactPatchSize0=patch,
                ImpactVoxelSize0=[0.25 * v if patch > 7 else v for v in voxel],
                ImpactDistance0="NCC",
                RequiredRatioOfValidSamples=0.02,
            ),
        )
        for evaluation in ("Patches", "Dense")
    )
    own, shared_ = (m.evaluate(transforms["spline"], voxels) for m in (patches, dense))
    assert shown(patches, voxels).tiles[0].tile_of is None
    assert shown(dense, voxels).tiles[0].tile_of is not None
    assert shared_.value == pytest.approx(own.value, rel=1e-5)
    torch.testing.assert_close(shared_.gradient, own.gradient, rtol=1e-4, atol=1e-6)


def test_all_voxels_are_evaluated_in_tiles_without_being_asked_for(metric, network, pair):
    fixed = pair[0]
    samples = FullSampler(FullSampler.Settings.read(ParameterMap.from_dict({})), fixed, None, torch.Generator()).draw()
    given = metric(
        "Impact",
        *pair,
        **keys(network("Convolutions"), ImpactVoxelSize0=list(fixed.grid.spacing), ImpactLayersMask0="11"),
    )
    tiles = shown(given, samples).tiles[0]
    assert tiles.tile_of is not None
    assert tiles.voxels < 0.6 * 125 * len(samples)


def test_a_model_sees_no_more_of_a_patch_than_its_features_depend_on(metric, network, pair, samples):
    given = metric("Impact", *pair, **keys(network("Convolutions"), ImpactPatchSize0=11, ImpactLayersMask0="11"))
    assert shown(given, samples).tiles[0].boxes.shape == (5, 5, 5)


@pytest.mark.parametrize("size", [1, 17, 69, 500])
def test_the_number_of_patches_at_once_changes_nothing(metric, network, pair, samples, transforms, size):
    asked = keys(network("Convolutions"), ImpactLayersMask0="11", ImpactDistance0=["NCC", "L1Cosine"])
    whole, pieces = (metric("Impact", *pair, **asked, **more) for more in ({}, {"ImpactBatchSize": size}))
    for transform in (transforms["spline"], transforms["affine"]):
        expected, found = (m.evaluate(transform, samples) for m in (whole, pieces))
        assert found.value == pytest.approx(expected.value, rel=1e-6)
        torch.testing.assert_close(found.gradient, expected.gradient, rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize("memory", [100, 1000])
def test_tiles_at_once_change_nothing(metric, network, pair, voxels, transforms, monkeypatch, memory):
    asked = keys(network("Convolutions"), ImpactEvaluation="Dense", ImpactVoxelSize0=list(pair[0].grid.spacing))
    expected = metric("Impact", *pair, **asked).evaluate(transforms["spline"], voxels)
    monkeypatch.setattr(impact_jacobian, "VOXELS_IN_MEMORY", memory)
    found = metric("Impact", *pair, **asked).evaluate(transforms["spline"], voxels)
    assert found.value == pytest.approx(expected.value, rel=1e-6)
    torch.testing.assert_close(found.gradient, expected.gradient, rtol=1e-4, atol=1e-7)


# Where patches lie.


@pytest.fixture
def central():
    """Samples near the middle of the images, where a spline has no border."""
    points = torch.rand(20, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64) * 2 + 10
    return at_points(points)


def ramp(grid, *slopes):
    return Image((grid.points() @ torch.tensor(slopes).double()).reshape(1, *grid.shape).float(), grid)


def test_patches_with_sides_of_different_length_keep_their_axes(metric, network, pair, central):
    asked = keys(network("Differences"), ImpactPatchSize0=[3, 5, 7], ImpactVoxelSize0=[1.5, 0.5, 0.8])
    given = metric("Impact", *(ramp(i.grid, 1, 10, 100) for i in pair), **asked)
    features = shown(given, central).fixed[0]
    torch.testing.assert_close(features, torch.tensor([1.5, 5, 80]).expand(20, 3), rtol=1e-2, atol=1e-2)


def test_patches_lie_along_the_axes_of_the_fixed_image(metric, network, pair, central):
    moving, fixed = pair
    asked = keys(network("Differences"), ImpactPatchSize0=3)
    given = metric("Impact", ramp(fixed.grid, 1, 10, 100), ramp(moving.grid, 1, 10, 100), **asked)
    expected = 1.5 * (torch.tensor([1.0, 10, 100]).double() @ torch.tensor(fixed.grid.direction).double())
    torch.testing.assert_close(shown(given, central).fixed[0][5].double(), expected, rtol=1e-2, atol=1e-1)


def test_a_model_of_four_arguments_is_told_of_its_own_image_and_of_the_axes_of_the_patch(
    metric, network, pair, samples
):
    moving, fixed = pair
    turned = Grid.of(fixed.grid.size, fixed.grid.spacing, fixed.grid.origin, [[0, 1, 0], [1, 0, 0], [0, 0, 1]])
    fixed, moving = Image(fixed.data * 0 + 3, turned), moving.with_data(moving.data * 0 + 5)
    given = metric("Impact", fixed, moving, **keys(network(Told()), ImpactDistance0="DotProduct"))
    points = at_points(fixed.grid.index_to_world(torch.tensor([[6.0, 6, 6], [7.0, 6, 7]]).double()))
    told = [3, 3, 3, 0, 0, 1, 0, 1, 0, 0, 0, 0, 1, 1]
    torch.testing.assert_close(shown(given, points).fixed[0][0], torch.tensor(told) + 3.0)
    other = [5.0, 5, 5, 0, 0, 1, 0, 1, 0, 0, 0, 0, 1, 1]
    inside = moving.grid.index_to_world(torch.tensor([[6.0, 6, 6], [7.0, 6, 7]]).double())
    expected = -float(((torch.tensor(told) + 3.0) * (torch.tensor(other) + 5.0)).sum())
    assert given.evaluate(shift(*(inside - points.points)[0].tolist()), points).value == pytest.approx(expected)


def test_a_sample_counts_where_its_whole_patch_is_in_the_moving_image_and_mask(metric, network, pair):
    fixed, moving = pair
    grid = Grid.of((40, 40, 40), (1, 1, 1), (-5, -5, -5))
    fixed = moving = ramp(grid, 0.1, 0.2, 0.3)
    points = torch.tensor([[x, 12.0, 12.0] for x in (12.0, 20.0, 28.0, 30.4, 30.6, 34.4)]).double()
    path = network("Pointwise")
    for evaluation in ("Patches", "Auto"):
        asked = keys(
            path, ImpactPatchSize0=5, ImpactVoxelSize0=2, ImpactEvaluation=evaluation, CheckNumberOfSamples=False
        )
        counted = []
        for mask in (None, Mask(grid.points()[:, 0].reshape(grid.shape) < 25, grid)):
            given = metric("Impact", fixed, moving, changes={"moving_mask": mask}, **asked)
            kept = []
            given.check = lambda number, _, kept=kept: kept.append(number)
            given.evaluate(shift(0, 0, 0), at_points(points))
            counted += kept
        # a patch reaches 4 mm to each side; the buffer ends at 34.5 mm, the mask at 24.5 mm
        assert counted == [4, 2]


def test_patches_may_leave_the_fixed_image_whose_border_is_mirrored(metric, network):
    grid = Grid.of((9, 9, 9))
    values = torch.randn(9, 9, 9, generator=torch.Generator().manual_seed(0))
    given = metric(
        "Impact",
        Image.of(values),
        ramp(Grid.of((99, 99, 99), None, (-45, -45, -45)), 1, 0, 0),
        **keys(network("Pointwise"), ImpactPatchSize0=[1, 1, 1], ImpactVoxelSize0=1),
    )
    box = given.mode.fixed
    outside = torch.tensor([[-3.0, 4, 4], [10.0, 4, 4], [27.0, 4, 4]]).double()
    boxes = Boxes(outside, torch.eye(3)[None].double(), (1, 1, 1))
    torch.testing.assert_close(box.values(boxes).flatten(), values[4, 4, [3, 6, 5]], rtol=1e-4, atol=1e-5)
    assert grid.size == (9, 9, 9)


def test_too_many_samples_outside_are_an_error(metric, network, pair, samples):
    given = metric("Impact", *pair, **keys(network("Convolutions")))
    with pytest.raises(
        RegistrationError, match=r"^Too many samples map outside moving image buffer: 0 / 70 are inside"
    ):
        given.evaluate(shift(1000, 0, 0), samples)


# Planes of 3D images, and 2D images.


def test_planes_of_a_2d_model_see_the_sample_in_their_middle(metric, network, pair, samples):
    path = network("Pointwise")
    flat = metric("Impact", *pair, **keys(path, ImpactDimension0=2, ImpactPatchSize0=5))
    solid = metric("Impact", *pair, **keys(path, ImpactPatchSize0=1))
    torch.testing.assert_close(shown(flat, samples).fixed[0], shown(solid, samples).fixed[0], rtol=1e-5, atol=1e-5)


def test_planes_are_turned_at_random_and_repeat_with_the_seed(metric, network, pair, samples):
    def run(seed):
        given = metric("Impact", *pair, seed=seed, **keys(network(Flat()), ImpactDimension0=2, ImpactDistance0="NCC"))
        fresh = (at_points(samples.points.clone()) for _ in range(2))
        return [given.evaluate(shift(0.5, 0, 0), each).value for each in fresh]

    first = run(1)
    assert first[0] != first[1]
    assert run(1) == first
    assert run(2) != first


def test_planes_stay_as_long_as_the_samples(metric, network, pair, samples):
    given = metric("Impact", *pair, **keys(network(Flat()), ImpactDimension0=2, ImpactDistance0="NCC"))
    first = given.evaluate(shift(0.5, 0, 0), samples)
    assert given.evaluate(shift(0.5, 0, 0), samples).value == first.value


@pytest.mark.parametrize("kind", ["affine", "spline"])
def test_the_gradient_of_planes_is_that_of_the_value(
    metric, network, precise, samples, transforms, assert_slopes, kind
):
    asked = keys(network(Flat().double()), ImpactDimension0=2, ImpactPatchSize0=[5, 7], ImpactVoxelSize0=[1.5, 1])
    assert_slopes(metric("Impact", *precise, **asked), transforms[kind], samples, rtol=1e-5, step=1e-5)


def test_turns_are_those_of_the_reference(generator):
    turns = impact_jacobian.random_turns(1000, generator)
    eye = torch.eye(3).double().expand(1000, 3, 3)
    torch.testing.assert_close(turns @ turns.mT, eye)
    torch.testing.assert_close(torch.linalg.det(turns), torch.ones(1000).double())
    angles = torch.rand(1000, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64) * 2 * torch.pi
    x, y, z = angles.unbind(1)
    torch.testing.assert_close(turns[:, 2, 0], -y.sin())
    torch.testing.assert_close(turns[:, 0, 0], z.cos() * y.cos())
    torch.testing.assert_close(turns[:, 2, 2], y.cos() * x.cos())


def test_the_gradient_in_2d_images_is_that_of_the_value(metric, network, image, assert_slopes):
    fixed, moving = (image(Grid.of((31, 18), (1.0, 1.2), (2.0, 3.0)), by).to(dtype=torch.float64) for by in (0, 1.5))
    points = torch.rand(50, 2, generator=torch.Generator().manual_seed(0)).double() * 10 + 8
    given = metric("Impact", fixed, moving, **keys(network(Flat().double()), ImpactPatchSize0=[5, 3]))
    assert_slopes(given, shift(0.3, -0.2), at_points(points), rtol=1e-5, step=1e-5)


# Layers, weights, subsets, components.


def test_layers_of_two_models_are_summed_by_their_weights(metric, network, pair, samples):
    paths = [network("Convolutions", "first.pt"), network("Pointwise", "second.pt")]
    one, two = (
        metric("Impact", *pair, **keys(p, ImpactLayersMask0=m, ImpactDistance0=d)).evaluate(shift(1, 0, 0), samples)
        for p, m, d in zip(paths, ("01", "1"), ("DotProduct", "NCC"), strict=True)
    )
    masks = {"ImpactLayersMask0": ["01", "1"], "ImpactDistance0": ["DotProduct", "NCC"]}
    both = metric("Impact", *pair, **keys(paths, **masks, ImpactLayersWeight0=[2, 0.5])).evaluate(
        shift(1, 0, 0), samples
    )
    assert both.value == pytest.approx(2 * one.value + 0.5 * two.value)
    torch.testing.assert_close(both.gradient, 2 * one.gradient + 0.5 * two.gradient, rtol=1e-5, atol=1e-7)


def test_a_sample_counts_for_all_models_or_for_none(metric, network, pair):
    fixed = moving = ramp(Grid.of((40, 40, 40), (1, 1, 1), (-5, -5, -5)), 0.1, 0.2, 0.3)
    points = torch.tensor([[x, 12.0, 12.0] for x in (12.0, 20.0, 30.0, 31.0)]).double()
    paths = [network("Convolutions", "first.pt"), network("Pointwise", "second.pt")]
    asked = keys(paths, ImpactPatchSize0=[3, 3, 3, 11, 11, 11], ImpactVoxelSize0=1, ImpactDistance0="DotProduct")
    found = metric("Impact", fixed, moving, **asked).evaluate(shift(0, 0, 0), at_points(points))
    expected = metric("Impact", fixed, moving, **asked).evaluate(shift(0, 0, 0), at_points(points[:2]))
    assert found.value == pytest.approx(expected.value)


def test_fixed_and_moving_models_may_differ_in_patch_and_voxel_size(metric, network, pair, samples):
    same = metric("Impact", *pair, **keys(network("Pointwise"), ImpactPatchSize0=3, ImpactDistance0="Dice"))
    apart = metric(
        "Impact",
        *pair,
        ImpactMode="Jacobian",
        ImpactFixedModelsPath0=network("Pointwise", "fixed.pt"),
        ImpactMovingModelsPath0=network("Pointwise", "moving.pt"),
        ImpactVoxelSize0=1.5,
        ImpactMovingVoxelSize0=1,
        ImpactFixedPatchSize0=[3, 4, 5],
        ImpactMovingPatchSize0=3,
        ImpactDistance0="Dice",
    )
    found = apart.evaluate(shift(0, 0, 0), samples).value
    assert found == pytest.approx(same.evaluate(shift(0, 0, 0), samples).value)


def test_random_channels_change_from_iteration_to_iteration_and_repeat_with_the_seed(metric, network, pair, samples):
    def run(seed):
        asked = keys(network("Pointwise"), ImpactSubsetFeatures0=1, ImpactDistance0="DotProduct")
        given = metric("Impact", *pair, seed=seed, **asked)
        return [given.evaluate(shift(0, 0, 0), samples).value for _ in range(12)]

    first = run(1)
    assert len({round(v, 6) for v in first}) == 3
    assert run(1) == first


def test_the_gradient_of_some_channels_is_that_of_the_value(metric, network, precise, samples, transforms):
    def value(by, gradient=False):
        asked = keys(
            network("Convolutions", dtype=torch.float64), ImpactSubsetFeatures0=2, ImpactDistance0="DotProduct"
        )
        transform = transforms["affine"]
        moved = transform.with_parameters(transform.parameters + by)
        return metric("Impact", *precise, seed=3, **asked).evaluate(moved, samples, gradient=gradient)

    gradient = value(torch.zeros(12), gradient=True).gradient
    direction = gradient / gradient.norm() * 1e-5
    slope = (value(direction).value - value(-direction).value) / 2e-5
    assert slope == pytest.approx(float(gradient.norm()), rel=1e-5)


@pytest.mark.parametrize("distance", ["L2", "Cosine"])
def test_the_gradient_of_principal_components_is_that_of_the_value(
    metric, network, precise, samples, transforms, assert_slopes, distance
):
    asked = keys(network("Convolutions", dtype=torch.float64), ImpactPCA0=2, ImpactDistance0=distance)
    given = metric("Impact", *precise, **asked)
    assert_slopes(given, transforms["affine"], samples, rtol=1e-5, step=1e-5)
    assert given.mode.comparisons[0].basis.shape == (4, 2)


def test_all_principal_components_keep_every_difference(metric, network, pair, samples):
    plain, turned = (
        metric("Impact", *pair, **keys(network("Pointwise"), ImpactPCA0=n, ImpactDistance0="NCC")) for n in (0, 3)
    )
    values = [[m.evaluate(shift(by, 0, 0), samples).value for by in (0, 1)] for m in (plain, turned)]
    assert all(-1 <= v <= 1 for row in values for v in row)
    squared = [
        metric("Impact", *pair, **keys(network("Pointwise"), ImpactPCA0=n, ImpactDistance0="L2")) for n in (0, 3)
    ]
    for m in squared:
        m.evaluate(shift(0, 0, 0), samples)
        m.mode.comparisons[0].norm = 1.0
        if m.mode.comparisons[0].means:
            m.mode.comparisons[0].means = (m.mode.comparisons[0].means[0],) * 2
    one, other = (m.evaluate(shift(1, 0, 0), samples).value for m in squared)
    assert other == pytest.approx(one, rel=1e-4)


def test_identical_images_give_zero_and_no_gradient(metric, network, pair, samples):
    fixed = pair[0]
    found = metric("Impact", fixed, fixed, **keys(network("Convolutions"), ImpactLayersMask0="11")).evaluate(
        shift(0, 0, 0), samples
    )
    assert found.value == pytest.approx(0, abs=1e-8)
    assert float(found.gradient.abs().max()) < 1e-4


def test_one_channel_is_repeated_for_a_model_of_several(metric, network, pair, samples, assert_slopes):
    given = metric(
        "Impact",
        *pair,
        **keys(network("Colours", "colours.pt"), ImpactNumberOfChannels0=3, ImpactDistance0="DotProduct"),
    )
    plain = metric("Impact", *pair, **keys(network("Pointwise"), ImpactPatchSize0=1))
    expected = 7 * shown(plain, samples).fixed[0][:, :1]
    torch.testing.assert_close(shown(given, samples).fixed[0], expected)
    assert_slopes(given, shift(0.3, 0.2, 0.1), samples, rtol=1e-2, step=1e-2)
