"""Every kind of transform file beside itk-elastix's own transformix."""

import numpy as np
import pytest
import torch

from impactreg.components.resampling import Output
from impactreg.components.transforms.affine_forms import AffineDTITransform, AffineLogTransform
from impactreg.components.transforms.bspline import BSplineTransform
from impactreg.components.transforms.cyclic import CyclicBSplineTransform
from impactreg.components.transforms.files import TransformWriter, read_transform
from impactreg.components.transforms.linear import TranslationTransform
from impactreg.components.transforms.rotating import EulerTransform
from impactreg.components.transforms.spline_kernel import SplineKernelTransform
from impactreg.components.transforms.stacks import (
    AffineLogStackTransform,
    BSplineStackTransform,
    EulerStackTransform,
    TranslationStackTransform,
)
from impactreg.components.transforms.transform import Combination
from impactreg.components.transforms.weighted import WeightedCombinationTransform
from impactreg.components.warping import deformation_field
from impactreg.images import Grid, Image
from impactreg.images.files import to_itk
from impactreg.parameters import ParameterMap

pytestmark = pytest.mark.itk
TURN = np.linalg.qr(np.random.default_rng(0).normal(size=(3, 3)))[0]
TURN[:, 0] *= np.sign(np.linalg.det(TURN))
SETTINGS = ParameterMap.from_dict({"ResultImageFormat": "mha"})
KERNELS = ("ThinPlateSpline", "VolumeSpline", "ElasticBodySpline", "ElasticBodyReciprocalSpline")


