"""Brain pairs with a dense known warp, for the benchmark of the dense stages, and how far off a field is."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from impactreg.components.transforms.bspline import BSplineTransform
from impactreg.components.transforms.transform import Combination
from impactreg.components.warping import deformation_field, warp
from impactreg.images import Grid, Image, read_image, write_image

MEAN_WARP = 4.5
"""Mean length of the warp inside the brain, mm."""
CONTROL_SPACING = 40.0
"""Distance of the control points of the warp, mm."""

NAMES = ("half-mono", "half-multi", "full-mono", "full-multi")


@dataclass(frozen=True)
class BrainPair:
    """A brain and itself, bent and with other intensities, in files of a folder.

    The fixed image is the moving one at T(x), T being a smooth random B-spline, so that the right displacement of every
    fixed voxel is known to rounding. The moving intensities are then changed: a gamma curve (mono), or a curve that
    rises and falls (multi). Half has voxels of 2 mm, full of 1 mm.
    """

    name: str
    folder: Path

    @property
    def fixed(self) -> Path:
        return self.folder / "fixed.nii.gz"

    @property
    def moving(self) -> Path:
        return self.folder / "moving.nii.gz"

    @cached_property
    def truth(self) -> np.ndarray:
        """The right displacement [z, y, x, 3] in mm along the world axes (LPS)."""
        return np.asarray(np.load(self.folder / "truth.npy"))

    @cached_property
    def mask(self) -> np.ndarray:
        """Whether a fixed voxel lies in the brain."""
        return np.asarray(np.load(self.folder / "mask.npy"))

    def score(self, field: np.ndarray) -> dict[str, float]:
        """Mean and 95th percentile of the error of a field like `truth`, mm, in the brain, and its folded voxels."""
        error = np.linalg.norm(field - self.truth, axis=-1)[self.mask]
        return {
            "mean": float(error.mean()),
            "p95": float(np.percentile(error, 95)),
            "folded": folded(field, read_image(self.fixed).grid),
        }


def make(name: str, data: Path, folder: Path) -> BrainPair:
    """The pair of a name such as half-mono, made from the T1 image of `data` unless its files are there."""
    pair = BrainPair(name, folder / name)
    described = pair.folder / "made.json"
    recipe = {"mean": MEAN_WARP, "spacing": CONTROL_SPACING, "version": 3}
    if described.exists() and json.loads(described.read_text()) == recipe:
        return pair
    pair.folder.mkdir(parents=True, exist_ok=True)
    size, kind = name.split("-")
    brain = read_image(data / "brain_t1" / "subjectA_t1.nii.gz").to(dtype=torch.float32)
    brain = _halved(brain) if size == "half" else brain
    transform = _random_warp(brain)
    fixed = warp(brain, transform, brain.grid)
    write_image(fixed.with_data(fixed.data.clamp(0, 255)), pair.fixed, pixel_type="float")
    write_image(brain.with_data(_changed(brain.data, kind)), pair.moving, pixel_type="float")
    truth = deformation_field(transform, brain.grid)
    np.save(pair.folder / "truth.npy", truth.data.movedim(0, -1).numpy())
    np.save(pair.folder / "mask.npy", (fixed.scalar > 15).numpy())
    described.write_text(json.dumps(recipe))
    return pair


def folded(field: np.ndarray, grid: Grid) -> int:
    """How many voxels have a Jacobian determinant of at most 0, by central differences."""
    per_axis = np.gradient(field.astype(np.float32), axis=(0, 1, 2))
    steps = np.stack([per_axis[2], per_axis[1], per_axis[0]], -1) @ grid.inverse_matrix.astype(np.float32)
    return int((np.linalg.det(steps + np.eye(3, dtype=np.float32)) <= 0).sum())


def _halved(image: Image) -> Image:
    data = torch.nn.functional.avg_pool3d(image.data[None], 2)[0]
    origin = image.grid.index_to_world(torch.full((1, 3), 0.5, dtype=torch.float64))[0].tolist()
    return Image(
        data, Grid.of(tuple(data.shape[:0:-1]), [2 * s for s in image.grid.spacing], origin, image.grid.direction)
    )


def _random_warp(brain: Image) -> Combination:
    """The same warp for both sizes but for the brain's edge: coefficients from one seed, scaled to the mean length."""
    corners = brain.grid.corners()
    low, high = corners.amin(0) - 1.5 * CONTROL_SPACING - 2, corners.amax(0)
    number = [int(n) for n in ((high - low) / CONTROL_SPACING).ceil() + 2]
    grid = Grid.of(number, [CONTROL_SPACING] * 3, low.tolist())
    generator = torch.Generator().manual_seed(1)
    parameters = torch.randn(3 * grid.number_of_voxels, dtype=torch.float64, generator=generator)
    inside = _points_in(brain)
    length = (BSplineTransform(parameters, grid)(inside) - inside).norm(dim=1).mean()
    return Combination(BSplineTransform(parameters * MEAN_WARP / length, grid))


def _points_in(brain: Image) -> Tensor:
    index = torch.nonzero(brain.scalar > 15).flip(1)[::97].double()
    return brain.grid.index_to_world(index)


def _changed(data: Tensor, kind: str) -> Tensor:
    values = data / 255
    if kind == "mono":
        return 255 * values**0.7
    return 255 * torch.sin(values * 1.4 * torch.pi).abs()
