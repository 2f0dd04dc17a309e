"""Fetching: from a mirror and from the hub, resumed, verified, offline, by two processes at once."""

import hashlib
import importlib.util
import os
import subprocess
import sys
import textwrap
import threading
from pathlib import Path

import pytest

from impactreg.errors import MissingExtra, ModelError, OutputError
from impactreg.models import downloads
from impactreg.models.cards import CardFile, ModelCard
from impactreg.models.fetching import Store, is_offline

COMMIT = "a" * 40
needs_hub = pytest.mark.skipif(
    importlib.util.find_spec("huggingface_hub") is None, reason="huggingface_hub, the extra hub, is not installed"
)


def card(**pins):
    file = {"path": "TS/M1.pt", "dimension": 3, "layers": [{"channels": 4}], **pins}
    facts = {"family": "TS", "title": "t", "description": "d", "citation": "c", "files": [file]}
    found = ModelCard.model_validate({**facts, "source": "hub", "repository": "someone/models"})
    return found, found.files[0]


@pytest.fixture(autouse=True)
def surroundings(monkeypatch, tmp_path):
    for name in ("IMPACTREG_MIRROR", "IMPACTREG_OFFLINE", "HF_HUB_OFFLINE", "HF_ENDPOINT", "HF_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("no_proxy", "*")


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path / "cache")


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def left(store: Store) -> list[str]:
    """All files below the cache but locks."""
    found = (path for path in store.cache.rglob("*") if path.is_file() and path.suffix != ".lock")
    return sorted(str(path.relative_to(store.cache)) for path in found)


def test_a_file_comes_from_a_mirror_and_is_recorded(store, server, model_bytes):
    server.files["TS/M1.pt"] = model_bytes
    seen = []
    found = store.fetch(*card(), mirror=f"{server.url}/", progress=lambda here, total: seen.append((here, total)))
    assert found.downloaded
    assert found.path.read_bytes() == model_bytes
    assert (found.record.sha256, found.record.size) == (sha256(model_bytes), len(model_bytes))
    assert found.record.url == f"{server.url}/TS/M1.pt"
    assert seen[-1] == (len(model_bytes), len(model_bytes))
    assert left(store) == ["fetched/TS/M1.pt", "models.lock.toml"]
    assert store.find(card()[1]) == found.path


def test_the_mirror_may_come_from_the_environment(store, server, model_bytes, monkeypatch):
    server.files["impact/TS/M1.pt"] = model_bytes
    monkeypatch.setenv("IMPACTREG_MIRROR", f"{server.url}/impact")
    assert store.fetch(*card()).downloaded


def test_a_second_fetch_asks_nobody(store, server, model_bytes):
    server.files["TS/M1.pt"] = model_bytes
    first = store.fetch(*card(), mirror=server.url)
    asked = len(server.asked)
    second = store.fetch(*card(), mirror=server.url)
    assert not second.downloaded
    assert (second.path, second.record) == (first.path, first.record)
    assert len(server.asked) == asked


def test_an_interrupted_download_resumes(store, server, model_bytes):
    server.files["TS/M1.pt"] = model_bytes
    server.cut["TS/M1.pt"] = 1000
    with pytest.raises(ModelError, match=r"M1\.pt: cannot be downloaded: .*(broke off|IncompleteRead|more expected)"):
        store.fetch(*card(), mirror=server.url)
    assert store.find(card()[1]) is None
    assert store.fetch(*card(), mirror=server.url).path.read_bytes() == model_bytes
    assert [given for _, _, given in server.asked] == [None, "bytes=1000-"]


@pytest.mark.parametrize("why", ["no ranges", "no label", "another label"])
def test_what_cannot_be_resumed_starts_anew(store, server, model_bytes, why):
    server.files["TS/M1.pt"] = b"x" * 3000
    server.cut["TS/M1.pt"] = 1000
    if why == "no label":
        server.label = ""
    with pytest.raises(ModelError):
        store.fetch(*card(), mirror=server.url)
    server.files["TS/M1.pt"] = model_bytes
    server.resumes = why != "no ranges"
    server.label = '"two"' if why == "another label" else server.label
    assert store.fetch(*card(), mirror=server.url).path.read_bytes() == model_bytes


def test_a_partial_file_that_is_too_long_starts_anew(store, server, model_bytes):
    server.files["TS/M1.pt"] = model_bytes + bytes(100)
    server.cut["TS/M1.pt"] = len(model_bytes) + 50
    with pytest.raises(ModelError):
        store.fetch(*card(), mirror=server.url)
    server.files["TS/M1.pt"] = model_bytes
    assert store.fetch(*card(), mirror=server.url).path.read_bytes() == model_bytes


def test_a_changed_byte_on_the_server_is_refused_ever_after(store, server, model_bytes):
    server.files["TS/M1.pt"] = model_bytes
    store.fetch(*card(), mirror=server.url).path.unlink()
    changed = bytearray(model_bytes)
    changed[-1] ^= 1
    server.files["TS/M1.pt"] = bytes(changed)
    with pytest.raises(ModelError, match=r"refused: its SHA-256 is .* but the lock file says .* --renew") as error:
        store.fetch(*card(), mirror=server.url)
    assert "\n" not in str(error.value)
    assert left(store) == ["models.lock.toml"]


