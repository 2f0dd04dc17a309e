"""What a dense stage starts from."""

import pytest
import torch

from impactreg.components.dense.start import Start, inverse_field
from impactreg.components.transforms.displacement import DeformationFieldTransform
from impactreg.components.transforms.linear import TranslationTransform
from impactreg.components.transforms.rotating import EulerTransform
from impactreg.components.transforms.transform import Combination
from impactreg.images import Grid, Image

TURNED = [[0.8, -0.6, 0], [0.6, 0.8, 0], [0, 0, 1]]
GRID = Grid.of((10, 9, 8), (2.0, 2.5, 3.0), (-20.0, 10.0, 5.0), TURNED)
RIGID = Combination(EulerTransform(torch.tensor([0.1, -0.2, 0.3, 4, 5, -6]), torch.tensor([1.0, 2, 3])))


def waves(scale=1.0):
    """A field that is no linear map."""
    moved = torch.sin(GRID.points() / 5).T.reshape(3, *GRID.shape)
    return Combination(DeformationFieldTransform(Image(scale * moved.float(), GRID)))


def along_axes(displacement):
    return displacement.flatten(1).T.double() @ torch.tensor(GRID.direction, dtype=torch.float64).T


def test_no_transform_is_the_identity():
    start = Start.of(None, GRID)
    assert torch.equal(start.linear(GRID.points()), GRID.points())
    assert start.displacement is None


def test_a_linear_transform_is_its_own_linear_part():
    start = Start.of(RIGID, GRID)
    assert start.displacement is None
    torch.testing.assert_close(start.linear(GRID.points()), RIGID(GRID.points()))


@pytest.mark.parametrize("apart", [True, False])
def test_the_parts_put_together_are_the_transform(apart):
    initial = Combination(waves().current, RIGID)
    start = Start.of(initial, GRID, apart=apart)
    found = start.linear(GRID.points() + along_axes(start.displacement))
    torch.testing.assert_close(found, initial(GRID.points()), atol=1e-4, rtol=0)
    assert torch.equal(start.matrix, torch.eye(3).double()) != apart
    field = start.field(start.displacement, GRID).data
    torch.testing.assert_close(field.flatten(1).T.double(), found - GRID.points(), atol=1e-5, rtol=0)


def test_the_linear_part_of_a_field_with_none_is_nearly_the_identity():
    ramp = (0.05 * GRID.points()).T.reshape(3, *GRID.shape)
    start = Start.of(Combination(DeformationFieldTransform(Image(ramp.float(), GRID))), GRID)
    torch.testing.assert_close(start.matrix, 1.05 * torch.eye(3).double(), atol=1e-5, rtol=0)
    assert start.displacement is None


def test_the_inverse_of_a_translation_takes_moving_points_back():
    shift = torch.tensor([3.0, -2.0, 1.0], dtype=torch.float64)
    start = Start.of(Combination(TranslationTransform(shift, torch.zeros(3).double())), GRID)
    moving = Grid.of((5, 6, 4), (3.0, 3.0, 3.0))
    found = inverse_field(start, torch.zeros(3, *GRID.shape), GRID, moving)
    assert found.grid.same_as(moving)
    torch.testing.assert_close(found.data.flatten(1).T.double(), -shift.expand(120, 3), atol=1e-5, rtol=0)


def test_the_linear_part_of_two_planes_is_exact():
    grid = Grid.of((6, 5, 2), (2.0, 2.5, 3.0))
    ramp = (0.05 * grid.points()).T.reshape(3, *grid.shape)
    start = Start.of(Combination(DeformationFieldTransform(Image(ramp.float(), grid))), grid)
    torch.testing.assert_close(start.matrix, 1.05 * torch.eye(3).double(), atol=1e-5, rtol=0)
    assert start.displacement is None
