"""About how long elastix's loop takes and how much memory."""

import pytest
import torch

from impactreg.images import Image
from impactreg.parameters import ParameterMap
from impactreg.registration import estimate
from impactreg.registration.case import Case

CASE = Case(Image.of(torch.zeros(20, 30)), Image.of(torch.zeros(20, 30)))
KEYS = {"Metric": "AdvancedMeanSquares", "ImageSampler": "Random", "NumberOfSpatialSamples": [1000, 3000]}
MODEL = {"Metric": "Impact", "ImpactMode": "Static", "ImpactModelsPath0": "MIND/R1D2_2D.pt", "ImpactVoxelSize0": 1}


def told(levels=1, engine="torch", **keys):
    return estimate.of_loop(ParameterMap.from_dict({**KEYS, **keys}), CASE, levels, engine)


def test_time_adds_up_over_resolutions():
    start = estimate.START["torch"]
    one, two = (told(levels, MaximumNumberOfIterations=[100, 200]).seconds - start for levels in (1, 2))
    assert one == pytest.approx(100 * (estimate.ITERATION + 1000 * estimate.SAMPLE))
    assert two == pytest.approx(one + 200 * (estimate.ITERATION + 3000 * estimate.SAMPLE))


def test_memory_is_that_of_the_largest_resolution():
    plain, whole = told(2).memory, told(2, **MODEL, ImpactVoxelSize1=4).memory
    assert plain == estimate.PROGRAM + estimate.VOXEL * 2 * 600
    assert whole == told(1, **MODEL).memory > plain


def test_a_model_that_tells_nothing_in_one_resolution_leaves_the_time_open():
    found = told(2, **MODEL, ImpactModelsPath1="own.pt", ImpactVoxelSize1=1)
    assert found.seconds is None
    assert str(found).startswith("depends on the model, ")


def test_each_resolution_is_looked_at_once(monkeypatch):
    seen = []
    monkeypatch.setattr(estimate, "_level", lambda _, __, level: (seen.append(level), (1.0, 2.0))[1])
    assert told(3, engine="elastix").seconds == estimate.START["elastix"] + 3
    assert seen == [0, 1, 2]
