"""Draw what tools/demo has made, as tools/demo.png: both images, the result, and checkerboards before and after.

Usage: python tools/demo_picture.py [FOLDER]; needs matplotlib.
"""

from __future__ import annotations

import sys
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import numpy as np
import torch
from matplotlib import pyplot

from impactreg.components.transforms.linear import TranslationTransform
from impactreg.components.transforms.transform import Combination
from impactreg.components.warping import warp
from impactreg.images import read_image


def slices(folder: Path) -> dict[str, np.ndarray]:
    """The middle slice along y of every volume, on the fixed image's grid, scaled to 0 ... 1."""
    fixed = read_image(folder / "pair" / "fixed.nii.gz")
    moving = read_image(folder / "pair" / "moving.nii.gz").to(dtype=torch.float32)
    result = read_image(folder / "registration" / "result.1.nii.gz")
    origin = torch.zeros(3, dtype=torch.float64)
    before = warp(moving, Combination(TranslationTransform(origin, origin)), fixed.grid, order=1)
    found = {}
    for name, image in (("fixed (MR)", fixed), ("moving (CT)", before), ("registered", result)):
        values = image.numpy().astype(float)[::-1, image.grid.size[1] // 2]
        low, high = np.percentile(values, [1, 99.5])
        found[name] = np.clip((values - low) / (high - low), 0, 1)
    return found


def checkerboard(first: np.ndarray, second: np.ndarray, tile: int = 12) -> np.ndarray:
    rows, columns = np.indices(first.shape)
    return np.where((rows // tile + columns // tile) % 2 == 0, first, second)


def draw(folder: Path, path: Path) -> None:
    found = slices(folder)
    fixed, before, after = found.values()
    boards = {"checkerboard before": checkerboard(fixed, before), "checkerboard after": checkerboard(fixed, after)}
    panels = {**found, **boards}
    figure, axes = pyplot.subplots(1, len(panels), figsize=(14, 2.9), facecolor="black")
    for axis, (title, values) in zip(axes, panels.items(), strict=True):
        axis.imshow(values, cmap="gray", vmin=0, vmax=1)
        axis.set_title(title, color="white", fontsize=11)
        axis.axis("off")
    figure.subplots_adjust(left=0.005, right=0.995, top=0.88, bottom=0.01, wspace=0.03)
    figure.savefig(path, dpi=80)


if __name__ == "__main__":
    draw(Path(sys.argv[1] if len(sys.argv) > 1 else "demo"), Path(__file__).with_name("demo.png"))
