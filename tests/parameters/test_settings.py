import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
import pytest
from pydantic import Field

from impactreg.errors import ParameterError
from impactreg.parameters import (
    ImageDimension,
    LevelSuffix,
    Once,
    ParameterMap,
    PerDimension,
    Refused,
    Settings,
    WholeList,
    describe,
    keys_of,
    unknown_keys,
)


class Every(Settings):
    number_of_spatial_samples: int = Field(5000, ge=1, description="How many samples.")
    sp_a: float = Field(400.0, alias="SP_a", gt=0, description="Step size.")
    use_direction_cosines: Annotated[bool, Once] = Field(True, description="Whether directions count.")
    mode: Literal["Static", "Jacobian"] = Field("Static", description="How.")
    spline_order: Literal[0, 1, 2, 3] = Field(3, description="Order.")
    weight: float | None = Field(None, alias="Metric<i>Weight", description="Weight.")
    spacing: Annotated[tuple[Annotated[float, Field(gt=0)], ...], PerDimension] = Field((16.0,), description="mm.")
    schedule: Annotated[tuple[int, ...], WholeList] = Field((), description="Factors.")
    paths: Annotated[tuple[str, ...], LevelSuffix] = Field((), alias="ImpactModelsPath", description="Files.")
    pixel: Annotated[float, Once] = Field(0.0, allow_inf_nan=True, description="Any value.")
    dimension: Annotated[int, ImageDimension] = Field(3, description="Dimension of the image.")

    def check(self) -> None:
        if self.sp_a == 13:
            raise Refused("sp_a", "another number is needed")


Read = Callable[..., Every]


@pytest.fixture
def read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Read:
    monkeypatch.chdir(tmp_path)

    def of(text: str, level: int = 0, label: str = "", dimension: int = 3) -> Every:
        Path("map.txt").write_text(text, encoding="utf-8")
        return Every.read(ParameterMap.read("map.txt"), level=level, label=label, dimension=dimension)

    return of


def test_absent_keys_have_their_defaults(read: Read) -> None:
    assert read("", dimension=3) == Every(spacing=(16.0, 16.0, 16.0))
    assert Every().number_of_spatial_samples == 5000


def test_a_setting_is_read_for_its_resolution_and_label(read: Read) -> None:
    text = "(NumberOfSpatialSamples 10 20)\n(Metric1NumberOfSpatialSamples 5 6)\n(SP_a 2)\n"
    assert read(text).number_of_spatial_samples == 10
    assert read(text, level=1).number_of_spatial_samples == 20
    assert read(text, level=2).number_of_spatial_samples == 10
    assert read(text, level=1, label="Metric1").number_of_spatial_samples == 6
    assert read(text, level=3, label="Metric1").number_of_spatial_samples == 5
    assert read(text, level=1, label="Metric0").number_of_spatial_samples == 20
    assert read(text, level=1).sp_a == 2.0


def test_a_setting_of_the_whole_run_is_the_first_entry(read: Read) -> None:
    assert read('(UseDirectionCosines "false" "true")', level=1).use_direction_cosines is False


def test_a_setting_per_dimension_is_filled_with_its_first_entry(read: Read) -> None:
    assert read("(Spacing 1 2)").spacing == (1.0, 2.0, 1.0)
    assert read("(Spacing 1 2)", dimension=2).spacing == (1.0, 2.0)
    assert read("").spacing == (16.0, 16.0, 16.0)


def test_a_whole_list_is_read_whole(read: Read) -> None:
    assert read("(Schedule 4 4.0 2 2)", level=1).schedule == (4, 4, 2, 2)
    assert read("(Schedule 4)\n(FixedImagePyramid0Schedule 8 8)", label="FixedImagePyramid0").schedule == (8, 8)


def test_a_level_in_the_key_falls_back_to_zero_and_to_none(read: Read) -> None:
    text = "(ImpactModelsPath a)\n(ImpactModelsPath0 b c)\n(ImpactModelsPath2 d)\n(Metric1ImpactModelsPath0 e)"
    assert [read(text, level=level).paths for level in range(4)] == [("b", "c"), ("b", "c"), ("d",), ("b", "c")]
    assert read(text, level=2, label="Metric1").paths == ("e",)
    assert read("(ImpactModelsPath a)", level=2).paths == ("a",)


