"""How much memory is free."""

from pathlib import Path

import pytest
import torch

from impactreg.components.dense import memory


def test_free_memory_is_a_number_of_bytes() -> None:
    assert free() > 1 << 20


def test_a_system_that_does_not_tell_has_what_is_built_in(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(memory, "MEMINFO", tmp_path / "none")
    assert free() > 1 << 20


def free() -> int:
    return memory.free_memory(torch.device("cpu"))