def test_renew_takes_the_new_file(store, server, model_bytes):
    server.files["TS/M1.pt"] = model_bytes
    store.fetch(*card(), mirror=server.url)
    newer = model_bytes.replace(b"first", b"other")
    assert newer != model_bytes
    server.files["TS/M1.pt"] = newer
    found = store.fetch(*card(), mirror=server.url, renew=True)
    assert store.lock.get("TS/M1.pt").sha256 == found.record.sha256 == sha256(newer)


def test_a_changed_byte_in_the_cache_is_refused_and_mended(store, server, model_bytes):
    server.files["TS/M1.pt"] = model_bytes
    path = store.fetch(*card(), mirror=server.url).path
    path.write_bytes(model_bytes[:-1] + b"?")
    with pytest.raises(ModelError, match=r"has changed since it was fetched: .* impactreg models fetch TS/M1\.pt"):
        store.find(card()[1])
    assert store.state(card()[1]) == "fetched"
    assert store.state(card()[1], verify=True) == "damaged"
    assert store.fetch(*card(), mirror=server.url).downloaded
    assert path.read_bytes() == model_bytes


def test_a_file_that_nobody_recorded_is_not_used(store, model_bytes):
    path = store.path(card()[1])
    path.parent.mkdir(parents=True)
    path.write_bytes(model_bytes)
    with pytest.raises(ModelError, match="nothing is recorded of this file"):
        store.find(card()[1])
    assert store.state(card()[1]) == store.state(card()[1], verify=True) == "damaged"


def test_a_pin_refuses_anything_else(store, server, model_bytes):
    server.files["TS/M1.pt"] = model_bytes
    for pin in ({"sha256": "0" * 64}, {"size": 12}):
        with pytest.raises(ModelError, match=r"the file is refused: .* card says"):
            store.fetch(*card(**pin), mirror=server.url, renew=True)
        assert left(store) == []
    pinned = card(sha256=sha256(model_bytes), size=len(model_bytes))
    assert store.fetch(*pinned, mirror=server.url).downloaded
    with pytest.raises(ModelError, match="has changed"):
        store.find(card(sha256="0" * 64)[1])


@pytest.mark.parametrize("content", [b"<html>", b"PK\x03\x04 no zip"])
def test_what_is_no_model_is_thrown_away(store, server, content):
    server.files["TS/M1.pt"] = content
    with pytest.raises(ModelError, match="is no TorchScript file"):
        store.fetch(*card(), mirror=server.url)
    assert left(store) == []


def test_a_file_that_is_too_large_is_not_downloaded(store, server, model_bytes, monkeypatch):
    server.files["TS/M1.pt"] = model_bytes
    monkeypatch.setattr(downloads, "MOST_BYTES", 1000)
    with pytest.raises(ModelError, match="more than the 1000 that a model may have"):
        store.fetch(*card(), mirror=server.url)
    server.length = 5 << 30
    monkeypatch.setattr(downloads, "MOST_BYTES", 4 << 30)
    with pytest.raises(ModelError, match="5368709120 bytes, more than"):
        store.fetch(*card(), mirror=server.url)


@pytest.mark.parametrize("mirror", ["file:///etc", "ftp://x/y", "/tmp", "passwd"])
def test_a_mirror_is_an_address(store, mirror):
    with pytest.raises(ModelError, match="starts with http:// or https://"):
        store.fetch(*card(), mirror=mirror)


def test_what_the_server_says_is_told(store, server):
    with pytest.raises(ModelError, match=r"M1\.pt: cannot be downloaded: Not Found"):
        store.fetch(*card(), mirror=server.url)
    with pytest.raises(ModelError, match=r"cannot be downloaded: .*refused"):
        store.fetch(*card(), mirror="http://127.0.0.1:1")


@pytest.mark.parametrize("name", ["IMPACTREG_OFFLINE", "HF_HUB_OFFLINE"])
def test_offline_uses_no_network(store, server, model_bytes, monkeypatch, name):
    server.files["TS/M1.pt"] = model_bytes
    monkeypatch.setenv(name, "1")
    monkeypatch.setenv("HF_HUB_CACHE", str(store.cache / "none"))
    with pytest.raises(ModelError, match="it is not on this machine, and the network is not to be used"):
        store.fetch(*card(), mirror=server.url)
    assert server.asked == []
    store.fetch(*card(), mirror=server.url, offline=False)
    assert not store.fetch(*card(), mirror=server.url).downloaded
    assert len(server.asked) == 1


def test_offline_is_asked_for_or_in_the_environment(monkeypatch):
    assert not is_offline()
    assert is_offline(True)
    monkeypatch.setenv("IMPACTREG_OFFLINE", "yes")
    assert is_offline()
    assert not is_offline(False)


