"""Inverse deformation fields and their files."""

import logging

import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813
import torch

from impactreg.components.resampling import Output
from impactreg.components.transforms.bspline import BSplineTransform
from impactreg.components.transforms.files import TransformWriter, read_transform
from impactreg.components.transforms.inverse_field import inverse_field, inverse_on, write_inverse
from impactreg.components.transforms.linear import AffineTransform
from impactreg.components.transforms.rotating import EulerTransform
from impactreg.components.transforms.transform import Combination
from impactreg.components.warping import deformation_field, determinants, jacobians
from impactreg.images import Grid
from impactreg.parameters import ParameterMap

SETTINGS = ParameterMap.from_dict({"ResultImageFormat": "mha"})
TURN = np.linalg.qr(np.random.default_rng(0).normal(size=(3, 3)))[0]


def random(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def spline(strength, n=2):
    grid = Grid.of((13,) * n, (10,) * n, (-60,) * n)
    return BSplineTransform(strength * random(n * grid.number_of_voxels), grid)


def moving(n=2, spacing=2.0):
    """A grid within what the spline reaches."""
    turn = np.linalg.qr(TURN[:n, :n])[0]
    size = np.array((21, 19, 17)[:n])
    return Grid.of(size.tolist(), (spacing,) * n, -turn @ ((size - 1) * spacing / 2), turn)


@pytest.mark.parametrize("n", [2, 3])
def test_a_field_undoes_a_chain_in_every_voxel(n):
    angles = (0.2, 3, -2) if n == 2 else (0.1, 0.2, -0.1, 3, -2, 1)
    chain = Combination(
        spline(2.5, n), Combination(EulerTransform(torch.tensor(angles).double(), torch.zeros(n).double()))
    )
    found = inverse_field(chain, moving(n), tolerance=1e-5)
    points = moving(n).points()
    off = torch.linalg.vector_norm(chain(found.transform(points)) - points, dim=1)
    assert found.transform.field.grid == moving(n)
    assert found.residual.without == found.residual.folded == 0
    assert off.max() < 2e-5
    assert found.residual.largest == pytest.approx(float(off.max()), abs=1e-5)
    assert found.residual.mean <= found.residual.largest < found.between.largest < 0.5
    assert "mm at most" in str(found)


def test_the_residual_between_voxels_falls_with_the_square_of_their_distance():
    coarse, fine = (inverse_field(spline(2.5), moving(spacing=s)).between.mean for s in (2.0, 0.5))
    assert 8 < coarse / fine < 32


def test_linear_chains_become_one_affine_transform():
    euler = EulerTransform(torch.tensor([0.1, 0.2, -0.1, 3, -2, 1]).double(), torch.ones(3).double())
    chain = Combination(euler, Combination(euler))
    found = inverse_on(chain, moving(3))
    assert isinstance(found.transform, AffineTransform)
    points = moving(3).points()
    assert torch.allclose(found.transform(chain(points)), points, rtol=0, atol=1e-10)
    assert str(found) == "exact"


def test_voxels_in_a_fold_are_counted_and_those_around_it_are_not():
    transform, grid = spline(12.0), moving()
    found = inverse_field(transform, grid, tolerance=1e-4)
    dense = Grid.of((800, 800), (0.1, 0.1), (-40, -40)).points()
    folded = torch.cat([determinants(jacobians(transform, p)) <= 0 for p in dense.split(50000)])
    hit = torch.round(grid.world_to_index(transform(dense[folded]))).long()
    hit = hit[((hit >= 0) & (hit < torch.tensor(grid.size))).all(dim=1)]
    expected = len(torch.unique(hit, dim=0))
    assert 20 < expected < grid.number_of_voxels / 2
    assert expected * 0.9 <= found.residual.folded <= expected * 1.1
    assert "folds and is not invertible" in str(found)


def test_simpleitk_inverts_the_same_field():
    transform, grid = spline(1.5), Grid.of((81, 81), (1.2, 1.2), (-48, -48))
    forward = sitk.GetImageFromArray(deformation_field(transform, grid).numpy().astype(float), isVector=True)
    forward.SetSpacing(grid.spacing)
    forward.SetOrigin(grid.origin)
    inverse = sitk.InvertDisplacementField(
        forward, maximumNumberOfIterations=100, meanErrorToleranceThreshold=1e-5, maxErrorToleranceThreshold=1e-4
    )
    theirs, ours = sitk.GetArrayFromImage(inverse), inverse_field(transform, grid).transform.field.numpy()
    inner = (slice(15, -15), slice(15, -15))
    assert np.abs(ours[inner]).max() > 1
    assert np.abs(ours[inner] - theirs[inner]).max() < 0.05


def test_the_inverse_is_written_on_the_moving_grid(tmp_path, caplog):
    fixed = Grid.of((5, 5), (20, 20), (-40, -40))
    writer = TransformWriter(Output.of(SETTINGS, fixed), SETTINGS, initial="elsewhere.txt", extension="tfm")
    transform = Combination(spline(2.0))
    with caplog.at_level(logging.INFO):
        path, found = write_inverse(transform, moving(), writer, tmp_path, "0")
    assert path.name == "InverseTransformParameters.0.txt"
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        "InverseDeformationFieldImage.0.mha",
        "InverseTransformParameters.0.txt",
    ]
    assert str(found.residual) in caplog.text
    read = read_transform(path)
    points = moving().points()
    assert (transform(read(points)) - points).abs().max() < 2e-3
    content = ParameterMap.read(path)
    assert content.numbers("Size") == (21, 19)
    assert content.first("InitialTransformParameterFileName") == "NoInitialTransform"


def test_without_direction_cosines_the_inverse_is_that_of_the_turned_world(tmp_path):
    settings, grid = SETTINGS.replace(UseDirectionCosines=False), Grid.of((21, 19), (2, 2), (-20, -18), TURN[:2, :2])
    writer = TransformWriter(Output.of(settings, grid), settings)
    transform = Combination(spline(2.0))
    path, found = write_inverse(transform, grid, writer, tmp_path, "0")
    points = grid.without_direction().points()
    assert found.transform.field.grid == grid.without_direction()
    assert (transform(read_transform(path)(points)) - points).abs().max() < 2e-3
    assert np.allclose(ParameterMap.read(path).numbers("Direction"), np.array(grid.direction).T.reshape(-1))


def test_a_fold_makes_the_log_line_a_warning(tmp_path, caplog):
    writer = TransformWriter(Output.of(SETTINGS, moving()), SETTINGS)
    write_inverse(Combination(spline(9.0)), moving(), writer, tmp_path, "1")
    assert [r.levelname for r in caplog.records if "inverse transform" in r.message] == ["WARNING"]
