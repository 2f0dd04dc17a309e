"""Impact in Static mode: the reference's numbers, what the reference gets wrong, and exact gradients."""

from dataclasses import replace

import pytest
import SimpleITK
import torch
from torch import Tensor, nn

from impactreg.components.metrics import impact_static
from impactreg.components.metrics.distances import DISTANCES
from impactreg.components.metrics.metric import Metric
from impactreg.components.samplers import GridSampler, Samples
from impactreg.components.setup import Setup
from impactreg.components.transforms.linear import TranslationTransform
from impactreg.components.transforms.transform import Combination, Transform
from impactreg.errors import ModelError, OutputError, ParameterError, RegistrationError
from impactreg.images import Grid, Image, Mask
from impactreg.images.files import read_image
from impactreg.parameters import ParameterMap

# Of these the reference's own gradient is wrong; test_multi_resolution follows the others from iteration to iteration.
CASES = [f"Static_{name}_{transform}" for name in ("Cosine", "L1Cosine") for transform in ("translation", "bspline")]


class Strided(nn.Module):
    """The image, and every second voxel of it."""

    def forward(self, x: Tensor) -> list[Tensor]:
        return [x, torch.cat([x, x * x], dim=1)[:, :, ::2, ::2, ::2]]


class Three(nn.Module):
    """Takes three arguments, which the reference refuses."""

    def forward(self, x: Tensor, number: Tensor, statistics: Tensor) -> list[Tensor]:
        return [(x - statistics[2]) / statistics[3]]


class Along(nn.Module):
    """Differences along the first and the second axis of a 2D image, which differ where the two are exchanged."""

    def forward(self, x: Tensor) -> list[Tensor]:
        first = torch.zeros_like(x)
        second = torch.zeros_like(x)
        first[:, :, :, 1:] = x[:, :, :, 1:] - x[:, :, :, :-1]
        second[:, :, 1:] = x[:, :, 1:] - x[:, :, :-1]
        return [torch.cat([first, second], dim=1)]


def shift(*by):
    return Combination(TranslationTransform(torch.tensor(by, dtype=torch.float64), torch.zeros(len(by)).double()))


def at_points(points):
    return Samples(points, torch.zeros(len(points), dtype=torch.float64))


def keys(path, **more):
    return {"ImpactModelsPath0": path, "ImpactVoxelSize0": 2, "ImpactSubsetFeatures0": 0, **more}


def reference_numbers(folder, transform):
    """The parameters that each iteration of a reference run starts from, and the metric there."""
    rows = (folder / "IterationInfo.0.R0.txt").read_text(encoding="utf-8").splitlines()[1:]
    metric = [float(row.split("\t")[1]) for row in rows]
    files = [folder / f"TransformParameters.0.R0.It{i:07d}.txt" for i in range(len(rows) - 1)]
    steps = [torch.tensor(ParameterMap.read(f).numbers("TransformParameters")).double() for f in files]
    return list(zip([transform.parameters, *steps], metric, strict=True))


@pytest.mark.parametrize("case", CASES)
def test_the_metric_is_that_of_the_reference_at_its_parameters(shared, scene, case):
    root = shared / "reference/impact_elastix"
    parameters = ParameterMap.read(root / case / "map.txt")
    parameters = parameters.replace(ImpactModelsPath0=str(root / "inputs/toy_2_layers.pt"))
    fixed, moving = (read_image(root / f"inputs/{name}.mha").to(dtype=torch.float32) for name in ("fixed", "moving"))
    metric = Metric.named("Impact")(
        Metric.named("Impact").Settings.read(parameters), replace(scene(fixed, moving), parameter_map=parameters)
    )
    kind = Transform.named(parameters["Transform"][0])
    transform = Combination(kind.begin(kind.Settings.read(parameters), Setup(fixed, moving)))
    sampler = GridSampler(GridSampler.Settings.read(parameters), fixed, None, torch.Generator())
    samples = sampler.draw(values=False)
    for step, expected in reference_numbers(root / case, transform):
        found = metric.evaluate(transform.with_parameters(step), samples, gradient=False)
        assert found.value == pytest.approx(expected, rel=1e-4, abs=1e-6)


