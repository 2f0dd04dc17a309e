"""Measurements of a model are kept beside the models and asked for once."""

import json

import pytest
import torch

from impactreg.models import geometry, patches
from impactreg.models.catalogue import cache_folder, cards, locate
from impactreg.models.extractor import Extractor, torchscript
from impactreg.models.measurements import recall

UPRIGHT = ((1.0, 0.0), (0.0, 1.0))


def files():
    return sorted((cache_folder() / "measurements").glob("*.json"))


def answers(*found):
    """A measurement that gives one answer after the other, and those that it has given."""
    left = list(found)
    return lambda: left.pop(0), left


def test_a_question_is_answered_once(model):
    measure, left = answers((1, 2.5), (3, 4.5))
    assert recall(model, "what", measure, tuple) == (1, 2.5)
    assert recall(model, "what", measure, tuple) == (1, 2.5)
    assert recall(model, "what else", measure, tuple) == (3, 4.5)
    assert left == []
    assert json.loads(files()[0].read_text(encoding="utf-8")) == {"what": [1, 2.5], "what else": [3, 4.5]}


def test_another_model_another_version_of_pytorch_and_another_file_have_answers_of_their_own(
    model, blur, tmp_path, monkeypatch
):
    recall(model, "what", lambda: 1, int)
    with torchscript():
        torch.jit.script(type(blur)().eval()).save(str(tmp_path / "other.pt"))
    assert recall(Extractor.load(tmp_path / "other.pt"), "what", lambda: 2, int) == 2
    monkeypatch.setattr(torch, "__version__", "99.0")
    assert recall(model, "what", lambda: 3, int) == 3
    assert len(files()) == 3


@pytest.mark.parametrize("content", ["", '{"what": ', "[1]", '{"what": "many"}', "\x00\xff", '{"what": null}'])
def test_a_damaged_file_is_made_anew(model, content):
    recall(model, "what", lambda: 1, int)
    files()[0].write_text(content, encoding="utf-8")
    assert recall(model, "what", lambda: 2, int) == 2
    assert json.loads(files()[0].read_text(encoding="utf-8"))["what"] == 2


def test_where_nothing_can_be_written_it_is_measured_every_time(model, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("IMPACTREG_CACHE", str(tmp_path / "file"))
    measure, left = answers(1, 2)
    assert [recall(model, "what", measure, int) for _ in range(2)] == [1, 2]
    assert left == []


def test_a_model_in_memory_leaves_nothing(blur, fresh_cache):
    assert recall(Extractor.of(blur), "what", lambda: 1, int) == 1
    assert not cache_folder().exists()


def test_mixed_precision_does_not_reach_into_a_measurement(model):
    with torch.autocast("cpu", torch.bfloat16):
        assert (
            recall(
                model,
                "dtype",
                lambda: str(model.layers(torch.rand(1, 1, 4, 4), 1, [0, 1, 0, 1], UPRIGHT)[0].dtype),
                str,
            )
            == "torch.float32"
        )


def test_a_second_run_does_not_measure_again(model, monkeypatch):
    patch = patches.Patch(model, (7, 9), 1, (True,), UPRIGHT)
    asked = (model, (12, 14), model.layers(torch.rand(1, 1, 12, 14), 1, [0, 1, 0, 1], UPRIGHT), 1, UPRIGHT)

    def questions():
        return (
            patches.field_of_view(patch),
            patches.smallest(patch),
            patches.independent(patch),
            patches.period_of(patch, patches.whole(patch).view),
            geometry.measure(*asked),
            geometry.independent(model, (12, 14), 1, 1, UPRIGHT),
        )

    first = questions()
    assert first[0] == (3.0, 3.0)
    for known in (
        patches.field_of_view,
        patches.smallest,
        patches.independent,
        patches.shares_tiles,
        patches.period_of,
    ):
        known.cache_clear()
    for known in (geometry._responses, geometry.independent):
        known.cache_clear()
    for name in ("_field_of_view", "_smallest", "_independent", "_shares_tiles"):
        monkeypatch.setattr(patches, name, None)
    for name in ("_measured", "_independent"):
        monkeypatch.setattr(geometry, name, None)
    assert questions() == first


@pytest.mark.parametrize(
    "file", [f for card in cards() if card.source == "built-in" for f in card.files], ids=lambda f: f.path
)
def test_the_field_of_view_of_a_built_in_card_is_that_which_is_measured(file):
    direction = tuple(tuple(float(i == j) for j in range(file.dimension)) for i in range(file.dimension))
    mask = (True,) * len(file.layers)
    patch = patches.Patch(
        Extractor.load(locate(file.path)), (4,) * file.dimension, file.input_channels, mask, direction
    )
    assert patches.field_of_view(patch) == (file.field_of_view,) * file.dimension
