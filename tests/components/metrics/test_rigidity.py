"""The rigidity penalty as a metric: weights, columns, rigidity images, messages."""

import logging

import pytest
import torch

from impactreg.components.transforms.bspline import BSplineTransform
from impactreg.components.transforms.transform import Combination
from impactreg.errors import RegistrationError
from impactreg.images import Grid, Image
from impactreg.images.files import write_image

NAME = "TransformRigidityPenalty"
CONDITIONS = {"LC": "Linearity", "OC": "Orthonormality", "PC": "Properness"}


@pytest.fixture
def penalty(metric, pair):
    return lambda **keys: metric(NAME, *pair, **keys)


def alone(name):
    return {f"Use{long}Condition": str(name == short).lower() for short, long in CONDITIONS.items()}


@pytest.mark.parametrize("name", CONDITIONS)
def test_each_condition_can_be_used_alone(penalty, transforms, samples, assert_slopes, name):
    found = penalty(**alone(name)).evaluate(transforms["spline"], samples)
    assert found.value == pytest.approx(found.columns[f"Metric-{name}"])
    assert float(found.gradient.norm()) == pytest.approx(found.columns[f"||Gradient-{name}||"])
    assert_slopes(penalty(**alone(name)), transforms["spline"], samples, rtol=1e-6)


def test_the_conditions_are_weighted_and_added_up(penalty, transforms, samples):
    weights = {"LC": 2.0, "OC": 3.0, "PC": 0.5}
    keys = {f"{long}ConditionWeight": weights[short] for short, long in CONDITIONS.items()}
    found = penalty(**keys).evaluate(transforms["spline"], samples)
    assert found.value == pytest.approx(sum(w * found.columns[f"Metric-{n}"] for n, w in weights.items()))
    single = [penalty(**keys, **alone(n)).evaluate(transforms["spline"], samples).gradient for n in weights]
    torch.testing.assert_close(found.gradient, sum(single[1:], single[0]))


def test_what_is_neither_used_nor_calculated_is_not_reported(penalty, transforms, samples):
    keys = {**alone("OC"), "CalculateLinearityCondition": "false"}
    assert set(penalty(**keys).evaluate(transforms["spline"], samples).columns) == {
        "Metric-OC",
        "||Gradient-OC||",
        "Metric-PC",
        "||Gradient-PC||",
    }


def test_what_comes_before_does_not_count(penalty, transforms, samples):
    before = Combination(transforms["spline"].current, transforms["affine"])
    assert penalty().evaluate(before, samples).value == penalty().evaluate(transforms["spline"], samples).value


def test_where_nothing_is_rigid_there_is_no_penalty(penalty, transforms, samples, pair, tmp_path):
    write_image(Image(torch.zeros(1, *pair[0].grid.shape), pair[0].grid), tmp_path / "none.mha")
    found = penalty(FixedRigidityImageName=str(tmp_path / "none.mha")).evaluate(transforms["spline"], samples)
    assert found.value == 0
    assert not found.gradient.any()


def test_rigidity_images_say_where_control_points_count(penalty, transforms, samples, tmp_path):
    grid = transforms["spline"].current.grid
    data = torch.zeros(1, *grid.shape)
    data[0, 2, 3, 2] = 0.3
    write_image(Image(data, grid), tmp_path / "one.mha")
    keys = {"FixedRigidityImageName": str(tmp_path / "one.mha"), "DilateRigidityImages": "false"}
    found = penalty(**keys).evaluate(transforms["spline"], samples)
    point = grid.points()[data.reshape(-1) > 0]
    stretch = transforms["spline"].local(point).jacobian[0]
    lacking = (stretch.T @ stretch - torch.eye(3).double()).triu()
    assert found.columns["Metric-OC"] == pytest.approx(float(lacking.square().sum()))
    assert found.columns["Metric-PC"] == pytest.approx(float(torch.linalg.det(stretch) - 1) ** 2)
    unused = penalty(**keys, UseFixedRigidityImage="false").evaluate(transforms["spline"], samples)
    assert unused.columns["Metric-OC"] != pytest.approx(found.columns["Metric-OC"])


def test_another_grid_is_widened_anew(penalty, samples, transforms, tmp_path):
    grid = Grid.of((40, 40, 40), (1.5, 1.5, 1.5), (-15, -15, -15))
    data = torch.zeros(1, *grid.shape)
    data[0, 20, 20, 20] = 1
    write_image(Image(data, grid), tmp_path / "dot.mha")
    metric = penalty(FixedRigidityImageName=str(tmp_path / "dot.mha"))
    first = transforms["spline"]
    fine = Grid.of((12, 12, 12), (4, 4, 4), (-13, -11, -12))
    noise = torch.randn(3 * 12**3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    second = Combination(BSplineTransform(noise, fine))
    values = [metric.evaluate(t, samples).value for t in (first, second, first)]
    assert values[0] == values[2] != values[1]


def test_no_rigidity_image_is_warned_of(penalty, caplog):
    with caplog.at_level(logging.WARNING):
        penalty()
    assert "are both not given" in caplog.text


@pytest.mark.parametrize("name", ["affine", "euler"])
def test_other_transforms_are_refused(penalty, transforms, samples, name):
    with pytest.raises(RegistrationError, match=r'needs .Transform "BSplineTransform". of order 3, but it got a'):
        penalty().evaluate(transforms[name], samples)


def test_other_orders_are_refused(penalty, transforms, samples):
    spline = transforms["spline"].current
    with pytest.raises(RegistrationError, match="BSplineTransform of order 2"):
        penalty().evaluate(Combination(BSplineTransform(spline.parameters, spline.grid, 2)), samples)


def test_a_value_alone_comes_without_gradient(penalty, transforms, samples):
    with_gradient = penalty().evaluate(transforms["spline"], samples)
    found = penalty().evaluate(transforms["spline"], samples, gradient=False)
    assert found.gradient is None
    assert found.value == with_gradient.value
