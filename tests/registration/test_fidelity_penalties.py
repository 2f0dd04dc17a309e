"""Penalties on the transform follow real elastix iteration by iteration, as far as elastix's gradients are right."""

import numpy as np
import pytest
import torch

from impactreg.images import Grid, Image
from impactreg.images.files import write_image

pytestmark = pytest.mark.itk

INITIAL = {
    2: {
        "Transform": "AffineTransform",
        "NumberOfParameters": 6,
        "TransformParameters": [1.05, 0.02, -0.03, 0.97, 1.5, -1.0],
        "CenterOfRotationPoint": [20, 15],
    },
    3: {
        "Transform": "AffineTransform",
        "NumberOfParameters": 12,
        "TransformParameters": [1.05, 0.02, 0, -0.03, 0.97, 0.01, 0, 0.02, 1.01, 1.5, -1.0, 0.7],
        "CenterOfRotationPoint": [20, 8, 20],
    },
}
SPLINE = {
    "Registration": "MultiMetricMultiResolutionRegistration",
    "Transform": "BSplineTransform",
    "FinalGridSpacingInPhysicalUnits": 8.7,
    "SP_a": 0.5,
}
BENDING = {**SPLINE, "Metric": ["AdvancedMeanSquares", "TransformBendingEnergyPenalty"], "Metric1Weight": 1e4}
RIGIDITY = {
    **SPLINE,
    "Metric": ["AdvancedMeanSquares", "TransformRigidityPenalty"],
    "Metric1Weight": 1e3,
    "FinalGridSpacingInPhysicalUnits": 4.7,
}
BEFORE = {
    "Transform": "BSplineTransform",
    "NumberOfParameters": 128,
    "TransformParameters": np.random.default_rng(0).normal(scale=2, size=128).tolist(),
    "GridSize": [8, 8],
    "GridIndex": [0, 0],
    "GridSpacing": [11.3, 10.9],
    "GridOrigin": [-11.9, -23.7],
    "GridDirection": [1, 0, 0, 1],
    "BSplineTransformSplineOrder": 3,
    "UseCyclicTransform": "false",
}
COLUMNS = ("2:Metric", "2:Metric0", "2:Metric1", "4:||Gradient0||", "4:||Gradient1||", "4:||Gradient||")


def column(run, name):
    return np.array([row[name] for rows in run.rows for row in rows], dtype=float)


def follow(runs, columns=COLUMNS, rtol=1e-7):
    elastix, ours = runs
    for name in columns:
        # six digits behind the point are written
        np.testing.assert_allclose(column(ours, name), column(elastix, name), rtol=rtol, atol=6e-7, err_msg=name)
    scale = np.abs(elastix.parameters).max()
    np.testing.assert_allclose(ours.parameters, elastix.parameters, atol=1e-8 * scale)


@pytest.mark.parametrize("dimension", [2, 3])
@pytest.mark.parametrize("levels", [1, 2])
def test_bending_energy_follows_elastix(both, dimension, levels):
    follow(both(dimension, **BENDING, NumberOfResolutions=levels))


@pytest.mark.parametrize("transform", ["BSplineTransform", "RecursiveBSplineTransform"])
def test_bending_energy_of_quadratic_splines_follows_elastix(both, transform):
    follow(both(3, **{**BENDING, "Transform": transform}, BSplineTransformSplineOrder=2))


@pytest.mark.parametrize("how", ["Compose", "Add"])
@pytest.mark.parametrize("dimension", [2, 3])
def test_bending_energy_after_an_initial_transform_follows_elastix(both, dimension, how):
    follow(both(dimension, **BENDING, initial=INITIAL[dimension], HowToCombineTransforms=how))


@pytest.mark.parametrize("transform", ["BSplineTransform", "AffineTransform"])
def test_bending_energy_of_what_comes_before_follows_elastix(both, transform):
    step = {"SP_a": 0.5 if transform == "BSplineTransform" else 1e-5}
    follow(both(2, **{**BENDING, "Transform": transform, **step}, initial=BEFORE))


def test_elastix_leaves_out_the_bending_of_what_is_added_before(both):
    elastix, ours = both(2, **BENDING, initial=BEFORE, HowToCombineTransforms="Add")
    assert column(elastix, "2:Metric1")[0] == 0
    assert column(ours, "2:Metric1")[0] > 1e-3


def test_bending_energy_of_oblique_images_follows_elastix(both):
    follow(both(3, angle=-0.2, **BENDING))


def test_bending_energy_in_a_moving_mask_follows_elastix(both):
    follow(both(3, moving_mask=True, fixed_mask=True, RequiredRatioOfValidSamples=0.005, **BENDING))


def test_elastix_has_no_bending_energy_of_linear_splines(both):
    with pytest.raises(RuntimeError):
        both(2, **BENDING, BSplineTransformSplineOrder=1)


def rigid(path, dimension, first, last):
    """An image file of rigidities: random in a box, and zero around it."""
    grid = Grid.of((40,) * dimension, (1.3,) * dimension, (2, -9, 0)[:dimension])
    box = torch.zeros(1, *grid.shape)
    box[(0, *(slice(first + i, last + 2 * i) for i in range(dimension)))] = 1
    random = torch.rand(box.shape, generator=torch.Generator().manual_seed(first))
    write_image(Image(box * random, grid), path)
    return str(path)


@pytest.mark.parametrize("dimension", [2, 3])
@pytest.mark.parametrize(
    ("given", "dilated"), [((), True), (("Fixed",), True), (("Moving",), False), (("Fixed", "Moving"), True)]
)
def test_rigidity_is_as_large_as_in_elastix(both, tmp_path, dimension, dilated, given):
    boxes = {"Fixed": (8, 15), "Moving": (14, 19)}
    names = {f"{s}RigidityImageName": rigid(tmp_path / f"{s}.mha", dimension, *boxes[s]) for s in given}
    dilation = {"DilateRigidityImages": dilated, "DilationRadiusMultiplier": 0.5}
    runs = both(dimension, **{**RIGIDITY, "Metric1Weight": 0}, **dilation, **names)
    follow(runs, ("2:Metric", "2:Metric0", "2:Metric1"))
    assert column(runs[0], "2:Metric1")[-1] > 1e-3 * (dimension == 2)


def test_orthonormality_and_properness_follow_elastix_in_2d(both, tmp_path):
    inside = rigid(tmp_path / "rigid.mha", 2, 10, 16)
    follow(
        both(2, **RIGIDITY, FixedRigidityImageName=inside, DilateRigidityImages=False, UseLinearityCondition=False),
        ("2:Metric", "2:Metric0", "2:Metric1", "4:||Gradient0||", "4:||Gradient||"),
    )


def test_elastix_loses_the_gradient_of_orthonormality_in_3d(both, tmp_path):
    inside = rigid(tmp_path / "rigid.mha", 3, 10, 13)
    alone = {"UseLinearityCondition": False, "UsePropernessCondition": False, "DilateRigidityImages": False}
    elastix, ours = both(3, **{**RIGIDITY, "Metric1Weight": 0}, **alone, FixedRigidityImageName=inside)
    np.testing.assert_allclose(column(ours, "2:Metric1"), column(elastix, "2:Metric1"), atol=6e-7)
    lengths = column(ours, "4:||Gradient1||")[1:] / column(elastix, "4:||Gradient1||")[1:]
    assert (abs(lengths - 1) > 5e-3).all()
