"""More and Thuente's line search: a step along a direction that satisfies the strong Wolfe conditions.

The search keeps an interval that holds a minimum and shortens it by cubic and quadratic interpolation (Moré and
Thuente, ACM TOMS 20, 1994, 286-307; `itk::MoreThuenteLineSearchOptimizer`, which is MINPACK's `cvsrch` and `cstep`).
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from math import sqrt
from sys import float_info

SHORTEST, LONGEST = 1e-20, 1e20
"""The bounds of a step."""

Along = Callable[[float], tuple[float, float]]
"""From a step length to the value there and its derivative to the step length."""


@dataclass(frozen=True)
class Rules:
    """When a step will do, and how many are tried.

    A step a is good when f(a) <= f(0) + value_tolerance a f'(0) and |f'(a)| <= gradient_tolerance |f'(0)|.
    """

    value_tolerance: float = 1e-4
    gradient_tolerance: float = 0.9
    iterations: int = 20


@dataclass(frozen=True)
class Point:
    """A step length with the value and the derivative there."""

    step: float
    value: float
    slope: float

    def tilted(self, slope: float) -> "Point":
        """The point of the function from which a line of this slope has been taken away."""
        return Point(self.step, self.value - self.step * slope, self.slope - slope)


@dataclass(frozen=True)
class Trial:
    """One step that was tried, counted from 0: which Wolfe conditions hold, and why it is the last, "" if it is not."""

    number: int
    at: Point
    decreases: bool = False
    flattens: bool = False
    end: str = ""


def search(along: Along, start: Point, first_step: float, rules: Rules) -> Iterator[Trial]:
    """Yields the `start` (step 0), then a trial for each step; the last one is the result and has an `end`.

    The ends are elastix's words: WolfeSatisfied, MaxNrIterations, StepTooSmall, StepTooLarge, IntervalTooSmall,
    RoundingError, and AscentSearchDir at the start where the value does not fall along the direction. Where a search
    ends otherwise than well, the last trial is at the lowest point that it has found.
    """
    if not start.slope < 0:
        yield Trial(0, start, end="AscentSearchDir")
        return
    yield Trial(0, start)
    state = _Search(start, first_step, rules)
    trial = state.trial(along)
    yield trial
    while not trial.end:
        state.shorten(trial)
        trial = state.trial(along)
        yield trial


class _Search:
    """The interval between the `best` point and the `other` end, and the step to try next."""

    def __init__(self, start: Point, first_step: float, rules: Rules) -> None:
        self.start = self.best = self.other = start
        self.rules = rules
        self.step = first_step
        self.number = 0
        self.bracketed = self.failed = False
        self.modified = True
        self.width = LONGEST - SHORTEST
        self.previous_width = 2 * self.width
        self.low = self.high = 0.0

    def trial(self, along: Along) -> Trial:
        """The next step, tried."""
        if self.bracketed:
            self.low, self.high = sorted((self.best.step, self.other.step))
        else:
            self.low, self.high = self.best.step, self.step + 4 * (self.step - self.best.step)
        self.step = min(max(self.step, SHORTEST), LONGEST)
        if self._ends():
            self.step = self.best.step
        at = Point(self.step, *along(self.step))
        decreases = at.value <= self.start.value + at.step * self._least_slope
        flattens = abs(at.slope) <= -self.rules.gradient_tolerance * self.start.slope
        return Trial(self.number, at, decreases, flattens, self._end(at, decreases=decreases, flattens=flattens))

    def shorten(self, trial: Trial) -> None:
        """Takes a trial into the interval and chooses the next step."""
        self.number += 1
        at = trial.at
        tolerance = min(self.rules.value_tolerance, self.rules.gradient_tolerance)
        if trial.decreases and at.slope >= self.start.slope * tolerance:
            self.modified = False
        # While no step has decreased the value enough, the function less the line of least decrease is minimised.
        tilt = self._least_slope if self.modified and at.value <= self.best.value and not trial.decreases else 0.0
        ends = [point.tilted(tilt) for point in (self.best, self.other, at)]
        safe = _safeguarded(ends[0], ends[1], ends[2], bracketed=self.bracketed, low=self.low, high=self.high)
        if safe is None:
            self.failed = True
        else:
            self.best, self.other = safe.best.tilted(-tilt), safe.other.tilted(-tilt)
            self.step, self.bracketed = safe.step, safe.bracketed
        self._bisect()

    def _bisect(self) -> None:
        """Halves an interval that has lost less than a third of its length in two trials."""
        if not self.bracketed:
            return
        width = self.other.step - self.best.step
        if abs(width) >= 0.66 * self.previous_width:
            self.step = self.best.step + 0.5 * width
        self.previous_width, self.width = self.width, abs(width)

    @property
    def _least_slope(self) -> float:
        """The slope of the line under which a value must lie to have decreased enough."""
        return self.rules.value_tolerance * self.start.slope

    def _ends(self) -> bool:
        """Whether the next trial will be the last, whatever it finds."""
        return self._rounds() or self.failed or self._is_narrow() or self.number >= self.rules.iterations - 1

    def _rounds(self) -> bool:
        return self.bracketed and not self.low < self.step < self.high

    def _is_narrow(self) -> bool:
        return self.bracketed and self.high - self.low <= float_info.epsilon * self.high

    def _end(self, at: Point, *, decreases: bool, flattens: bool) -> str:
        """Why a trial is the last one; of several reasons the one that elastix reports."""
        if decreases and flattens:
            return "WolfeSatisfied"
        if self._is_narrow():
            return "IntervalTooSmall"
        if self.number >= self.rules.iterations - 1:
            return "MaxNrIterations"
        if at.step == SHORTEST and (not decreases or at.slope >= self._least_slope):
            return "StepTooSmall"
        if at.step == LONGEST and decreases and at.slope <= self._least_slope:
            return "StepTooLarge"
        return "RoundingError" if self._rounds() or self.failed else ""


@dataclass(frozen=True)
class _Safe:
    """The interval after a trial, and a step inside it."""

    best: Point
    other: Point
    step: float
    bracketed: bool


def _safeguarded(best: Point, other: Point, at: Point, *, bracketed: bool, low: float, high: float) -> _Safe | None:
    """The shorter interval and the next step in it (MINPACK's `cstep`); None where the interval makes no sense."""
    between = min(best.step, other.step) < at.step < max(best.step, other.step)
    if (bracketed and not between) or best.slope * (at.step - best.step) >= 0 or high < low:
        return None
    turned = at.slope * best.slope < 0
    rises = at.value > best.value
    flatter = abs(at.slope) < abs(best.slope)
    if rises:
        step = _before_a_rise(best, at)
    elif turned:
        step = _between_opposite_slopes(best, at)
    elif flatter:
        step = _beyond_a_flatter_slope(best, at, bracketed=bracketed, low=low, high=high)
    elif bracketed:
        step = _cubic(at, other)[0]
    else:
        step = high if at.step > best.step else low
    bracketed = bracketed or rises or turned
    best, other = (best, at) if rises else (at, best if turned else other)
    step = min(max(step, low), high)
    if bracketed and (rises or (flatter and not turned)):
        limit = best.step + 0.66 * (other.step - best.step)
        step = min(limit, step) if other.step > best.step else max(limit, step)
    return _Safe(best, other, step, bracketed)


def _before_a_rise(best: Point, at: Point) -> float:
    """The cubic minimum if it is closer to the best point than the quadratic one, else half-way between them."""
    length = at.step - best.step
    cubic = _cubic(best, at)[0]
    quadratic = best.step + best.slope / ((best.value - at.value) / length + best.slope) / 2 * length
    if abs(cubic - best.step) < abs(quadratic - best.step):
        return cubic
    return cubic + (quadratic - cubic) / 2


def _between_opposite_slopes(best: Point, at: Point) -> float:
    """The cubic minimum if it is farther from the trial than where the slope's secant is zero, else that."""
    cubic, secant = _cubic(at, best)[0], _secant(at, best)
    return cubic if abs(cubic - at.step) > abs(secant - at.step) else secant


def _beyond_a_flatter_slope(best: Point, at: Point, *, bracketed: bool, low: float, high: float) -> float:
    """The nearer (bracketed) or farther of the cubic minimum, if there is one ahead, and the zero of the secant."""
    cubic, ahead = _cubic(at, best)
    if not ahead:
        cubic = high if at.step > best.step else low
    secant = _secant(at, best)
    nearer = abs(at.step - cubic) < abs(at.step - secant)
    farther = abs(at.step - cubic) > abs(at.step - secant)
    return cubic if (nearer if bracketed else farther) else secant


def _cubic(a: Point, b: Point) -> tuple[float, bool]:
    """The minimum of the cubic through two points with their slopes, and whether it lies on the far side of a."""
    theta = 3 * (a.value - b.value) / (b.step - a.step) + a.slope + b.slope
    largest = max(abs(theta), abs(a.slope), abs(b.slope))
    # Rounding can make a square of next to nothing negative.
    square = (theta / largest) ** 2 - a.slope / largest * (b.slope / largest)
    gamma = largest * sqrt(max(0.0, square))
    if b.step < a.step:
        gamma = -gamma
    whole = gamma - a.slope + gamma + b.slope
    share = (gamma - a.slope + theta) / whole if whole else 0.0
    return a.step + share * (b.step - a.step), share < 0 and gamma != 0


def _secant(a: Point, b: Point) -> float:
    """Where a line through the slopes at two points is zero."""
    return a.step + a.slope / (a.slope - b.slope) * (b.step - a.step)
