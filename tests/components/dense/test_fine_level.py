"""One resolution of the fine registration made ready."""

import pytest
import torch
from torch.nn import functional

from impactreg.components.dense.features import layer_pairs
from impactreg.components.dense.fine_level import Scene, control_grid, lattice_factors, lattice_step, problem_of
from impactreg.components.dense.fine_settings import FineSettings
from impactreg.components.dense.start import Start
from impactreg.errors import ParameterError, RegistrationError
from impactreg.images import Grid, Image
from impactreg.images.masks import Mask

GRID = Grid.of((22, 20, 18), (2.0, 2.0, 2.0))
PEERS = {
    "units": "Voxels",
    "outside": "Zero",
    "loss_scale": "Sum",
    "control_interpolation": "Corners",
    "grid_shrink_factor": 2.0,
}


def noise(generator, shape=GRID.shape):
    return functional.avg_pool3d(torch.randn(1, *(n + 4 for n in shape), generator=generator), 5, 1)


def scene(fixed, moving, **more):
    return Scene(Image(fixed, GRID), Image(moving, GRID), Start.of(None, GRID), **more)


def problem(where, asked):
    return problem_of(where, asked, layer_pairs(where.fixed, where.moving, asked))


def itk_loss(fixed, moving, theta, weight):
    """The loss of `itk::ImpactFineRegistration` by its formula, with PyTorch's own sampling."""
    small = [functional.adaptive_avg_pool3d(each, theta.shape[1:]) for each in (fixed, moving)]
    base = functional.affine_grid(torch.eye(3, 4)[None], [1, 1, *theta.shape[1:]], align_corners=True)
    halves = torch.tensor([(n - 1) / 2 for n in GRID.shape])
    places = base + (theta.movedim(0, -1) / halves).flip(-1)
    warped = functional.grid_sample(small[1][None], places, padding_mode="zeros", align_corners=True)[0]
    similarity = (warped - small[0]).square().sum(dim=0).mean()
    for axis in (1, 2, 3):
        step = GRID.shape[axis - 1] / theta.shape[axis]
        similarity = similarity + weight * theta.diff(dim=axis).square().mean() / step**2
    return similarity


def test_the_settings_of_itk_impact_give_its_loss_and_derivative(generator):
    fixed, moving = noise(generator), noise(generator)
    theta = (1.5 * torch.randn(3, 9, 10, 11, generator=generator)).requires_grad_()
    expected = itk_loss(fixed, moving, theta, 1.25)
    expected.backward()
    # its components are z, y, x
    found = problem(scene(fixed, moving), FineSettings(**PEERS)).at(theta.detach().flip(0))
    torch.testing.assert_close(found.value, expected.detach(), rtol=1e-4, atol=0)
    torch.testing.assert_close(found.gradient.flip(0), theta.grad, rtol=1e-2, atol=1e-6)


def test_a_sum_over_channels_is_so_many_times_their_mean(generator):
    where = scene(noise(generator), noise(generator))
    keys = {"models_path": ("MIND/R1D1_3D.pt",), "grid_shrink_factor": 2.0}
    rest = torch.zeros(3, 9, 10, 11)
    values = [float(problem(where, FineSettings(**keys, loss_scale=each)).at(rest).value) for each in ("Sum", "Mean")]
    assert values[0] == pytest.approx(12 * values[1], rel=1e-5)


def test_the_unit_of_intensities_does_not_matter_to_a_loss_divided_by_their_spread(generator):
    fixed, moving = noise(generator), noise(generator)
    values = [
        float(problem(scene(k * fixed, k * moving), FineSettings()).at(torch.zeros(3, 18, 20, 22)).value)
        for k in (1, 50)
    ]
    assert values[1] == pytest.approx(values[0], rel=1e-4)


def test_the_lattice_is_as_coarse_as_control_points_or_as_asked():
    layer = Grid.of((11, 10, 9), (4.0, 4.0, 4.0))
    asked = FineSettings(grid_shrink_factor=4.0)
    assert control_grid(GRID, asked).size == (4, 5, 5)
    assert lattice_factors(asked, control_grid(GRID, asked), layer) == pytest.approx([9 / 4, 2, 11 / 5])
    spaced = FineSettings(evaluation_spacing=8.2, control_interpolation="BSpline")
    assert lattice_factors(spaced, control_grid(GRID, spaced), layer) == [2, 2, 2]
    assert lattice_factors(spaced, control_grid(GRID, spaced), GRID) == [4, 4, 4]


def test_the_longest_step_is_the_distance_of_lattice_points(generator):
    where, asked = scene(noise(generator), noise(generator)), FineSettings(evaluation_shrink_factor=2)
    assert lattice_step(problem(where, asked), where, asked) == pytest.approx(4.0)


def test_a_mask_without_a_point_of_the_lattice_is_refused(generator):
    corner = torch.zeros(GRID.shape, dtype=torch.bool)
    corner[0, 0, 0] = True
    where = scene(noise(generator), noise(generator), fixed_mask=Mask(corner, GRID))
    with pytest.raises(RegistrationError, match="no point of the compared lattice"):
        problem(where, FineSettings(evaluation_shrink_factor=3, feature_pooling=False))


def test_flows_between_corners_are_refused():
    with pytest.raises(ParameterError, match='SVF needs "Linear" or "BSpline"'):
        FineSettings(control_interpolation="Corners", fine_transform="SVF")