@pytest.fixture
def precise(monkeypatch):
    """Feature maps in float64, for finite differences."""
    extract = impact_static.extract

    def exactly(*args, **keys):
        return [image.to(dtype=torch.float64) for image in extract(*args, **keys)]

    monkeypatch.setattr(impact_static, "extract", exactly)


@pytest.mark.usefixtures("precise")
@pytest.mark.parametrize("kind", ["euler", "affine", "spline"])
@pytest.mark.parametrize("distance", DISTANCES)
def test_the_gradient_is_that_of_the_value(metric, network, pair, samples, transforms, assert_slopes, distance, kind):
    given = metric("Impact", *pair, **keys(network(Strided()), ImpactLayersMask0="11", ImpactDistance0=distance))
    assert_slopes(given, transforms[kind], samples)


@pytest.mark.usefixtures("precise")
@pytest.mark.parametrize("compose", [True, False])
def test_the_gradient_on_top_of_an_initial_transform_is_that_of_the_value(
    metric, network, pair, samples, transforms, assert_slopes, compose
):
    given = metric("Impact", *pair, **keys(network("Pointwise")))
    assert_slopes(given, Combination(transforms["affine"].current, transforms["spline"], compose), samples, rtol=1e-5)


def test_the_gradient_may_be_scaled(metric, network, pair, samples, transforms):
    layers = keys(network("Pointwise"))
    plain, scaled = (
        metric("Impact", *pair, **layers, **scales).evaluate(transforms["translation"], samples)
        for scales in ({}, {"MovingImageDerivativeScales": [1, 0.5, 0]})
    )
    assert scaled.value == plain.value
    torch.testing.assert_close(scaled.gradient, plain.gradient * torch.tensor([1, 0.5, 0]).double())


def test_points_in_pieces_give_the_same_value_and_gradient(metric, network, pair, samples, transforms, monkeypatch):
    layers = keys(network(Strided()), ImpactLayersMask0="11", ImpactDistance0=["NCC", "L1Cosine"])
    whole = metric("Impact", *pair, **layers).evaluate(transforms["spline"], samples)
    monkeypatch.setattr(impact_static, "POINTS_AT_ONCE", 16)
    pieces = metric("Impact", *pair, **layers).evaluate(transforms["spline"], samples)
    assert pieces.value == pytest.approx(whole.value, rel=1e-6)
    torch.testing.assert_close(pieces.gradient, whole.gradient, rtol=1e-4, atol=1e-7)


# What the reference gets wrong.


@pytest.mark.parametrize("distance", ["L1", "L2"])
def test_identical_images_give_zero_and_no_gradient(metric, network, image, samples, transforms, distance):
    fixed = image(Grid.of((12, 14, 13), (2.0, 1.8, 1.9), (-1.0, 0.5, -0.5)))
    found = metric("Impact", fixed, fixed, **keys(network(Strided()), ImpactDistance0=distance, ImpactLayersMask0="11"))
    start = found.evaluate(shift(0, 0, 0), samples)
    assert start.value == 0
    assert torch.equal(start.gradient, torch.zeros(3).double())
    later = found.evaluate(transforms["affine"], samples)
    assert later.value > 0
    assert bool(later.gradient.isfinite().all())


@pytest.mark.parametrize("distance", ["Cosine", "L1Cosine", "NCC", "Dice"])
def test_identical_images_are_an_optimum_of_every_likeness(metric, network, image, samples, distance):
    fixed = image(Grid.of((12, 14, 13), (2.0, 1.8, 1.9), (-1.0, 0.5, -0.5)))
    given = metric("Impact", fixed, fixed, **keys(network("Pointwise"), ImpactDistance0=distance))
    if distance == "Dice":
        assert given.evaluate(shift(0, 0, 0), samples).value < 0
        return
    found = given.evaluate(shift(0, 0, 0), samples)
    assert found.value == pytest.approx(-1, abs=1e-6)
    torch.testing.assert_close(found.gradient, torch.zeros(3).double(), rtol=0, atol=1e-6)


