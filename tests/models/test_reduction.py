"""PCA: known bases, reconstruction, the reference's order."""

import pytest
import torch

from impactreg.errors import ModelError
from impactreg.models import reduction
from impactreg.models.reduction import fit, project


def features(channels=5, *space):
    scales = torch.arange(1.0, channels + 1).reshape(-1, *[1] * len(space))
    turned = torch.linalg.qr(torch.randn(channels, channels))[0]
    return torch.tensordot(turned, torch.randn(channels, *space) * scales, 1) + 3


def test_the_basis_is_orthonormal_and_the_strongest_component_comes_last():
    values = features(5, 6, 7, 8)
    basis = fit(values, 3)
    torch.testing.assert_close(basis.T @ basis, torch.eye(3), rtol=0, atol=1e-5)
    spread = project(values, basis).flatten(1).var(1)
    assert spread.tolist() == sorted(spread.tolist())


def test_all_components_reconstruct_the_centred_features():
    values = features(4, 5, 6)
    basis = fit(values, 4)
    rebuilt = torch.tensordot(basis, project(values, basis), 1)
    torch.testing.assert_close(rebuilt, values - values.mean((1, 2), keepdim=True), rtol=0, atol=1e-4)


def test_two_components_reconstruct_features_of_rank_two():
    values = torch.tensordot(torch.randn(6, 2), torch.randn(2, 9, 9, 9), 1)
    basis = fit(values, 2)
    rebuilt = torch.tensordot(basis, project(values, basis), 1)
    torch.testing.assert_close(rebuilt, values - values.mean((1, 2, 3), keepdim=True), rtol=0, atol=1e-4)


def test_the_known_direction_of_a_line_is_found_with_a_positive_largest_entry():
    direction = torch.tensor([-2.0, -1.0, 0.5])
    values = direction[:, None] * torch.randn(1, 100) + 7
    torch.testing.assert_close(fit(values, 1)[:, 0], -direction / direction.norm(), rtol=0, atol=1e-5)


def test_each_image_is_centred_by_its_own_means():
    fixed, moving = features(3, 50), features(3, 40) + 100
    assert project(moving, fit(fixed, 2)).mean(1).abs().max() < 1e-3


def test_blocks_of_voxels_give_the_same_basis(monkeypatch):
    values = features(4, 11, 13)
    whole = fit(values, 2)
    monkeypatch.setattr(reduction, "COLUMNS", 10)
    torch.testing.assert_close(fit(values, 2), whole)


@pytest.mark.parametrize("components", [0, 5, -1])
def test_more_components_than_channels_are_refused(components):
    with pytest.raises(ModelError, match=f"PCA can keep 1 to 4 of 4 feature channels, not {components}"):
        fit(torch.randn(4, 10), components)


@pytest.mark.usefixtures("unchecked_shapes")
def test_a_basis_of_other_channels_is_refused():
    with pytest.raises(ModelError, match="a PCA basis of 4 channels does not fit features of 3 channels"):
        project(torch.randn(3, 10), torch.eye(4))
