"""Small smooth image pairs, and runs of real elastix to compare with."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from impactreg.components.transforms.transform import Combination, Transform
from impactreg.images import Image
from impactreg.images.files import to_itk
from impactreg.images.points import write_points
from impactreg.parameters import ParameterMap
from impactreg.registration.multi_resolution import MultiMetricMultiResolutionRegistration
from impactreg.registration.preparation import Inputs, make_case
from impactreg.registration.results import Recorder

PLAIN = {
    "FixedInternalImagePixelType": "float",
    "MovingInternalImagePixelType": "float",
    "Registration": "MultiResolutionRegistration",
    "NumberOfResolutions": 1,
    "FixedImagePyramid": "FixedSmoothingImagePyramid",
    "MovingImagePyramid": "MovingSmoothingImagePyramid",
    "Interpolator": "BSplineInterpolator",
    "BSplineInterpolationOrder": 3,
    "ResampleInterpolator": "FinalBSplineInterpolator",
    "Resampler": "DefaultResampler",
    "ImageSampler": "Full",
    "Metric": "AdvancedMeanSquares",
    "Optimizer": "StandardGradientDescent",
    "SP_a": 0.05,
    "SP_A": 20,
    "SP_alpha": 0.602,
    "MaximumNumberOfIterations": 3,
    "AutomaticParameterEstimation": False,
    "AutomaticScalesEstimation": False,
    "AutomaticTransformInitialization": False,
    "NewSamplesEveryIteration": False,
    "RequiredRatioOfValidSamples": 0.05,
    "WriteIterationInfo": True,
    "WriteResultImage": False,
}


@dataclass(frozen=True)
class Run:
    """What a run leaves for comparison: its table of iterations and its stop reason per resolution, and the last
    parameters.
    """

    rows: list[list[dict[str, float | str]]]
    reasons: list[str]
    parameters: np.ndarray

    @property
    def metric(self) -> list[list[float]]:
        return [[float(row["2:Metric"]) for row in rows] for rows in self.rows]

    @property
    def gradient(self) -> list[list[float]]:
        return [[float(row["4:||Gradient||"]) for row in rows] for rows in self.rows]


def smooth_values(shape: tuple[int, ...], seed: int) -> np.ndarray:
    random = np.random.default_rng(seed)
    total = np.zeros(shape)
    for _ in range(6):
        term = np.ones(shape)
        for axis, n in enumerate(shape):
            wave = np.cos(2 * np.pi * random.uniform(0.5, 2.5) * np.linspace(0, 1, n) + random.uniform(0, 6.28))
            term = term * wave.reshape([-1 if a == axis else 1 for a in range(len(shape))])
        total += term
    return (total * 50 + 100).astype(np.float32)


def turned(dimension: int, *angles: float) -> np.ndarray:
    direction = np.eye(dimension)
    for plane, angle in zip(((0, 1), (1, 2)), angles, strict=False):
        turn = np.eye(dimension)
        turn[np.ix_(plane, plane)] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
        direction = direction @ turn
    return direction


def pair(dimension: int, angle: float = 0.0, seed: int = 1) -> tuple[Image, Image]:
    """Two images on different grids, the moving one turned a little more where `angle` (radians) is not zero."""
    fixed_size, moving_size = ((34, 30), (31, 37)) if dimension == 2 else ((20, 24, 22), (23, 21, 25))
    direction = turned(dimension, *([angle, 0.2][: dimension - 1] if angle else ()))
    other = direction @ turned(dimension, -0.1) if angle else direction
    fixed = Image.of(
        smooth_values(fixed_size, seed), [1.5, 1.25, 2.0][:dimension], [5.3, -7.1, 3.2][:dimension], direction
    )
    moving = Image.of(
        smooth_values(moving_size, seed + 1), [1.4, 1.6, 1.9][:dimension], [4.2, -8.3, 2.9][:dimension], other
    )
    return fixed, moving


def box_mask(image: Image, low: int, high: int) -> Image:
    inside = torch.zeros(image.grid.shape, dtype=torch.uint8)
    inside[tuple(slice(n // low, n - n // high) for n in image.grid.shape)] = 1
    return image.with_data(inside[None])


@dataclass(frozen=True)
class Given:
    """What is registered: images, masks and landmarks, as many as a run has."""

    fixed: list[Image]
    moving: list[Image]
    fixed_masks: list[Image]
    moving_masks: list[Image]
    points: tuple[torch.Tensor, torch.Tensor] | None = None


def run_elastix(given: Given, parameter_map: ParameterMap, initial: Mapping[str, Any] | None, folder: Path) -> Run:
    import itk

    images = [[to_itk(i) for i in several] for several in (given.fixed, given.moving)]
    method = itk.ElastixRegistrationMethod[type(images[0][0]), type(images[1][0])].New()
    for add, several in zip((method.AddFixedImage, method.AddMovingImage), images, strict=True):
        for image in several:
            add(image)
    for add, masks in ((method.AddFixedMask, given.fixed_masks), (method.AddMovingMask, given.moving_masks)):
        for mask in masks:
            add(to_itk(mask))
    if given.points:
        for side, points in zip(("fixed", "moving"), given.points, strict=True):
            write_points(points, folder / f"{side}.txt")
        method.SetFixedPointSetFileName(str(folder / "fixed.txt"))
        method.SetMovingPointSetFileName(str(folder / "moving.txt"))
    method.SetParameterObject(_to_itk(itk, parameter_map))
    method.SetOutputDirectory(str(folder))
    method.SetLogToConsole(False)
    method.SetLogToFile(True)
    if initial:
        method.SetInitialTransformParameterObject(_to_itk(itk, ParameterMap.from_dict(initial)))
    method.UpdateLargestPossibleRegion()
    levels = range(int(parameter_map.first("NumberOfResolutions")))
    tables = [(folder / f"IterationInfo.0.R{level}.txt").read_text() for level in levels]
    reasons = re.findall(r"^Stopping condition: (.*)\.$", (folder / "elastix.log").read_text(), re.MULTILINE)
    result = ParameterMap.read(folder / "TransformParameters.0.txt")
    return Run([_rows(table) for table in tables], reasons, np.array(result.numbers("TransformParameters")))


def _rows(table: str) -> list[dict[str, float | str]]:
    if not table:
        return []
    columns, *lines = [line.split("\t") for line in table.splitlines()]
    return [{name: _cell(text) for name, text in zip(columns[1:], line[1:], strict=True)} for line in lines]


def _cell(text: str) -> float | str:
    try:
        return float(text)
    except ValueError:
        return text


def run_torch(given: Given, parameter_map: ParameterMap, initial: Mapping[str, Any] | None) -> Run:
    inputs = Inputs(
        given.fixed, given.moving, given.fixed_masks or None, given.moving_masks or None, *(given.points or ())
    )
    case = make_case(inputs, [parameter_map], torch.device("cpu"), None, ())
    start = None
    if initial:
        start = Combination(Transform.named(str(initial["Transform"])).read(ParameterMap.from_dict(initial)))
    result = MultiMetricMultiResolutionRegistration(parameter_map).run(
        case, start, Recorder(None, 0, parameter_map, case)
    )
    rows = [[dict(row) for row in rows] for rows in result.iterations]
    return Run(rows, list(result.stop_reasons), result.transform.parameters.numpy())


def _to_itk(itk: Any, parameter_map: ParameterMap) -> Any:
    parameter_object = itk.ParameterObject.New()
    parameter_object.AddParameterMap({key: list(values) for key, values in parameter_map.items()})
    return parameter_object


Both = Callable[..., tuple[Run, Run]]


@pytest.fixture
def both(tmp_path: Path) -> Both:
    """The same registration by real elastix and by the PyTorch loop."""

    def run(
        dimension: int = 3,
        *,
        angle: float = 0.0,
        images: int = 1,
        fixed_mask: bool | int = False,
        moving_mask: bool | int = False,
        points: tuple[torch.Tensor, torch.Tensor] | None = None,
        initial: Mapping[str, Any] | None = None,
        **changes: object,
    ) -> tuple[Run, Run]:
        pairs = [pair(dimension, angle, seed=1 + 2 * i) for i in range(images)]
        fixed, moving = (list(several) for several in zip(*pairs, strict=True))
        given = Given(
            fixed,
            moving,
            [box_mask(fixed[0], 5 - i, 4 + i) for i in range(int(fixed_mask))],
            [box_mask(moving[0], 6 + i, 7 - i) for i in range(int(moving_mask))],
            points,
        )
        parameter_map = ParameterMap.from_dict({**PLAIN, **changes})
        return run_elastix(given, parameter_map, initial, tmp_path), run_torch(given, parameter_map, initial)

    return run