def test_two_threads_download_once(store, server, model_bytes):
    server.files["TS/M1.pt"] = model_bytes
    found = []
    threads = [threading.Thread(target=lambda: found.append(store.fetch(*card(), mirror=server.url))) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(each.downloaded for each in found) == [False, False, True]
    assert len(server.asked) == 1


def test_two_processes_leave_one_good_file(store, server, model_bytes):
    server.files.update({"TS/M258.pt": model_bytes, "TS/M291.pt": model_bytes})
    script = textwrap.dedent(f"""
        from impactreg.models.cards import known
        from impactreg.models.fetching import Store
        from pathlib import Path
        for name in ("TS/M258", "TS/M291"):
            Store(Path({str(store.cache)!r})).fetch(*known(name), mirror={server.url!r})
    """)
    processes = [subprocess.Popen([sys.executable, "-c", script], env={**os.environ}) for _ in range(2)]
    assert [process.wait(120) for process in processes] == [0, 0]
    assert left(store) == ["fetched/TS/M258.pt", "fetched/TS/M291.pt", "models.lock.toml"]
    assert set(store.lock.records()) == {"TS/M258.pt", "TS/M291.pt"}
    assert len(server.asked) == 2


def test_a_built_in_model_is_not_fetched(store):
    built_in = card()[0].model_copy(update={"source": "built-in"})
    with pytest.raises(ModelError, match="there is nothing to fetch"):
        store.fetch(built_in, built_in.files[0])


def test_a_cache_that_cannot_be_written_is_told(tmp_path, server):
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="cannot be written"):
        Store(tmp_path / "file").fetch(*card(), mirror=server.url)


@needs_hub
def test_a_file_comes_from_the_hub_at_its_commit(store, server, model_bytes, monkeypatch, tmp_path):
    server.files["TS/M1.pt"] = model_bytes
    monkeypatch.setenv("HF_ENDPOINT", server.url)
    seen = []
    found = store.fetch(*card(), progress=lambda here, total: seen.append((here, total)))
    assert found.path.read_bytes() == model_bytes
    assert found.record.revision == COMMIT
    assert found.record.url == f"{server.url}/someone/models/resolve/main/TS/M1.pt"
    assert seen[-1] == (len(model_bytes), len(model_bytes))
    assert left(store) == ["fetched/TS/M1.pt", "models.lock.toml"]


@needs_hub
def test_a_download_from_the_hub_resumes_too(store, server, model_bytes, monkeypatch):
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "DOWNLOAD_CHUNK_SIZE", 256)
    server.files["TS/M1.pt"] = model_bytes
    server.cut["TS/M1.pt"] = 1000
    monkeypatch.setenv("HF_ENDPOINT", server.url)
    try:
        store.fetch(*card())
    except ModelError:
        store.fetch(*card())
    assert store.find(card()[1]).read_bytes() == model_bytes
    assert any(given for method, _, given in server.asked if method == "GET")


@needs_hub
def test_the_hub_is_asked_for_the_pinned_commit(store, monkeypatch, model_bytes):
    import huggingface_hub

    asked = {}

    def metadata(url, **_):
        asked["url"] = url
        return type("Metadata", (), {"size": len(model_bytes), "commit_hash": "b" * 40})()

    def download(repository, file, *, revision, local_dir, **_):
        asked["revision"] = revision
        path = Path(local_dir) / file
        path.parent.mkdir(parents=True)
        path.write_bytes(model_bytes)
        return str(path)

    monkeypatch.setattr(huggingface_hub, "get_hf_file_metadata", metadata)
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", download)
    assert store.fetch(*card(revision="b" * 40)).record.revision == "b" * 40
    assert asked["revision"] == "b" * 40
    assert f"/resolve/{'b' * 40}/" in asked["url"]
    with pytest.raises(ModelError, match=f"it is of commit {'b' * 40}, but its card says {'c' * 40}"):
        Store(store.cache / "other").fetch(*card(revision="c" * 40))


@needs_hub
def test_what_the_hub_says_is_one_line(store, server, monkeypatch):
    monkeypatch.setenv("HF_ENDPOINT", server.url)
    with pytest.raises(ModelError, match=r"M1\.pt: cannot be downloaded: .*404") as error:
        store.fetch(*card())
    assert "\n" not in str(error.value)


@needs_hub
def test_offline_takes_what_the_hubs_own_cache_has(store, monkeypatch, tmp_path, model_bytes):
    import huggingface_hub

    cached = tmp_path / "models--someone--models" / "snapshots" / COMMIT / "TS" / "M1.pt"
    cached.parent.mkdir(parents=True)
    cached.write_bytes(model_bytes)
    monkeypatch.setattr(huggingface_hub, "try_to_load_from_cache", lambda *_, **__: str(cached))
    found = store.fetch(*card(), offline=True)
    assert found.path.read_bytes() == model_bytes
    assert found.record.revision == COMMIT
    assert cached.is_file()


def test_without_its_library_the_hub_names_the_extra(store, monkeypatch):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(MissingExtra, match=r"impactreg\[hub\].*--mirror URL"):
        store.fetch(*card())
    with pytest.raises(ModelError, match="is not on this machine"):
        store.fetch(*card(), offline=True)


def test_a_store_and_its_results_are_values(store):
    assert store == Store(store.cache)
    assert isinstance(card()[1], CardFile)
