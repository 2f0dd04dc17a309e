"""Stacks of transforms along the last axis."""

import pytest
import torch

from impactreg.components.setup import Setup
from impactreg.components.transforms.linear import TranslationTransform
from impactreg.components.transforms.stacks import EulerStackTransform, TranslationStackTransform
from impactreg.errors import ParameterError, TransformError
from impactreg.images import Grid, Image
from impactreg.parameters import ParameterMap

ZERO = torch.zeros(2).double()
STACK = TranslationStackTransform(
    tuple(TranslationTransform(torch.tensor([10.0 * k, k]).double(), ZERO) for k in range(3)), 5.0, 2.0
)


def test_the_last_coordinate_chooses_the_nearest_member_and_stays():
    last = torch.tensor([-100.0, 5.9, 6.1, 7.0, 8.1, 100.0, 5.0]).double()
    points = torch.stack([last * 0, last * 0, last], dim=1)
    moved = STACK(points)
    assert moved[:, 0].tolist() == [0, 0, 10, 10, 20, 20, 0]
    assert torch.equal(moved[:, 1], moved[:, 0] / 10)
    assert torch.equal(moved[:, 2], last)
    assert torch.equal(STACK(points[:0]), points[:0])


def test_parameters_are_those_of_one_member_after_the_other():
    assert STACK.dimension == 3
    assert STACK.parameters.tolist() == [0, 0, 10, 1, 20, 2]
    other = STACK.with_parameters(torch.arange(6).double())
    assert other.members[2].parameters.tolist() == [4, 5]


def test_it_is_read_and_refused_for_optimisation():
    written = {"FixedImageDimension": 3, **STACK.written()}
    read = TranslationStackTransform.read(ParameterMap.from_dict(written))
    points = torch.randn(20, 3).double() * 5
    assert torch.equal(read(points), STACK(points))
    with pytest.raises(TransformError, match="not be optimised"):
        read.at(points).pull_back(points)
    image = Image(torch.zeros(1, 4, 4, 4), Grid.of((4, 4, 4)))
    with pytest.raises(ParameterError, match="--engine elastix"):
        TranslationStackTransform.begin(TranslationStackTransform.Settings(), Setup(image, image))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"FixedImageDimension": 2}, "read for 3D images only; use elastix's own transformix"),
        ({"FixedImageDimension": 4}, "4D; use elastix's own transformix"),
        ({"NumberOfSubTransforms": 0}, "NumberOfSubTransforms ...): a number above 0"),
        ({"NumberOfSubTransforms": 4}, "not the same for each of 4"),
        ({"StackSpacing": -1}, "StackSpacing ...): a number above 0"),
        ({"StackOrigin": []}, "StackOrigin ...), which is missing"),
    ],
)
def test_what_cannot_be_read_is_one_clear_line(change, message):
    written = {"Transform": "TranslationStackTransform", "FixedImageDimension": 3, **STACK.written(), **change}
    with pytest.raises(TransformError) as error:
        TranslationStackTransform.read(ParameterMap.from_dict(written, "t.txt"))
    assert message in str(error.value)
    assert "t.txt" in str(error.value)


def test_a_parameter_file_that_chooses_one_is_refused_before_it_runs(tmp_path):
    (tmp_path / "p.txt").write_text('(NumberOfResolutions 1)\n(Transform "EulerStackTransform")\n')
    with pytest.raises(ParameterError, match=r'p\.txt:2: \(Transform "EulerStackTransform"\): .*--engine elastix'):
        EulerStackTransform.Settings.read(ParameterMap.read(tmp_path / "p.txt"))