def test_a_number_in_the_key_is_that_of_the_label(read: Read) -> None:
    assert read("(Metric0Weight 1 3)\n(Metric1Weight 2)", label="Metric1").weight == 2.0
    assert read("(Metric0Weight 1 3)", level=1, label="Metric0").weight == 3.0
    assert read("(Metric0Weight 1 3)", label="Metric1").weight is None


def test_the_dimension_of_the_image_is_no_key(read: Read) -> None:
    assert read("(Dimension 7)", dimension=2).dimension == 2


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("\n(NumberOfSpatialSamples 20.5)", "map.txt:2: (NumberOfSpatialSamples 20.5): a whole number is needed"),
        ("(NumberOfSpatialSamples -1)", "map.txt:1: (NumberOfSpatialSamples -1): at least 1 is needed"),
        ("(NumberOfSpatialSamples 5 0)", "map.txt:1: (NumberOfSpatialSamples 5 0): value 2, 0: at least 1 is needed"),
        ('(SP_a "x")', 'map.txt:1: (SP_a "x"): a number is needed'),
        ("(SP_a NaN)", 'map.txt:1: (SP_a "NaN"): a finite number is needed'),
        ("(SP_a 0)", "map.txt:1: (SP_a 0): more than 0 is needed"),
        ("(SP_a 13)", "map.txt:1: (SP_a 13): another number is needed"),
        ("(UseDirectionCosines True)", 'map.txt:1: (UseDirectionCosines "True"): "true" or "false" is needed'),
        ("(Mode static)", 'map.txt:1: (Mode "static"): one of Static, Jacobian is needed; did you mean Static?'),
        ("(SplineOrder 4)", "map.txt:1: (SplineOrder 4): one of 0, 1, 2, 3 is needed"),
        ("(Spacing 1 0)", "map.txt:1: (Spacing 1 0): value 2, 0: more than 0 is needed"),
        ("(Schedule 1 0.5)", "map.txt:1: (Schedule 1 0.5): value 2, 0.5: a whole number is needed"),
        ("(Metric0SP_a x)", 'map.txt:1: (Metric0SP_a "x"): a number is needed'),
    ],
)  # fmt: skip
def test_a_wrong_value_is_told_with_file_line_and_what_is_needed(read: Read, text: str, message: str) -> None:
    with pytest.raises(ParameterError) as told:
        read(text, level=1, label="Metric0")
    assert str(told.value) == message


def test_a_field_may_allow_what_is_not_a_number(read: Read) -> None:
    assert np.isnan(read("(Pixel NaN)").pixel)


def test_settings_are_made_in_python_by_field_or_key() -> None:
    assert Every(number_of_spatial_samples=7).number_of_spatial_samples == 7
    assert Every.model_validate({"SP_a": 7, "spacing": [1, 2]}) == Every(sp_a=7.0, spacing=(1.0, 2.0))
    assert Every.model_validate({"spacing": np.array([1.5, 2.5]), "sp_a": np.float32(0.5)}).spacing == (1.5, 2.5)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"number_of_spatial_samples": 1.5}, "Every(number_of_spatial_samples=1.5): a whole number is needed"),
        ({"number_of_spatial_samples": True}, "Every(number_of_spatial_samples=True): a whole number is needed"),
        ({"number_of_spatial_samples": 0}, "Every(number_of_spatial_samples=0): at least 1 is needed"),
        ({"sp_a": "1"}, "Every(sp_a='1'): a number is needed"),
        ({"SP_a": 13}, "Every(sp_a=13): another number is needed"),
        ({"use_direction_cosines": 1}, "Every(use_direction_cosines=1): true or false is needed"),
        ({"mode": "Statik"}, "Every(mode='Statik'): one of Static, Jacobian is needed; did you mean Static?"),
        ({"spacing": 1.0}, "Every(spacing=1.0): a list of values is needed"),
        ({"spacing": [1.0, 0.0]}, "Every(spacing=(1.0, 0.0)): value 2: more than 0 is needed"),
        ({"paths": [1]}, "Every(paths=(1,)): value 1: a text is needed"),
        ({"spacings": 1.0}, "Every(spacings=1.0): there is no such field; did you mean spacing?"),
    ],
)
def test_a_wrong_value_in_python_is_told_in_one_line(given: dict[str, object], message: str) -> None:
    with pytest.raises(ParameterError) as told:
        Every(**given)  # type: ignore[arg-type]
    assert str(told.value) == message


