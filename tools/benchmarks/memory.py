"""How much memory something needs for a moment."""

from __future__ import annotations

import ctypes
import gc
import re
from pathlib import Path

PROCESS = Path("/proc/self")


class Peak:
    """The peak of this process from now on, beyond what it holds now; Linux alone tells it.

    What is free is given back first and the peak that the kernel keeps is set back, so that what was needed before does
    not count, and what is needed again does.
    """

    def __init__(self) -> None:
        self._held = held()
        (PROCESS / "clear_refs").write_text("5", encoding="ascii")

    @property
    def megabytes(self) -> float:
        """The largest amount since then."""
        return _megabytes("VmHWM") - self._held


def held() -> float:
    """The megabytes that this process holds, after it has given back what is free."""
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    return _megabytes("VmRSS")


def _megabytes(name: str) -> float:
    found = re.search(rf"^{name}:\s+(\d+) kB", (PROCESS / "status").read_text(encoding="ascii"), re.MULTILINE)
    if found is None:
        raise SystemExit(f"{PROCESS}/status does not tell {name}")
    return int(found[1]) / 1024
