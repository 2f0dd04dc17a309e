"""Dice and surface distances of labels."""

import logging

import numpy as np
import pytest
import torch

from impactreg.errors import ImageError
from impactreg.evaluation.overlap import common_labels, label_overlaps, label_values
from impactreg.images import Image


def squares(first: int, *labels: int) -> Image:
    """A square of 4 x 4 pixels of 2 mm for each label, one below the other."""
    values = torch.zeros(40, 12, dtype=torch.int16)
    for k, label in enumerate(labels):
        values[8 * k + 2 : 8 * k + 6, first : first + 4] = label
    return Image.of(values, spacing=[2.0, 2.0])


def test_a_square_moved_by_a_pixel_overlaps_by_three_quarters() -> None:
    (found,) = label_overlaps(squares(2, 7), squares(3, 7), (7,))
    assert found.label == 7
    assert found.dice == 0.75
    assert found.hd95 == 2.0
    assert 0 < found.asd < 2.0


def test_the_same_labels_lie_on_each_other() -> None:
    for found in label_overlaps(squares(2, 1, 2), squares(2, 1, 2), (1, 2)):
        assert (found.dice, found.hd95, found.asd) == (1.0, 0.0, 0.0)


def test_a_label_that_got_lost_is_infinitely_far_and_one_that_never_was_is_no_number() -> None:
    lost, never = label_overlaps(squares(2, 1), squares(2), (1, 5))
    assert (lost.dice, lost.hd95, lost.asd) == (0.0, np.inf, np.inf)
    assert np.isnan([never.dice, never.hd95, never.asd]).all()


def test_labels_of_both_images_count_and_others_are_told(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        assert common_labels(squares(2, 1, 2, 4), squares(2, 4, 2, 3)) == (2, 4)
    assert "left out: 1, 3" in caplog.text
    assert common_labels(squares(2, 1, 2), squares(2, 2, 1), [2]) == (2,)


def test_without_a_common_label_both_are_listed() -> None:
    with pytest.raises(ImageError, match=r"no label is in both .* the fixed one has 1, the moving one 2, 3"):
        common_labels(squares(2, 1), squares(2, 2, 3))
    with pytest.raises(ImageError, match="no label of 9 is in both"):
        common_labels(squares(2, 1), squares(2, 1), [9])


def test_an_image_of_other_values_is_no_label_image() -> None:
    with pytest.raises(ImageError, match=r"labels are whole numbers, but a voxel has 0.5"):
        label_values(Image.of(torch.tensor([[0.0, 0.5]])), "fixed labels")
    with pytest.raises(ImageError, match="compared on one grid"):
        label_overlaps(squares(2, 1), Image.of(torch.ones(3, 3)), (1,))
