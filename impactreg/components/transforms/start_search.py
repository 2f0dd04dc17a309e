"""Where to start when little is known: the rigid motion under which coarse images tell most of each other.

Millions of samples under thousands of motions are looked up at once in an image of some ten voxels a side; the best
motions are then improved step by step. The measure is the mutual information of the samples inside the moving image
times their share among all samples, so that neither a small overlap nor an empty one wins (Studholme et al. 1999,
Pattern Recognition 32, 71-86, on why mutual information alone prefers small overlaps).
"""

import itertools
from dataclasses import dataclass, replace
from functools import cached_property

import torch
from jaxtyping import Float, Int
from torch import Tensor

from impactreg.components.samplers import grid_samples
from impactreg.components.setup import Setup
from impactreg.errors import RegistrationError
from impactreg.images.grid import Grid
from impactreg.images.image import Image

BINS = 16
"""Intensities are sorted into so many bins, each with about as many voxels."""
COARSE, FINE = (24, 1000), (48, 4000)
"""Voxels along the longest side of the moving image, and samples of the fixed one, of the search and at its end."""
SHIFTS = 9
"""Translations tried along each axis, over all at which the images can overlap."""
TURNS = (0.0, 20.0, 40.0)
"""Angles tried about each axis, to either side, in degrees; of several axes those of 20 degrees."""
KEPT = 12
"""Motions that are improved."""
ROUNDS = 40
AT_ONCE = 1 << 17
"""Samples under motions that are looked up together, so that they stay in a processor's cache."""
NOTHING = 1e-6
"""Information (nats) that rounding may leave of none."""
MARGIN = 1.02
"""By how many times a turned start must be better than the best that is only moved."""

Point = Float[Tensor, " dim"]
Motions = Float[Tensor, "motions numbers"]
Best = Float[Tensor, "best numbers"]
"""Translations in millimetres and then angles in degrees about the fixed centre, a row each."""


@dataclass(frozen=True)
class Start:
    """A rotation about `centre` and a translation (mm), with the shares of the fixed samples that lie in the moving
    image before and after.
    """

    rotation: Float[Tensor, "dim dim"]
    centre: Point
    translation: Point
    before: float
    after: float

    def about(self, centre: Point) -> "Start":
        """The same motion as a rotation about another centre."""
        translation = self.rotation @ (centre - self.centre) + self.centre + self.translation - centre
        return replace(self, centre=centre, translation=translation)


def find_start(setup: Setup, translations: Float[Tensor, "given dim"], *, turns: bool) -> Start:
    """The best start; `translations` (mm) are tried besides those of a grid, and rotations where `turns`.

    Raises `RegistrationError` where nothing makes the images tell anything of each other.
    """
    search, last = (_Pair(setup, *size) for size in (COARSE, FINE))
    candidates = _candidates(search, translations, turns)
    best = search.best(candidates, KEPT)
    improved = search.improved(best, search.step, 10.0 if turns else 0.0)
    found = last.improved(improved, search.step / 4, 2.5 if turns else 0.0)
    scores = last.scores(found)
    # a symmetric body looks much the same when turned: what is only moved has the benefit of the doubt
    straight = search.improved(search.best(_straight(candidates), KEPT), search.step, 0.0)
    straight = last.improved(straight, search.step / 4, 0.0)
    plain = last.scores(straight)
    winner = found[scores.argmax()] if float(scores.max()) > MARGIN * float(plain.max()) else straight[plain.argmax()]
    if float(torch.maximum(scores.max(), plain.max())) <= NOTHING:
        raise RegistrationError(
            '(AutomaticTransformInitializationMethod "Search"): no position makes the images resemble each other; '
            "start from a transform by -t0, or check the images and masks"
        )
    n = search.dimension
    before, after = (last.overlap(each) for each in (torch.zeros_like(winner), winner))
    return Start(_rotations(winner[None, n:], n)[0], search.centre, winner[:n], before, after)


def _candidates(pair: "_Pair", translations: Tensor, turns: bool) -> Motions:
    shifts = torch.cat([torch.zeros_like(translations[:1]), translations, pair.shifts])
    angles = _turns(pair.dimension) if turns else torch.zeros(1, 1 if pair.dimension == 2 else 3, dtype=torch.float64)
    return torch.cat([shifts.repeat(len(angles), 1), angles.repeat_interleave(len(shifts), dim=0)], dim=1)


