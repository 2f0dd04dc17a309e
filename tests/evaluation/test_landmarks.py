"""Registration errors of landmarks."""

import numpy as np
import pytest
import torch

from impactreg.components.transforms.linear import TranslationTransform
from impactreg.errors import PointsError
from impactreg.evaluation.landmarks import Distances, registration_errors
from impactreg.images import PointSet


def test_the_summary_is_that_of_numpy(rng: np.random.Generator) -> None:
    values = rng.gamma(2, 3, 37)
    found = Distances(torch.from_numpy(values)).summary()
    percentiles = np.percentile(values, [50, 95, 70])
    assert found == pytest.approx(
        {
            "mean": values.mean(),
            "median": percentiles[0],
            "sd": values.std(),
            "p95": percentiles[1],
            "max": values.max(),
            "TRE30": percentiles[2],
        }
    )


def test_one_landmark_has_a_summary_too() -> None:
    assert set(Distances(torch.tensor([2.0])).summary().values()) == {2.0, 0.0}


def test_errors_are_distances_from_the_transformed_fixed_landmarks() -> None:
    fixed = PointSet(torch.tensor([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]]))
    moving = PointSet(fixed.points + torch.tensor([3.0, 4.0, 0.0]))
    assert registration_errors(fixed, moving).values.tolist() == [5.0, 5.0]
    shift = TranslationTransform(torch.tensor([3.0, 4.0, 1.0]).double(), torch.zeros(3).double())
    assert registration_errors(fixed, moving, shift).values.tolist() == [1.0, 1.0]


def test_landmarks_that_do_not_belong_together_are_refused() -> None:
    three, two = PointSet(torch.zeros(3, 3)), PointSet(torch.zeros(2, 3))
    with pytest.raises(PointsError, match="there are 3 fixed landmarks and 2 moving ones"):
        registration_errors(three, two)
    with pytest.raises(PointsError, match="3D, but the moving ones 2D"):
        registration_errors(three, PointSet(torch.zeros(3, 2)))
