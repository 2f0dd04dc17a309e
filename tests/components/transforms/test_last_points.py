"""What is remembered about the last points, and when it is found anew."""

import copy
import pickle

import pytest
import torch

from impactreg.components.transforms.last_points import MOST_POINTS, LastPoints
from impactreg.components.transforms.transform import Combination


@pytest.fixture
def counted():
    """A function that doubles points, and the list of all that it was asked."""
    asked = []

    def double(points):
        asked.append(points)
        return 2 * points

    return double, asked


def test_the_same_points_are_looked_at_once(counted):
    double, asked = counted
    last, points = LastPoints(), torch.ones(4, 3)
    first = last.of(points, "key", double)
    assert last.of(points[:], "key", double) is first
    assert len(asked) == 1


def test_other_points_and_other_keys_are_looked_at_again(counted):
    double, asked = counted
    last, points = LastPoints(), torch.ones(4, 3)
    last.of(points, "key", double)
    last.of(points.clone(), "key", double)
    last.of(points[:2], "key", double)
    last.of(points[:2], "other", double)
    assert len(asked) == 4


def test_very_many_points_are_not_kept(counted):
    double, asked = counted
    last, points = LastPoints(), torch.ones(MOST_POINTS + 1, 1)
    last.of(points, "key", double)
    last.of(points, "key", double)
    assert len(asked) == 2


def test_points_that_are_differentiated_are_always_looked_at(counted):
    double, asked = counted
    last, points = LastPoints(), torch.ones(4, 3)
    last.of(points, "key", double)
    there = points.detach().requires_grad_()
    assert last.of(there, "key", double).requires_grad
    assert last.of(there, "key", double).requires_grad
    assert len(asked) == 3


def test_copies_remember_nothing(counted):
    double, asked = counted
    last, points = LastPoints(), torch.ones(4, 3)
    last.of(points, "key", double)
    for other in (copy.deepcopy(last), pickle.loads(pickle.dumps(last))):
        other.of(points, "key", double)
    assert len(asked) == 3


def test_a_spline_moves_the_same_points_by_its_new_parameters(transforms, sample):
    spline, points = transforms["spline 3"], sample(3)
    chain = Combination(spline, transforms["affine"])
    before = chain(points)
    moved = chain.with_parameters(2 * spline.parameters)(points)
    fresh = Combination(copy.deepcopy(spline).with_parameters(2 * spline.parameters), transforms["affine"])
    assert not torch.equal(moved, before)
    assert torch.equal(moved, fresh(points.clone()))