def _straight(motions: Motions) -> Best:
    n = 2 if motions.shape[1] == 3 else 3
    return motions[(motions[:, n:] == 0).all(dim=1)]


def _turns(dimension: int) -> Tensor:
    either = sorted({sign * angle for angle in TURNS for sign in (-1.0, 1.0)})
    if dimension == 2:
        return torch.tensor(either, dtype=torch.float64)[:, None]
    small = (-TURNS[1], 0.0, TURNS[1])
    single = [tuple(angle if a == axis else 0.0 for a in range(3)) for axis in range(3) for angle in either]
    return torch.tensor(sorted({*itertools.product(small, repeat=3), *single}), dtype=torch.float64)


def _rotations(degrees: Float[Tensor, "motions angles"], dimension: int) -> Float[Tensor, "motions dim dim"]:
    """Rotations by the angle in the plane, or by the rotation vector."""
    radians = torch.deg2rad(degrees)
    skew = radians.new_zeros(len(radians), dimension, dimension)
    planes = [(0, 1)] if dimension == 2 else [(1, 2), (2, 0), (0, 1)]
    for k, (a, b) in enumerate(planes):
        skew[:, b, a], skew[:, a, b] = radians[:, k], -radians[:, k]
    result: Tensor = torch.linalg.matrix_exp(skew)
    return result


