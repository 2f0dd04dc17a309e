"""Model cards: those that come with the package, and what is wrong with others."""

import re
from pathlib import Path

import pytest

from impactreg.errors import ModelError
from impactreg.models.cards import MOST_BYTES, CardLayer, ModelCard, cards, known, names

FILES = [(card, file) for card in cards() for file in card.files]
PUBLISHED = [
    *("Anatomix/Anatomix.pt", "DinoV2/Small.pt", "SAM2.1/SAM2.1_Tiny.pt", "SAM2.1/SAM2.1_Small.pt", "MRSeg/MRSeg.pt"),
    *(f"MIND/R{radius}D{dilation}_{axes}D.pt" for axes in (2, 3) for radius in (1, 2) for dilation in (1, 2)),
    *(f"TS/M{number}.pt" for number in (258, 291, 292, 293, 294, 295, 297, 298)),
    *(f"TS/M{number}.pt" for number in (730, 731, 732, 733, 850, 851, 852, 853)),
]
LEAST = {
    "family": "F",
    "title": "t",
    "description": "d",
    "citation": "c",
    "source": "file",
    "files": [{"path": "F/a.pt", "dimension": 2, "layers": [{"channels": 1}]}],
}


def seen(stride, before, jump):
    """The field of view behind two convolutions of 3, the first with a stride, and the new distance of samples."""
    return before + 2 * jump + 2 * jump * stride, jump * stride


def test_every_published_model_is_known():
    assert set(PUBLISHED) <= {file.path for _, file in FILES}


@pytest.mark.parametrize(
    ("written", "path"),
    [
        ("/Data/Models/TS/M730_2_Layers.pt", "TS/M730.pt"),
        ("/Data/Models/TS/M730_8_Layers.pt", "TS/M730.pt"),
        ("TS/M291_1_Layers.pt", "TS/M291.pt"),
        ("/Models/TS/M850_8_Layers.pt", "TS/M850.pt"),
        ("/Data/Models/SAM2.1/Tiny_2_Layers.pt", "SAM2.1/SAM2.1_Tiny.pt"),
        ("/Data/Models/SAM/Tiny_2_Layers.pt", "SAM2.1/SAM2.1_Tiny.pt"),
        ("/Models/MIND/R1D2.pt", "MIND/R1D2_3D.pt"),
        ("ts/m730", "TS/M730.pt"),
    ],
)
def test_the_names_of_published_parameter_files_are_known(written, path):
    found = known(written)
    assert found is not None
    assert found[1].path == path


@pytest.mark.parametrize("written", ["", "M730.pt", "TS/M730_9_Layers.pt", "TS/M733_7_Layers.pt", "x/y/z.pt"])
def test_other_names_are_not(written):
    assert known(written) is None


def test_a_name_means_one_file():
    everything = [name.lower() for name in names()]
    assert len(everything) == len(set(everything))


@pytest.mark.parametrize(("card", "file"), FILES, ids=[file.path for _, file in FILES])
def test_a_card_says_where_its_facts_are_from(card, file):
    assert card.evidence
    assert card.citation
    assert file.normalisation
    assert card.source != "hub" or file.weights


@pytest.mark.parametrize("file", [file for card, file in FILES if card.family in ("TS", "MRSeg")], ids=lambda f: f.path)
def test_fields_of_view_of_encoders_follow_from_their_strides(file):
    fields, jumps = [1] * 3, [1] * 3
    for layer in file.layers[:-2]:
        strides = layer.stride if isinstance(layer.stride, tuple) else (layer.stride,) * 3
        for axis in range(3):
            fields[axis], jumps[axis] = seen(strides[axis] // jumps[axis], fields[axis], jumps[axis])
        told = layer.field_of_view if isinstance(layer.field_of_view, tuple) else (layer.field_of_view,) * 3
        assert told == tuple(fields)
    assert [layer.field_of_view for layer in file.layers[-2:]] == [None, None]
    assert [layer.differentiable for layer in file.layers] == [True] * (len(file.layers) - 1) + [False]


def test_what_nobody_verified_is_absent():
    assert known("TS/M258")[1].voxel_size is None
    assert known("MRSeg/MRSeg")[1].voxel_size is None
    assert known("SAM2.1/SAM2.1_Tiny")[1].field_of_view is None
    assert all(file.sha256 is None and file.revision is None for _, file in FILES)


def test_a_network_gives_its_files_what_they_share():
    card = ModelCard.model_validate(
        {
            **LEAST,
            "networks": {"n": {"dimension": 3, "layers": [{"channels": 8}], "voxel_size": 2}},
            "files": [{"path": "F/a.pt", "network": "n", "layers": [{"channels": 3}], "older_names": ["F/a{n}.pt"]}],
        }
    )
    (file,) = card.files
    assert file.layers == (CardLayer(channels=8), CardLayer(channels=3))
    assert (file.dimension, file.voxel_size) == (3, 2.0)
    assert file.names == ("F/a.pt", "F/a1.pt", "F/a2.pt")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("family = ", r"card\.toml: the model card cannot be read: Invalid value"),
        ('family = "A"\ntitel = "B"', r"card\.toml: \((title|card|files) "),
        ("\xff", r"card\.toml: the model card cannot be read: "),
        ("#" * (MOST_BYTES + 1), r"card\.toml: the model card cannot be read: it has more than 1000000 bytes"),
        ("a = " + "[" * 100_000, r"card\.toml: the model card cannot be read: "),
        ('[[files]]\nnetwork = "n"', r"card\.toml: \(card\): .*there is no network 'n' in the card"),
    ],
    ids=["broken", "unknown key", "bytes", "large", "deep", "network"],
)
def test_a_wrong_card_is_told_with_its_key(tmp_path, text, message):
    (tmp_path / "card.toml").write_text(text, encoding="latin-1")
    with pytest.raises(ModelError, match=message) as error:
        ModelCard.read(tmp_path / "card.toml")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"source": "hub"}, "source 'hub' needs a repository"),
        ({"files": []}, "files"),
        ({"files": [{"path": "/etc/a.pt", "dimension": 2, "layers": [{"channels": 1}]}]}, "path"),
        ({"files": [{"path": "a/../b.pt", "dimension": 2, "layers": [{"channels": 1}]}]}, "path"),
        ({"files": [{"path": "a/b.pt", "dimension": 2, "layers": [{"channels": 1}], "sha256": "x"}]}, "sha256"),
        ({"repository": "a/b/c"}, "repository"),
    ],
)
def test_impossible_cards_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        ModelCard.model_validate({**LEAST, **changes})


def test_the_cards_hold_no_empty_words():
    for path in (Path(__file__).parents[2] / "models").glob("*.toml"):
        assert not re.search(r"(?i)todo|unknown|tbd", path.read_text(encoding="utf-8")), path
