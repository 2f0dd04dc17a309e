"""Every shipped parameter map can be run, and says what it is for."""

import pytest

from impactreg.parameters import ParameterMap, presets
from impactreg.registration import elastix
from impactreg.registration.plan import Plan

NAMES = presets.names()
TORCH = [name for name in NAMES if not elastix.knows(ParameterMap.read(presets.find(name)))]


def dimension(name):
    return 2 if name.endswith("-2d") else 3


def test_there_are_maps_for_both_engines():
    assert "general/mind-bspline" in TORCH
    assert "general/rigid" in set(NAMES) - set(TORCH)


@pytest.mark.parametrize("name", NAMES)
def test_a_map_says_what_it_is_for(name):
    lines = presets.find(name).read_text().splitlines()
    assert [line.split(":")[0] for line in lines if line.startswith("// ") and ":" in line][:4] == [
        "// content",
        "// modality",
        "// time",
        "// method",
    ]


@pytest.mark.parametrize("name", NAMES)
def test_a_map_has_the_keys_that_other_programs_look_for(name):
    assert {"WriteResultImage", "ResultImageFormat"} <= set(ParameterMap.read(presets.find(name)))


@pytest.mark.parametrize("name", TORCH)
def test_a_map_for_the_loop_is_read_to_the_last_key(name):
    plan = Plan(ParameterMap.read(presets.find(name)))
    plan.check(dimension(name))
    assert plan.unknown() == []
    assert all(path.is_file() for _, path in plan.models(dimension(name), ()))


@pytest.mark.parametrize("name", sorted(set(NAMES) - set(TORCH)))
def test_a_map_for_elastix_names_what_itk_elastix_has(name):
    elastix.check(ParameterMap.read(presets.find(name)))
