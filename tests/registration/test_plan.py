"""What a parameter map chooses, and what is told before anything runs."""

import re

import pytest
import torch

from impactreg.components.interpolators import BSplineInterpolator
from impactreg.components.metrics.impact import Impact
from impactreg.components.metrics.intensity import AdvancedMeanSquares
from impactreg.components.transforms.rotating import EulerTransform
from impactreg.errors import ImpactregError, ModelError, ParameterError, PointsError
from impactreg.images import Image
from impactreg.parameters import ParameterMap
from impactreg.registration.case import Case, Further
from impactreg.registration.pipeline import register
from impactreg.registration.plan import Plan
from impactreg.registration.registrations import missing_components, registration_of

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
    assert [i.component for i in found.interpolators] == [BSplineInterpolator]
    assert "FixedSmoothingImagePyramid" in found.fixed_pyramids[0].component.names
    assert "MovingSmoothingImagePyramid" in found.moving_pyramids[0].component.names
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
    found = plan(**keys)
    assert (found.erodes("fixed", 0), found.erodes("moving", 0)) == expected


def test_erosion_may_differ_between_resolutions():
    found = plan(ErodeMask=[True, False])
    assert not found.erodes("fixed", 1)
    assert not found.erodes("moving", 1)


def test_each_mask_may_have_an_erosion_of_its_own():
    found = plan(ErodeFixedMask1=False)
    assert found.erodes("fixed", 0, 0)
    assert not found.erodes("fixed", 0, 1)
    assert found.erodes("moving", 0, 1)


MULTI = {"Registration": "MultiMetricMultiResolutionRegistration", "Metric": ["AdvancedMeanSquares"] * 3}


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({**MULTI, "Interpolator": ["LinearInterpolator"] * 2}, "one is needed, or one for each of the 3 metrics"),
        (
            {**MULTI, "FixedImagePyramid": ["FixedSmoothingImagePyramid"] * 3},
            "with several fixed image pyramids, one sampler for each of the 3 metrics",
        ),
    ],
)
def test_numbers_of_components_that_do_not_fit_are_told(keys, message):
    with pytest.raises(ParameterError, match=message):
        plan(**keys)


def test_a_misspelt_registration_is_told_with_the_nearest_name():
    asked = ParameterMap.from_dict({**KEYS, "Registration": "MultiResolutionRegistrations"}, "map.txt")
    with pytest.raises(ParameterError, match=r"map\.txt.*no such Registration; did you mean 'MultiResolutionReg"):
        registration_of(asked)


def _case(fixed, moving=1):
    image = Image.of(torch.rand(5, 5))
    return Case(image, image, further=Further((image,) * (fixed - 1), (image,) * (moving - 1)))


def test_images_are_one_or_as_many_as_metrics():
    found = plan(**MULTI)
    found.check_case(_case(1))
    found.check_case(_case(3, 3))
    with pytest.raises(ParameterError, match="there are 2 moving images for 3 metrics"):
        found.check_case(_case(3, 2))


def test_the_plain_registration_takes_one_pair_of_images():
    with pytest.raises(ParameterError, match="takes one fixed and one moving image, with one mask each"):
        plan().check_case(_case(2))


def test_added_transforms_are_not_composed():
    assert not plan(HowToCombineTransforms="Add").composes
    with pytest.raises(ParameterError, match="HowToCombineTransforms"):
        plan(HowToCombineTransforms="Multiply")


def test_the_first_of_several_optimizers_is_used_as_by_elastix(caplog):
    found = plan(Optimizer=["StandardGradientDescent", "AdaptiveStochasticGradientDescent"])
    assert found.optimizer.component.names == ("StandardGradientDescent",)
    assert "2 are named for Optimizer, of which the first alone is used" in caplog.text


def test_all_missing_components_are_told_at_once():
    keys = {"Metric": "PCAMetric", "Optimizer": ["Powell", "Powell"], "Interpolator": "RayCastInterpolator"}
    with pytest.raises(ParameterError, match="the PyTorch loop has no ") as caught:
        registration_of(ParameterMap.from_dict({**KEYS, **keys}))
    assert str(caught.value).endswith('Interpolator "RayCastInterpolator", Metric "PCAMetric", Optimizer "Powell"')


@pytest.mark.parametrize("kind", ["Registration", "Resampler", "ResampleInterpolator", "MovingImagePyramid"])
def test_every_kind_of_component_may_be_missing(kind):
    named = ParameterMap.default("rigid").replace({kind: "Foo"})
    assert missing_components(named) == [f'{kind} "Foo"']


@pytest.mark.parametrize(
    ("keys", "flag"),
    [
        ({"Metric": "CorrespondingPointsEuclideanDistanceMetric", "ImageSampler": None}, r"-fp \(fixed_points=\)"),
        ({"Transform": "SplineKernelTransform"}, r"-fp \(fixed_points=\)"),
    ],
)
def test_landmarks_that_are_needed_but_not_given_are_told(keys, flag):
    with pytest.raises(PointsError, match=f"needs landmarks of the fixed image: give a file of points by {flag}"):
        plan(**keys).check_case(_case(1))


IMAGE = Image.of(torch.rand(8, 9, 10, generator=torch.Generator().manual_seed(0)))
LANDMARKS = torch.rand(6, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64) * 7


@pytest.mark.parametrize(
    ("keys", "told"),
    [
        ({"Transform": "BSplineTransform", "UseCyclicTransform": "true"}, "UseCyclicTransform"),
        (
            {"Transform": "BSplineTransform", "FinalGridSpacingInVoxels": 4, "FinalGridSpacingInPhysicalUnits": 5},
            "FinalGridSpacingIn",
        ),
        ({"Transform": "BSplineTransform", "GridSpacingSchedule": [1, 2]}, "has 2 numbers"),
        ({"Transform": "BSplineTransform", "FinalGridSpacingInPhysicalUnits": 0}, "must be positive"),
        ({"Transform": "DeformationFieldTransform"}, "cannot be optimised"),
        ({"CenterOfRotationPoint": [1, 2]}, "(CenterOfRotationPoint ...) needs 3 numbers"),
        ({"Scales": [1, 2]}, "Scales"),
        (
            {"Transform": "BSplineTransform", "Metric": "TransformRigidityPenalty", "FixedRigidityImageName": "no.mha"},
            "no.mha",
        ),
        ({"Metric": "TransformRigidityPenalty"}, '(Transform "BSplineTransform") of order 3'),
        (
            {"Transform": "SplineKernelTransform", "Metric": "TransformBendingEnergyPenalty"},
            "second derivatives that TransformBendingEnergyPenalty needs",
        ),
        ({"ImageSampler": "RandomSparseMask"}, "needs a fixed mask"),
    ],
)
def test_what_a_stage_would_refuse_is_told_before_any_stage_runs(keys, told):
    fine = {**KEYS, "MaximumNumberOfIterations": 1, "NumberOfResolutions": 1}
    maps = [ParameterMap.from_dict({**fine, **each}, f"{i}.txt") for i, each in enumerate(({}, keys))]
    started = []
    with pytest.raises(ImpactregError, match=re.escape(told)) as caught:
        register(
            IMAGE,
            IMAGE,
            maps,
            engine="torch",
            fixed_points=LANDMARKS,
            moving_points=LANDMARKS,
            callback=started.append,
        )
    assert "1.txt" in str(caught.value)
    assert not started
