"""The lock file: what is written is read again, by many at once, and damage is told."""

import threading
from datetime import date

import pytest

from impactreg.errors import ModelError, OutputError
from impactreg.images.whole import write_whole
from impactreg.models import lock as module
from impactreg.models.lock import Lock, Record, digest, exclusive

ONE = Record(sha256="1" * 64, size=12, revision="a" * 40, url='http://x/"a"\\b\n', date=date(2026, 1, 2))


@pytest.fixture
def lock(tmp_path):
    return Lock(tmp_path / "models.lock.toml")


def test_what_is_written_is_read_again(lock):
    lock.put("TS/M1.pt", ONE)
    lock.put("TS/é 2.pt", ONE.model_copy(update={"size": 0}))
    assert lock.get("TS/M1.pt") == ONE
    assert list(lock.records()) == ["TS/M1.pt", "TS/é 2.pt"]
    assert lock.path.read_text(encoding="utf-8").startswith("# The model files that impactreg fetched.")


def test_a_group_can_read_what_is_written(lock, tmp_path):
    lock.put("TS/M1.pt", ONE)
    (tmp_path / "usual").touch()
    assert lock.path.stat().st_mode == (tmp_path / "usual").stat().st_mode


def test_a_record_can_be_taken_away(lock):
    lock.put("TS/M1.pt", ONE)
    lock.put("TS/M1.pt", None)
    assert lock.records() == {}


def test_without_a_file_there_are_no_records(lock):
    assert lock.records() == {}
    assert lock.get("TS/M1.pt") is None


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"x = ", "Invalid value"),
        (b"\xff", "utf-8"),
        (b'["a"]\nsha256 = "1"', "a.sha256: "),
        (b'["a"]\nother = 1', "a.sha256: Field required"),
        (b"a = " + b"[" * 100_000, "Invalid|recursion|nested"),
        (b"#" * 100, "more than 50 bytes"),
    ],
)
def test_damage_is_one_line(lock, content, message, monkeypatch):
    if b"#" in content:
        monkeypatch.setattr(module, "MOST_BYTES", 50)
    lock.path.write_bytes(content)
    with pytest.raises(ModelError, match=message) as error:
        lock.records()
    assert str(error.value).startswith(f"{lock.path}: the lock file cannot be read: ")
    assert "\n" not in str(error.value)


def test_many_writers_lose_nothing(lock):
    names = [f"TS/M{number}.pt" for number in range(12)]
    threads = [threading.Thread(target=lock.put, args=(name, ONE)) for name in names]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(lock.records()) == sorted(names)
    assert sorted(path.name for path in lock.path.parent.iterdir()) == ["models.lock.lock", "models.lock.toml"]


def test_a_digest_follows_the_file(tmp_path):
    path = tmp_path / "a"
    path.write_bytes(b"")
    assert digest(path) == "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
    path.write_bytes(b"a")
    assert digest(path).startswith("ca978112ca1bbdca")
    with pytest.raises(ModelError, match="none: the model cannot be read: No such file"):
        digest(tmp_path / "none")


def test_what_cannot_be_written_is_told(tmp_path):
    with pytest.raises(OutputError, match="cannot be written: No such file or directory"):
        write_whole(tmp_path / "none" / "a.sha256", "text")
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="cannot be written"), exclusive(tmp_path / "file" / "lock"):
        pytest.fail("it is locked nevertheless")
