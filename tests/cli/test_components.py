"""`impactreg components`: kinds, components and keys."""

import sys

import pytest

from impactreg.cli import main
from impactreg.components.component import available, kinds
from impactreg.registration.vocabulary import readers, vocabulary

Capture = pytest.CaptureFixture[str]


def told(capsys: Capture, *words: str) -> str:
    assert main(["components", *words]) == 0
    return capsys.readouterr().out


def test_all_components_are_listed(capsys: Capture) -> None:
    shown = told(capsys)
    assert all(name in shown for kind in kinds() for name in available(kind))
    assert "by itk-elastix alone: RayCastInterpolator" in shown


@pytest.mark.parametrize("kind", list(vocabulary()))
def test_a_kind_lists_its_components_with_a_caption(kind: str, capsys: Capture) -> None:
    shown = told(capsys, kind)
    for name, word in vocabulary()[kind].items():
        assert name in shown
        assert word.caption.replace("`", "").split()[0] in shown


@pytest.mark.parametrize("word", [word for words in vocabulary().values() for word in words.values()], ids=str)
def test_a_component_tells_each_of_its_keys(word, capsys: Capture) -> None:
    shown = told(capsys, word.kind, word.name)
    assert shown.startswith(f'({word.kind} "{word.name}")\n')
    assert all(f"\n  {key.key}\n" in shown for key in word.keys)
    assert max(map(len, shown.splitlines())) <= 100
    assert "\033" not in shown


@pytest.mark.parametrize("word", [word for words in vocabulary().values() for word in words.values()], ids=str)
def test_every_key_is_described_in_a_sentence(word) -> None:
    assert word.caption
    for key in word.keys:
        assert key.meaning.endswith("."), key
        assert len(key.meaning.split()) > 2, key
        assert not key.meaning.startswith("The same"), key


def test_a_key_tells_type_default_range_and_how_it_is_read(capsys: Capture) -> None:
    shown = told(capsys, "ImageSampler", "RandomCoordinate")
    lines = shown[shown.index("  NumberOfSpatialSamples\n") :].splitlines()
    assert lines[2] == "    whole number, at least 1; default 5000; a value for each resolution"


def test_a_name_alone_is_enough(capsys: Capture) -> None:
    assert told(capsys, "RandomCoordinate") == told(capsys, "ImageSampler", "RandomCoordinate")


def test_a_key_alone_tells_who_reads_it(capsys: Capture) -> None:
    shown = " ".join(told(capsys, "ErodeMask").split())
    assert "ErodeMask Whether masks" in shown
    assert all(word.name in shown for word in readers("ErodeMask"))


def test_a_component_of_elastix_tells_the_names_of_its_keys(capsys: Capture) -> None:
    shown = told(capsys, "Optimizer", "CMAEvolutionStrategy")
    assert "--engine elastix" in shown
    assert "PopulationSize" in shown


def test_a_pyramid_tells_only_the_keys_of_its_image(capsys: Capture) -> None:
    shown = told(capsys, "FixedImagePyramid", "FixedGenericImagePyramid")
    assert "FixedImagePyramidRescaleSchedule" in shown
    assert "MovingImagePyramid" not in shown


def test_names_are_bold_on_a_terminal(capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    assert "\033[1mMetric\033[0m\n" in told(capsys)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("Metrics", "there is no kind Metrics; did you mean Metric?"),
        ("Metric Impcat", "there is no Metric Impcat; did you mean Impact?"),
        ("Metrik Impact", "there is no kind Metrik; did you mean Metric?"),
        ("NumberOfSpatialSample", "there is no kind NumberOfSpatialSample; did you mean NumberOfSpatialSamples?"),
        ("a b c", "one kind and one name are understood at most, such as components Metric Impact"),
    ],
)
def test_misspelt_words_end_with_2_and_the_nearest(words: str, message: str, capsys: Capture) -> None:
    assert main(["components", *words.split()]) == 2
    assert capsys.readouterr() == ("", f"impactreg: error: {message}; see impactreg components --help\n")
