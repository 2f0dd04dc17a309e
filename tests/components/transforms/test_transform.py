"""Transforms of every kind: derivatives against finite differences and dense matrices; composition and addition."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from impactreg.components.transforms.linear import AffineTransform, TranslationTransform
from impactreg.components.transforms.transform import Combination, Transform
from impactreg.errors import ParameterError, TransformError
from impactreg.parameters import ParameterMap

NUMBER = st.floats(-3, 3)
AFFINE = st.lists(st.floats(-0.3, 0.3), min_size=12, max_size=12)


def dense(transform, points):
    """The Jacobian [points, dim, parameters]: autograd for splines of many parameters, else central differences."""

    def moved(parameters):
        return transform.with_parameters(parameters)(points)

    if transform.parameters.numel() > 12:
        return torch.autograd.functional.jacobian(moved, transform.parameters)
    steps = 1e-6 * torch.eye(transform.parameters.numel(), dtype=torch.float64)
    columns = [(moved(transform.parameters + by) - moved(transform.parameters - by)) / 2e-6 for by in steps]
    return torch.stack(columns, dim=2)


@pytest.fixture
def at(transform, sample):
    """Some points, the transform there, and its Jacobian as a dense matrix."""
    points = sample(transform.dimension)[:6]
    return transform.at(points), dense(transform, points)


@pytest.fixture
def scales(transform, generator):
    return torch.rand(transform.parameters.shape, generator=generator, dtype=torch.float64) + 0.5


def close(found, expected):
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-6)


def test_points_with_and_without_their_jacobian_are_the_same(transform, sample):
    points = sample(transform.dimension)
    torch.testing.assert_close(transform.at(points).points, transform(points))


def test_gradients_are_pulled_back_by_the_transposed_jacobian(at, generator):
    mapped, jacobian = at
    gradient = torch.randn(mapped.points.shape, generator=generator, dtype=torch.float64)
    close(mapped.pull_back(gradient), torch.einsum("nd,ndp->p", gradient, jacobian))


def test_directions_are_pushed_forward_by_the_jacobian(at, transform, generator):
    mapped, jacobian = at
    direction = torch.randn(transform.parameters.shape, generator=generator, dtype=torch.float64)
    close(mapped.push_forward(direction), jacobian @ direction)


def test_the_jacobian_is_that_of_finite_differences(transform, sample, generator):
    points = sample(transform.dimension)
    direction = torch.randn(transform.parameters.shape, generator=generator, dtype=torch.float64)
    high, low = (transform.with_parameters(transform.parameters + s * direction)(points) for s in (1e-6, -1e-6))
    close(transform.at(points).push_forward(direction), (high - low) / 2e-6)


def test_the_gram_matrix_is_that_of_the_scaled_jacobian(at, scales):
    mapped, jacobian = at
    close(mapped.gram(scales), (jacobian / scales) @ jacobian.mT)


def test_squared_columns_are_summed_over_points_and_dimensions(at):
    mapped, jacobian = at
    close(mapped.squared_columns(), jacobian.square().sum(dim=(0, 1)))


@pytest.mark.parametrize("even", [True, False])
def test_the_second_moment_is_that_of_the_scaled_jacobian(at, scales, even):
    mapped, jacobian = at
    scales = torch.ones_like(scales) if even else scales
    scaled = jacobian / scales.sqrt()
    moment = torch.einsum("ndp,ndq->pq", scaled, scaled) / len(scaled)
    found = mapped.second_moment(scales)
    assert found.trace == pytest.approx(float(moment.trace()), rel=1e-6)
    assert found.frobenius == pytest.approx(float(moment.norm()), rel=1e-6)
    close(found.sandwich, scaled @ moment @ scaled.mT)


def test_other_parameters_make_another_transform_and_leave_the_first(transform):
    before = transform.parameters.clone()
    other = transform.with_parameters(before + 1)
    assert type(other) is type(transform)
    assert torch.equal(other.parameters, before + 1)
    assert torch.equal(transform.parameters, before)


def test_what_is_written_is_read_back(transform, sample):
    again = type(transform).read(ParameterMap.from_dict(transform.written()))
    points = sample(transform.dimension)
    torch.testing.assert_close(again(points), transform(points), rtol=0, atol=1e-9)


def test_a_wrong_number_of_parameters_is_told(transform):
    written = {**transform.written(), "TransformParameters": [1.0] * (transform.parameters.numel() + 2)}
    with pytest.raises(TransformError, match="TransformParameters are given where") as error:
        type(transform).read(ParameterMap.from_dict(written, "t.txt"))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("compose", [True, False])
@pytest.mark.parametrize("current", ["affine", "spline 3", "euler"])
@pytest.mark.parametrize("before", ["similarity", "spline 2"])
def test_transforms_are_composed_or_added(transforms, sample, current, before, compose):
    first, second, points = transforms[before], transforms[current], sample(3)
    both = Combination(second, Combination(first), compose)
    expected = second(first(points)) if compose else points + (first(points) - points) + (second(points) - points)
    torch.testing.assert_close(both(points), expected)
    torch.testing.assert_close(both.at(points).points, expected)
    close(both.at(points).push_forward(second.parameters), dense(both, points) @ second.parameters)


def test_a_combination_has_the_parameters_of_its_current_transform(transforms):
    both = Combination(transforms["euler"], transforms["affine"])
    assert both.dimension == 3
    assert both.parameters is transforms["euler"].parameters
    moved = both.with_parameters(both.parameters + 1)
    assert torch.equal(moved.current.parameters, both.parameters + 1)
    assert moved.initial is both.initial


def test_a_chain_lists_the_transforms_from_the_first_applied_on(transforms):
    first, second, third = (transforms[name] for name in ("translation", "affine", "euler"))
    chain = Combination(third, Combination(second, first), compose=False).chain()
    assert [c.current for c in chain] == [first, second, third]
    assert [c.compose for c in chain] == [True, True, False]


def affine(values):
    change = torch.tensor(values, dtype=torch.float64) * torch.tensor([1.0] * 9 + [10.0] * 3)
    return AffineTransform(AffineTransform.identity_parameters(3) + change, torch.ones(3).double())


POINTS = torch.randn(9, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64) * 30


@given(first=AFFINE, second=AFFINE, third=AFFINE)
@settings(max_examples=25)
def test_composition_is_associative(first, second, third):
    a, b, c = affine(first), affine(second), affine(third)
    left = Combination(c, Combination(b, a))
    inner = Combination(c, b)
    assert torch.allclose(left(POINTS), inner(a(POINTS)))


@given(first=AFFINE, second=AFFINE)
@settings(max_examples=25)
def test_composed_matrices_are_multiplied(first, second):
    a, b = affine(first), affine(second)
    product = b.matrix() @ a.matrix()
    moved = Combination(b, a)(torch.zeros(1, 3, dtype=torch.float64))
    assert torch.allclose(Combination(b, a)(POINTS), POINTS @ product.T + moved, atol=1e-6)


@given(values=AFFINE)
@settings(max_examples=25)
def test_a_linear_transform_and_its_inverse_leave_points_alone(values):
    forward = affine(values)
    matrix = torch.linalg.inv(forward.matrix())
    back = AffineTransform(torch.cat([matrix.flatten(), -forward.translation]), forward.centre + forward.translation)
    assert torch.allclose(Combination(back, forward)(POINTS), POINTS, atol=1e-6)


@given(first=st.tuples(*[NUMBER] * 3), second=st.tuples(*[NUMBER] * 3))
@settings(max_examples=25)
def test_translations_add_up_either_way(first, second):
    a, b = (TranslationTransform(torch.tensor(v).double(), torch.zeros(3).double()) for v in (first, second))
    expected = POINTS + a.parameters + b.parameters
    for compose in (True, False):
        assert torch.allclose(Combination(b, a, compose)(POINTS), expected)


def test_a_transform_that_there_is_not_is_told_with_the_nearest():
    with pytest.raises(ParameterError, match=r"did you mean 'EulerTransform'\?"):
        Transform.named("EulerTransfrom")
