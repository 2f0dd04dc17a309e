"""Small smooth image pairs, and runs of real elastix to compare with."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from impactreg.components.transforms.transform import Combination, Transform
from impactreg.images import Image, Mask
from impactreg.images.files import to_itk
from impactreg.parameters import ParameterMap
from impactreg.registration import multi_resolution
from impactreg.registration.case import Case
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
    """What a run leaves for comparison: metric and gradient length per resolution and iteration, and the last
    parameters.
    """

    metric: list[list[float]]
    gradient: list[list[float]]
    parameters: np.ndarray


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


def pair(dimension: int, angle: float = 0.0) -> tuple[Image, Image]:
    """Two images on different grids, the moving one turned a little more where `angle` (radians) is not zero."""
    fixed_size, moving_size = ((34, 30), (31, 37)) if dimension == 2 else ((20, 24, 22), (23, 21, 25))
    direction = turned(dimension, *([angle, 0.2][: dimension - 1] if angle else ()))
    other = direction @ turned(dimension, -0.1) if angle else direction
    fixed = Image.of(
        smooth_values(fixed_size, 1), [1.5, 1.25, 2.0][:dimension], [5.3, -7.1, 3.2][:dimension], direction
    )
    moving = Image.of(smooth_values(moving_size, 2), [1.4, 1.6, 1.9][:dimension], [4.2, -8.3, 2.9][:dimension], other)
    return fixed, moving


def box_mask(image: Image, low: int, high: int) -> Image:
    inside = torch.zeros(image.grid.shape, dtype=torch.uint8)
    inside[tuple(slice(n // low, n - n // high) for n in image.grid.shape)] = 1
    return image.with_data(inside[None])


def run_elastix(
    images: tuple[Image, Image],
    masks: tuple[Image | None, Image | None],
    parameter_map: ParameterMap,
    initial: Mapping[str, Any] | None,
    folder: Path,
) -> Run:
    import itk

    fixed, moving = map(to_itk, images)
    method = itk.ElastixRegistrationMethod[type(fixed), type(moving)].New(FixedImage=fixed, MovingImage=moving)
    method.SetParameterObject(_to_itk(itk, parameter_map))
    method.SetOutputDirectory(str(folder))
    method.SetLogToConsole(False)
    if masks[0]:
        method.SetFixedMask(to_itk(masks[0]))
    if masks[1]:
        method.SetMovingMask(to_itk(masks[1]))
    if initial:
        method.SetInitialTransformParameterObject(_to_itk(itk, ParameterMap.from_dict(initial)))
    method.UpdateLargestPossibleRegion()
    metric, gradient = [], []
    for level in range(int(parameter_map.first("NumberOfResolutions"))):
        lines = (folder / f"IterationInfo.0.R{level}.txt").read_text().splitlines()
        columns = lines[0].split("\t")
        rows = [dict(zip(columns, map(float, line.split("\t")), strict=True)) for line in lines[1:]]
        metric.append([r["2:Metric"] for r in rows])
        gradient.append([r["4:||Gradient||"] for r in rows])
    result = ParameterMap.read(folder / "TransformParameters.0.txt")
    return Run(metric, gradient, np.array(result.numbers("TransformParameters")))


def run_torch(
    images: tuple[Image, Image],
    masks: tuple[Image | None, Image | None],
    parameter_map: ParameterMap,
    initial: Mapping[str, Any] | None,
) -> Run:
    fixed_mask, moving_mask = (m and Mask.of(m) for m in masks)
    case = Case(*images, fixed_mask, moving_mask)
    start = None
    if initial:
        start = Combination(Transform.named(str(initial["Transform"])).read(ParameterMap.from_dict(initial)))
    result = multi_resolution.run(case, parameter_map, start, Recorder(None, 0, parameter_map, case))
    metric = [[row["2:Metric"] for row in rows] for rows in result.iterations]
    gradient = [[row["4:||Gradient||"] for row in rows] for rows in result.iterations]
    return Run(metric, gradient, result.transform.parameters.numpy())


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
        fixed_mask: bool = False,
        moving_mask: bool = False,
        initial: Mapping[str, Any] | None = None,
        **changes: object,
    ) -> tuple[Run, Run]:
        images = pair(dimension, angle)
        masks = (box_mask(images[0], 5, 4) if fixed_mask else None, box_mask(images[1], 6, 7) if moving_mask else None)
        parameter_map = ParameterMap.from_dict({**PLAIN, **changes})
        return run_elastix(images, masks, parameter_map, initial, tmp_path), run_torch(
            images, masks, parameter_map, initial
        )

    return run
