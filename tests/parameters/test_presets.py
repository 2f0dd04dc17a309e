from pathlib import Path

import pytest

from impactreg.errors import ParameterError
from impactreg.parameters import ParameterMap, presets


@pytest.fixture
def shipped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("abdomen/mr-ct.txt", "abdomen/rigid.txt", "lung/ct.toml", "lung/rigid.txt", "README.md"):
        path = tmp_path / "maps" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    monkeypatch.setattr(presets, "_FOLDERS", (tmp_path / "absent", tmp_path / "maps"))
    monkeypatch.chdir(tmp_path)
    return tmp_path / "maps"


def test_shipped_maps_are_listed_by_name(shipped: Path) -> None:
    assert presets.names() == ["abdomen/mr-ct", "abdomen/rigid", "lung/ct", "lung/rigid"]


def test_a_map_is_found_by_its_name(shipped: Path) -> None:
    for name in ("abdomen/mr-ct", "mr-ct", "mr-ct.txt", "abdomen/mr-ct.txt"):
        assert presets.find(name) == shipped / "abdomen" / "mr-ct.txt"
    assert presets.find("ct") == shipped / "lung" / "ct.toml"


def test_a_file_of_ones_own_comes_first(shipped: Path, tmp_path: Path) -> None:
    (tmp_path / "mr-ct").touch()
    assert presets.find("mr-ct") == Path("mr-ct")
    assert presets.find(tmp_path / "mr-ct") == tmp_path / "mr-ct"


def test_an_unknown_name_is_told_with_the_nearest(shipped: Path) -> None:
    with pytest.raises(ParameterError, match="did you mean abdomen/mr-ct"):
        presets.find("mr_ct")
    with pytest.raises(ParameterError, match=r"^zebra\.txt: there is no such parameter file, nor a shipped one"):
        presets.find("zebra.txt")
    with pytest.raises(ParameterError, match="there is no such parameter file"):
        presets.find("x" * 5000)
    with pytest.raises(ParameterError, match="several parameter maps of this name: abdomen/rigid, lung/rigid"):
        presets.find("rigid")


def test_no_name_is_known_where_nothing_is_shipped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(presets, "_FOLDERS", ())
    assert presets.names() == []


@pytest.mark.parametrize("name", presets.names())
def test_every_shipped_map_is_read(name: str) -> None:
    assert ParameterMap.read(presets.find(name))
