"""What was optimised, iteration by iteration, as line charts: paths and ticks that the template draws as SVG."""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from impactreg.report.run_folder import Stage, Table

Place = Callable[[int, float], tuple[float, float]]
"""Where an iteration with a value lies in the picture: x and y."""
WIDTH, HEIGHT = 380.0, 200.0
LEFT, RIGHT, TOP, BOTTOM = 58.0, 8.0, 26.0, 30.0
MOST_POINTS = 1500
SHOWN = {
    "Metric": ("Metric", "2:Metric"),
    "Step size": ("StepSize", "Gain a_k", "StepLength", "Step"),
    "Gradient": ("||Gradient||", "Gradient"),
}
"""Title of each chart, and how the names of its columns end; the first that is there counts."""


@dataclass(frozen=True)
class Tick:
    """A place along an axis in the picture's units, and what is written there."""

    place: float
    text: str


@dataclass(frozen=True)
class Line:
    """One resolution: the path of its values, that of their running mean, and where its part begins and ends."""

    label: str
    path: str
    smooth: str
    begin: float
    end: float


@dataclass(frozen=True)
class Chart:
    """One quantity over the iterations of a stage, all resolutions in a row."""

    title: str
    lines: tuple[Line, ...]
    across: tuple[Tick, ...]
    up: tuple[Tick, ...]
    description: str
    logarithmic: bool = False
    width: float = WIDTH
    height: float = HEIGHT
    box: tuple[float, float, float, float] = (LEFT, TOP, WIDTH - RIGHT, HEIGHT - BOTTOM)


def charts_of(stage: Stage) -> list[Chart]:
    """The charts of a stage; a quantity that no resolution has is left out."""
    found = ((title, [column(table, *names) for table in stage.levels]) for title, names in SHOWN.items())
    return [chart(title, columns) for title, columns in found if any(_finite(c) for c in columns)]


def column(table: Table, *endings: str) -> tuple[float, ...]:
    """The first column whose name ends so; empty where there is none."""
    for ending in endings:
        for name, values in table.items():
            if name.endswith(ending) and not name.startswith("Time"):
                return values
    return ()


def chart(title: str, columns: Sequence[Sequence[float]]) -> Chart:
    """Columns, one for each resolution, side by side; positive ones of a large range on a logarithmic axis."""
    values = [v for each in columns for v in each if math.isfinite(v)]
    logarithmic = title != "Metric" and min(values) > 0 and max(values) > 100 * min(values)
    scale = [[math.log10(v) if logarithmic and v > 0 else v for v in each] for each in columns]
    ticks = _ticks([v for each in scale for v in each if math.isfinite(v)])
    low, high = ticks[0], ticks[-1]
    total = max(1, sum(map(len, columns)) - 1)

    def place(number: int, value: float) -> tuple[float, float]:
        x = LEFT + (WIDTH - LEFT - RIGHT) * number / total
        return x, HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * (value - low) / (high - low)

    up = [Tick(place(0, v)[1], _told(10**v if logarithmic else v)) for v in ticks]
    steps = [v for v in _ticks([0.0, float(total)], 4) if v <= total and v == int(v)]
    across = [Tick(place(int(v), low)[0], f"{v:g}") for v in steps]
    return Chart(title, tuple(_lines(scale, place)), tuple(across), tuple(up), _described(title, columns), logarithmic)


def running_mean(values: Sequence[float], width: int) -> list[float]:
    """The mean over a window of odd width around each value, narrower at the ends; what is no number is left out."""
    half, found = width // 2, []
    for place in range(len(values)):
        part = [v for v in values[max(0, place - half) : place + half + 1] if math.isfinite(v)]
        found.append(sum(part) / len(part) if part else math.nan)
    return found


def _lines(columns: Sequence[Sequence[float]], place: Place) -> Iterator[Line]:
    first = 0
    for level, values in enumerate(columns):
        if not values:
            continue
        width = max(1, len(values) // 15) | 1
        places = [place(first + number, 0.0)[0] for number in (0, len(values) - 1)]
        smooth = running_mean(values, width) if width > 1 else []
        yield Line(f"R{level}", _path(values, first, place), _path(smooth, first, place), *places)
        first += len(values)


def _path(values: Sequence[float], first: int, place: Place) -> str:
    step = 1 + len(values) // MOST_POINTS
    points = [place(first + n, v) for n, v in enumerate(values) if n % step == 0 and math.isfinite(v)]
    return "M" + "L".join(f"{x:.1f} {y:.1f}" for x, y in points) if points else ""


def _ticks(values: Sequence[float], wanted: int = 4) -> list[float]:
    """Round numbers from below the least to above the largest value."""
    low, high = min(values), max(values)
    if high - low <= 1e-12 * max(abs(low), abs(high), 1e-300):
        low, high = low - (abs(low) or 1.0) * 0.1, high + (abs(high) or 1.0) * 0.1
    rough = (high - low) / wanted
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(m * power for m in (1, 2, 2.5, 5, 10) if m * power >= rough * 0.999)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [float(f"{n * step:.12g}") for n in range(first, last + 1)]


def _told(value: float) -> str:
    return f"{value:.0e}".replace("e+0", "e").replace("e-0", "e-") if 0 < abs(value) < 1e-3 else f"{value:.4g}"


def _described(title: str, columns: Sequence[Sequence[float]]) -> str:
    ends = (
        f"resolution {level} from {_finite(each)[0]:.4g} to {_finite(each)[-1]:.4g}"
        for level, each in enumerate(columns)
        if _finite(each)
    )
    return f"{title} over the iterations: {'; '.join(ends)}."


def _finite(values: Sequence[float]) -> list[float]:
    return [v for v in values if math.isfinite(v)]
