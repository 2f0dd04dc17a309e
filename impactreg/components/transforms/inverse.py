"""The inverse of transforms at points: exact for linear ones, iterated for all others, and told where there is none.

A chain is inverted member by member, the last one first. Members that bend space are first inverted by the fixed-point
iteration x - (T(x) - y), which needs no derivatives, then by Newton's method with the spatial Jacobian, both with steps
that are shortened until they bring a point nearer (Chen et al. 2008, Med. Phys. 35, 81-88; Dennis and Schnabel 1983).
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from impactreg.components.transforms.linear import AffineTransform
from impactreg.components.transforms.transform import Combination, Points, Transform
from impactreg.components.warping import VOXELS_AT_ONCE, determinants, jacobians
from impactreg.errors import TransformError

AnyTransform = Transform | Combination
Step = Callable[[AnyTransform, Points, Points], Points]

TOLERANCE = 1e-6
"""Millimetres by which T(x) may miss y."""
FIXED_POINT_STEPS = 12
NEWTON_STEPS = 40
SHORTEST = 1 / 64
"""The smallest part of a step that is tried."""


@dataclass(frozen=True, eq=False)
class InversePoints:
    """Points x with T(x) = y, as near as they were found.

    `residuals` is |T(x) - y| in millimetres and `determinants` det(dT/dx) at each x. A point has an inverse where the
    residual is within `tolerance`; where the determinant is not positive, T folds and other points are mapped to the
    same place.
    """

    points: Points
    residuals: Float[Tensor, " points"]
    determinants: Float[Tensor, " points"]
    tolerance: float

    @property
    def found(self) -> Bool[Tensor, " points"]:
        """Which points have an inverse, and lie where the transform does not fold."""
        return (self.residuals <= self.tolerance) & ~self.folded

    @property
    def folded(self) -> Bool[Tensor, " points"]:
        """Which points lie where the transform folds."""
        return self.determinants <= 0


def inverse_points(transform: AnyTransform, points: Points, *, tolerance: float = TOLERANCE) -> InversePoints:
    """The world points (mm) that a transform maps to `points`, each within `tolerance` (mm) where there is one.

    A point without an inverse gets the nearest that was found. The determinant is looked at where the inverse was
    found, so that one of several points that fold onto the same place may pass for the only one. Raises
    `TransformError` for a linear transform of determinant 0.
    """
    pieces = [_inverted(transform, piece, tolerance) for piece in points.split(VOXELS_AT_ONCE)]
    found, residuals, determinants_ = (
        torch.cat(parts) for parts in zip(*((p.points, p.residuals, p.determinants) for p in pieces), strict=True)
    )
    return InversePoints(found, residuals, determinants_, tolerance)


def linear_inverse(transform: AnyTransform) -> AffineTransform | None:
    """The exact inverse where every member of a chain is linear, else None; raises `TransformError` for a flat one."""
    if not is_linear(transform):
        return None
    n = transform.dimension
    corners = torch.cat([torch.zeros(1, n, dtype=torch.float64), torch.eye(n, dtype=torch.float64)])
    moved = transform(corners)
    matrix = (moved[1:] - moved[0]).T
    inverse, failed = torch.linalg.inv_ex(matrix)
    if failed or not bool(torch.isfinite(inverse).all()):
        raise TransformError("the transform has no inverse: it maps space to a plane or a line (its determinant is 0)")
    translation = -inverse @ moved[0]
    return AffineTransform(torch.cat([inverse.reshape(-1), translation]), torch.zeros(n, dtype=torch.float64))


def is_linear(transform: AnyTransform) -> bool:
    """Whether every member of a chain is linear."""
    chain = transform.chain() if isinstance(transform, Combination) else [Combination(transform)]
    return all(each.current.linear for each in chain)


def _inverted(transform: AnyTransform, points: Points, tolerance: float) -> InversePoints:
    """One piece: member by member, then once more as a whole where that left more than the tolerance."""
    found = _solved(transform, points, points, tolerance / 4)
    residuals = _missed(transform, found, points)
    if bool((residuals > tolerance).any()) and not is_linear(transform):
        found = _iterated(transform, points, found, tolerance, _newton_step, NEWTON_STEPS)
        residuals = _missed(transform, found, points)
    return InversePoints(found, residuals, determinants(jacobians(transform, found)).detach(), tolerance)


def _solved(transform: AnyTransform, points: Points, start: Points, tolerance: float) -> Points:
    """x with T(x) = points, from `start` on, where it is not told by members or by a matrix."""
    exact = linear_inverse(transform)
    if exact is not None:
        return exact(points)
    if isinstance(transform, Combination):
        if transform.initial is None:
            return _solved(transform.current, points, start, tolerance)
        if transform.compose:
            between = _solved(transform.current, points, points, tolerance)
            return _solved(transform.initial, between, between, tolerance)
    start = _iterated(transform, points, start, tolerance, _fixed_point_step, FIXED_POINT_STEPS)
    return _iterated(transform, points, start, tolerance, _newton_step, NEWTON_STEPS)


def _iterated(
    transform: AnyTransform, points: Points, start: Points, tolerance: float, step: Step, most: int
) -> Points:
    """Steps of one kind for all points that still miss theirs, until no step brings any of them nearer."""
    found, missed = start.clone(), _missed(transform, start, points)
    open_ = (missed > tolerance).nonzero()[:, 0]
    for _ in range(most):
        if not len(open_):
            break
        there, goal, before = found[open_], points[open_], missed[open_]
        there, now = _shortened(transform, goal, there, step(transform, there, goal), before)
        found[open_], missed[open_] = there, now
        # a fixed-point iteration that crawls is left to Newton's
        goes_on = now < 0.9 * before if step is _fixed_point_step else now < before
        open_ = open_[goes_on & (now > tolerance)]
    return found


def _shortened(
    transform: AnyTransform, goal: Points, there: Points, step: Points, before: Tensor
) -> tuple[Points, Tensor]:
    """The points after the longest part of their steps, down to `SHORTEST`, that brings them nearer; else as before."""
    there, now = there.clone(), before.clone()
    tried, part = torch.arange(len(there), device=there.device), 1.0
    while len(tried) and part >= SHORTEST:
        trial = there[tried] + part * step[tried]
        missed = _missed(transform, trial, goal[tried])
        nearer = missed < before[tried]
        there[tried[nearer]], now[tried[nearer]] = trial[nearer], missed[nearer]
        tried, part = tried[~nearer], part / 2
    return there, now


def _fixed_point_step(transform: AnyTransform, there: Points, goal: Points) -> Points:
    return goal - transform(there)


def _newton_step(transform: AnyTransform, there: Points, goal: Points) -> Points:
    """J^-1 (y - T(x)), held finite where J is singular (Levenberg-Marquardt with a small constant)."""
    matrix = jacobians(transform, there).detach()
    normal = matrix.mT @ matrix
    held = 1e-12 * normal.diagonal(dim1=1, dim2=2).sum(dim=1).clamp(min=1e-12)
    normal = normal + torch.diag_embed(held[:, None].expand(-1, normal.shape[1]))
    step: Tensor = torch.linalg.solve(normal, matrix.mT @ (goal - transform(there))[:, :, None])
    return step[:, :, 0]


def _missed(transform: AnyTransform, there: Points, goal: Points) -> Float[Tensor, " points"]:
    """|T(x) - y|; not a number counts as infinitely far."""
    distance: Tensor = torch.linalg.vector_norm(transform(there) - goal, dim=1)
    return distance.nan_to_num(nan=torch.inf)
