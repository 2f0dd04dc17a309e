"""Makes the demo's pair: one procedural head, seen by two scanners after the patient has moved and deformed.

    python tools/demo_pair.py FOLDER

writes `fixed.nii.gz` (contrasts like T1-weighted MR), `moving.nii.gz` (contrasts like CT in a narrow window: bone
brightest, grey matter brighter than white, on another and oblique grid) and `fixed_landmarks.txt`,
`moving_landmarks.txt`: elastix point files whose k-th lines are the same place. The head is a function of space, so
that neither image is a resampled one, and the landmarks are exact.

Points are world millimetres, LPS: x to the left, y to the back, z up.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import nibabel
import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.floating]  # images are made in single precision, which is 3 times as fast, and landmarks in double

LANDMARKS = 60
DEFORMATION = 6.0  # millimetres, the mean over the head
TILT = (6.0, -4.0, 9.0)  # degrees about x, y, z
SHIFT = (5.0, -7.0, 4.0)  # millimetres
T1 = {"skin": 230.0, "muscle": 100.0, "bone": 25.0, "fluid": 45.0, "grey": 115.0, "white": 190.0, "nuclei": 145.0}
CT = {"skin": 60.0, "muscle": 135.0, "bone": 255.0, "fluid": 70.0, "grey": 150.0, "white": 115.0, "nuclei": 175.0}


class Lattice(NamedTuple):
    """A voxel grid: size, spacing (mm), centre of the volume (mm) and direction (columns are the index axes)."""

    size: tuple[int, int, int]
    spacing: tuple[float, float, float]
    center: tuple[float, float, float]
    direction: Array

    def affine(self) -> Array:
        """From index to LPS millimetres, 4 x 4."""
        matrix = np.eye(4)
        matrix[:3, :3] = self.direction * np.array(self.spacing)
        matrix[:3, 3] = np.array(self.center) - matrix[:3, :3] @ ((np.array(self.size) - 1) / 2)
        return matrix

    def points(self) -> Array:
        """All voxel centres, x slowest, voxels x 3, single precision."""
        index = np.stack(np.meshgrid(*map(np.arange, self.size), indexing="ij"), axis=-1).reshape(-1, 3)
        affine = self.affine()
        return (index @ affine[:3, :3].T + affine[:3, 3]).astype(np.float32)


class Motion(NamedTuple):
    """From fixed to moving space: T(x) = R (x + u(x)) + s, with a smooth deformation u made of a few long waves."""

    rotation: Array
    shift: Array
    waves: Callable[[Array], Array]

    def __call__(self, points: Array) -> Array:
        """Where points of the fixed space lie in the moving space."""
        return np.asarray((points + self.waves(points)) @ self.rotation.T + self.shift)

    def inverse(self, points: Array) -> Array:
        """Where points of the moving space came from, by fixed-point iteration: u is a contraction."""
        rigid = (points - self.shift.astype(points.dtype)) @ self.rotation.astype(points.dtype)
        found = rigid
        for _ in range(20):
            found = rigid - self.waves(found)
        return np.asarray(found)


def main(folder: Path) -> None:
    """Write the pair and its landmarks."""
    folder.mkdir(parents=True, exist_ok=True)
    random = np.random.default_rng(7)
    head = Head(random)
    motion = motion_of(head, random)
    fixed = Lattice((96, 104, 88), (2.0, 2.0, 2.0), (0.0, 0.0, 0.0), np.eye(3))
    moving = Lattice((92, 98, 76), (2.2, 2.2, 2.5), (6.0, -5.0, 5.0), turn(-7.0, 5.0, 3.0))
    write_image(folder / "fixed.nii.gz", scan(head, fixed, fixed.points(), T1, random), fixed)
    write_image(folder / "moving.nii.gz", scan(head, moving, motion.inverse(moving.points()), CT, random), moving)
    landmarks = head.landmarks(random)
    write_points(folder / "fixed_landmarks.txt", landmarks)
    write_points(folder / "moving_landmarks.txt", motion(landmarks))


def turn(*degrees: float) -> Array:
    """The rotation about x, then y, then z."""
    matrix = np.eye(3)
    for axis, angle in enumerate(np.deg2rad(degrees)):
        first, second = (axis + 1) % 3, (axis + 2) % 3
        step = np.eye(3)
        step[[first, second], [first, second]] = np.cos(angle)
        step[first, second], step[second, first] = -np.sin(angle), np.sin(angle)
        matrix = step @ matrix
    return matrix


def random_waves(
    random: np.random.Generator, channels: int, count: int, wavelengths: tuple[float, float]
) -> Callable[[Array], Array]:
    """A smooth random field, points x 3 -> points x channels, of unit variance: plane waves (mm)."""
    heading = random.normal(size=(count, 3))
    heading /= np.linalg.norm(heading, axis=1, keepdims=True)
    frequency = heading * (2 * np.pi / random.uniform(*wavelengths, size=(count, 1)))
    phase = random.uniform(0, 2 * np.pi, size=count)
    weight = random.normal(size=(count, channels)) / np.sqrt(count / 2)

    def field(points: Array) -> Array:
        kind = points.dtype
        angle = points @ frequency.T.astype(kind) + phase.astype(kind)
        return np.asarray(np.cos(angle, out=angle) @ weight.astype(kind))

    return field


def motion_of(head: Head, random: np.random.Generator) -> Motion:
    """The patient's motion; the waves are scaled to the mean deformation that is wanted inside the head."""
    waves = random_waves(random, channels=3, count=10, wavelengths=(120.0, 220.0))
    inside = head.points_inside(random, 4000)
    bias = waves(inside).mean(axis=0)
    scale = DEFORMATION / np.linalg.norm(waves(inside) - bias, axis=1).mean()
    return Motion(
        turn(*TILT), np.array(SHIFT), lambda points: float(scale) * (waves(points) - bias.astype(points.dtype))
    )


