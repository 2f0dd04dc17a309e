"""Metrics of where points go, whatever the intensities there."""

import torch

from impactreg.components.component import AnySettings, NoSettings
from impactreg.components.metrics.metric import Metric, MetricValue, Scene, TransformMetric, in_mask, in_pieces
from impactreg.components.samplers import Samples
from impactreg.components.transforms.transform import Combination, Points
from impactreg.errors import PointsError, RegistrationError
from impactreg.images import sums

NAME = "CorrespondingPointsEuclideanDistanceMetric"
SMALLEST_DISTANCE = torch.finfo(torch.float64).eps
"""Distance (mm) up to which two points count as one, with gradient 0 (`std::numeric_limits<double>::epsilon`)."""


class CorrespondingPointsEuclideanDistanceMetric(Metric, name=NAME):
    """The mean of |T(p) - q| (mm) over corresponding fixed points p and moving points q
    (`itk::CorrespondingPointsEuclideanDistancePointMetric`).

    Pairs count where T(p) is in the moving mask. The samples of the images play no part.

    Raises `PointsError` when it is made without points or with points that do not correspond.
    """

    Settings = NoSettings
    needs_fixed_values = False
    uses_samples = False
    needs_points = ("fixed", "moving")

    def __init__(self, settings: AnySettings, scene: Scene) -> None:
        super().__init__(settings, scene)
        self._fixed, self._moving = (points.to(scene.fixed.data.device) for points in _pairs(scene))

    def evaluate(self, transform: Combination, samples: Samples, *, gradient: bool = True) -> MetricValue:
        """The mean distance and its gradient; raises `RegistrationError` when no point maps into the moving mask."""
        del samples
        mapped = transform.at(self._fixed)
        counts = in_mask(self.scene.moving_mask, mapped.points)
        counted = int(counts.sum())
        if counted == 0:
            raise RegistrationError(
                f"none of the {len(self._fixed)} fixed points maps into the moving mask: start from a better "
                "alignment by -t0, or check the points and the mask"
            )
        apart = mapped.points - self._moving
        distance = torch.linalg.vector_norm(apart, dim=1)
        value = float(sums.mean(distance[counts]))
        if not gradient:
            return MetricValue(value, None)
        pulls = counts & (distance > SMALLEST_DISTANCE)
        unit = torch.where(pulls[:, None], apart / distance[:, None], 0.0)
        return MetricValue(value, mapped.pull_back(unit / counted))


class DisplacementMagnitudePenalty(TransformMetric, name="DisplacementMagnitudePenalty"):
    """The mean of |T(x) - x|^2 (mm^2) over the samples, T being the whole transform with what comes before it
    (`itk::DisplacementMagnitudePenaltyTerm`).

    Samples count where T(x) is in the moving mask, even beyond the moving image.
    """

    def evaluate(self, transform: Combination, samples: Samples, *, gradient: bool = True) -> MetricValue:
        """The mean squared displacement and its gradient."""
        total = samples.points.new_zeros(())
        slope = samples.points.new_zeros(transform.parameters.numel())
        counted = 0
        for piece in in_pieces(samples):
            mapped = transform.at(piece.points)
            valid = self.valid(mapped.points)
            counted += int(valid.sum())
            displacement = torch.where(valid[:, None], mapped.points - piece.points, 0.0)
            total += sums.total(displacement.square())
            if gradient:
                slope += mapped.pull_back(2 * displacement)
        self.check(counted, len(samples))
        return MetricValue(float(total) / counted, slope / counted if gradient else None)


def _pairs(scene: Scene) -> tuple[Points, Points]:
    """The corresponding points, if they are there and do correspond; else raises `PointsError`."""
    fixed, moving = scene.fixed_points, scene.moving_points
    given = {"-fp (fixed_points=)": fixed, "-mp (moving_points=)": moving}
    missing = [flag for flag, points in given.items() if points is None or not len(points)]
    where = f'{scene.parameter_map.where("Metric")}: (Metric "{NAME}")'
    if fixed is None or moving is None or missing:
        raise PointsError(f"{where} needs corresponding points: give them by {' and '.join(missing)}")
    if len(fixed) != len(moving):
        raise PointsError(
            f"{where}: {len(fixed)} fixed points (-fp, fixed_points=) and {len(moving)} moving points (-mp, "
            "moving_points=) do not correspond: give as many of the one as of the other, in the same order"
        )
    dimension = scene.fixed.dimension
    for flag, points in given.items():
        if points is not None and points.shape[1] != dimension:
            raise PointsError(f"{flag}: the points have {points.shape[1]} coordinates, but the images are {dimension}D")
    return fixed, moving
