"""What every room's tests share."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import beartype
import hypothesis
import jaxtyping
import pytest

if TYPE_CHECKING:
    import torch

REPOSITORY = Path(__file__).parents[1]
SHAPED = r"\b(Float|Int|UInt|Bool|Num|Complex|Shaped)\d*\["

# A shared machine makes any deadline flaky; continuous integration must fail on the same examples twice.
hypothesis.settings.register_profile("impactreg", deadline=None, derandomize="CI" in os.environ)
hypothesis.settings.load_profile("impactreg")


def shapes_checked(function: Callable[..., Any]) -> Callable[..., Any]:
    """Check on every call the tensor shapes that a signature promises; mypy holds its other types."""
    hints = function.__annotations__.items()
    function.__annotations__ = {name: hint for name, hint in hints if re.search(SHAPED, str(hint))}
    return beartype.beartype(function) if function.__annotations__ else function


def modules_to_check() -> Iterator[str]:
    """Every module but those that TorchScript reads: it compiles a method, not what is wrapped around it."""
    for path in (REPOSITORY / "impactreg").rglob("*.py"):
        scripted = re.search(r"^class \w+\(.*\bModule\)", path.read_text(encoding="utf-8"), flags=re.MULTILINE)
        if path.name != "__init__.py" and not scripted:
            yield ".".join(path.relative_to(REPOSITORY).with_suffix("").parts)


jaxtyping.install_import_hook(list(modules_to_check()), f"{__name__}.shapes_checked")


@pytest.fixture
def unchecked_shapes() -> Iterator[None]:
    """For a test that gives a wrong shape on purpose, to see it refused."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of reference runs and images beside the repository; a test that needs it is skipped elsewhere."""
    folder = REPOSITORY.parent / "shared"
    if not folder.is_dir():
        pytest.skip("no folder `shared` with reference runs and images lies beside the repository")
    return folder


@pytest.fixture
def generator() -> torch.Generator:
    """A random number generator that starts every test with the same seed."""
    import torch

    return torch.Generator().manual_seed(0)


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> Iterator[None]:
    """Small tensors are faster on one thread, and sums come out alike. Tests without torch do not pay for it."""
    if "torch" not in sys.modules:
        yield
        return
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
