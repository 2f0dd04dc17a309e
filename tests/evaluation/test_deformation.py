"""Jacobian determinants, folds and inverses."""

import math

import numpy as np
import pytest
import torch

from impactreg.components.transforms.displacement import DeformationFieldTransform
from impactreg.components.transforms.inverse import linear_inverse
from impactreg.components.transforms.linear import AffineTransform, TranslationTransform
from impactreg.components.transforms.transform import Combination
from impactreg.errors import ImageError
from impactreg.evaluation.deformation import deformation, determinant_image, inverse_consistency
from impactreg.images import Grid, Image, Mask

GRID = Grid.of((11, 12, 20), (1.5, 2.0, 2.5), (3.0, -4.0, 5.0), np.linalg.qr(np.diag([1.0, 2, 3]) + 0.4)[0])
ZERO = torch.zeros(3, dtype=torch.float64)
STRETCH = AffineTransform(torch.tensor([1.2, 0.1, 0, 0, 1, 0, 0, 0, 0.9, 4, 5, 6], dtype=torch.float64), ZERO)


def waves(height: float) -> DeformationFieldTransform:
    """A field of waves along the second index axis, in millimetres."""
    phase = GRID.indices()[:, 1] * 0.7
    along = torch.tensor(np.array(GRID.direction)[:, 1])
    values = height * torch.sin(phase)[:, None] * along
    return DeformationFieldTransform(Image(values.T.reshape(3, *GRID.shape).contiguous(), GRID))


def test_a_stretch_is_the_same_everywhere() -> None:
    found = deformation(Combination(STRETCH), GRID)
    assert (found.smallest, found.mean, found.largest) == pytest.approx((1.08, 1.08, 1.08), rel=1e-6)
    assert found.sdlogj == pytest.approx(0, abs=1e-6)
    assert found.folding == 0
    assert found.voxels == GRID.number_of_voxels


def test_a_field_has_central_differences_between_voxels() -> None:
    height = 1.0
    found = determinant_image(Combination(waves(height)), GRID).scalar
    row = height * np.sin(0.7 * np.arange(12))
    expected = 1 + np.gradient(row) / 2.0
    assert torch.allclose(found[7, :, 4], torch.tensor(expected).to(found.dtype), atol=1e-5)


def test_a_field_on_top_of_a_linear_transform_counts_both() -> None:
    alone = determinant_image(Combination(waves(0.5)), GRID).scalar
    both = determinant_image(Combination(STRETCH, Combination(waves(0.5))), GRID).scalar
    assert torch.allclose(both, 1.08 * alone, atol=1e-4)


def test_folds_are_counted_and_have_no_logarithm() -> None:
    found = deformation(Combination(waves(5.0)), GRID)
    determinants = determinant_image(Combination(waves(5.0)), GRID).data
    assert 0.1 < found.folding < 0.9
    assert found.folding == pytest.approx(float((determinants <= 0).double().mean()))
    assert found.smallest < 0
    assert math.isfinite(found.sdlogj)


def test_a_mirror_folds_everywhere() -> None:
    mirror = AffineTransform(torch.tensor([-1.0, 0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0], dtype=torch.float64), ZERO)
    found = deformation(Combination(mirror), GRID)
    assert found.folding == 1
    assert math.isnan(found.sdlogj)


def test_a_mask_leaves_the_rest_out() -> None:
    inside = torch.zeros(GRID.shape, dtype=torch.bool)
    inside[:, 3] = True
    found = deformation(Combination(waves(1.0)), GRID, Mask(inside, GRID))
    assert found.voxels == inside.sum()
    assert found.largest - found.smallest < 1e-5
    with pytest.raises(ImageError, match="it holds no voxel of the fixed image"):
        deformation(Combination(STRETCH), GRID, Mask(torch.ones(2, 2, 2).bool(), Grid.of((2, 2, 2), None, [9e3] * 3)))


def test_the_inverse_of_a_linear_transform_leads_back() -> None:
    inverse = linear_inverse(STRETCH)
    assert inverse is not None
    assert inverse_consistency(STRETCH, inverse, GRID, GRID).largest < 1e-9
    shift = TranslationTransform(torch.tensor([3.0, 0, 4]).double(), ZERO)
    off = inverse_consistency(STRETCH, lambda points: shift(inverse(points)), GRID, GRID)
    assert off.mean == pytest.approx(5.0)
    assert len(off.values) < GRID.number_of_voxels


def test_images_that_never_meet_are_told() -> None:
    far = TranslationTransform(torch.tensor([1e4, 0, 0]).double(), ZERO)
    with pytest.raises(ImageError, match="maps no voxel of the fixed image into the moving image"):
        inverse_consistency(far, far, GRID, GRID)
