"""The numerics of the fine stage: known displacements, exact derivatives, masks, flows, and going on."""

import math
from dataclasses import replace

import pytest
import torch

from impactreg.components.dense import warp
from impactreg.components.dense.features import layer_pairs
from impactreg.components.dense.fine import CONVERGED, STOPPED, FineRegistration, fine_displacement
from impactreg.components.dense.fine_level import Scene, problem_of
from impactreg.components.dense.fine_settings import FineSettings
from impactreg.components.dense.fine_state import State
from impactreg.components.dense.folding import folding
from impactreg.components.dense.start import Start
from impactreg.components.dense.velocity import flow
from impactreg.components.interpolators import Interpolant, held_inside
from impactreg.components.transforms.bspline import BSplineTransform
from impactreg.components.transforms.rotating import EulerTransform
from impactreg.components.transforms.transform import Combination
from impactreg.errors import ParameterError, RegistrationError
from impactreg.images import Grid, Image
from impactreg.images.masks import Mask
from impactreg.parameters import ParameterMap

TURNED = [[0.8, -0.6, 0], [0.6, 0.8, 0], [0, 0, 1]]
GRID = Grid.of((20, 18, 16), (2.0, 2.5, 3.0), (-20.0, 10.0, 5.0), TURNED)
FLAT = Grid.of((30, 26), (1.5, 2.0), (3.0, -4.0), [[0.8, -0.6], [0.6, 0.8]])
NEWTON = {"ImpactFineOptimizer": "GaussNewton", "ImpactControlInterpolation": "BSpline", "ImpactGridShrinkFactor": 5}


def pattern(points):
    """A smooth function of the world with structure everywhere."""
    a, b = points[:, 0] / 7, points[:, 1] / 8
    c = points[:, 2] / 9 if points.shape[1] == 3 else torch.zeros_like(a)
    return torch.sin(a + 0.5 * b) + torch.cos(b - 0.7 * c) + torch.sin(1.3 * c + 0.4 * a) + 0.3 * torch.cos(2 * a - b)


def image(grid, where=lambda points: points, channels=1):
    values = [pattern(where(grid.points()) * (1 + 0.1 * k)) for k in range(channels)]
    return Image(torch.stack(values).reshape(channels, *grid.shape).float(), grid)


def around(fixed):
    """A moving grid, unlike the fixed one, that holds it and what lies 12 mm around."""
    corners = fixed.corners()
    low, high = corners.amin(0) - 12, corners.amax(0) + 12
    step = torch.tensor([1.6, 1.7, 2.0][: fixed.dimension], dtype=torch.float64)
    size = ((high - low) / step).ceil().long() + 1
    return Grid.of(size.tolist(), step.tolist(), low.tolist())


def bent(points):
    """A smooth displacement of up to 3 mm."""
    waves = [torch.sin(points.roll(k + 1, 1)[:, 0] / 16 + k) for k in range(points.shape[1])]
    return points + 2.0 * torch.stack(waves, 1)


def settings(level=0, dimension=3, **keys):
    return FineSettings.read(ParameterMap.from_dict(keys), level=level, dimension=dimension)


def scene(fixed=GRID, truth=bent, initial=None, **more):
    """Images of which `truth` takes fixed to moving points."""
    start = Start.of(initial, fixed)
    return Scene(image(fixed, truth), image(around(fixed)), start, generator=torch.Generator().manual_seed(0), **more)


def run(where, *asked, **hooks):
    registration = FineRegistration(where, asked)
    return registration, registration.run(**hooks)


def error(where, found, truth=bent):
    """Mean distance (mm) from the truth in the inner part of the image."""
    field = where.start.field(found.displacement, where.grid).data
    off = field.flatten(1).T.double() - (truth(where.grid.points()) - where.grid.points())
    inner = torch.zeros(where.grid.shape, dtype=torch.bool)
    inner[(slice(3, -3),) * len(where.grid.shape)] = True
    return float(off[inner.flatten()].norm(dim=1).mean())


