"""Which rigid transform the benchmark with mutual information and MIND is measured by."""

import importlib
import sys
from pathlib import Path
from types import ModuleType

import pytest

BENCHMARKS = Path(__file__).parents[2] / "tools" / "benchmarks"


@pytest.fixture
def brain_truth(monkeypatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    for name in ("pairs", "brain_truth"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    return importlib.import_module("brain_truth")


@pytest.mark.itk
def test_real_elastix_contradicts_the_silver_standard_of_the_head_inside_the_brain(shared, brain_truth):
    known = brain_truth.pairs(shared / "data")
    pair = known["t1-pd-rigid"]
    _, brain = brain_truth.points_of(pair)
    _, silver = brain_truth.points_of(known["t1-pd-rigid-silver"])
    found = brain_truth.moved(pair, brain_truth.METRICS[0], 18)
    assert brain_truth.distance(found, silver) > 0.35
    assert brain_truth.distance(found, brain) < 0.2
    # nearly all of it along the axis of the head, across the slices
    assert float((found - silver).mean(dim=0)[2]) > 0.3


def test_the_parameters_of_a_rigid_transform_are_found_from_points(shared, brain_truth):
    where, there = brain_truth.points_of(brain_truth.pairs(shared / "data")["t1-pd-rigid"])
    found = brain_truth.rigid(where, there)
    assert found == pytest.approx(sys.modules["pairs"].BRAIN_RIGID, abs=1e-6)