class Head:
    """An invented head: nested ellipsoids, painted from the skin inwards, and a cortex folded by a random field."""

    def __init__(self, random: np.random.Generator) -> None:
        self._folds = random_waves(random, channels=1, count=30, wavelengths=(24.0, 36.0))
        self._bumps = random_waves(random, channels=1, count=12, wavelengths=(60.0, 110.0))
        self._texture = random_waves(random, channels=1, count=24, wavelengths=(9.0, 18.0))

    def intensity(self, points: Array, contrast: dict[str, float], texture: float) -> Array:
        """What a scanner without noise sees; `texture` is the share of a tissue's intensity that varies within it."""
        value = np.zeros(len(points), points.dtype)
        for tissue, distance in self._layers(points):
            share = 1 / (1 + np.exp(np.clip(distance / 0.5, -40, 40)))
            value += share * (contrast.get(tissue, 0.0) - value)
        return np.asarray(value * (1 + texture * self._texture(points)[:, 0]))

    def points_inside(self, random: np.random.Generator, count: int) -> Array:
        """Random points of the brain (mm)."""
        points = random.uniform(-80, 80, size=(8 * count, 3))
        return points[ellipsoid(points, (0, 0, 10), (59, 76, 56)) < -2][:count]

    def landmarks(self, random: np.random.Generator) -> Array:
        """Places that an observer could find again: on borders inside the brain, far from each other."""
        points = self.points_inside(random, 4000)
        steps = np.eye(3)
        slopes = [self.intensity(points + step, T1, 0) - self.intensity(points - step, T1, 0) for step in steps]
        strength = np.linalg.norm(slopes, axis=0)
        points = points[strength > np.quantile(strength, 0.75)]
        chosen = [0]
        gap = np.linalg.norm(points - points[0], axis=1)
        while len(chosen) < LANDMARKS:
            chosen.append(int(gap.argmax()))
            gap = np.minimum(gap, np.linalg.norm(points - points[chosen[-1]], axis=1))
        return np.asarray(points[chosen])

    def _layers(self, points: Array) -> Iterator[tuple[str, Array]]:
        """Each structure's tissue and signed distance (mm, negative inside), the outermost first."""
        bumps = self._bumps(points)[:, 0]
        mirrored = points.copy()  # structures on both sides are said once, for x > 0
        mirrored[:, 0] = np.abs(points[:, 0])
        skull = ellipsoid(points, (0, 0, 2), (69, 87, 77)) + 0.8 * bumps
        yield "skin", np.minimum(skull - 7 - 1.5 * bumps, ellipsoid(points, (0, -93, -22), (10, 15, 18)))
        yield "muscle", np.maximum(skull - 3 + 0.5 * bumps, points[:, 2] - 12)
        yield "bone", skull
        floor = -30 - 0.55 * np.clip(points[:, 1] + 10, 0, 60) - points[:, 2]
        yield "muscle", skull + 5
        yield "bone", np.maximum(skull, floor - 4 - 1.5 * bumps)
        yield "fluid", np.maximum(skull + 6 + 0.7 * bumps, floor)
        yield from self._face(mirrored)
        yield from self._hindbrain(points)
        yield from self._cerebrum(points, mirrored)

    def _face(self, mirrored: Array) -> Iterator[tuple[str, Array]]:
        yield "skin", ellipsoid(mirrored, (31, -72, -26), (17, 20, 16))
        yield "fluid", ellipsoid(mirrored, (31, -77, -26), (12, 12, 12))
        yield "nuclei", ellipsoid(mirrored, (31, -86, -26), (5, 2.5, 5))
        yield "air", ellipsoid(mirrored, (8, -74, -38), (7, 13, 15))

    def _hindbrain(self, points: Array) -> Iterator[tuple[str, Array]]:
        cerebellum = ellipsoid(points, (0, 42, -40), (44, 27, 20))
        folia = np.cos(2 * np.pi * (points[:, 2] + 0.25 * points[:, 1]) / 9)
        yield "grey", cerebellum
        yield "white", np.maximum(cerebellum + 5, -2.0 * folia)
        yield "fluid", ellipsoid(points, (0, 30, -38), (7, 5, 9))
        yield "white", ellipsoid(points, (0, 16, -40), (12, 11, 34))

    def _cerebrum(self, points: Array, mirrored: Array) -> Iterator[tuple[str, Array]]:
        folds = self._folds(points)[:, 0]
        fissure = np.where(points[:, 2] > 16, 1.5 - mirrored[:, 0], -9.0)
        surface = np.maximum(ellipsoid(points, (0, 0, 10), (59, 76, 56)), fissure)
        surface = np.maximum(surface, -26 - points[:, 2] + 0.2 * np.abs(points[:, 1]))
        yield "grey", surface + 11 * np.exp(-((folds / 0.15) ** 2))
        yield "white", surface + 4 + 13 * np.exp(-((folds / 0.42) ** 2))
        yield "white", ellipsoid(mirrored, (14, 4, 8), (24, 40, 22))
        yield "nuclei", ellipsoid(mirrored, (14, -16, 14), (5, 14, 8))
        yield "nuclei", ellipsoid(mirrored, (26, -2, 2), (6, 18, 11))
        yield "nuclei", ellipsoid(mirrored, (10, 14, 3), (8, 13, 9))
        yield "fluid", ellipsoid(mirrored, (8, -4, 19), (4.5, 26, 7))
        yield "fluid", ellipsoid(mirrored, (19, 26, 11), (5, 16, 8))
        yield "fluid", ellipsoid(points, (0, 6, 2), (2.5, 13, 9))


