"""Estimated step sizes: closed forms for a translation, and plain matrices for an affine transform."""

import logging
from math import ceil, exp, log, sqrt

import pytest
import torch

from impactreg.components.optimizers.estimation import EstimationSettings, Schedule, estimate, step_length
from impactreg.components.samplers import grid_samples
from impactreg.components.transforms.linear import AffineTransform
from impactreg.errors import ParameterError, RegistrationError
from impactreg.images.image import Image
from impactreg.images.masks import Mask
from impactreg.parameters import ParameterMap

START = torch.tensor([1.0, -2.0], dtype=torch.float64)
SLOPE, ERROR = [3.0, 4.0], [1.0, 2.0]
GG, EE = 25.0, 5.0


def asked(level=0, **keys):
    values = {key: [str(v) for v in (value if isinstance(value, list) else [value])] for key, value in keys.items()}
    values.setdefault("NewSamplesEveryIteration", ["true"])
    return EstimationSettings.read(ParameterMap.from_dict(values), level=level, label="Optimizer0", dimension=2)


@pytest.fixture
def slope(landscape):
    """A plane: all gradients are alike, wherever they are taken."""

    def make(**said):
        return landscape(**{"curvature": [0.0, 0.0], "slope": SLOPE, "error": ERROR, **said})

    return make


@pytest.fixture
def affine(landscape):
    """A bowl in six affine parameters of unlike scales."""
    start = torch.tensor([1.1, 0.1, -0.2, 0.9, 2.0, 1.0]).double()
    transform = AffineTransform(start, torch.tensor([4.0, 5.0]).double())
    scales = [100.0, 50.0, 20.0, 10.0, 1.0, 2.0]
    return start, landscape(transform=transform, scales=scales, curvature=[5.0, 4.0, 3.0, 2.0, 1.0, 1.0])


def scaled_jacobian(field):
    """[points, dim, parameters] of T(x) = A (x - c) + c + t in scaled parameters, written out."""
    points = grid_samples(field.fixed, None, 1000).points
    offset = points - field.transform.centre
    jacobian = torch.zeros(len(points), 2, 6).double()
    jacobian[:, 0, 0:2] = jacobian[:, 1, 2:4] = offset
    jacobian[:, 0, 4] = jacobian[:, 1, 5] = 1
    return jacobian / field.scales.sqrt()


def bound(products):
    return max(float(m.trace() + 2 * sqrt(2) * m.square().sum().sqrt()) for m in products)


def test_displacements_give_a_step_that_moves_points_by_the_step_length(slope):
    schedule = estimate(asked(ASGDParameterEstimationMethod="DisplacementDistribution", SP_A=9), slope(), START)
    assert schedule.a == pytest.approx(2.5 * 10 / 5 * GG / (GG + EE))
    assert (schedule.A, schedule.alpha) == (9, 1)
    assert (schedule.sigmoid_max, schedule.sigmoid_min, schedule.sigmoid_scale) == (1, -0.8, 1e-8)


def test_without_noise_compensation_the_first_step_is_the_step_length(slope):
    keys = {"ASGDParameterEstimationMethod": "DisplacementDistribution", "NoiseCompensation": "false"}
    field = slope()
    schedule = estimate(asked(MaximumStepLength=0.7, **keys), field, START)
    assert schedule.gain(0) * 5 == pytest.approx(0.7)
    assert field.asked_for == []


def test_a_translation_has_no_spread_of_displacements(slope):
    # 0.1 + 0.2 is the kind of number whose squares' mean is less than its mean's square.
    field = slope(slope=[0.1 + 0.2, 1 / 3])
    schedule = estimate(asked(ASGDParameterEstimationMethod="DisplacementDistribution"), field, START)
    length = sqrt(0.3**2 + 1 / 9)
    assert schedule.a == pytest.approx(2.5 * 21 / length * length**2 / (length**2 + EE), rel=1e-9)


def test_displacements_of_an_affine_transform(affine):
    start, field = affine
    schedule = estimate(asked(ASGDParameterEstimationMethod="DisplacementDistribution"), field, start)
    moved = (scaled_jacobian(field) @ (field.gradient(start) / field.scales.sqrt())).norm(dim=1)
    variance = moved.square().mean() - moved.mean() ** 2
    assert schedule.a == pytest.approx(float(2.5 * 21 / (moved.mean() + 2 * variance.sqrt())))