def test_oblique_images_give_the_metric_of_upright_ones(metric, network, image, samples, transforms):
    turn = torch.linalg.qr(torch.randn(3, 3, generator=torch.Generator().manual_seed(4)).double())[0]
    turn = (turn * torch.linalg.det(turn)).numpy()
    corner = [10, 12, 11] - turn @ [19.0, 19.0, 19.0]
    upright, oblique = Grid.of((39,) * 3, None, (-9, -7, -8)), Grid.of((39,) * 3, None, corner, turn)
    values = {}
    for name, grid in {"upright": upright, "oblique": oblique}.items():
        asked = keys(network("Pointwise"), ImpactDistance0="NCC", ImpactVoxelSize0=1.3)
        given = metric("Impact", image(grid), image(grid, 2.0), **asked)
        values[name] = given.evaluate(transforms["affine"], samples)
    assert values["oblique"].value == pytest.approx(values["upright"].value, rel=1e-3)
    torch.testing.assert_close(values["oblique"].gradient, values["upright"].gradient, rtol=0.02, atol=2e-4)


def test_mind_sees_the_same_in_an_image_of_exchanged_axes(metric, image, samples, mind, transforms):
    grid = Grid.of((18, 20, 16), (1.5, 1.5, 1.5), (-1.0, 0.5, -0.5))
    values = []
    for turned in (lambda i: i, exchanged):
        pair = turned(image(grid)), turned(image(grid, 2.0))
        values.append(
            metric("Impact", *pair, **keys(mind, ImpactVoxelSize0=1.5)).evaluate(transforms["affine"], samples)
        )
    upright, other = values
    assert other.value == pytest.approx(upright.value, rel=1e-4)
    torch.testing.assert_close(other.gradient, upright.gradient, rtol=1e-3, atol=1e-4)


def exchanged(image):
    """The same image, stored with another order of the axes."""
    grid = image.grid
    order = (2, 0, 1)
    direction = torch.tensor(grid.direction)[:, order].numpy()
    stored = image.data.permute(0, *(3 - a for a in reversed(order)))
    size, spacing = ([values[a] for a in order] for values in (grid.size, grid.spacing))
    return Image(stored.contiguous(), Grid.of(size, spacing, grid.origin, direction))


@pytest.fixture
def mind(tmp_path_factory, monkeypatch):
    """The built-in MIND, made in a folder of its own."""
    monkeypatch.setenv("IMPACTREG_CACHE", str(tmp_path_factory.getbasetemp() / "models"))
    return "MIND/R1D2_3D.pt"


def test_feature_grids_have_exactly_the_voxel_size_where_it_does_not_divide_the_image(metric, network):
    grid = Grid.of((41, 37, 33), (1.0, 1.3, 0.9), (-4.0, 3.0, 7.0))
    ramp = Image(grid.points()[:, 0].reshape(1, *grid.shape).float(), grid)
    given = metric(
        "Impact", ramp, ramp, **keys(network(Strided()), ImpactVoxelSize0=[1.7, 1.1, 0.8], ImpactLayersMask0="11")
    )
    full, strided = given.mode.layers
    assert full.fixed.grid == Grid.of((24, 44, 37), (1.7, 1.1, 0.8), grid.origin)
    assert strided.moving.grid == Grid.of((12, 22, 19), (3.4, 2.2, 1.6), grid.origin)
    points = torch.tensor([[16.0, 26.0, 21.0], [14.3, 25.1, 20.2], [18.5, 27.0, 23.3]], dtype=torch.float64)
    for layer in (full, strided):
        torch.testing.assert_close(layer.moving.values(points)[:, 0].double(), points[:, 0], rtol=0, atol=5e-3)


