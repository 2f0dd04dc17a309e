"""What tells runs apart."""

from dataclasses import replace

import pytest
import torch

from impactreg.components.transforms.bspline import BSplineTransform
from impactreg.components.transforms.displacement import DeformationFieldTransform
from impactreg.components.transforms.linear import TranslationTransform
from impactreg.components.transforms.spline_kernel import SplineKernelTransform
from impactreg.components.transforms.transform import Combination
from impactreg.images import Grid, Image, Mask
from impactreg.parameters import ParameterMap
from impactreg.registration.case import Case, Further
from impactreg.registration.fingerprint import fingerprint

VALUES = torch.arange(48.0).reshape(8, 6)
POINTS = torch.tensor([[1.0, 1.0], [4.0, 2.0], [2.0, 5.0], [5.0, 4.0]], dtype=torch.float64)
MAP = ParameterMap.from_dict({"Metric": "AdvancedMeanSquares"})


def case(**changes):
    return replace(Case(Image.of(VALUES.clone()), Image.of(VALUES.T.clone())), **changes)


def moved(by=1.0):
    return Combination(TranslationTransform(torch.tensor([by, 0.0], dtype=torch.float64), torch.zeros(2)))


def splined(by=0.0):
    grid = Grid.of((6, 6), (2, 2), (-2, -2))
    coefficients = torch.zeros(2 * grid.number_of_voxels, dtype=torch.float64)
    coefficients[30] = by
    return Combination(BSplineTransform(coefficients, grid))


def displaced(by=0.0):
    field = torch.zeros(2, 8, 6)
    field[1, 4, 3] = by
    return Combination(DeformationFieldTransform(Image(field, Image.of(VALUES).grid)))


def through(by=0.0):
    return Combination(SplineKernelTransform.through(POINTS + by, POINTS))


def test_the_same_content_is_the_same_run():
    for initial in (None, moved, splined, displaced, through):
        told = [fingerprint(case(), [MAP], initial and initial(), ("torch",)) for _ in range(2)]
        assert told[0] == told[1]


def test_what_has_been_computed_with_a_transform_does_not_count():
    for initial in (moved(), splined(1.0), displaced(1.0), through(1.0)):
        before = fingerprint(case(), [MAP], initial)
        initial(POINTS)
        initial.local(POINTS)
        assert fingerprint(case(), [MAP], initial) == before


@pytest.mark.parametrize("initial", [moved, splined, displaced, through])
def test_one_number_of_the_transform_before_makes_another_run(initial):
    assert fingerprint(case(), [MAP], initial()) != fingerprint(case(), [MAP], initial(0.25))
    chains = [replace(moved(), initial=initial(by), compose=how) for by in (0.0, 0.25) for how in (True, False)]
    assert len({fingerprint(case(), [MAP], chain) for chain in chains}) == 4


def test_every_part_of_a_run_counts():
    image, straight = Image.of(VALUES), Image.of(VALUES, spacing=(1.0, 1.5))
    mask = Mask.of(Image.of(torch.ones(8, 6)))
    cases = [
        case(),
        case(fixed=straight),
        case(moving=straight),
        case(fixed_mask=mask),
        case(moving_mask=mask),
        case(seed=3),
        case(further=Further(fixed=(image,))),
        case(further=Further(moving=(image,))),
        case(further=Further(fixed_points=POINTS)),
        case(further=Further(moving_points=POINTS)),
    ]
    other = fingerprint(case(), [MAP.replace(Metric="AdvancedMattesMutualInformation")])
    told = [*(fingerprint(each, [MAP]) for each in cases), other, fingerprint(case(), [MAP], None, "elastix")]
    assert len(set(told)) == len(told)


def test_values_that_are_not_contiguous_count_as_they_are_seen():
    turned = case(fixed=Image(VALUES.T[None], Image.of(VALUES.T.contiguous()).grid))
    whole = case(fixed=Image.of(VALUES.T.contiguous()))
    assert fingerprint(turned, [MAP]) == fingerprint(whole, [MAP]) != fingerprint(case(), [MAP])
