"""What a transform does, seen on a lattice of points in the shown slices: displacement, determinants, likeness."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
import torch.nn.functional as F  # noqa: N812
from jaxtyping import Float
from torch import Tensor

from impactreg.components.transforms.transform import Combination
from impactreg.components.warping import determinants, jacobians
from impactreg.images.image import Image
from impactreg.report.planes import Indices, Plane, Stack, sampled

LATTICE = 56
"""Most points along one side of a slice; between them the transform is interpolated for pictures."""
LATTICE_2D = 192
AT_ONCE = 1 << 13
BINS = 32
AFFINE = 0.01
"""Mean distance (mm) to an affine transform below which a transform counts as one."""


@dataclass(frozen=True, eq=False)
class PlaneField:
    """The lattice of one plane: world points, where they are mapped to, and det(dT/dx), each [slice, row, column]."""

    plane: Plane
    points: Indices
    moved: Indices
    determinant: Stack

    @classmethod
    def of(cls, transform: Combination, plane: Plane) -> "PlaneField":
        """Evaluates a transform at the lattice's points."""
        points = plane.points(*plane.size(LATTICE if len(plane.axes) > 2 else LATTICE_2D))
        flat = points.reshape(-1, points.shape[-1]).split(AT_ONCE)
        moved = torch.cat([transform(some) for some in flat])
        found = torch.cat([determinants(jacobians(transform, some)) for some in flat])
        return cls(plane, points, moved.reshape(points.shape), found.reshape(points.shape[:-1]))

    def moved_at(self, columns: int, rows: int) -> Indices:
        """Where the pixels of slices of another size are mapped to, interpolated from the lattice."""
        shift = (self.moved - self.points).movedim(-1, 1)
        finer = F.interpolate(shift, (rows, columns), mode="bilinear", align_corners=False).movedim(1, -1)
        return self.plane.points(columns, rows) + finer


@dataclass(frozen=True, eq=False)
class Deformation:
    """The lattices of all planes, and the affine transform that comes nearest to the transform on them."""

    fields: tuple[PlaneField, ...]

    @classmethod
    def of(cls, transform: Combination, planes: Sequence[Plane]) -> "Deformation":
        """Evaluates a transform in all planes."""
        return cls(tuple(PlaneField.of(transform, plane) for plane in planes))

    @cached_property
    def affine(self) -> tuple[Float[Tensor, "dim dim"], Float[Tensor, " dim"]]:
        """Matrix and shift (mm) of the nearest affine transform, by least squares."""
        points, moved = self.points, self.moved
        centre, target = points.mean(dim=0), moved.mean(dim=0)
        matrix = torch.linalg.lstsq(points - centre, moved - target, driver="gelsd").solution.T
        return matrix, target - matrix @ centre

    @cached_property
    def is_affine(self) -> bool:
        """Whether the transform is no more than affine."""
        matrix, shift = self.affine
        return float((self.moved - self.points @ matrix.T - shift).norm(dim=1).mean()) < AFFINE

    def beyond_affine(self, field: PlaneField) -> Indices:
        """The displacement (mm, in fixed space) that is left without the affine part; the whole of an affine one."""
        if self.is_affine:
            return field.moved - field.points
        matrix, shift = self.affine
        beyond: Tensor = (field.moved - shift) @ torch.linalg.pinv(matrix).T - field.points
        return beyond

    @cached_property
    def points(self) -> Float[Tensor, "points dim"]:
        """All points of the lattices."""
        return torch.cat([f.points.reshape(-1, f.points.shape[-1]) for f in self.fields])

    @cached_property
    def moved(self) -> Float[Tensor, "points dim"]:
        """Where they are mapped to."""
        return torch.cat([f.moved.reshape(-1, f.moved.shape[-1]) for f in self.fields])

    @cached_property
    def determinant(self) -> Float[Tensor, " points"]:
        """det(dT/dx) at all of them."""
        return torch.cat([f.determinant.flatten() for f in self.fields])

    @property
    def displacement(self) -> Float[Tensor, " points"]:
        """How far each is moved (mm)."""
        length: Tensor = (self.moved - self.points).norm(dim=1)
        return length

    @property
    def folded(self) -> float:
        """The share of points with a determinant of 0 or less."""
        return float((self.determinant <= 0).double().mean())

    @property
    def spread(self) -> float:
        """The standard deviation of the logarithm of the determinant, where that is positive (SDlogJ)."""
        positive = self.determinant[self.determinant > 0]
        return float(positive.log().std()) if len(positive) > 1 else float("nan")


@dataclass(frozen=True)
class Likeness:
    """How alike two images are, before and after: at the same points, in both cases inside the moving image."""

    points: int
    information: tuple[float, float]
    correlation: tuple[float, float]


def likeness(deformation: Deformation, fixed: Image, moving: Image) -> Likeness | None:
    """The likeness of scalar images without and with the transform; None where too few points lie in both."""
    here, at_home = sampled(fixed, deformation.points)
    before, in_before = sampled(moving, deformation.points)
    after, in_after = sampled(moving, deformation.moved)
    both = at_home & in_before & in_after
    if int(both.sum()) < 100:
        return None
    a, b, c = (values[0, both].double() for values in (here, before, after))
    return Likeness(
        int(both.sum()),
        (mutual_information(a, b), mutual_information(a, c)),
        (_correlation(a, b), _correlation(a, c)),
    )


def mutual_information(a: Float[Tensor, " points"], b: Float[Tensor, " points"]) -> float:
    """Mutual information in nats by a histogram of 32 x 32 bins from the 0.5th to the 99.5th percentile of each."""
    joint = torch.zeros(BINS * BINS, dtype=torch.float64)
    joint.scatter_add_(0, _bins(a) * BINS + _bins(b), torch.ones(len(a), dtype=torch.float64))
    share = (joint / joint.sum()).reshape(BINS, BINS)
    expected = share.sum(dim=1, keepdim=True) * share.sum(dim=0, keepdim=True)
    filled = share > 0
    return float((share[filled] * (share[filled] / expected[filled]).log()).sum())


def _bins(values: Float[Tensor, " points"]) -> Tensor:
    low, high = torch.quantile(values, torch.tensor([0.005, 0.995], dtype=values.dtype))
    width = (high - low).clamp_min(1e-12)
    bins: Tensor = ((values - low) / width * BINS).floor().clamp(0, BINS - 1).long()
    return bins


def _correlation(a: Float[Tensor, " points"], b: Float[Tensor, " points"]) -> float:
    a, b = a - a.mean(), b - b.mean()
    norm = float(a.norm() * b.norm())
    return float(a @ b) / norm if norm > 0 else float("nan")