def test_a_single_value_is_repeated_and_a_patch_of_zero_is_the_whole_image(metric, network, pair, samples):
    path = network("Pointwise")
    one = metric("Impact", *pair, **keys(path, ImpactPatchSize0=0))
    many = metric("Impact", *pair, **keys(path, ImpactPatchSize0=[0, 0, 0], ImpactVoxelSize0=[2, 2, 2]))
    none = metric("Impact", *pair, **keys(path))
    values = {m.evaluate(shift(0.5, 0, 0), samples).value for m in (one, many, none)}
    assert len(values) == 1


def test_patches_give_nearly_the_features_of_the_whole_image(metric, network, pair, samples):
    whole, tiled = (
        metric("Impact", *pair, **keys(network("Pointwise"), ImpactPatchSize0=patch, ImpactDistance0="NCC"))
        for patch in (0, 6)
    )
    expected = whole.evaluate(shift(0.5, 0, 0), samples).value
    assert tiled.evaluate(shift(0.5, 0, 0), samples).value == pytest.approx(expected, rel=1e-5)


def test_principal_components_of_two_models_are_those_of_each(metric, network, pair, samples):
    first, second = network("Pointwise", "first.pt"), network(Strided(), "second.pt")
    masks = {"ImpactLayersMask0": ["1", "01"], "ImpactPCA0": [2, 1], "ImpactDistance0": "Cosine"}
    both = metric("Impact", *pair, **keys([first, second], **masks))
    assert [layer.fixed.channels for layer in both.mode.layers] == [2, 1]
    alone = metric("Impact", *pair, **keys(first, ImpactPCA0=2, ImpactDistance0="Cosine"))
    other = metric("Impact", *pair, **keys(second, ImpactLayersMask0="01", ImpactPCA0=1, ImpactDistance0="Cosine"))
    expected = sum(m.evaluate(shift(0.5, 0, 0), samples).value for m in (alone, other))
    assert both.evaluate(shift(0.5, 0, 0), samples).value == pytest.approx(expected)


def test_a_network_of_three_arguments_is_given_the_statistics_of_its_own_image(metric, network, pair):
    fixed, moving = pair
    brighter = moving.with_data(moving.data * 3 + 100)
    path = network(Three())
    plain, scaled = (
        metric("Impact", fixed, m, **keys(path, ImpactDistance0="L2")).mode.layers[0].moving for m in (moving, brighter)
    )
    points = fixed.grid.points()
    torch.testing.assert_close(plain.values(points), scaled.values(points), rtol=0, atol=1e-4)


def test_features_of_a_2d_image_that_is_not_square_keep_their_axes(metric, network):
    values = 3.0 * torch.arange(40.0)[None, :] + 100.0 * torch.arange(23.0)[:, None]
    wide, tall = Image.of(values), Image.of(values.T.contiguous())
    path = network(Along())
    for given, expected in ((wide, [3.0, 100.0]), (tall, [100.0, 3.0])):
        layer = metric("Impact", given, given, **keys(path, ImpactVoxelSize0=1)).mode.layers[0]
        found = layer.moving.values(torch.tensor([[11.0, 12.0]]).double())
        assert found[0].tolist() == pytest.approx(expected, rel=1e-3)


def test_a_2d_image_that_is_not_square_gives_the_metric_of_its_transpose(metric, network, image):
    grid = Grid.of((31, 18), (1.0, 1.0), (2.0, 3.0))
    points = torch.rand(50, 2, generator=torch.Generator().manual_seed(0)).double() * 10 + 6
    found = []
    for turned in (lambda i: i, transposed):
        given = metric(
            "Impact",
            *(turned(image(grid, by)) for by in (0.0, 1.5)),
            **keys(network(Along()), ImpactVoxelSize0=1, ImpactDistance0="DotProduct"),
        )
        found.append(given.evaluate(shift(0.3, -0.2), at_points(points)))
    assert found[1].value == pytest.approx(found[0].value, rel=1e-5)
    torch.testing.assert_close(found[1].gradient, found[0].gradient, rtol=1e-4, atol=1e-5)


