"""Distances between surfaces, against figures that DeepMind's surface-distance 0.1 gave for the same regions."""

from importlib import import_module
from typing import Any

import numpy as np
import pytest

from impactreg.evaluation.surfaces import SurfaceDistances, surface

Region = np.ndarray[Any, np.dtype[np.bool_]]


def regions(dimension: int) -> tuple[Region, Region]:
    """Two ellipsoids that overlap, the second with a splinter elsewhere."""
    if dimension == 2:
        y, x = np.indices((40, 50)).astype(float)
        one, other = ((y - 20) / 9) ** 2 + ((x - 22) / 12) ** 2, ((y - 22.2) / 11) ** 2 + ((x - 25.4) / 8) ** 2
        return one < 1, (other < 1) | ((y > 33) & (x < 5))
    z, y, x = np.indices((26, 30, 34)).astype(float)
    one = ((z - 12) / 8) ** 2 + ((y - 14) / 9) ** 2 + ((x - 15) / 11) ** 2
    other = ((z - 13.3) / 7) ** 2 + ((y - 15.1) / 10) ** 2 + ((x - 17.2) / 9) ** 2
    return one < 1, (other < 1) | ((abs(z - 20) < 3) & (abs(y - 4) < 2) & (abs(x - 28) < 4))


# spacing: the percentiles 95, 50 and 100, the mean distance over both surfaces, and the area of the first
PUBLISHED = {
    (2.5, 1.25, 0.8): (
        10.212247548899311,
        1.484082207965583,
        15.937455882291879,
        1.9023814184871548,
        2342.189739569093,
    ),
    (1.0, 1.0, 1.0): (8.18535277187245, 1.0, 12.206555615733702, 1.5534026742994118, 1173.9949312312062),
    (1.5, 0.7): (18.84303584882224, 3.8078865529319543, 20.343549346168675, 4.246828998282698, 71.21647978594308),
}


@pytest.mark.parametrize("spacing", PUBLISHED)
def test_figures_are_those_of_surface_distance(spacing: tuple[float, ...]) -> None:
    found = SurfaceDistances.between(*regions(len(spacing)), spacing)
    figures = *(found.percentile(percent) for percent in (95, 50, 100)), found.mean(), found.fixed_areas.sum()
    assert figures == pytest.approx(PUBLISHED[spacing], rel=1e-9)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_every_pair_of_random_regions_is_as_surface_distance_has_it(rng: np.random.Generator) -> None:
    pytest.importorskip("surface_distance", reason="surface-distance is not installed")
    library: Any = import_module("surface_distance")
    for spacing in ((1.0, 1.0, 1.0), (0.7, 1.9, 3.0), (1.2, 0.5)):
        one, other = rng.random((2, *(14,) * len(spacing))) > 0.6
        theirs = library.compute_surface_distances(one, other, spacing)
        found = SurfaceDistances.between(one, other, spacing)
        assert found.percentile(95) == pytest.approx(library.compute_robust_hausdorff(theirs, 95), abs=1e-9)


def test_a_ball_has_about_the_area_of_a_ball() -> None:
    z, y, x = np.indices((50, 50, 50)) - 25.0
    _, areas = surface(z**2 + y**2 + x**2 < 20**2, (1.0, 1.0, 1.0))
    assert areas.sum() == pytest.approx(4 * np.pi * 20**2, rel=0.1)


def test_a_box_that_is_moved_is_that_far_away() -> None:
    box = np.zeros((20, 20, 20), bool)
    box[5:10, 5:10, 5:10] = True
    found = SurfaceDistances.between(box, np.roll(box, 3, axis=0), (2.0, 1.0, 1.0))
    assert found.percentile(100) == 6.0


def test_a_region_at_the_border_is_closed_there() -> None:
    everything = np.ones((4, 5, 6), bool)
    places, areas = surface(everything, (1.0, 1.0, 1.0))
    assert places.min() == 0
    assert places.max(axis=0).tolist() == [4, 5, 6]
    assert areas.sum() > 0


def test_a_region_of_nothing_is_infinitely_far() -> None:
    region, _ = regions(3)
    found = SurfaceDistances.between(region, region & False, (1.0, 1.0, 1.0))
    assert found.percentile(95) == np.inf
    assert found.mean() == np.inf
