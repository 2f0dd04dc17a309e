"""Splines through landmarks."""

import pickle

import pytest
import torch

from impactreg.components.setup import Setup
from impactreg.components.transforms.linear import DenseMapped
from impactreg.components.transforms.spline_kernel import SplineKernelTransform
from impactreg.errors import ImpactregError, ParameterError, PointsError, TransformError
from impactreg.images import Grid, Image
from impactreg.parameters import ParameterMap

CASES = [
    (3, "ThinPlateSpline", 0.0),
    (3, "VolumeSpline", 200.0),
    (3, "ElasticBodySpline", 0.0),
    (3, "ElasticBodyReciprocalSpline", 0.2),
    (2, "ThinPlateR2LogRSpline", 0.0),
    (2, "ElasticBodySpline", 0.1),
]


def random(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def make(n, kernel, relaxation=0.0):
    fixed = 10 * random(8, n, seed=1)
    return SplineKernelTransform.through(fixed, fixed + random(8, n), kernel_type=kernel, relaxation=relaxation)


@pytest.fixture(params=CASES, ids=str)
def transform(request):
    """One of each kernel."""
    return make(*request.param)


@pytest.mark.parametrize(("n", "kernel", "relaxation"), CASES)
def test_landmarks_are_carried_to_landmarks_unless_the_spline_is_relaxed(n, kernel, relaxation):
    transform = make(n, kernel, relaxation)
    off = (transform(transform.spline.landmarks) - transform.parameters.reshape(-1, n)).abs().max()
    assert off < 1e-10 if relaxation == 0 else off > 1e-3


def test_affine_motions_of_landmarks_are_affine_everywhere(transform):
    n = transform.dimension
    matrix, shift = torch.eye(n).double() + 0.1 * random(n, n), random(n, seed=3)
    moved = transform.with_parameters((transform.spline.landmarks @ matrix.T + shift).reshape(-1))
    points = 20 * random(30, n, seed=4)
    assert torch.allclose(moved(points), points @ matrix.T + shift, rtol=0, atol=1e-9)


def test_the_jacobian_is_exact(transform):
    """T is linear in its parameters: the whole Jacobian by unit steps, and every operation with it."""
    n, total = transform.dimension, transform.parameters.numel()
    points = 10 * random(20, n, seed=5)
    units = torch.eye(total).double()
    jacobian = torch.stack(
        [transform.with_parameters(transform.parameters + u)(points) - transform(points) for u in units], dim=2
    )
    dense, mapped = DenseMapped(transform(points), jacobian), transform.at(points)
    gradient, direction, scales = random(20, n, seed=6), random(total, seed=7), 0.5 + torch.rand(total).double()
    assert torch.equal(mapped.points, transform(points))
    assert torch.allclose(mapped.pull_back(gradient), dense.pull_back(gradient), atol=1e-9)
    assert torch.allclose(mapped.push_forward(direction), dense.push_forward(direction), atol=1e-9)
    assert torch.allclose(mapped.gram(scales), dense.gram(scales), atol=1e-9)
    assert torch.allclose(mapped.squared_columns(), dense.squared_columns(), atol=1e-9)
    ours, expected = mapped.second_moment(scales), dense.second_moment(scales)
    assert ours.trace == pytest.approx(expected.trace)
    assert ours.frobenius == pytest.approx(expected.frobenius)
    assert torch.allclose(ours.sandwich, expected.sandwich, atol=1e-9)


def test_spatial_derivatives_exist_everywhere_even_at_landmarks(transform):
    points = transform.spline.landmarks.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(transform(points).sum(), points)
    assert torch.isfinite(gradient).all()
    points = 10 * random(5, transform.dimension, seed=5)
    assert torch.autograd.gradcheck(transform, points.requires_grad_())


def test_it_is_pickled(transform):
    points = random(5, transform.dimension)
    assert torch.equal(pickle.loads(pickle.dumps(transform))(points), transform(points))


def setup(**more):
    image = Image(torch.zeros(1, 8, 8, 8), Grid.of((8, 8, 8)))
    return Setup(image, image, **more)


def settings(**keys):
    return SplineKernelTransform.Settings.read(ParameterMap.from_dict(keys))


def test_it_begins_as_the_identity_at_the_fixed_landmarks():
    fixed = 4 * random(6, 3)
    start = SplineKernelTransform.begin(settings(SplineKernelType="VolumeSpline"), setup(fixed_points=fixed))
    assert start.kernel_type == "VolumeSpline"
    assert torch.allclose(start(random(9, 3)), random(9, 3), atol=1e-12)
    assert torch.equal(start.parameters, fixed.reshape(-1))
    moved = SplineKernelTransform.begin(settings(), setup(fixed_points=fixed, before=lambda points: points + 3))
    assert torch.equal(moved.spline.landmarks, fixed + 3)
    assert torch.equal(moved.parameters, (fixed + 3).reshape(-1))


def test_it_begins_through_pairs_of_landmarks():
    fixed, moving = 4 * random(6, 3), random(6, 3, seed=2)
    start = SplineKernelTransform.begin(settings(), setup(fixed_points=fixed, moving_points=moving))
    assert torch.allclose(start(fixed), moving, atol=1e-10)
    assert torch.equal(start.default_scales(settings()), torch.ones(18).double())


def test_poissons_ratio_counts_for_both_elastic_kernels():
    fixed, points = 4 * random(6, 3), 5 * random(9, 3, seed=4)
    for kernel in ("ElasticBodySpline", "ElasticBodyReciprocalSpline"):
        found = []
        for ratio in (0.1, 0.45):
            keys = {"SplineKernelType": kernel, "SplinePoissonRatio": ratio}
            moving = random(6, 3, seed=2)
            start = SplineKernelTransform.begin(settings(**keys), setup(fixed_points=fixed, moving_points=moving))
            assert start.written()["SplinePoissonRatio"] == [ratio]
            found.append(start(points))
        assert (found[0] - found[1]).abs().max() > 1e-3


@pytest.mark.parametrize(
    ("points", "keys", "error", "message"),
    [
        ({}, {}, ParameterError, "-fp"),
        ({"fixed_points": random(6, 3), "moving_points": random(5, 3)}, {}, PointsError, "6 fixed"),
        ({"fixed_points": random(6, 3)}, {"SplineKernelType": "ThinPlateR2LogRSpline"}, TransformError, "in 3D there"),
        ({"fixed_points": random(6, 3)}, {"SplineKernelType": "Spline"}, ParameterError, "SplineKernelType"),
        ({"fixed_points": random(6, 3)}, {"SplinePoissonRatio": 0.6}, ParameterError, "SplinePoissonRatio"),
        ({"fixed_points": random(6, 3)}, {"SplineRelaxationFactor": -1}, ParameterError, "SplineRelaxationFactor"),
    ],
)
def test_what_cannot_begin_is_one_clear_line(points, keys, error, message):
    with pytest.raises(error, match=message):
        SplineKernelTransform.begin(settings(**keys), setup(**points))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"FixedImageLandmarks": [1, 2, 3, 4]}, "no landmarks of 3"),
        ({"FixedImageLandmarks": []}, "FixedImageLandmarks ...), which is missing"),
        ({"SplineKernelType": []}, "SplineKernelType ...), which is missing"),
        ({"SplineKernelType": "Odd"}, "in 3D there are ThinPlateSpline"),
        ({"TransformParameters": [1, 2, 3]}, "3 TransformParameters are given"),
        ({"FixedImageDimension": 4}, "4D; use elastix's own transformix"),
        ({"FixedImageDimension": []}, "FixedImageDimension ...), which is missing"),
    ],
)
def test_incomplete_files_are_one_clear_line(change, message):
    written = {"FixedImageDimension": 3, **make(3, "ThinPlateSpline").written(), **change}
    with pytest.raises(ImpactregError) as error:
        SplineKernelTransform.read(ParameterMap.from_dict(written, "t.txt"))
    assert message in str(error.value)
    assert "t.txt" in str(error.value)


def test_many_points_are_worked_on_in_pieces(monkeypatch):
    transform, points = make(3, "ElasticBodySpline"), random(50, 3)
    expected = transform(points)
    monkeypatch.setattr("impactreg.components.transforms.spline_kernel.PAIRS_AT_ONCE", 24)
    assert torch.allclose(transform(points), expected, rtol=0, atol=1e-12)
