"""The exact metric: on which samples, after which iterations, in which columns; and as elastix tells it."""

import pytest
import torch

from impactreg.components.interpolators import Interpolator
from impactreg.components.metrics.metric import Metric, Scene
from impactreg.components.samplers import Sampler
from impactreg.components.transforms.files import read_transform
from impactreg.components.transforms.linear import TranslationTransform
from impactreg.components.transforms.transform import Combination
from impactreg.errors import ParameterError
from impactreg.images import Image, Mask
from impactreg.parameters import ParameterMap
from impactreg.registration.case import Case
from impactreg.registration.exact_metric import ExactMetric, ExactMetricSettings, exact_columns, exact_samples
from impactreg.registration.levels import Levels
from impactreg.registration.plan import Plan

IMAGE = Image.of(torch.rand(9, 11, generator=torch.Generator().manual_seed(0)), (2, 3))
STAY = Combination(TranslationTransform(torch.zeros(2).double(), torch.zeros(2).double()))


def sampler(name="RandomCoordinate", mask=None, **keys):
    kind = Sampler.named(name)
    settings = kind.Settings.read(ParameterMap.from_dict({"NumberOfSpatialSamples": 20, **keys}), dimension=2)
    return kind(settings, IMAGE, mask, torch.Generator().manual_seed(1))


def exact(label="Metric0", name="AdvancedMeanSquares", drawn=None, points=None, level=0, **keys):
    parameters = ParameterMap.from_dict({"ShowExactMetricValue": True, **keys}, "map.txt")
    interpolator = Interpolator.named("LinearInterpolator")
    scene = Scene(
        IMAGE,
        IMAGE.with_data(IMAGE.data + 2),
        interpolator(interpolator.Settings()),
        torch.Generator(),
        parameters,
        fixed_points=points,
        moving_points=None if points is None else points + torch.tensor([3.0, 4.0]).double(),
    )
    component = Metric.named(name)
    metric = component(component.Settings.read(parameters, level=level, label=label, dimension=2), scene)
    settings = ExactMetricSettings.read(parameters, level=level, label=label, dimension=2)
    return ExactMetric(label, metric, drawn or sampler(), settings)


def test_exact_samples_are_all_voxels_of_image_and_mask():
    inside = torch.zeros(9, 11, dtype=torch.bool)
    inside[2:6, 3:9] = True
    every, masked = (exact_samples(sampler(mask=m), (1, 1)) for m in (None, Mask(inside, IMAGE.grid)))
    assert torch.equal(every.values, IMAGE.scalar.reshape(-1).double())
    assert torch.equal(masked.values, IMAGE.scalar[inside].double())


def test_exact_samples_may_be_some_voxels_apart():
    found = exact_samples(sampler(), (5, 3))
    index = IMAGE.grid.world_to_index(found.points)
    assert sorted(set(index[:, 0].round().tolist())) == [0, 5, 10]
    assert sorted(set(index[:, 1].round().tolist())) == [1, 4, 7]


def test_a_grid_sampler_keeps_its_own_samples():
    own = sampler("Grid", SampleGridSpacing=[4, 4])
    assert exact_samples(own, (1, 1)) is own.draw()


def test_random_samples_are_not_touched():
    drawn, other = sampler(), sampler()
    exact_samples(drawn, (1, 1))
    assert torch.equal(drawn.draw().points, other.draw().points)


def test_the_exact_value_is_that_of_all_voxels():
    assert exact().value(STAY) == pytest.approx(4)


@pytest.mark.parametrize(
    ("keys", "spacing"),
    [
        ({}, (1, 1)),
        ({"ExactMetricSampleGridSpacing": [2, 3]}, (1, 1)),
        ({"ExactMetricSampleGridSpacing": [2, 3, 4, 5]}, (4, 5)),
        ({"ExactMetricSampleGridSpacing": [2, 3, 4]}, (4, 1)),
        ({"Metric0ExactMetricSampleGridSpacing": [2, 3, 4, 6]}, (4, 6)),
    ],
)
def test_the_grid_is_given_for_every_resolution_and_dimension(keys, spacing):
    assert exact(level=1, **keys).settings.exact_metric_sample_grid_spacing == spacing


@pytest.mark.parametrize(("every", "due"), [(1, [0, 1, 2, 3]), (2, [0, 2]), (3, [0, 3])])
def test_the_value_is_told_every_so_many_iterations(every, due):
    given = exact(ExactMetricEveryXIterations=every)
    assert [i for i in range(4) if given.due(i)] == due
    cells = [exact_columns([given], [1.0], i, STAY)["ExactMetric0"] for i in range(4)]
    assert [i for i in range(4) if cells[i] != ""] == due


def test_nothing_is_told_where_it_is_not_asked_for():
    assert exact_columns([exact(ShowExactMetricValue=False)], [1.0], 0, STAY) == {}


def test_several_metrics_have_a_weighted_sum():
    metrics = [exact(), exact("Metric1", "AdvancedNormalizedCorrelation")]
    found = exact_columns(metrics, [0.5, 3.0], 0, STAY)
    assert found == pytest.approx({"ExactMetric0": 4, "ExactMetric1": -1, "ExactMetric": 0.5 * 4 - 3})