@pytest.mark.parametrize("grid", [GRID, FLAT])
@pytest.mark.parametrize("distance", ["MSE", "CorrelationRatio", "LNCC"])
def test_gauss_newton_finds_a_known_warp_between_unlike_oblique_grids(grid, distance):
    keys = {**NEWTON, "ImpactIntensityDistance": distance, "ImpactRegularizationWeight": 0.001}
    where = scene(grid)
    _, found = run(where, settings(dimension=grid.dimension, MaximumNumberOfIterations=8, **keys))
    assert error(where, found) < (1.2 if distance == "LNCC" else 0.5)


@pytest.mark.parametrize("grid", [GRID, FLAT])
def test_adam_finds_a_known_warp_in_millimetres(grid):
    keys = {"ImpactGridShrinkFactor": 2, "ImpactLearningRate": 0.4, "ImpactFinalLearningRate": 0.1}
    asked = settings(dimension=grid.dimension, ImpactRegularizationWeight=0.05, **keys)
    where = scene(grid)
    _, found = run(where, asked)
    assert error(where, found) < 0.9


@pytest.mark.parametrize("distance", ["L1", "L2", "NCC", "Cosine", "L1Cosine", "DotProduct", "Dice"])
@pytest.mark.parametrize("control", ["Linear", "BSpline"])
def test_derivatives_of_every_distance_are_exact(distance, control):
    keys = {
        "ImpactModelsPath": "MIND/R1D1_3D.pt",
        "ImpactDistance": distance,
        "ImpactGridShrinkFactor": 4,
        "ImpactEvaluationShrinkFactor": 2,
        "ImpactControlInterpolation": control,
        "ImpactControlGridSmoothingIterations": 1,
        "ImpactRegularization": "Bending" if control == "Linear" else "Diffusion",
    }
    assert_exact(settings(**keys), scene())


@pytest.mark.parametrize("distance", ["MSE", "LNCC", "CorrelationRatio"])
def test_derivatives_of_every_intensity_distance_are_exact_with_masks(distance):
    inside = torch.zeros(GRID.shape, dtype=torch.bool)
    inside[3:-3, 2:-4, 3:-2] = True
    moving = around(GRID)
    where = scene(fixed_mask=Mask(inside, GRID), moving_mask=Mask(torch.ones(moving.shape, dtype=torch.bool), moving))
    assert_exact(settings(ImpactIntensityDistance=distance, ImpactGridShrinkFactor=3), where)


@pytest.mark.parametrize("transform", ["SVF", "SymmetricSVF"])
def test_derivatives_of_flows_are_exact(transform):
    keys = {"ImpactFineTransform": transform, "ImpactGridShrinkFactor": 4, "ImpactEvaluationShrinkFactor": 2}
    assert_exact(settings(**keys), scene(), rtol=1e-3)


def assert_exact(asked, where, rtol=1e-4):
    """Holds the gradient of a problem, in double precision, against central differences."""
    exact = Scene(
        where.fixed.to(dtype=torch.float64),
        where.moving.to(dtype=torch.float64),
        where.start,
        where.fixed_mask,
        where.moving_mask,
    )
    pairs = [_double(pair) for pair in layer_pairs(exact.fixed, exact.moving, asked)]
    problem = problem_of(exact, asked, pairs)
    generator = torch.Generator().manual_seed(1)
    shape = (GRID.dimension, *problem.motion.control.size)
    parameters, direction = torch.randn(2, *shape, generator=generator, dtype=torch.float64) * 0.5
    slope = float((problem.at(parameters).gradient * direction).sum())
    ahead, behind = (float(problem.at(parameters + step * direction).value) for step in (1e-5, -1e-5))
    assert slope == pytest.approx((ahead - behind) / 2e-5, rel=rtol)


