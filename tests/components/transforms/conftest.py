"""Transforms of every kind that files can hold."""

import numpy as np
import pytest
import torch

from impactreg.components.transforms.bspline import BSplineTransform
from impactreg.components.transforms.linear import AffineTransform, TranslationTransform
from impactreg.components.transforms.rotating import EulerTransform, SimilarityTransform
from impactreg.images import Grid

OBLIQUE = np.linalg.qr(np.random.default_rng(0).normal(size=(3, 3)))[0] * [1, 1, -1]
CENTRE = torch.tensor([3.0, 4.0, 5.0], dtype=torch.float64)


def numbers(*values):
    return torch.tensor(values, dtype=torch.float64)


def spline(order, n=3):
    """A B-spline whose valid region holds most of the points of `sample`."""
    grid = Grid.of(
        (6, 7, 8)[:n], (5, 6, 7)[:n], -OBLIQUE[:n, :n] @ [11.3, 14.7, 21.1][:n], np.linalg.qr(OBLIQUE[:n, :n])[0]
    )
    centred = Grid.of(
        grid.size, grid.spacing, np.zeros(n) - (np.array(grid.centre) - np.array(grid.origin)), grid.direction
    )
    generator = torch.Generator().manual_seed(order)
    return BSplineTransform(
        torch.randn(n * grid.number_of_voxels, generator=generator, dtype=torch.float64), centred, order
    )


TRANSFORMS = {
    "translation": TranslationTransform(numbers(4, 5, 6), CENTRE * 0),
    "translation 2D": TranslationTransform(numbers(4, 5), CENTRE[:2] * 0),
    "euler": EulerTransform(numbers(0.1, 0.2, -0.3, 4, 5, 6), CENTRE),
    "euler zyx": EulerTransform(numbers(0.1, 0.2, -0.3, 4, 5, 6), CENTRE, True),
    "euler 2D": EulerTransform(numbers(0.1, 4, 5), CENTRE[:2]),
    "similarity": SimilarityTransform(numbers(0.1, 0.2, -0.3, 4, 5, 6, 1.1), CENTRE),
    "similarity 2D": SimilarityTransform(numbers(1.1, 0.2, 4, 5), CENTRE[:2]),
    "affine": AffineTransform(numbers(1.1, 0.1, 0, -0.1, 0.9, 0.2, 0, 0.1, 1, 4, 5, 6), CENTRE),
    "affine 2D": AffineTransform(numbers(1.1, 0.1, -0.1, 0.9, 4, 5), CENTRE[:2]),
    "spline 1": spline(1),
    "spline 2": spline(2),
    "spline 3": spline(3),
    "spline 3 2D": spline(3, 2),
}


@pytest.fixture(params=TRANSFORMS)
def transform(request):
    """One transform of each kind."""
    return TRANSFORMS[request.param]


@pytest.fixture
def transforms():
    """All of them by name."""
    return TRANSFORMS


@pytest.fixture
def sample():
    """Points for a dimension, around the world's origin."""
    return lambda n: torch.randn(60, n, generator=torch.Generator().manual_seed(5), dtype=torch.float64) * 8
