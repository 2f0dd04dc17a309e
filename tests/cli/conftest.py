"""A small pair of image files, and parameter files that run on it in no time."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from impactreg.images import Image, write_image
from impactreg.parameters import ParameterMap

QUICK: dict[str, object] = {
    "Registration": "MultiResolutionRegistration",
    "Metric": "AdvancedMeanSquares",
    "Transform": "TranslationTransform",
    "Optimizer": "StandardGradientDescent",
    "ImageSampler": "Full",
    "Interpolator": "LinearInterpolator",
    "NumberOfResolutions": 2,
    "MaximumNumberOfIterations": 3,
    "SP_a": 0.01,
    "ResultImageFormat": "nii.gz",
    "ResultImagePixelType": "float",
}


def draw(dimension: int = 2, shift: float = 0.0) -> Image:
    index = np.meshgrid(*[np.arange(20.0)] * dimension, indexing="ij")
    squares = sum((axis - 9 - shift) ** 2 for axis in index)
    return Image.of((100 * np.exp(-np.asarray(squares) / 30)).astype(np.float32))


@pytest.fixture
def blob() -> Callable[..., Image]:
    """Makes an image of one round spot, `shift` millimetres from its middle along each axis."""
    return draw


@pytest.fixture
def pair(tmp_path: Path) -> tuple[str, str]:
    """Paths of a fixed and a moving image of 20 x 20 pixels."""
    fixed, moving = tmp_path / "fixed.nii.gz", tmp_path / "moving.nii.gz"
    write_image(draw(), fixed)
    write_image(draw(shift=1.5), moving)
    return str(fixed), str(moving)


@pytest.fixture
def write_map(tmp_path: Path) -> Callable[..., Path]:
    """Writes `map.txt`, or a file of another name, with some keys changed."""

    def write(name: str = "map.txt", **changes: object) -> Path:
        ParameterMap.from_dict({**QUICK, **changes}).write(tmp_path / name)
        return tmp_path / name

    return write