def ellipsoid(points: Array, center: tuple[float, float, float], radii: tuple[float, float, float]) -> Array:
    """About the signed distance (mm) of points to an ellipsoid: exact in sign, and to first order at the surface."""
    scaled = (points - np.array(center, points.dtype)) / np.array(radii, points.dtype)
    level = np.linalg.norm(scaled, axis=1)
    slope = np.linalg.norm(scaled / np.array(radii, points.dtype), axis=1) / np.maximum(level, 1e-9)
    return np.asarray((level - 1) / np.maximum(slope, 1 / max(radii)))


def scan(head: Head, lattice: Lattice, places: Array, contrast: dict[str, float], random: np.random.Generator) -> Array:
    """An image of the head: uneven coil sensitivity for MR, noise for both."""
    is_mr = contrast is T1
    texture = 0.04 if is_mr else -0.03
    chunks = [head.intensity(chunk, contrast, texture) for chunk in np.array_split(places, 1 + len(places) // 50_000)]
    clean = np.concatenate(chunks)
    if not is_mr:
        return (clean + random.normal(scale=6.0, size=clean.shape)).reshape(lattice.size)
    sensitivity = np.exp(0.12 * random_waves(random, channels=1, count=6, wavelengths=(300.0, 500.0))(places)[:, 0])
    real, imaginary = random.normal(scale=6.0, size=(2, *clean.shape))
    return np.asarray(np.hypot(clean * sensitivity + real, imaginary).reshape(lattice.size))


def write_image(path: Path, values: Array, lattice: Lattice) -> None:
    """Write NIfTI, whose world is RAS."""
    affine = np.diag([-1.0, -1.0, 1.0, 1.0]) @ lattice.affine()
    image = nibabel.Nifti1Image(np.rint(values).astype(np.int16), affine)
    image.header.set_xyzt_units("mm")
    nibabel.save(image, path)


def write_points(path: Path, points: Array) -> None:
    """Write an elastix point file."""
    lines = ["point", str(len(points)), *(" ".join(f"{value:.6f}" for value in point) for point in points)]
    path.write_text("\n".join(lines) + "\n", encoding="ascii")


if __name__ == "__main__":
    if len(sys.argv) != 2:
        raise SystemExit("usage: python tools/demo_pair.py FOLDER")
    main(Path(sys.argv[1]))