def _double(pair):
    return replace(pair, fixed=pair.fixed.to(dtype=torch.float64), moving=pair.moving.to(dtype=torch.float64))


def test_the_loss_does_not_know_the_unit_of_intensities():
    where = scene()
    scaled = Scene(*(each.with_data(each.data * 1000 - 500) for each in (where.fixed, where.moving)), where.start)
    asked = settings(ImpactGridShrinkFactor=4, ImpactLearningRate=0.3, MaximumNumberOfIterations=10)
    one, other = (run(each, asked)[1].displacement for each in (where, scaled))
    torch.testing.assert_close(one, other, atol=2e-2, rtol=1e-2)


def test_without_iterations_an_initial_transform_is_kept():
    centre = torch.tensor(GRID.centre, dtype=torch.float64)
    rigid = EulerTransform(torch.tensor([0.05, -0.04, 0.06, 1.0, -2.0, 1.5], dtype=torch.float64), centre)
    control = Grid.of((8, 8, 8), (10.0, 10.0, 10.0), (centre - 35).tolist())
    noise = torch.randn(3 * 512, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    chain = Combination(BSplineTransform(noise, control), Combination(rigid))
    where = scene(initial=chain)
    _, found = run(where, settings(MaximumNumberOfIterations=0))
    field = where.start.field(found.displacement, GRID).data.flatten(1).T.double()
    torch.testing.assert_close(GRID.points() + field, chain(GRID.points()), atol=2e-3, rtol=0)


def test_a_rigid_start_is_kept_as_a_linear_map():
    centre = torch.tensor(GRID.centre, dtype=torch.float64)
    rigid = EulerTransform(torch.tensor([0.2, -0.1, 0.1, 3.0, -2.0, 1.5], dtype=torch.float64), centre)
    start = Start.of(Combination(rigid), GRID)
    assert start.displacement is None
    torch.testing.assert_close(start.linear(GRID.points()), rigid(GRID.points()))


@pytest.mark.parametrize("transform", ["Displacement", "SVF"])
def test_a_warm_start_by_rigid_and_spline_is_taken_further(transform):
    centre = torch.tensor(GRID.centre, dtype=torch.float64)
    rigid = EulerTransform(torch.tensor([0.06, -0.05, 0.08, 1.0, -2.0, 1.5], dtype=torch.float64), centre)
    control = Grid.of((8, 8, 8), (12.0, 12.0, 12.0), (centre - 42).tolist())
    noise = torch.randn(3 * 512, generator=torch.Generator().manual_seed(3), dtype=torch.float64) * 0.5
    initial = Combination(BSplineTransform(noise, control), Combination(rigid))
    truth = lambda points: initial(bent(points))  # noqa: E731
    where = scene(truth=truth, initial=initial)
    keys = {"ImpactFineTransform": transform, "ImpactGridShrinkFactor": 2, "ImpactLearningRate": 0.3}
    before = error(where, run(where, settings(MaximumNumberOfIterations=0, **keys))[1], truth)
    _, found = run(where, settings(MaximumNumberOfIterations=50, ImpactRegularizationWeight=0.05, **keys))
    assert error(where, found, truth) < 0.55 * before


def test_a_fixed_mask_says_what_counts():
    where = scene()
    spoiled = where.fixed.data.clone()
    spoiled[:, :, :, :6] = torch.rand(spoiled[:, :, :, :6].shape, generator=torch.Generator().manual_seed(5)) * 9
    inside = torch.ones(GRID.shape, dtype=torch.bool)
    inside[:, :, :6] = False
    keys = {**NEWTON, "ImpactRegularizationWeight": 0.01, "MaximumNumberOfIterations": 6}
    errors = []
    for mask in (None, Mask(inside, GRID)):
        masked = Scene(where.fixed.with_data(spoiled), where.moving, where.start, mask)
        errors.append(error(masked, run(masked, settings(**keys))[1]))
    assert errors[1] < 0.5 * errors[0]


def test_a_moving_mask_says_what_counts():
    where = scene()
    moving = where.moving.data.clone()
    moving[:, :, :, : moving.shape[3] // 2] *= -2
    inside = torch.zeros(where.moving.grid.shape, dtype=torch.bool)
    inside[:, :, moving.shape[3] // 2 + 1 :] = True
    asked = settings(ImpactGridShrinkFactor=4, ImpactFeaturePooling="false")
    pairs = layer_pairs(where.fixed, where.moving.with_data(moving), asked)
    other = Scene(where.fixed, where.moving, where.start, moving_mask=Mask(inside, where.moving.grid))
    at = torch.zeros(3, 4, 4, 5)
    spoiled, clean = (
        problem_of(other, asked, each).at(at) for each in (pairs, layer_pairs(where.fixed, where.moving, asked))
    )
    torch.testing.assert_close(spoiled.value, clean.value)


def test_an_image_without_a_point_left_is_an_error_of_one_line():
    where = scene(truth=lambda points: points + 500)
    far = Scene(where.fixed, where.moving, Start(torch.eye(3).double(), torch.full((3,), 500.0).double()))
    with pytest.raises(RegistrationError, match="no point"):
        run(far, settings(ImpactGridShrinkFactor=4))


def test_a_converged_metric_stops_early():
    keys = {**NEWTON, "ImpactConvergenceThreshold": 0.01, "ImpactConvergenceWindow": 2}
    registration, _ = run(scene(), settings(MaximumNumberOfIterations=60, **keys))
    assert registration.stop_reasons == [CONVERGED]
    assert len(registration.state.values) < 30


def test_a_watcher_stops_the_run():
    asked = settings(ImpactGridShrinkFactor=4)
    registration, _ = run(scene(), asked, asked, show=lambda iterate: iterate.number == 3)
    assert registration.stop_reasons == [STOPPED]
    assert len(registration.state.values) == 4


def test_levels_go_from_coarse_to_fine_control_grids():
    keys = {**NEWTON, "ImpactGridShrinkFactor": [8, 4], "ImpactRegularizationWeight": 0.001}
    asked = [settings(level, MaximumNumberOfIterations=4, **keys) for level in (0, 1)]
    where = scene()
    values = []
    _, found = run(where, *asked, show=values.append)
    assert [v.level for v in values] == [0] * 4 + [1] * 4
    assert values[4].distance < 1.05 * values[3].distance
    assert error(where, found) < 0.35


@pytest.mark.parametrize("transform", ["SVF", "SymmetricSVF"])
def test_flows_do_not_fold_and_have_an_inverse(transform):
    keys = {
        "ImpactFineTransform": transform,
        "ImpactGridShrinkFactor": 2,
        "ImpactLearningRate": 0.4,
        "ImpactRegularizationWeight": 0.1,
    }
    where = scene()
    _, found = run(where, settings(MaximumNumberOfIterations=40, **keys))
    assert error(where, found) < 0.8
    assert folding(where.start.field(found.displacement, GRID)).fraction == 0
    there = GRID.points() + found.displacement.flatten(1).T
    back = Interpolant.of(Image(found.inverse, GRID), 1).values(held_inside(GRID, there))
    voxels = (there + back - GRID.points()) / torch.tensor(GRID.spacing)
    assert float(voxels.norm(dim=1).mean()) < 0.1


def test_a_constant_velocity_flows_by_itself():
    velocity = torch.ones(2, 8, 9, dtype=torch.float64) * 0.7
    torch.testing.assert_close(flow(velocity, (1.0, 2.0), 6), velocity)


def test_a_linear_velocity_flows_by_the_exponential():
    x = torch.arange(41, dtype=torch.float64) - 20
    velocity = torch.zeros(2, 41, 41, dtype=torch.float64)
    velocity[0] = 0.1 * x
    found = flow(velocity, (1.0, 1.0), 8)[0, 20, 10:31]
    torch.testing.assert_close(found, (math.exp(0.1) - 1) * x[10:31], atol=1e-3, rtol=2e-3)


def test_moving_features_taken_anew_from_the_warped_image_have_the_fixed_axes():
    keys = {"ImpactModelsPath": "MIND/R1D1_3D.pt", "ImpactGridShrinkFactor": 2, "ImpactLearningRate": 0.3}
    errors = []
    for interval in (-1, 10):
        where = scene()
        asked = settings(MaximumNumberOfIterations=30, ImpactFeaturesMapUpdateInterval=interval, **keys)
        errors.append(error(where, run(where, asked)[1]))
    # MIND looks along the axes of the grid, and those of the two images differ
    assert errors[1] < 0.7 * errors[0]


@pytest.mark.parametrize("optimizer", ["Adam", "GaussNewton"])
def test_a_run_that_goes_on_ends_as_if_it_had_not_been_interrupted(optimizer, tmp_path):
    keys = {"ImpactFineOptimizer": optimizer, "ImpactGridShrinkFactor": [6, 4], "ImpactCheckpointInterval": 3}
    asked = [settings(level, MaximumNumberOfIterations=4, **keys) for level in (0, 1)]
    saved = []
    _, found = run(
        scene(), *asked, save=lambda state: saved.append(torch.save(state.kept(), tmp_path / f"{state.level}.pt"))
    )
    assert len(saved) == 2
    for level in (0, 1):
        kept = torch.load(tmp_path / f"{level}.pt", weights_only=True)
        where = scene()
        rest = FineRegistration(where, asked, State.of(kept, asked, where.fixed.data.device))
        assert torch.equal(rest.run().displacement, found.displacement)


def test_gauss_newton_refuses_flows_and_distances_without_curvature():
    with pytest.raises(ParameterError, match=r"needs.*Adam"):
        settings(ImpactFineOptimizer="GaussNewton", ImpactFineTransform="SVF")
    with pytest.raises(ParameterError, match="GaussNewton knows"):
        settings(ImpactFineOptimizer="GaussNewton", ImpactModelsPath="MIND/R1D1_3D.pt", ImpactDistance="Dice")


@pytest.mark.parametrize("grid", [GRID, FLAT])
def test_the_stage_is_a_function_of_images_too(grid):
    where = scene(grid)
    asked = FineSettings(
        image_dimension=grid.dimension,
        fine_optimizer="GaussNewton",
        control_interpolation="BSpline",
        grid_shrink_factor=5.0,
        regularization_weight=0.001,
        maximum_number_of_iterations=8,
    )
    field = fine_displacement(where.fixed, where.moving, asked)
    off = (bent(grid.points()) - grid.points()).T.reshape(field.data.shape) - field.data
    inner = off[(slice(None), *[slice(3, -3)] * grid.dimension)]
    assert float(inner.norm(dim=0).mean()) < 0.5


@pytest.mark.parametrize(
    "keys", [{}, {"ImpactIntensityDistance": "LNCC"}, {"ImpactModelsPath": "MIND/R1D1_3D.pt", "ImpactDistance": "NCC"}]
)
def test_pieces_make_no_difference(keys, monkeypatch):
    asked, where = settings(ImpactGridShrinkFactor=2, **keys), scene()
    problem = problem_of(where, asked, layer_pairs(where.fixed, where.moving, asked))
    parameters = torch.randn(3, *problem.motion.control.size, generator=torch.Generator().manual_seed(1))
    whole = problem.at(parameters, curved=True)
    monkeypatch.setitem(warp.POINTS_AT_ONCE, "cpu", 100)
    pieces = problem.at(parameters, curved=True)
    torch.testing.assert_close(pieces.value, whole.value)
    torch.testing.assert_close(pieces.gradient, whole.gradient, atol=1e-6, rtol=1e-4)
    torch.testing.assert_close(pieces.diagonal, whole.diagonal, atol=1e-6, rtol=1e-4)