def transposed(image):
    direction = torch.tensor(image.grid.direction).flip(1).numpy()
    grid = Grid.of(image.grid.size[::-1], image.grid.spacing[::-1], image.grid.origin, direction)
    return Image(image.data.mT.contiguous(), grid)


# Layers, weights, subsets, masks.


def test_layers_are_summed_by_their_weights(metric, network, pair, samples):
    path = network(Strided())
    distances = {"ImpactLayersMask0": "11", "ImpactDistance0": ["DotProduct", "NCC"]}
    first, second, both = (
        metric("Impact", *pair, **keys(path, ImpactLayersWeight0=weights, **distances)).evaluate(
            shift(1, 0, 0), samples
        )
        for weights in ([1, 0], [0, 1], [2, 0.5])
    )
    assert both.value == pytest.approx(2 * first.value + 0.5 * second.value)
    torch.testing.assert_close(both.gradient, 2 * first.gradient + 0.5 * second.gradient, rtol=1e-5, atol=1e-8)


def test_relative_distances_start_at_their_weight(metric, network, pair, samples):
    given = metric(
        "Impact",
        *pair,
        **keys(network(Strided()), ImpactLayersMask0="11", ImpactDistance0=["L1", "L2"], ImpactLayersWeight0=[1, 0.5]),
    )
    assert given.evaluate(shift(0, 0, 0), samples).value == pytest.approx(1.5)
    assert given.evaluate(shift(1.5, 0, 0), samples).value < 0.5


def test_fixed_and_moving_models_may_differ(metric, network, pair, samples):
    same = metric("Impact", *pair, **keys(network("Pointwise"), ImpactDistance0="Dice"))
    apart = metric(
        "Impact",
        *pair,
        ImpactFixedModelsPath0=network("Pointwise", "fixed.pt"),
        ImpactMovingModelsPath0=network("Pointwise", "moving.pt"),
        ImpactVoxelSize0=2,
        ImpactDistance0="Dice",
    )
    start = shift(0, 0, 0)
    assert apart.evaluate(start, samples).value == pytest.approx(same.evaluate(start, samples).value)


def test_random_channels_change_from_iteration_to_iteration_and_repeat_with_the_seed(metric, network, pair, samples):
    def run(seed):
        given = metric(
            "Impact",
            *pair,
            seed=seed,
            **keys(network("Pointwise"), ImpactSubsetFeatures0=1, ImpactDistance0="DotProduct"),
        )
        return [given.evaluate(shift(0, 0, 0), samples).value for _ in range(12)]

    first = run(1)
    assert len({round(v, 6) for v in first}) == 3
    assert run(1) == first
    assert run(2) != first


def test_all_channels_of_a_subset_that_is_large_enough_are_taken(metric, network, pair, samples):
    path = network("Pointwise")
    values = [
        metric("Impact", *pair, **keys(path, ImpactSubsetFeatures0=n, ImpactDistance0="NCC"))
        .evaluate(shift(0, 0, 0), samples)
        .value
        for n in (0, 3, 9)
    ]
    assert len(set(values)) == 1


def test_only_points_that_stay_in_the_moving_image_and_mask_count(metric, network, pair, samples):
    fixed, moving = pair
    inside = moving.grid.points()[:, 0].reshape(moving.grid.shape) < 12
    mask = Mask(inside, moving.grid)
    path, by = network("Pointwise"), shift(1, -2, 0.5)
    masked = metric("Impact", fixed, moving, changes={"moving_mask": mask}, **keys(path, ImpactDistance0="NCC"))
    far = torch.tensor([[500.0, 0.0, 0.0]]).double()
    every = Samples(torch.cat([samples.points, far]), torch.cat([samples.values, far[:, 1]]))
    kept = samples.points[mask.contains(by(samples.points))]
    assert 0 < len(kept) < len(samples)
    found = masked.evaluate(by, every)
    expected = metric("Impact", fixed, moving, **keys(path, ImpactDistance0="NCC")).evaluate(by, at_points(kept))
    assert found.value == pytest.approx(expected.value)
    torch.testing.assert_close(found.gradient, expected.gradient)


