from __future__ import annotations

import base64
import io

import numpy as np
import pytest
import torch
from PIL import Image as Picture

from impactreg.components.transforms.linear import AffineTransform
from impactreg.components.transforms.transform import Combination
from impactreg.images import Grid, Image
from impactreg.report.deformation import Deformation
from impactreg.report.figures import Images, grid_step, pictures
from impactreg.report.planes import planes_of

GRID = Grid.of((16, 14, 12), (2, 2, 2))


def scaled(factor: float) -> Deformation:
    parameters = torch.tensor([factor, 0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0], dtype=torch.float64)
    transform = Combination(AffineTransform(parameters, torch.tensor(GRID.centre, dtype=torch.float64)))
    return Deformation.of(transform, planes_of(GRID))


def values(told: dict) -> np.ndarray:
    return np.asarray(Picture.open(io.BytesIO(base64.b64decode(told["uri"].partition(",")[2]))))


@pytest.mark.parametrize(("factor", "grey"), [(1.0, 128), (2.0, 192), (0.5, 64), (0.01, 1), (-1.0, 0)])
def test_the_determinant_is_told_in_octaves_and_folding_is_zero(factor: float, grey: int) -> None:
    found, _ = pictures(scaled(factor), None, [])
    assert abs(int(np.median(values(found[0]["jacobian"]))) - grey) <= 1


def test_displacement_is_told_to_the_right_and_down() -> None:
    found, _ = pictures(scaled(1.5), None, [])
    axial = values(found[0]["field"])[:14, :16].astype(float)
    right = (axial[..., 0] - 127.5) / 127.5 * found[0]["field"]["range"]
    expected = (np.arange(16) - 7.5) * 2 * 0.5
    np.testing.assert_allclose(right, np.tile(expected, (14, 1)), atol=0.1)
    assert np.abs(axial[..., 1] - 127.5).max() <= 0.5


def test_the_result_is_made_from_the_transform_where_there_is_none() -> None:
    image = Image(torch.rand(1, 12, 14, 16), GRID)
    found, size = pictures(scaled(1.0), Images(image, image, None), [])
    assert size < 200_000
    for plane in found:
        np.testing.assert_allclose(
            values(plane["images"]["result"]).astype(float), values(plane["images"]["fixed"]).astype(float), atol=20
        )


def test_grid_lines_are_round_numbers_apart() -> None:
    assert grid_step(scaled(1.0)) == 2
