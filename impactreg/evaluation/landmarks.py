"""Target registration errors: how far fixed landmarks are from the same landmarks in the moving image."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from impactreg.components.setup import PointMap
from impactreg.errors import PointsError
from impactreg.images.points import PointSet


@dataclass(frozen=True, eq=False)
class Distances:
    """Distances in millimetres and what is said of them; none may be missing."""

    values: Float[Tensor, " points"]

    @property
    def mean(self) -> float:
        """The mean."""
        return float(self.values.mean())

    @property
    def median(self) -> float:
        """The median."""
        return self.quantile(0.5)

    @property
    def sd(self) -> float:
        """The standard deviation, of these points and not of more than these (divided by N)."""
        return float(self.values.std(correction=0))

    @property
    def largest(self) -> float:
        """The maximum."""
        return float(self.values.max())

    @property
    def tre30(self) -> float:
        """TRE30: 30 % of the points are farther off than this, as Learn2Reg says it of cases."""
        return self.quantile(0.7)

    def quantile(self, share: float) -> float:
        """The distance within which a share of the points lies, interpolated linearly between two points."""
        ordered = self.values.double().sort().values
        place = share * (len(ordered) - 1)
        low = int(place)
        high = min(low + 1, len(ordered) - 1)
        return float(torch.lerp(ordered[low], ordered[high], place - low))

    def summary(self) -> dict[str, float]:
        """Mean, median, standard deviation, 95th percentile, maximum and TRE30, by their short names."""
        return {
            "mean": self.mean,
            "median": self.median,
            "sd": self.sd,
            "p95": self.quantile(0.95),
            "max": self.largest,
            "TRE30": self.tre30,
        }


def registration_errors(fixed: PointSet, moving: PointSet, transform: PointMap | None = None) -> Distances:
    """|T(fixed) - moving| for each pair of landmarks, in millimetres; without a transform the distance as it is.

    Raises `PointsError` where the two sets do not have equally many points of one dimension.
    """
    check_pairs(fixed, moving)
    moved = fixed.points if transform is None else transform(fixed.points).detach().cpu()
    distances: Tensor = torch.linalg.vector_norm(moved - moving.points, dim=1)
    return Distances(distances)


def check_pairs(fixed: PointSet, moving: PointSet) -> None:
    """Raises `PointsError` unless there is one moving landmark of the same dimension for each fixed one, and any."""
    if not len(fixed) and not len(moving):
        raise PointsError("there are no landmarks: give files or arrays with at least one")
    if len(fixed) != len(moving):
        raise PointsError(
            f"there are {len(fixed)} fixed landmarks and {len(moving)} moving ones: both files need the same ones, in "
            "the same order"
        )
    if fixed.dimension != moving.dimension:
        raise PointsError(f"the fixed landmarks are {fixed.dimension}D, but the moving ones {moving.dimension}D")
