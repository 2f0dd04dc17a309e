"""Scales: what each transform parameter moves, against sums over voxels written out."""

import pytest
import torch

from impactreg.components.scales import estimate_scales, scales_of
from impactreg.components.transforms.linear import AffineTransform, TranslationTransform
from impactreg.components.transforms.transform import Combination
from impactreg.errors import TransformError
from impactreg.images.image import Image
from impactreg.parameters import ParameterMap

FIXED = Image.of(torch.zeros(5, 7), spacing=(2.0, 3.0), origin=(-1.0, 4.0))
CENTRE = torch.tensor([5.0, 10.0]).double()
AFFINE = AffineTransform(AffineTransform.identity_parameters(2), CENTRE)


def settings(kind, **keys):
    return kind.Settings.read(ParameterMap.from_dict({k: list(v) for k, v in keys.items()}), level=0, dimension=2)


def mean_square(offset):
    return float((offset**2).mean())


def test_affine_scales_are_mean_squared_distances_from_the_centre():
    offset = FIXED.grid.points() - CENTRE
    x, y = mean_square(offset[:, 0]), mean_square(offset[:, 1])
    asked = settings(AffineTransform, AutomaticScalesEstimation=["true"])
    assert scales_of(Combination(AFFINE), asked, FIXED).tolist() == pytest.approx([x, y, x, y, 1, 1])


def test_scales_are_those_of_the_points_as_the_initial_transform_leaves_them():
    shift = TranslationTransform(torch.tensor([10.0, 0.0]).double(), torch.zeros(2).double())
    offset = FIXED.grid.points() - CENTRE
    asked = settings(AffineTransform, AutomaticScalesEstimation=["true"])
    composed = scales_of(Combination(AFFINE, Combination(shift)), asked, FIXED)
    assert float(composed[0]) == pytest.approx(mean_square(offset[:, 0] + 10))
    added = scales_of(Combination(AFFINE, Combination(shift), compose=False), asked, FIXED)
    assert float(added[0]) == pytest.approx(mean_square(offset[:, 0]))


@pytest.mark.parametrize("rounding", [0.0, 1e-14])
def test_a_parameter_that_moves_nothing_gets_one(rounding):
    slice_through_centre = torch.stack([torch.linspace(0, 9, 10), torch.full((10,), 10.0)], dim=1).double() + rounding
    scales = estimate_scales(AFFINE.at(slice_through_centre))
    assert scales[1] == scales[3] == 1
    assert float(scales[0]) == pytest.approx(mean_square(slice_through_centre[:, 0] - 5))


def test_scales_that_are_not_estimated_are_those_of_the_transform():
    assert scales_of(Combination(AFFINE), settings(AffineTransform), FIXED).tolist() == [1e5] * 4 + [1] * 2
    one = settings(AffineTransform, Scales=["50"])
    assert scales_of(Combination(AFFINE), one, FIXED).tolist() == [50] * 4 + [1] * 2


def test_a_wrong_number_of_scales_is_an_error():
    with pytest.raises(TransformError, match="1 or 6 numbers, not 2"):
        scales_of(Combination(AFFINE), settings(AffineTransform, Scales=["50", "1"]), FIXED)
