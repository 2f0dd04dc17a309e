"""How time and memory of the dense stages grow with the number of voxels: cubes of the benchmark's brain."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from dense_methods import METHODS, run
from torch.nn import functional

from impactreg.images import Grid, Image, read_image, write_image

MEASURED = ("coarse: impactreg", "preset: dense-fast")


@dataclass(frozen=True)
class Cube:
    """Two images of some voxels along each axis, 1 mm each: the pair of the benchmark made larger or smaller."""

    folder: Path

    @property
    def fixed(self) -> Path:
        return self.folder / "fixed.nii.gz"

    @property
    def moving(self) -> Path:
        return self.folder / "moving.nii.gz"


def scaling(given: Any) -> None:
    """Prints a row for each size: CPU seconds, those of a million voxels, and the peak memory of the process."""
    import dense_pairs

    pair = dense_pairs.make("full-mono", given.data, given.work)
    heads = "".join(f" {name}, CPU s | per Mvoxel | peak MB |" for name in MEASURED)
    print(f"| voxels |{heads}\n|---|{'---|' * 3 * len(MEASURED)}", flush=True)
    for size in given.sizes:
        cube = _cube(pair, size, given.work)
        row = f"| {size}^3 |"
        for name in MEASURED:
            runs = [run(METHODS[name], cube, given) for _ in range(given.runs)]
            told = sorted(runs, key=lambda each: float(each["seconds"]))[len(runs) // 2]
            row += f" {told['seconds']:.2f} | {told['seconds'] / size**3 * 1e6:.2f} | {told['peak']:.0f} |"
        print(row, flush=True)


def _cube(pair: Any, size: int, work: Path) -> Cube:
    cube = Cube(work / f"cube-{size}")
    cube.folder.mkdir(parents=True, exist_ok=True)
    for name in ("fixed", "moving"):
        path: Path = getattr(cube, name)
        if not path.exists():
            data = read_image(getattr(pair, name)).data.to(torch.float32)
            scaled = functional.interpolate(data[None], size=(size,) * 3, mode="trilinear", align_corners=False)[0]
            write_image(Image(scaled, Grid.of((size,) * 3, (1.0,) * 3)), path, pixel_type="float")
    return cube
