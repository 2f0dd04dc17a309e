"""Every shipped parameter map can be run, and says what it is for."""

import re
from pathlib import Path

import pytest
import torch

import impactreg
from impactreg.images import Image
from impactreg.parameters import ParameterMap, presets
from impactreg.registration import elastix
from impactreg.registration.case import Case
from impactreg.registration.registrations import registration_of

NAMES = presets.names()
TORCH = [name for name in NAMES if elastix.missing_components(ParameterMap.read(presets.find(name)))]


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
    registration = registration_of(ParameterMap.read(presets.find(name)))
    image = Image.of(torch.rand([20] * dimension(name)), [4.0] * dimension(name))
    registration.check(Case(image, image))
    assert registration.unknown() == []
    assert all(path.is_file() for _, path in registration.models(dimension(name), ()))


@pytest.mark.parametrize("name", sorted(set(NAMES) - set(TORCH)))
def test_a_map_for_elastix_names_what_itk_elastix_has(name):
    elastix.check(ParameterMap.read(presets.find(name)))


@pytest.mark.parametrize("name", TORCH)
def test_a_map_for_the_loop_runs_without_any_download(name):
    axes = torch.meshgrid(*[torch.arange(20.0)] * dimension(name), indexing="ij")
    image = Image.of(sum(torch.sin(axis * (k + 2) * 0.2) for k, axis in enumerate(axes)) * 100, [4.0] * len(axes))
    parameter_map = ParameterMap.read(presets.find(name)).replace(
        {"MaximumNumberOfIterations": 2, "NumberOfSpatialSamples": 100, "WriteResultImage": "false"}
    )
    result = impactreg.register(image, image, parameter_map, device="cpu")
    assert [len(rows) for rows in result.iterations[0]] == [2, 2, 2]


def test_every_map_stands_in_the_table_of_the_readme():
    text = (Path(__file__).parents[2] / "parameter_maps" / "README.md").read_text(encoding="utf-8")
    listed = re.findall(r"^\| `([\w-]+)` \|", text.partition("## Keys")[0], flags=re.MULTILINE)
    assert sorted(listed) == sorted(name.rpartition("/")[2] for name in NAMES)
