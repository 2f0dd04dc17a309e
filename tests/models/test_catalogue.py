"""Where a written model path leads, the cache of built-in models, and the cards."""

import multiprocessing
from datetime import date
from pathlib import Path

import pytest
import torch

from impactreg.errors import ModelError
from impactreg.models import catalogue
from impactreg.models.catalogue import CardFile, cache_folder, cards, locate
from impactreg.models.extractor import Extractor
from impactreg.models.lock import Record, digest
from impactreg.models.mind import MIND, variants


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    """A cache of its own and no folders from the environment."""
    monkeypatch.setenv("IMPACTREG_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("IMPACTREG_MODELS", raising=False)
    monkeypatch.chdir(tmp_path)
    return tmp_path / "cache" / "models"


def put(*parts):
    path = Path(*parts)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("a model")
    return path


def test_a_path_is_found_as_written_first(tmp_path):
    here = put("nets/a.pt")
    put(tmp_path, "maps/nets/a.pt")
    assert locate("nets/a.pt", relative_to=tmp_path / "maps", search=[tmp_path / "maps"]) == here
    assert locate(str(tmp_path / "nets/a.pt")) == tmp_path / "nets/a.pt"


def test_then_from_the_folder_of_the_parameter_file(tmp_path):
    beside = put(tmp_path, "maps/a.pt")
    put(tmp_path, "models/a.pt")
    assert locate("a.pt", relative_to=tmp_path / "maps", search=[tmp_path / "models"]) == beside


def test_then_by_trailing_parts_longest_first_in_each_folder(tmp_path):
    short = put(tmp_path, "models/M730.pt")
    written = "/Data/Models/TS/M730.pt"
    assert locate(written, search=[tmp_path / "models"]) == short
    longer = put(tmp_path, "models/TS/M730.pt")
    assert locate(written, search=[tmp_path / "models"]) == longer
    assert locate(r"..\Data\TS\M730.pt", search=[tmp_path / "models"]) == longer


def test_folders_given_come_before_those_of_the_environment(tmp_path, monkeypatch):
    first, second = put(tmp_path, "one/a.pt"), put(tmp_path, "two/b.pt")
    put(tmp_path, "two/a.pt")
    monkeypatch.setenv("IMPACTREG_MODELS", f"{tmp_path / 'zero'}:{tmp_path / 'two'}")
    assert locate("/x/a.pt", search=[tmp_path / "one"]) == first
    assert locate("/x/b.pt", search=[tmp_path / "one"]) == second


def test_a_users_own_file_comes_before_a_built_in_one(tmp_path):
    own = put(tmp_path, "models/MIND/R1D2.pt")
    assert locate("/Data/Models/MIND/R1D2.pt", search=[tmp_path / "models"]) == own


@pytest.mark.parametrize(
    ("written", "shape", "sizes"),
    [
        ("MIND/R1D2_3D.pt", (6, 7, 8), (3, 1, 2)),
        ("MIND/R1D2_3D", (6, 7, 8), (3, 1, 2)),
        ("/Data/Models/MIND/R1D2.pt", (6, 7, 8), (3, 1, 2)),
        ("/Models/MIND/R2D1_2D.pt", (9, 8), (2, 2, 1)),
    ],
)
def test_built_in_models_are_made_on_the_spot(cache, written, shape, sizes):
    path = locate(written)
    assert path.parent == cache
    x, direction = torch.randn(1, 1, *shape), torch.eye(len(shape))
    (found,) = Extractor.load(path).layers(x, 1, [-3.0, 3.0, 0.0, 1.0], direction)
    torch.testing.assert_close(found, MIND(*sizes)(x, torch.tensor(1), torch.tensor([-3.0, 3.0, 0.0, 1.0]))[0])


def test_a_built_in_model_is_made_once(monkeypatch):
    path = locate("MIND/R1D1_2D.pt")
    monkeypatch.setattr(catalogue, "export", None)
    assert locate("MIND/R1D1_2D.pt") == path


def test_the_older_name_is_the_same_file():
    assert locate("MIND/R1D1.pt") == locate("MIND/R1D1_3D.pt")


@pytest.mark.parametrize("damage", ["truncated", "replaced", "no record", "other record"])
def test_a_damaged_cache_is_made_again(damage):
    path = locate("MIND/R1D1_2D.pt")
    content, record = path.read_bytes(), path.with_suffix(".sha256")
    if damage == "truncated":
        path.write_bytes(content[:100])
    elif damage == "replaced":
        path.write_bytes(content.replace(b"MIND", b"MEND"))
    elif damage == "no record":
        record.unlink()
    else:
        record.write_bytes(b"\xff\xfe")
    assert locate("MIND/R1D1_2D.pt") == path
    assert path.read_bytes() == content
    assert sorted(path.parent.iterdir()) == [path, record]


def test_a_cache_that_cannot_be_written_gives_way_to_a_folder_of_the_process(tmp_path, monkeypatch, caplog):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("IMPACTREG_CACHE", str(tmp_path / "file"))
    path = locate("MIND/R1D1_2D.pt")
    assert path.is_file()
    assert locate("MIND/R1D1_2D.pt") == path
    assert "cannot be written; MIND/R1D1_2D.pt is made again in each process" in caplog.text


def _locate(name: str) -> bytes:
    return locate(name).read_bytes()


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_two_processes_may_make_a_model_at_once(cache):
    with multiprocessing.get_context("fork").Pool(2) as pool:
        first, second = pool.map_async(_locate, ["MIND/R1D1_2D.pt"] * 2, chunksize=1).get(120)
    assert first == second == _locate("MIND/R1D1_2D.pt")
    assert len(list(cache.iterdir())) == 2


def test_the_cache_lies_where_the_environment_says(monkeypatch):
    assert cache_folder() == Path("cache").absolute()
    monkeypatch.delenv("IMPACTREG_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", "/somewhere")
    assert cache_folder() == Path("/somewhere/impactreg")
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", "/home/someone")
    assert cache_folder() == Path("/home/someone/.cache/impactreg")


def test_a_model_that_is_nowhere_is_told_with_places_names_and_advice(tmp_path):
    put(tmp_path, "models/nets/unet.pt")
    with pytest.raises(ModelError) as error:
        locate("/Data/Models/nets/unit.pt", relative_to=tmp_path / "maps", search=[tmp_path / "models"])
    message = str(error.value)
    assert message.startswith(
        "/Data/Models/nets/unit.pt: there is no such model file; looked at /Data/Models/nets/unit.pt, "
    )
    assert f"{tmp_path}/models/nets/unit.pt, {tmp_path}/models/unit.pt" in message
    assert "known names near it: nets/unet.pt" in message
    assert "--models DIR or IMPACTREG_MODELS" in message
    assert "\n" not in message


def test_a_known_model_that_is_not_here_names_the_command_that_gets_it(tmp_path):
    with pytest.raises(ModelError, match=r"impactreg models fetch TS/M730\.pt, or give the folder that holds it"):
        locate("/Data/Models/TS/M730_2_Layers.pt", search=[tmp_path])


def test_an_older_name_is_found_under_todays_name(tmp_path, caplog):
    caplog.set_level("INFO")
    today = put(tmp_path, "models/TS/M730.pt")
    assert locate("/Data/Models/TS/M730_2_Layers.pt", search=[tmp_path / "models"]) == today
    assert "/Data/Models/TS/M730_2_Layers.pt is an older name of TS/M730.pt" in caplog.text
    older = put(tmp_path, "models/TS/M730_2_Layers.pt")
    assert locate("/Data/Models/TS/M730_2_Layers.pt", search=[tmp_path / "models"]) == older


def test_folders_may_begin_at_the_users_own(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("IMPACTREG_MODELS", "~/models")
    today = put(tmp_path, "models/TS/M730.pt")
    assert locate("TS/M730.pt") == locate("/Data/Models/TS/M730_2_Layers.pt") == today


def test_a_fetched_model_is_found_and_verified(tmp_path):
    path = put(tmp_path, "cache/fetched/TS/M730.pt")
    with pytest.raises(ModelError, match="nothing is recorded of this file"):
        locate("TS/M730.pt")
    record = Record(sha256=digest(path), size=path.stat().st_size, date=date(2026, 1, 1))
    catalogue.store().lock.put("TS/M730.pt", record)
    assert locate("/Data/Models/TS/M730_2_Layers.pt") == path
    own = put(tmp_path, "models/TS/M730.pt")
    assert locate("TS/M730.pt", search=[tmp_path / "models"]) == own
    path.write_text("another model")
    with pytest.raises(ModelError, match="has changed since it was fetched"):
        locate("TS/M730.pt")


@pytest.mark.parametrize(
    "written", ["", "  ", "/", "a\0b.pt", "x" * 5000, "MIND/R9D9.pt", "~nobody/a.pt", "~no such user/a.pt"]
)
def test_impossible_paths_are_told_too(written):
    with pytest.raises(ModelError, match="there is no such model file"):
        locate(written)


def test_the_mind_card_lists_the_built_in_models():
    (card,) = [card for card in cards() if card.family == "MIND"]
    listed = {name: file for file in card.files for name in (file.path, *file.older_names)}
    assert set(listed) == set(variants())
    for name, (dimension, radius, dilation) in variants().items():
        file = listed[name]
        assert (file.dimension, file.field_of_view) == (dimension, 2 * (radius + dilation) + 1)
        assert [layer.channels for layer in file.layers] == [{2: 4, 3: 12}[dimension]]


def test_cards_are_values():
    (card, *_) = cards()
    assert card == cards()[0]
    assert isinstance(card.files[0], CardFile)
