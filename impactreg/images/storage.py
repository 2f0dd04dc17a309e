"""Where the numbers of large images lie: in memory up to a bound, beyond it in temporary files mapped into memory."""

import mmap
import os
import shutil
import tempfile
from collections.abc import Iterator
from math import prod
from pathlib import Path
from weakref import WeakSet

import numpy as np
import torch
from torch import Tensor

from impactreg.errors import OutputError

SLAB_BYTES = 1 << 23
"""How many bytes are read, computed or written at a time where a whole image would be too much."""


class Storage:
    """Gives out tensors of zeros: in memory as long as all of them need at most `bound` bytes, else in files.

    The files lie in `folder` (by default that for temporary files) without names: each disappears with its tensor.
    `bound` None keeps everything in memory. Raises `OutputError` where the folder cannot be written or its disk has
    too little room.
    """

    def __init__(self, bound: int | None = None, folder: Path | None = None) -> None:
        self._bound = bound
        self._kept = 0
        self._folder = folder or Path(tempfile.gettempdir())
        self._maps: WeakSet[mmap.mmap] = WeakSet()

    def exceeded_by(self, size: int) -> bool:
        """Whether so many bytes are more than there still is room for in memory."""
        return self._bound is not None and self._kept + size > self._bound

    def zeros(self, shape: tuple[int, ...], dtype: torch.dtype = torch.float32) -> Tensor:
        """A tensor of zeros on the CPU."""
        size = prod(shape) * dtype.itemsize
        if not self.exceeded_by(size):
            self._kept += size
            return torch.zeros(shape, dtype=dtype)
        try:
            with tempfile.TemporaryFile(dir=self._folder, prefix=".impactreg-") as file:
                _reserve(file.fileno(), self._folder, size)
                mapped = mmap.mmap(file.fileno(), size)
        except OSError as error:
            needed = f"{size / 2**30:.1f} GiB of temporary room cannot be had"
            raise OutputError(f"{self._folder}: {needed}: {error.strerror or error}") from None
        self._maps.add(mapped)
        return torch.frombuffer(mapped, dtype=dtype).reshape(shape)

    def of_file(self, path: Path, dtype: "np.dtype[np.generic]", start: int, shape: tuple[int, ...]) -> np.ndarray:
        """The numbers of a file from byte `start` on, read when they are used; changes do not reach the file."""
        with path.open("rb") as file:
            mapped = mmap.mmap(file.fileno(), start + prod(shape) * dtype.itemsize, access=mmap.ACCESS_COPY)
        self._maps.add(mapped)
        return np.ndarray(shape, dtype, mapped, start)

    def release(self) -> None:
        """Hands back the memory that tensors in files have taken so far; their numbers stay as they are."""
        for mapped in self._maps:
            # Private changes would be lost, but nobody writes to an input.
            if hasattr(mmap, "MADV_DONTNEED"):
                mapped.madvise(mmap.MADV_DONTNEED)


def slabs(length: int, bytes_of_one: int) -> Iterator[slice]:
    """Pieces of an axis in their order, of `SLAB_BYTES` or of one index."""
    step = max(1, SLAB_BYTES // max(1, bytes_of_one))
    for start in range(0, length, step):
        yield slice(start, min(start + step, length))


def half_of_memory() -> int:
    """Half of this machine's memory, in bytes; 4 GiB where the machine does not tell."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2
    except (AttributeError, ValueError, OSError):
        return 1 << 32


def _reserve(file: int, folder: Path, size: int) -> None:
    """Takes the room on the disk, without which a full disk would end the process while the file is filled."""
    if hasattr(os, "posix_fallocate"):
        os.posix_fallocate(file, 0, size)
        return
    free = shutil.disk_usage(folder).free
    if free < size:
        raise OSError(28, f"only {free / 2**30:.1f} GiB are free")
    os.truncate(file, size)