def test_settings_cannot_be_changed_and_survive_pickling() -> None:
    settings = Every(sp_a=1.0)
    with pytest.raises(ValueError, match="frozen"):
        settings.sp_a = 2.0  # type: ignore[misc]
    assert pickle.loads(pickle.dumps(settings)) == settings
    assert hash(settings) == hash(Every(sp_a=1.0))


def test_a_field_without_description_or_default_is_a_programmers_mistake() -> None:
    with pytest.raises(TypeError, match="needs a description and a default"):
        type("Bare", (Settings,), {"__annotations__": {"x": int}, "x": 1, "__module__": __name__})
    with pytest.raises(TypeError, match="must be a tuple"):

        class Single(Settings):
            x: Annotated[int, WholeList] = Field(1, description="Not a list.")


def test_settings_describe_their_keys() -> None:
    described = {each.key: each for each in describe(Every)}
    assert described["NumberOfSpatialSamples"] == (
        "NumberOfSpatialSamples", "whole number, at least 1", "5000", "How many samples.", "resolution",
    )  # fmt: skip
    assert described["Spacing"][1:3] == ("list of: number, more than 0", "16")
    assert described["Mode"].type == "Static, Jacobian"
    assert described["UseDirectionCosines"].default == "true"
    assert described["ImpactModelsPath<level>"].per == "resolution, in the key"
    assert "Dimension" not in described


def test_the_keys_of_settings_are_known() -> None:
    known = keys_of(Every)
    keys = (
        "SP_a", "Metric0SP_a", "ImageSampler12NumberOfSpatialSamples", "ResampleInterpolator0SplineOrder", "Spacing",
        "Metric3Weight", "ImpactModelsPath", "ImpactModelsPath0", "ImpactModelsPath12", "Metric1ImpactModelsPath2",
    )  # fmt: skip
    assert unknown_keys(ParameterMap.from_dict(dict.fromkeys(keys, 1)), known) == []


def test_an_unknown_key_is_told_with_its_line_and_the_nearest_spelling(tmp_path: Path) -> None:
    path = tmp_path / "map.txt"
    keys = {
        "NumberOfSpatialSample": "NumberOfSpatialSamples",
        "Metric0NumberOfSpatialSample": "Metric0NumberOfSpatialSamples",
        "sp_A": "SP_a",
        "Metric3Weigth": "Metric3Weight",
        "ImpactModelPath2": "ImpactModelsPath2",
        "Elephant": "",
    }
    path.write_text("".join(f"({key} 1)\n" for key in keys), encoding="utf-8")
    unknown = unknown_keys(ParameterMap.read(path), keys_of(Every))
    assert unknown == [(key, f"{path}:{line}", meant) for line, (key, meant) in enumerate(keys.items(), start=1)]


def test_a_spelling_that_is_there_is_suggested_for_a_slip_of_the_pen_alone() -> None:
    known = {"Resampler", "MaximumNumberOfIterations"}
    parameters = ParameterMap.from_dict(dict.fromkeys([*known, "Sampler", "MaximumNumberOfIteration"], 1))
    found = {each.key: each.suggestion for each in unknown_keys(parameters, known)}
    assert found == {"Sampler": "", "MaximumNumberOfIteration": "MaximumNumberOfIterations"}
    assert unknown_keys(parameters.without("Resampler"), known)[0].suggestion == "Resampler"
