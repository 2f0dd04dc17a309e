"""Distances to the nearest place of a lattice."""

import numpy as np
import pytest
from scipy.spatial import cKDTree

from impactreg.evaluation.nearest import nearest_distances


@pytest.mark.parametrize(
    ("size", "spacing", "targets"),
    [((60, 50, 70), (1.0, 2.0, 3.0), 20), ((90, 40, 30), (2.0, 1.0, 0.4), 3000), ((300, 40), (1.0, 0.5), 100)],
)
def test_distances_are_those_of_a_search_tree(
    size: tuple[int, ...], spacing: tuple[float, ...], targets: int, rng: np.random.Generator
) -> None:
    here, there = rng.integers(0, size, (2000, len(size))), rng.integers(-9, np.array(size) // 2, (targets, len(size)))
    expected = cKDTree(there * np.array(spacing)).query(here * np.array(spacing))[0]
    assert np.allclose(nearest_distances(here, there, spacing), expected, rtol=0, atol=1e-12)


def test_what_is_there_itself_is_at_no_distance(rng: np.random.Generator) -> None:
    places = rng.integers(0, 20, (50, 3))
    assert not nearest_distances(places, places, (1.0, 1.0, 1.0)).any()


def test_nothing_is_infinitely_far() -> None:
    places = np.zeros((2, 3), np.int64)
    assert nearest_distances(places, places[:0], (1.0, 1.0, 1.0)).tolist() == [np.inf, np.inf]
    assert nearest_distances(places[:0], places, (1.0, 1.0, 1.0)).size == 0