def test_too_many_samples_outside_are_an_error(metric, network, pair, samples):
    given = metric("Impact", *pair, **keys(network("Pointwise")))
    with pytest.raises(
        RegistrationError, match=r"^Too many samples map outside moving image buffer: 0 / 70 are inside"
    ):
        given.evaluate(shift(1000, 0, 0), samples)


def test_keys_of_a_resolution_are_those_with_its_number(metric, network, pair, samples):
    given = metric(
        "Impact",
        *pair,
        changes={"level": 1},
        **keys(network(Strided()), ImpactLayersMask0="11", ImpactDistance0="Dice", ImpactDistance1="DotProduct"),
    )
    assert [layer.settings.distance for layer in given.mode.layers] == ["DotProduct", "DotProduct"]


def test_model_paths_are_found_in_the_model_folders(metric, network, pair, samples, tmp_path):
    network("Pointwise", "folder_net.pt")
    given = metric("Impact", *pair, changes={"model_folders": [tmp_path]}, **keys("/Data/Models/folder_net.pt"))
    assert given.mode.layers[0].fixed.channels == 3


def test_a_model_that_is_missing_is_told(metric, pair):
    with pytest.raises(ModelError, match=r"nowhere\.pt"):
        assert metric("Impact", *pair, **keys("nowhere.pt")).mode.layers


def test_layers_of_different_width_are_refused(metric, network, pair):
    given = metric(
        "Impact",
        *pair,
        ImpactFixedModelsPath0=network("Pointwise", "fixed.pt"),
        ImpactMovingModelsPath0=network(Strided(), "moving.pt"),
        ImpactVoxelSize0=2,
    )
    with pytest.raises(ParameterError, match="has 3 channels and its moving counterpart 1"):
        assert given.mode.layers


def test_feature_maps_are_written_where_they_lie(metric, network, pair, tmp_path):
    given = keys(network(Strided()), ImpactLayersMask0="11", ImpactFeatureMapOutputDirectory=str(tmp_path / "maps"))
    layers = metric("Impact", *pair, **given).mode.layers
    names = sorted(path.name for path in (tmp_path / "maps").iterdir())
    assert [n for n in names if not n.endswith("mm.mha")] == [
        f"{s}_0_{i}.mha" for s in ("Fixed", "Moving") for i in (0, 1)
    ]
    assert sum(n.endswith("mm.mha") for n in names) == 2
    written = SimpleITK.ReadImage(str(tmp_path / "maps" / "Moving_0_1.mha"))
    assert written.GetNumberOfComponentsPerPixel() == layers[1].moving.channels
    assert written.GetSpacing() == pytest.approx(layers[1].moving.grid.spacing)
    assert written.GetDirection() == pytest.approx([v for row in pair[1].grid.direction for v in row])


def test_feature_maps_that_cannot_be_written_are_an_error(metric, network, pair, tmp_path):
    (tmp_path / "file").touch()
    given = metric("Impact", *pair, **keys(network(Strided()), ImpactWriteFeatureMaps=str(tmp_path / "file" / "maps")))
    with pytest.raises(OutputError, match="feature maps cannot be written there"):
        given.mode.layers  # noqa: B018


@pytest.mark.usefixtures("precise")
@pytest.mark.parametrize("kind", ["euler", "affine", "spline"])
def test_the_gradient_of_refreshed_features_is_that_of_the_value(
    metric, network, pair, samples, transforms, assert_slopes, kind
):
    given = metric("Impact", *pair, **keys(network("Pointwise"), ImpactFeaturesMapUpdateInterval=1))
    given.after_iteration(1, transforms[kind])
    assert_slopes(given, transforms[kind], samples)
