"""How long the dense stages are said to take."""

import pytest
import torch

from impactreg.images import Grid, Image
from impactreg.parameters import ParameterMap
from impactreg.registration.case import Case
from impactreg.registration.coarse import ImpactCoarseRegistration
from impactreg.registration.fine import ImpactFineRegistration

MIND = {"ImpactModelsPath0": "MIND/R1D2_3D.pt"}


def case(size=96):
    image = Image(torch.zeros(1, size, size, size), Grid.of((size,) * 3, (2.0,) * 3))
    return Case(image, image)


def coarse(case, **keys):
    return ImpactCoarseRegistration(ParameterMap.from_dict({**MIND, **keys})).estimate(case)


def fine(case, **keys):
    keys = {"ImpactGridShrinkFactor": 2, **MIND, **keys}
    return ImpactFineRegistration(ParameterMap.from_dict(keys)).estimate(case)


def test_a_coarse_search_takes_seconds_and_half_of_them_in_one_direction():
    both, one = coarse(case()), coarse(case(), ImpactInverseConsistency=False)
    assert 1 < one.seconds < both.seconds < 10
    assert 4e8 < both.memory < 2e9


def test_a_wider_search_takes_longer_and_more_memory():
    near, far = (coarse(case(), ImpactDisplacementHalfWidth=half) for half in (3, 8))
    assert far.seconds > 2 * near.seconds
    assert far.memory > near.memory


def test_the_time_of_a_fine_stage_grows_with_iterations_and_voxels():
    short, long = (fine(case(), MaximumNumberOfIterations=n).seconds for n in (40, 80))
    assert 5 < long < 40
    assert long - short == pytest.approx(short - fine(case(), MaximumNumberOfIterations=0).seconds)
    assert fine(case(128)).seconds > 1.8 * fine(case()).seconds
    assert fine(case(128)).memory > fine(case()).memory


def test_flows_take_longer_than_displacements():
    times = [fine(case(), ImpactFineTransform=each).seconds for each in ("Displacement", "SVF", "SymmetricSVF")]
    assert times == sorted(times)


def test_no_time_is_told_for_a_model_that_is_not_known():
    unknown = {"ImpactModelsPath0": "mine.pt"}
    assert fine(case(), **unknown).seconds is None
    assert coarse(case(), **unknown).seconds is None
