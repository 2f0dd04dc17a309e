"""Small scripted networks that keep or break the TorchScript contract."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn

from impactreg.models.extractor import Extractor, torchscript


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


@pytest.fixture
def load(tmp_path: Path) -> Callable[[nn.Module], Extractor]:
    """Scripts a module, saves it as net.pt and loads it as an extractor."""

    def scripted(module: nn.Module) -> Extractor:
        with torchscript():
            torch.jit.script(module.eval()).save(str(tmp_path / "net.pt"))
        return Extractor.load(tmp_path / "net.pt")

    return scripted