def test_the_sum_is_of_the_metrics_that_are_due():
    keys = {"Metric1ExactMetricEveryXIterations": 2, "Metric0ExactMetricEveryXIterations": 4}
    metrics = [exact(**keys), exact("Metric1", "AdvancedNormalizedCorrelation", **keys)]
    rows = [exact_columns(metrics, [1.0, 1.0], i, STAY) for i in (1, 2)]
    assert rows[0] == {"ExactMetric0": "", "ExactMetric1": "", "ExactMetric": ""}
    assert rows[1]["ExactMetric0"] == ""
    assert rows[1]["ExactMetric"] == rows[1]["ExactMetric1"] == pytest.approx(-1)


def test_a_metric_that_is_not_shown_has_no_column_and_no_share():
    keys = {"Metric1ShowExactMetricValue": False}
    metrics = [exact(**keys), exact("Metric1", **keys)]
    assert exact_columns(metrics, [1.0, 1.0], 0, STAY) == pytest.approx({"ExactMetric0": 4, "ExactMetric": 4})


def test_a_metric_without_samples_has_its_own_value():
    given = exact("Metric0", "CorrespondingPointsEuclideanDistanceMetric", points=torch.rand(5, 2).double())
    alone = ExactMetric(given.label, given.metric, None, given.settings)
    assert alone.value(STAY) == pytest.approx(5)


@pytest.mark.parametrize(
    ("key", "value"), [("ExactMetricEveryXIterations", 0), ("ExactMetricSampleGridSpacing", [0, 1])]
)
def test_steps_of_nothing_are_refused(key, value):
    with pytest.raises(ParameterError, match=rf"map.txt: \({key} 0"):
        exact(**{key: value})


TOLD = {
    "Transform": "AffineTransform",
    "NumberOfResolutions": 2,
    "ShowExactMetricValue": True,
    "WriteTransformParametersEachIteration": True,
    "NumberOfSpatialSamples": 500,
    "RequiredRatioOfValidSamples": 0.005,
}


@pytest.mark.itk
@pytest.mark.parametrize("drawn", ["RandomCoordinate", "Grid"])
@pytest.mark.parametrize("spacing", [[1], [2, 3, 1, 1, 2, 3]])
def test_the_exact_metric_is_that_of_elastix(both, tmp_path, drawn, spacing):
    keys = {
        **TOLD,
        "Metric": "AdvancedNormalizedCorrelation",
        "ImageSampler": drawn,
        "ExactMetricSampleGridSpacing": spacing,
        "ExactMetricEveryXIterations": [2, 1],
    }
    both(fixed_mask=True, moving_mask=True, **keys)
    for level in range(2):
        for i, told in enumerate(table(tmp_path, level)):
            found = columns(both, tmp_path, keys, level, i, i)
            assert set(found) == {"ExactMetric0"}
            assert same(told["ExactMetric0"], found["ExactMetric0"])


@pytest.mark.itk
def test_elastix_tells_several_metrics_at_the_transform_before_the_iteration(both, tmp_path):
    keys = {
        **TOLD,
        "Metric": ["AdvancedMeanSquares", "AdvancedNormalizedCorrelation"],
        "Registration": "MultiMetricMultiResolutionRegistration",
        "Metric0Weight": 0.002,
        "Metric1ExactMetricEveryXIterations": 2,
    }
    both(fixed_mask=True, moving_mask=True, **keys)
    for level in range(2):
        for i, told in list(enumerate(table(tmp_path, level)))[1:]:
            found = columns(both, tmp_path, keys, level, i, i - 1)
            assert {name for name in told if name.startswith("Exact")} == set(found)
            assert all(same(told[name], value) for name, value in found.items())


def table(folder, level):
    """The rows of an IterationInfo file."""
    lines = (folder / f"IterationInfo.0.R{level}.txt").read_text().splitlines()
    return [dict(zip(lines[0].split("\t"), line.split("\t"), strict=True)) for line in lines[1:]]


def columns(both, folder, keys, level, iteration, led_to_by):
    """Our columns after an iteration, at the transform that elastix has written after an iteration."""
    made = both.__globals__
    parameters = ParameterMap.from_dict({**made["PLAIN"], **keys})
    fixed, moving = made["pair"](3)
    masks = (Mask.of(made["box_mask"](*each)) for each in ((fixed, 5, 4), (moving, 6, 7)))
    levels = Levels(Case(fixed, moving, *masks), Plan(parameters), torch.Generator())
    transform = read_transform(folder / f"TransformParameters.0.R{level}.It{led_to_by:07d}.txt")
    metrics = []
    for i, term in enumerate(levels.at(level).objective(transform, torch.ones_like(transform.parameters)).terms):
        settings = ExactMetricSettings.read(parameters, level=level, label=f"Metric{i}", dimension=3)
        metrics.append(ExactMetric(f"Metric{i}", term.metric, term.sampler, settings))
    return exact_columns(metrics, [0.002, 0.5][: len(metrics)], iteration, transform)


def same(told, found):
    return told == found if "" in (told, found) else float(told) == pytest.approx(found, rel=1e-6, abs=1e-6)