def test_the_second_moment_of_a_translation(slope):
    # J is the identity: Tr C = 2, ||C||^2 = 2, max JCJ = 2 + 2 sqrt 2 sqrt 2 = 6, and N = 8 * 2 / 4 / 0.25 = 16.
    field = slope()
    schedule = estimate(asked(SP_A=9), field, START)
    quietness = (GG / 2) / (GG / 2 + EE / 2)
    assert schedule.a == pytest.approx(quietness * 9 * 2.5 / (sqrt(GG / 2) * sqrt(6)))
    assert (schedule.A, schedule.alpha, schedule.sigmoid_max) == (9, 1, 1)
    assert schedule.sigmoid_min == pytest.approx(-0.99 + 0.98 * quietness)
    assert schedule.sigmoid_scale == pytest.approx(0.1 * EE / 2 * sqrt(2))
    assert len(field.asked_for) == 2 * 16


def test_the_second_moment_of_an_affine_transform(affine):
    start, field = affine
    field.error = torch.arange(6).double()
    schedule = estimate(asked(SigmoidScaleFactor=0.3), field, start)
    jacobian = scaled_jacobian(field)
    moment = sum(j.T @ j for j in jacobian) / len(jacobian)
    trace, squared = float(moment.trace()), float(moment.square().sum())
    exact = [point for kind, point in field.asked_for if kind.startswith("exact")]
    assert len(exact) == max(2, ceil(8 * squared / trace**2 / 0.25))
    gg = sum(float((field.gradient(p) / field.scales.sqrt()).square().sum()) for p in exact) / len(exact)
    ee = float((field.error / field.scales.sqrt()).square().sum())
    quietness = gg / (gg + ee)
    reach = bound(jacobian @ moment @ jacobian.mT)
    assert schedule.a == pytest.approx(quietness * 20 * 2.5 / sqrt(gg / trace) / sqrt(reach))
    assert schedule.sigmoid_scale == pytest.approx(0.3 * ee / trace * sqrt(squared))


def test_the_sigmoid_may_keep_its_defaults(slope):
    original = estimate(asked(), slope(), START)
    kept = estimate(asked(ASGDParameterEstimationMethod="OriginalButSigmoidToDefault"), slope(), START)
    assert kept.a == original.a
    assert (kept.sigmoid_max, kept.sigmoid_min, kept.sigmoid_scale) == (1, -0.8, 1e-8)


def test_perturbations_are_as_wide_as_the_step_length_allows(affine):
    start, field = affine
    estimate(asked(NumberOfGradientMeasurements=400, MaximumStepLength=3), field, start)
    jacobian = scaled_jacobian(field)
    sigma = 3 / sqrt(bound(jacobian @ jacobian.mT))
    offsets = torch.stack([p - start for kind, p in field.asked_for if kind.startswith("exact")]) * field.scales.sqrt()
    assert offsets.shape == (400, 6)
    assert float(offsets.std()) == pytest.approx(sigma, rel=0.05)
    assert float(offsets.mean()) == pytest.approx(0, abs=0.1 * sigma)


def test_exact_and_approximate_gradients_are_taken_at_the_same_place(slope):
    field = slope()
    estimate(asked(NumberOfGradientMeasurements=3, NumberOfSamplesForExactGradient=77), field, START)
    assert [kind for kind, _ in field.asked_for] == ["exact 77", "approximate"] * 3
    places = [place for _, place in field.asked_for]
    assert all(torch.equal(places[i], places[i + 1]) for i in (0, 2, 4))
    assert not torch.equal(places[0], places[2])


@pytest.mark.parametrize("said", [{"random_sampling": False}, {"random_sampling": True}])
def test_gradients_on_fixed_samples_have_no_noise(slope, said):
    field = slope(**said)
    new = "true" if not said["random_sampling"] else "false"
    schedule = estimate(asked(NewSamplesEveryIteration=new, SP_A=9), field, START)
    assert schedule.a == pytest.approx(9 * 2.5 / (sqrt(GG / 2) * sqrt(6)))
    assert schedule.sigmoid_min == pytest.approx(-0.01)
    assert (field.asked_for, field.evaluations) == ([], 16)