def random(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def numbers(*values):
    return torch.tensor(values, dtype=torch.float64)


def grid(n):
    return Grid.of((19, 17, 14)[:n], (2, 2.5, 3)[:n], (-10, 5, 7)[:n], np.linalg.qr(TURN[:n, :n])[0])


def landmarks(n, kernel, relaxation=0.0, ratio=0.3, count=9):
    fixed = numbers(*grid(n).centre) + 12 * random(count, n, seed=1)
    return SplineKernelTransform.through(
        fixed, fixed + 2 * random(count, n, seed=2), kernel_type=kernel, relaxation=relaxation, poisson_ratio=ratio
    )


def spline(n, seed=0, shape=(6, 7, 8)):
    """A B-spline on an oblique grid around the centre of the image."""
    turn, spacing = np.linalg.qr(TURN[:n, :n])[0], np.array((7.03, 6.51, 9.02)[:n])
    origin = np.array(grid(n).centre) - turn @ (spacing * (np.array(shape[:n]) - 1) / 2)
    control = Grid.of(shape[:n], spacing, origin, turn)
    return BSplineTransform(2 * random(n * control.number_of_voxels, seed=seed), control)


def stack(kind, members):
    """Five members along the last coordinate, which reaches beyond both ends of the stack."""
    return kind(tuple(members(k) for k in range(5)), grid(3).centre[2] - 8.3, 4.1)


CENTRE = numbers(*grid(3).centre)
CASES = {
    **{f"{kernel} 3D": lambda _, kernel=kernel: landmarks(3, kernel) for kernel in KERNELS},
    **{f"{kernel} 2D": lambda _, kernel=kernel: landmarks(2, kernel) for kernel in (*KERNELS, "ThinPlateR2LogRSpline")},
    **{f"{kernel} relaxed": lambda _, kernel=kernel: landmarks(3, kernel, 0.7) for kernel in KERNELS},
    "relaxed 2D": lambda _: landmarks(2, "ThinPlateSpline", 0.7),
    "Poisson's ratio": lambda _: landmarks(3, "ElasticBodySpline", 0.1, 0.45),
    "Poisson's ratio of reciprocal": lambda _: landmarks(3, "ElasticBodyReciprocalSpline", 0.1, -0.2),
    "too few landmarks": lambda _: landmarks(3, "ThinPlateSpline", count=3),
    "affine log": lambda _: AffineLogTransform(torch.cat([0.2 * random(9), numbers(2, -1, 3)]), CENTRE),
    "affine log 2D": lambda _: AffineLogTransform(torch.cat([0.2 * random(4), numbers(2, -1)]), CENTRE[:2]),
    "affine DTI": lambda _: AffineDTITransform(
        numbers(0.1, 0.2, -0.15, 0.05, -0.1, 0.15, 1.1, 0.9, 1.05, 2, -1, 3), CENTRE
    ),
    "affine DTI 2D": lambda _: AffineDTITransform(numbers(0.1, 0.2, -0.15, 1.1, 0.9, 2, -1), CENTRE[:2]),
    "stack of translations": lambda _: stack(
        TranslationStackTransform, lambda k: TranslationTransform(2 * random(2, seed=k), CENTRE[:2] * 0)
    ),
    "stack of rotations": lambda _: stack(
        EulerStackTransform, lambda k: EulerTransform(random(3, seed=k) * numbers(0.1, 2, 2), CENTRE[:2])
    ),
    "stack of affine logs": lambda _: stack(
        AffineLogStackTransform, lambda k: AffineLogTransform(0.1 * random(6, seed=k), CENTRE[:2])
    ),
    "stack of splines": lambda _: stack(BSplineStackTransform, lambda k: spline_in_slice(k)),
    "cyclic spline": lambda _: CyclicBSplineTransform(spline(3, shape=(6, 7, 5))),
    "cyclic spline of order 2": lambda _: CyclicBSplineTransform(
        BSplineTransform(spline(3, shape=(6, 7, 5)).parameters, spline(3, shape=(6, 7, 5)).grid, 2)
    ),
    "cyclic spline 2D": lambda _: CyclicBSplineTransform(spline(2, shape=(6, 5))),
    "weighted": lambda folder: weighted(folder, normalized=False),
    "weighted, normalised": lambda folder: weighted(folder, normalized=True),
}


def spline_in_slice(seed):
    """A 2D spline over the box of the image's first two world coordinates."""
    corners = grid(3).corners()[:, :2]
    low, high = corners.amin(dim=0).numpy(), corners.amax(dim=0).numpy()
    step = (high - low) / 4
    control = Grid.of((7, 7), step, low - step)
    return BSplineTransform(2 * random(2 * control.number_of_voxels, seed=seed), control)


def weighted(folder, *, normalized):
    """Of a chain and a rotation."""
    first, _ = writer(3).write(Combination(spline(3)), folder, "initial")
    members = (Combination(spline(3, 4), Combination(spline(3))), Combination(EulerTransform(0.1 * random(6), CENTRE)))
    files = []
    for name, member, initial in (("a", members[0], str(first)), ("b", members[1], "NoInitialTransform")):
        path, _ = writer(3, initial).write(member, folder, name)
        files.append(str(path))
    return WeightedCombinationTransform(numbers(0.7, 0.5), members, tuple(files), normalized)


def writer(n, initial="NoInitialTransform"):
    return TransformWriter(Output.of(SETTINGS, grid(n)), SETTINGS, initial)


def real_field(path, n):
    """The deformation field of itk-elastix for a file."""
    import itk

    parameters = itk.ParameterObject.New()
    parameters.ReadParameterFile(str(path))
    moving = to_itk(Image(torch.zeros(1, *grid(n).shape), grid(n)))
    run = itk.TransformixFilter[type(moving)].New()
    run.SetMovingImage(moving)
    run.SetTransformParameterObject(parameters)
    run.SetComputeDeformationField(True)
    run.SetOutputDirectory(str(path.parent))
    run.SetLogToConsole(False)
    run.Update()
    return itk.array_from_image(run.GetOutputDeformationField())


@pytest.mark.parametrize("name", CASES)
def test_real_transformix_finds_the_same_field_in_our_file(tmp_path, name):
    transform = CASES[name](tmp_path)
    n = transform.dimension
    path, _ = writer(n).write(Combination(transform), tmp_path, "0")
    ours = deformation_field(transform, grid(n)).numpy()
    theirs = real_field(path, n)
    assert np.abs(theirs).max() > 1
    assert np.abs(ours - theirs).max() < 2e-5
    points = grid(n).points()
    assert torch.allclose(read_transform(path)(points), transform(points), rtol=0, atol=1e-9)


LANDMARKS = {
    2: numbers(*((8, 2), (40, 5), (12, 25), (45, 28), (25, 15), (33, 20))),
    3: 5 + 12 * torch.rand(8, 3, generator=torch.Generator().manual_seed(4)).double() + numbers(3, -8, 10),
}
OPTIMISED = {
    "SplineKernelTransform": {"SP_a": 1.0},
    "AffineLogTransform": {},
    "AffineDTITransform": {},
}


@pytest.mark.parametrize("dimension", [2, 3])
@pytest.mark.parametrize("transform", OPTIMISED)
@pytest.mark.parametrize("initial", [False, True])
def test_gradient_descent_follows_elastix(both, transform, dimension, initial):
    """With and without pairs of landmarks moved by an initial transform."""
    start = {
        "Transform": "TranslationTransform",
        "NumberOfParameters": dimension,
        "TransformParameters": [1.5, -1.0, 0.7][:dimension],
    }
    fixed = LANDMARKS[dimension]
    keys = {"points": (fixed, fixed + 0.5 * random(*fixed.shape))} if "Kernel" in transform else {}
    elastix, ours = both(
        dimension, angle=-0.2, Transform=transform, initial=start if initial else None, **keys, **OPTIMISED[transform]
    )
    np.testing.assert_allclose(ours.metric, elastix.metric, rtol=1e-4)
    np.testing.assert_allclose(ours.gradient, elastix.gradient, rtol=1e-3, atol=1e-5)
    np.testing.assert_allclose(ours.parameters, elastix.parameters, atol=1e-3 * np.abs(elastix.parameters).max())


@pytest.mark.parametrize("kernel", KERNELS)
def test_every_kernel_follows_elastix(both, kernel):
    fixed = LANDMARKS[3]
    elastix, ours = both(
        3,
        Transform="SplineKernelTransform",
        SplineKernelType=kernel,
        SplineRelaxationFactor=0.1,
        SplinePoissonRatio=0.25,
        points=(fixed, fixed + 0.5 * random(*fixed.shape)),
    )
    np.testing.assert_allclose(ours.metric, elastix.metric, rtol=1e-4)
    np.testing.assert_allclose(ours.parameters, elastix.parameters, atol=1e-4 * np.abs(elastix.parameters).max())


@pytest.mark.parametrize("normalized", ["true", "false"])
def test_weights_of_transforms_follow_elastix(both, tmp_path, normalized):
    files = []
    for name, values in (("a", (2, 1, -1)), ("b", (-1, 2, 1))):
        keys = {"Transform": "TranslationTransform", "NumberOfParameters": 3, "TransformParameters": list(values)}
        (tmp_path / f"{name}.txt").write_text(ParameterMap.from_dict(keys).text())
        files.append(str(tmp_path / f"{name}.txt"))
    keys = {"SubTransforms": files, "NormalizeCombinationWeights": normalized, "SP_a": 0.001}
    elastix, ours = both(3, Transform="WeightedCombinationTransform", **keys)
    np.testing.assert_allclose(ours.metric, elastix.metric, rtol=1e-4)
    np.testing.assert_allclose(ours.parameters, elastix.parameters, atol=1e-4)
    assert np.abs(np.diff(elastix.metric)).max() > 1e-3
