"""The distance from each place of a lattice to the nearest of a set of others: exact, and quick where they are near.

Along the last axis the nearest target of every row is found by two sweeps, as in exact distance transforms
(Felzenszwalb and Huttenlocher 2012, Theory of Computing 8, 415-428). From there each place looks at the rows around
it, the nearest first, and stops where no row can hold a nearer target.
"""

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

Places = npt.NDArray[np.int64]
Numbers = npt.NDArray[np.float64]

AT_ONCE = 1 << 20
"""Pairs of places and rows that are looked at together."""
MOST_ROWS = 512
NONE = np.iinfo(np.int16).max
"""Stands for the distance along a row without targets."""


def nearest_distances(places: Places, targets: Places, spacing: tuple[float, ...]) -> Numbers:
    """The distance from each place [N, D] to the nearest target [M, D], both lattice indices, infinite without targets.

    `spacing` (mm) is the step along each axis. Memory is two bytes for each place of the box that holds both sets.
    """
    best = np.full(len(places), np.inf)
    if not len(places) or not len(targets):
        return best
    first = np.minimum(places.min(axis=0), targets.min(axis=0))
    size = np.maximum(places.max(axis=0), targets.max(axis=0)) - first + 1
    along = _along_rows(targets - first, size)
    here = places - first
    waiting = np.arange(len(places))
    for offsets, nearest in _rings(size, spacing):
        waiting = waiting[best[waiting] > nearest]
        if not len(waiting):
            break
        for some in np.array_split(waiting, -(-len(waiting) * len(offsets) // AT_ONCE)):
            best[some] = np.minimum(best[some], _seen(here[some], offsets, along, spacing))
    return best


def _along_rows(targets: Places, size: Places) -> npt.NDArray[np.int16]:
    """For every place of a box the steps to the nearest target in its row along the last axis."""
    there = np.zeros(tuple(size), bool)
    there[tuple(targets.T)] = True
    n = int(size[-1])
    steps = np.arange(n, dtype=np.int32)
    before = np.maximum.accumulate(np.where(there, steps, -NONE), axis=-1)
    found = np.minimum(steps - before, NONE).astype(np.int16)
    after = np.minimum.accumulate(np.where(there, steps, NONE + n)[..., ::-1], axis=-1)[..., ::-1]
    return np.minimum(found, np.minimum(after - steps, NONE).astype(np.int16))


def _rings(size: Places, spacing: tuple[float, ...]) -> Iterator[tuple[Places, float]]:
    """All steps to other rows, the nearest first and some at a time, with the distance of the first of them."""
    reach = [np.arange(-int(n) + 1, int(n)) for n in size[:-1]]
    offsets = np.stack([each.reshape(-1) for each in np.meshgrid(*reach, indexing="ij")], axis=1)
    distances = np.linalg.norm(offsets * np.array(spacing[:-1]), axis=1)
    order = np.argsort(distances, kind="stable")
    first, number = 0, 1
    while first < len(order):
        chosen = order[first : first + number]
        yield offsets[chosen], float(distances[chosen[0]])
        first, number = first + number, min(2 * number, MOST_ROWS)


def _seen(here: Places, offsets: Places, along: npt.NDArray[np.int16], spacing: tuple[float, ...]) -> Numbers:
    """The distance from each place to the nearest target in the rows that are these steps away."""
    inside = np.ones((len(here), len(offsets)), bool)
    index = []
    for axis, n in enumerate(along.shape[:-1]):
        row = here[:, axis, None] + offsets[None, :, axis]
        inside &= (row >= 0) & (row < n)
        index.append(np.clip(row, 0, n - 1))
    steps = along[(*index, here[:, -1, None])]
    squared = (steps * spacing[-1]) ** 2 + ((offsets * np.array(spacing[:-1])) ** 2).sum(axis=1)
    found: Numbers = np.sqrt(np.where(inside & (steps < NONE), squared, np.inf).min(axis=1))
    return found
