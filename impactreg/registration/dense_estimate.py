"""About how long the dense stages take and how much memory, before they run.

The figures are those of `tools/benchmarks/dense` on one processor core of 2.5 GHz; a real run differs by half or
double.
"""

from collections.abc import Sequence
from math import prod

from impactreg.components.dense.coarse import whole_cells
from impactreg.components.dense.coarse_settings import CoarseSettings
from impactreg.components.dense.cost_volume import memory_needed
from impactreg.components.dense.coupled_convex import COUPLINGS
from impactreg.components.dense.features import DenseModelSettings, grid_for
from impactreg.components.dense.fine_level import control_grid, lattice_factors
from impactreg.components.dense.fine_settings import FineSettings
from impactreg.components.dense.search import Search
from impactreg.images.grid import Grid
from impactreg.registration.case import Case
from impactreg.registration.estimate import FEATURE, PROGRAM, START, VOXEL, Estimate, widths_of

COST, PASS = 3e-9, 2e-9
"""Seconds for a channel of one cell under one displacement, and for a cell and displacement in a pass."""
POINT, CHANNEL = {"Adam": 2e-7, "GaussNewton": 5e-7}, {"Adam": 8e-8, "GaussNewton": 1.2e-7}
"""Seconds of an iteration for a point of the lattice, and for each of its channels."""
FLOWS = {"Displacement": 1, "SVF": 2, "SymmetricSVF": 4}
"""How many times as long an iteration is."""
FIELD = 60
"""Bytes for each fixed voxel: the field, in voxels and in millimetres, and what its folding needs."""
HELD = 4 * 4.0
"""Bytes for each value of the feature maps of one image: those of both, and what makes and compares them."""


def of_coarse(settings: CoarseSettings, case: Case) -> Estimate:
    """The estimate for a coarse registration; without time where it depends on a model that is not known."""
    maps = _maps(settings, case)
    search = Search.of(case.fixed.grid.spacing, settings.grid_spacing, settings.displacement_half_width)
    cells = whole_cells(case.fixed.grid.shape, search)
    ways = 1 + settings.inverse_consistency
    channels = sum(width for _, width in maps or ())
    working, volume = memory_needed(search, cells, channels)
    memory = _memory(case, maps) + max(0.0, working + volume - HELD * _values(maps))
    if maps is None:
        return Estimate(None, memory)
    tries = ways * search.count * prod(cells)
    seconds = tries * (COST * channels + PASS * len(COUPLINGS)) + 2 * FEATURE * _values(maps)
    return Estimate(START["torch"] + seconds, memory)


def of_fine(levels: Sequence[FineSettings], case: Case) -> Estimate:
    """The estimate for a fine registration; without time where it depends on a model that is not known."""
    seconds: float | None = START["torch"]
    memory = 0.0
    for asked in levels:
        maps = _maps(asked, case)
        memory = max(memory, _memory(case, maps))
        if seconds is None or maps is None:
            seconds = None
            continue
        seconds += 2 * FEATURE * _values(maps) + asked.maximum_number_of_iterations * _iteration(asked, case, maps)
    return Estimate(seconds, memory)


def _iteration(asked: FineSettings, case: Case, maps: Sequence[tuple[Grid, int]]) -> float:
    """Seconds of one iteration."""
    control, name, seconds = control_grid(case.fixed.grid, asked), asked.fine_optimizer, 0.0
    for grid, width in maps:
        points = prod(n / f for n, f in zip(grid.shape, lattice_factors(asked, control, grid), strict=True))
        seconds += points * (POINT[name] + CHANNEL[name] * width)
    return seconds * FLOWS[asked.fine_transform]


def _maps(settings: DenseModelSettings, case: Case) -> list[tuple[Grid, int]] | None:
    """The grid and the channels of each layer of the fixed image; None where a model does not tell its channels."""
    if not settings.uses_models:
        return [(case.fixed.grid, 1)]
    found = []
    for model in settings.fixed:
        widths = widths_of(model)
        if not widths:
            return None
        found += [(grid_for(model, case.fixed.grid), width) for width in widths]
    return found


def _values(maps: Sequence[tuple[Grid, int]] | None) -> float:
    return float(sum(prod(grid.size) * width for grid, width in maps or ()))


def _memory(case: Case, maps: Sequence[tuple[Grid, int]] | None) -> float:
    voxels = prod(case.fixed.grid.size) + prod(case.moving.grid.size)
    return PROGRAM + VOXEL * voxels + max(FIELD * prod(case.fixed.grid.size), HELD * _values(maps))
