"""What a parameter map chooses, and what is told before anything runs."""

import pytest

from impactreg.components.interpolators import BSplineInterpolator
from impactreg.components.metrics.impact import Impact
from impactreg.components.metrics.intensity import AdvancedMeanSquares
from impactreg.components.transforms.rotating import EulerTransform
from impactreg.errors import ModelError, ParameterError
from impactreg.parameters import ParameterMap
from impactreg.registration.plan import Plan

KEYS = {
    "Transform": "EulerTransform",
    "Metric": "AdvancedMeanSquares",
    "Optimizer": "StandardGradientDescent",
    "ImageSampler": "Full",
}
IMPACT = {"ImpactMode": "Static", "ImpactModelsPath0": "MIND/R1D2_3D.pt", "ImpactVoxelSize0": 2}


@pytest.fixture(autouse=True)
def models(tmp_path_factory, monkeypatch):
    monkeypatch.setenv("IMPACTREG_CACHE", str(tmp_path_factory.getbasetemp() / "models"))


def plan(**keys):
    given = {**KEYS, **keys}
    return Plan(ParameterMap.from_dict({k: v for k, v in given.items() if v is not None}, "map.txt"))


def test_components_are_those_that_are_named_with_elastix_defaults_for_the_rest():
    found = plan()
    assert found.transform.component is EulerTransform
    assert [m.component for m in found.metrics] == [AdvancedMeanSquares]
    assert found.interpolator.component is BSplineInterpolator
    assert "FixedSmoothingImagePyramid" in found.fixed_pyramid.component.names
    assert "MovingSmoothingImagePyramid" in found.moving_pyramid.component.names
    assert (found.levels, found.composes) == (3, True)


def test_several_metrics_have_labels():
    found = plan(Registration="MultiMetricMultiResolutionRegistration", Metric=["AdvancedMeanSquares", "Impact"])
    assert [(m.label, m.component) for m in found.metrics] == [("Metric0", AdvancedMeanSquares), ("Metric1", Impact)]


def test_one_metric_is_all_that_the_plain_registration_takes():
    with pytest.raises(ParameterError, match=r"takes one metric, not 2; use .*MultiMetricMultiResolutionRegistration"):
        plan(Metric=["AdvancedMeanSquares"] * 2)


@pytest.mark.parametrize("key", ["Transform", "Metric", "Optimizer", "ImageSampler"])
def test_a_component_that_has_no_default_must_be_named(key):
    with pytest.raises(ParameterError, match=rf'has not been specified: {key}; add \({key} "\.\.\."\)'):
        plan(**{key: None})


@pytest.mark.parametrize(
    ("key", "written", "meant"),
    [
        ("Transform", "EulerTransfrom", "EulerTransform"),
        ("Metric", "AdvancedMeansquares", "AdvancedMeanSquares"),
        ("Optimizer", "StandardGradientDecent", "StandardGradientDescent"),
        ("ImageSampler", "RandomCordinate", "RandomCoordinate"),
        ("Interpolator", "LinearInterpolater", "LinearInterpolator"),
        ("FixedImagePyramid", "FixedSmothingImagePyramid", "FixedSmoothingImagePyramid"),
    ],
)
def test_a_misspelt_component_is_told_with_its_place(tmp_path, key, written, meant):
    (tmp_path / "map.txt").write_text("".join(f'({k} "{v}")\n' for k, v in {**KEYS, key: written}.items()))
    with pytest.raises(ParameterError, match=rf"map\.txt:\d+: .*{written}.*did you mean '{meant}'\?"):
        Plan(ParameterMap.read(tmp_path / "map.txt"))


def test_settings_of_every_resolution_are_checked():
    given = plan(NumberOfResolutions=2, MaximumNumberOfIterations=[10, -3])
    with pytest.raises(ParameterError, match="MaximumNumberOfIterations"):
        given.check(3)
    plan(NumberOfResolutions=1, MaximumNumberOfIterations=[10, -3]).check(3)


def test_unknown_keys_are_those_that_nothing_reads():
    found = plan(NumberOfSpatialSample=5, Colour="red", ErodeMask=False, Metric0Weight=1).unknown()
    # the Full sampler counts no samples: its neighbours know nothing nearer
    assert [u.key for u in found] == ["NumberOfSpatialSample", "Colour"]
    assert plan(MaximumNumberOfIteration=5).unknown()[0].suggestion == "MaximumNumberOfIterations"


def test_keys_of_components_that_are_not_chosen_are_unknown():
    assert [u.key for u in plan(ImpactMode="Static").unknown()] == ["ImpactMode"]
    assert plan(Metric="Impact", **IMPACT).unknown() == []


def test_models_are_found_for_every_resolution(tmp_path):
    (tmp_path / "own.pt").touch()
    given = plan(Metric="Impact", NumberOfResolutions=2, ImpactModelsPath1="own.pt", **IMPACT)
    found = dict(given.models(3, [tmp_path]))
    assert set(found) == {"MIND/R1D2_3D.pt", "own.pt"}
    assert found["own.pt"] == tmp_path / "own.pt"
    assert plan().models(3, []) == []


def test_a_model_that_is_nowhere_is_told():
    with pytest.raises(ModelError, match=r"gone\.pt"):
        plan(Metric="Impact", **{**IMPACT, "ImpactModelsPath0": "gone.pt"}).models(3, [])


@pytest.mark.parametrize(
    ("keys", "expected"),
    [
        ({}, (True, True)),
        ({"ErodeMask": False}, (False, False)),
        ({"ErodeMask": False, "ErodeFixedMask": True}, (True, False)),
        ({"ErodeFixedMask": True, "ErodeFixedMask0": False}, (False, True)),
        ({"ErodeMask": [True, False]}, (True, True)),
    ],
)
def test_the_most_specific_key_says_whether_masks_are_eroded(keys, expected):
    assert plan(**keys).erodes(0) == expected


def test_erosion_may_differ_between_resolutions():
    assert plan(ErodeMask=[True, False]).erodes(1) == (False, False)


def test_added_transforms_are_not_composed():
    assert not plan(HowToCombineTransforms="Add").composes
    with pytest.raises(ParameterError, match="HowToCombineTransforms"):
        plan(HowToCombineTransforms="Multiply")
