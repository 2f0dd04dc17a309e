"""How much memory is free."""

from pathlib import Path

import pytest
import torch

from impactreg.components import memory


def test_free_memory_is_a_number_of_bytes() -> None:
    assert free() > 1 << 20


def test_a_system_that_does_not_tell_has_what_is_built_in(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(memory, "MEMINFO", tmp_path / "none")
    assert free() > 1 << 20


def test_what_is_kept_of_files_is_free_below_the_limit_of_a_container(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(memory, "CONTAINER", tmp_path)
    (tmp_path / "memory.max").write_text("1000\n", encoding="utf-8")
    (tmp_path / "memory.current").write_text("900\n", encoding="utf-8")
    assert free() == 100
    (tmp_path / "memory.stat").write_text("anon 200\nfile 700\ninactive_file 650\n", encoding="utf-8")
    assert free() == 750


def free() -> int:
    return memory.free_memory(torch.device("cpu"))
