"""How much memory a device has free, so that what cannot fit is refused before it is begun."""

import os
from pathlib import Path

import torch

MEMINFO = Path("/proc/meminfo")
CONTAINER = Path("/sys/fs/cgroup")


def free_memory(device: torch.device) -> int:
    """Bytes that can still be taken on a device; of the CPU of a system that does not tell, all that it has.

    On the CPU that is what the system can give without swapping, kept below a limit set for the container
    (`memory.max`); on a GPU it includes what PyTorch has taken but does not use.
    """
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        return int(free + torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device))
    return min([_available(), *_left_in_container()])


def _available() -> int:
    try:
        lines = dict(line.split(":", 1) for line in MEMINFO.read_text().splitlines())
        return int(lines["MemAvailable"].split()[0]) * 1024
    except (OSError, KeyError, ValueError):
        return _physical()


def _physical() -> int:
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, OSError, ValueError):
        return 1 << 34


def _left_in_container() -> list[int]:
    try:
        limit, used = ((CONTAINER / name).read_text().strip() for name in ("memory.max", "memory.current"))
        return [max(0, int(limit) - int(used) + _kept_of_files())]
    except (OSError, ValueError):
        return []


def _kept_of_files() -> int:
    """Bytes of files that were read: they count as used, but are given back as soon as memory is short."""
    try:
        counts = dict(line.split() for line in (CONTAINER / "memory.stat").read_text().splitlines())
        return int(counts["inactive_file"])
    except (OSError, KeyError, ValueError):
        return 0