class _Pair:
    """Fixed samples and a coarse moving image, both sorted into bins."""

    def __init__(self, setup: Setup, side: int, samples: int) -> None:
        fixed, moving = (_coarse(image, setup, side) for image in (setup.fixed, setup.moving))
        drawn = grid_samples(fixed, setup.fixed_mask, samples)
        if not len(drawn):
            raise RegistrationError("no voxel of the coarse fixed image is inside the fixed mask: enlarge the mask")
        self.setup = setup
        self.dimension = moving.dimension
        self.points = drawn.points.cpu()
        self.fixed = _binned(drawn.values.cpu())
        self.grid = moving.grid
        self.moving = _binned(moving.scalar.reshape(-1).cpu())
        if setup.moving_mask is not None:
            inside = setup.moving_mask.contains(self.grid.points(setup.moving_mask.inside.device)).cpu()
            self.moving = torch.where(inside, self.moving, BINS)
        self.centre = torch.tensor(setup.fixed.grid.centre, dtype=torch.float64)

    @cached_property
    def step(self) -> float:
        """How far apart the translations are, in millimetres, along the axis where that is most."""
        return float(self._reach.max()) * 2 / (SHIFTS - 1)

    @cached_property
    def shifts(self) -> Float[Tensor, "shifts dim"]:
        """Translations over all at which the boxes overlap by half of the smaller one along each axis, or more."""
        apart = torch.tensor(self.setup.moving.grid.centre, dtype=torch.float64) - self.centre
        axes = [torch.linspace(-float(r), float(r), SHIFTS, dtype=torch.float64) for r in self._reach]
        return apart + torch.cartesian_prod(*axes)

    @cached_property
    def _reach(self) -> Point:
        boxes = [_box(grid) for grid in (self.setup.fixed.grid, self.setup.moving.grid)]
        return torch.maximum(*boxes) / 2

    def scores(self, motions: Motions) -> Float[Tensor, " motions"]:
        """The mutual information (nats) for each sample of the fixed image, under every motion."""
        pieces = motions.split(max(1, AT_ONCE // len(self.points)))
        return torch.cat([self._scores(piece) for piece in pieces])

    def overlap(self, motion: Float[Tensor, " numbers"]) -> float:
        """The share of the fixed samples that lie in the moving image and its mask."""
        return float((self._looked_up(motion[None]) < BINS).double().mean())

    def best(self, motions: Motions, number: int) -> Best:
        """The motions of the highest scores."""
        return motions[self.scores(motions).topk(min(number, len(motions))).indices]

    def improved(self, motions: Motions, step: float, angle: float) -> Motions:
        """The motions after steps along each number, of `step` mm and `angle` degrees and ever smaller ones."""
        sizes = torch.tensor([step] * self.dimension + [angle] * (motions.shape[1] - self.dimension)).double()
        moves = torch.cat([torch.zeros(1, len(sizes)), torch.eye(len(sizes)), -torch.eye(len(sizes))]).double()
        factor = torch.ones(len(motions), 1, 1, dtype=torch.float64)
        for _ in range(ROUNDS):
            tried = motions[:, None] + factor * moves * sizes
            scores = self.scores(tried.flatten(0, 1)).reshape(tried.shape[:2])
            choice = scores.argmax(dim=1)
            motions = tried[torch.arange(len(tried)), choice]
            factor = torch.where((choice == 0)[:, None, None], factor / 2, factor)
            if float(factor.max()) < 1 / 16:
                break
        return motions

    def _looked_up(self, motions: Motions) -> Int[Tensor, "motions samples"]:
        """The moving bin under each sample; `BINS` outside."""
        n = self.dimension
        to_index = torch.from_numpy(self.grid.inverse_matrix.copy())
        turned = to_index @ _rotations(motions[:, n:], n)
        origin = torch.tensor(self.grid.origin, dtype=torch.float64)
        # half a voxel more and one for the rim, so that cutting off fractions gives the voxel in the rimmed image
        offset = (self.centre + motions[:, :n] - origin) @ to_index.T + 1.5
        index = torch.baddbmm(offset.float()[:, :, None], turned.float(), self._offsets.expand(len(motions), -1, -1))
        place = torch.zeros(len(motions), index.shape[2], dtype=torch.int32)
        for axis in range(n - 1, -1, -1):
            count = self.grid.size[axis] + 2
            place.mul_(count).add_(index[:, axis].clamp_(0, count - 1).to(torch.int32))
        return self._rimmed.index_select(0, place.reshape(-1)).reshape(place.shape)

    @cached_property
    def _offsets(self) -> Float[Tensor, "dim samples"]:
        return (self.points - self.centre).T.float().contiguous()

    @cached_property
    def _rimmed(self) -> Int[Tensor, " voxels"]:
        """The moving bins with a rim of `BINS` of one voxel around."""
        moving = self.moving.reshape(self.grid.shape)
        return torch.nn.functional.pad(moving, [1, 1] * self.dimension, value=BINS).reshape(-1)

    def _scores(self, motions: Motions) -> Float[Tensor, " motions"]:
        moving = self._looked_up(motions)
        rows = torch.arange(len(motions))[:, None] * (BINS * (BINS + 1)) + self.fixed * (BINS + 1)
        counts = torch.bincount((rows + moving).reshape(-1), minlength=len(motions) * BINS * (BINS + 1)).double()
        joint = counts.reshape(len(motions), BINS, BINS + 1)[..., :BINS]
        inside = joint.sum(dim=(1, 2))
        rows, columns = joint.sum(dim=2), joint.sum(dim=1)
        # n times the mutual information, less what chance alone gives (Miller 1955)
        information = _xlogx(joint).sum(dim=(1, 2)) + _xlogx(inside)
        information -= _xlogx(rows).sum(dim=1) + _xlogx(columns).sum(dim=1)
        chance = ((rows > 0).sum(dim=1) - 1).clamp(min=0) * ((columns > 0).sum(dim=1) - 1).clamp(min=0) / 2
        return (information - chance) / len(self.points)


def _xlogx(counts: Tensor) -> Tensor:
    result: Tensor = torch.special.xlogy(counts, counts)
    return result


def _box(grid: Grid) -> Point:
    corners = grid.corners()
    return corners.amax(dim=0) - corners.amin(dim=0) + max(grid.spacing)


def _binned(values: Float[Tensor, " values"]) -> Int[Tensor, " values"]:
    """The bin of each value; equal values share one."""
    some = values.double()[:: max(1, len(values) // 100_000)].contiguous()
    edges = torch.quantile(some, torch.linspace(0, 1, BINS + 1, dtype=torch.float64)[1:-1])
    return torch.searchsorted(edges.contiguous(), values.double().contiguous())


def _coarse(image: Image, setup: Setup, side: int) -> Image:
    """The image averaged over boxes of about the longest side of the moving image over `side`."""
    step = float(_box(setup.moving.grid).max()) / side
    voxels = list(zip(image.grid.size, image.grid.spacing, strict=True))
    size = [max(1, round(n * s / step)) if s < step else n for n, s in voxels]
    data = torch.nn.functional.interpolate(image.data[None].float(), size=size[::-1], mode="area")[0]
    spacing = [n * s / m for (n, s), m in zip(voxels, size, strict=True)]
    shift = [(n / m - 1) / 2 for (n, _), m in zip(voxels, size, strict=True)]
    origin = image.grid.index_to_world(torch.tensor([shift], dtype=torch.float64))[0].tolist()
    return Image(data, Grid.of(size, spacing, origin, image.grid.direction))