def test_the_same_seed_gives_the_same_schedule_and_leaves_the_global_generator_alone(affine, landscape):
    start, field = affine
    before = torch.get_rng_state()
    schedules = []
    for _ in range(2):
        field.generator = torch.Generator().manual_seed(7)
        schedules.append(estimate(asked(), field, start))
    assert schedules[0] == schedules[1]
    assert torch.equal(torch.get_rng_state(), before)


def test_a_flat_metric_has_no_step(slope):
    schedule = estimate(asked(), slope(slope=[0.0, 0.0], error=[0.0, 0.0]), START)
    assert schedule.a == 0
    assert schedule.sigmoid_scale == 1e-14


def test_the_step_length_is_the_mean_in_plane_spacing(landscape):
    assert step_length(asked(), landscape()) == (1 + 2 + 3 + 4) / 4
    assert step_length(asked(MaximumStepLengthRatio=0.5), landscape()) == 1.25
    assert step_length(asked(MaximumStepLength=[8, 4], level=1), landscape()) == 4
    thick = Image.of(torch.zeros(2, 2, 2), spacing=(1.0, 1.0, 9.0))
    assert step_length(asked(), landscape(fixed=thick, moving_full=thick)) == 1


def test_a_mask_that_holds_none_of_the_points_is_an_error(slope):
    field = slope()
    corners = torch.zeros(6, 8)
    corners[0, 0] = corners[-1, -1] = 1
    field.fixed_mask = Mask.of(Image.of(corners, spacing=(1.0, 2.0)))
    with pytest.raises(RegistrationError, match="mask"):
        estimate(asked(NumberOfJacobianMeasurements=1), field, START)


def test_a_gradient_that_is_not_a_number_is_an_error(slope):
    with pytest.raises(RegistrationError, match="resolution 1: the metric's gradient is not a number"):
        estimate(asked(), slope(level=1, error=[float("nan"), 0.0]), START)


def test_too_few_samples_are_an_error_during_the_estimation(slope):
    with pytest.raises(RegistrationError, match="Too many samples"):
        estimate(asked(ASGDParameterEstimationMethod="DisplacementDistribution"), slope(failures=[1]), START)


def test_the_gain_and_the_sigmoid():
    schedule = Schedule(6.0, 1.0, 0.5, sigmoid_max=1.0, sigmoid_min=-0.5, sigmoid_scale=2.0)
    assert schedule.gain(7) == pytest.approx(2.0)
    shift = 2.0 * log(2)
    for agreement in (-3.0, 0.0, 0.7, 5.0):
        expected = -0.5 + 1.5 / (1 + exp(-(-agreement - shift) / 2.0))
        assert schedule.time_step(agreement) == pytest.approx(expected)
    assert schedule.time_step(0) == pytest.approx(0, abs=1e-15)


def test_a_narrow_sigmoid_does_not_overflow():
    schedule = Schedule(1.0, 1.0, 1.0)
    assert schedule.time_step(1e9) == pytest.approx(-0.8)
    assert schedule.time_step(-1e9) == pytest.approx(1.0)


def test_the_settings_are_logged_as_elastix_does():
    lines = Schedule(1234.5, 20.0, 1.0).lines().splitlines()
    assert lines[:3] == ["( SP_a 1234.500000 )", "( SP_A 20.000000 )", "( SP_alpha 1.000000 )"]
    assert lines[3:] == ["( SigmoidMax 1.000000 )", "( SigmoidMin -0.800000 )", "( SigmoidScale 0.000000 )"]


def test_what_elastix_ignores_is_told(slope, caplog):
    with caplog.at_level(logging.WARNING):
        estimate(asked(MaximumDisplacementEstimationMethod="95percentile"), slope(), START)
    assert "2sigma is used" in caplog.text


def test_the_method_is_the_same_at_every_resolution():
    methods = ["DisplacementDistribution", "Original"]
    assert asked(level=1, ASGDParameterEstimationMethod=methods).asgd_parameter_estimation_method == methods[0]


@pytest.mark.parametrize(
    "keys",
    [
        {"ASGDParameterEstimationMethod": "Guess"},
        {"MaximumStepLength": 0},
        {"NumberOfJacobianMeasurements": 0},
        {"NumberOfGradientMeasurements": 1.5},
    ],
)
def test_a_wrong_setting_is_named(keys):
    with pytest.raises(ParameterError, match=next(iter(keys))):
        asked(**keys)
