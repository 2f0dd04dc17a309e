"""Finished registrations in folders: one that was run, and some that are made up."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from impactreg.cli import main
from impactreg.images import Image, write_image
from impactreg.parameters import ParameterMap

pytest.importorskip("jinja2", reason="the extra `report` is not installed")
pytest.importorskip("PIL", reason="the extra `report` is not installed")

MAP = """
(Registration "MultiResolutionRegistration")
(Metric "Impact")
(Transform "BSplineTransform")
(Optimizer "StandardGradientDescent")
(ImageSampler "RandomCoordinate")
(Interpolator "LinearInterpolator")
(FixedImagePyramid "FixedGenericImagePyramid")
(MovingImagePyramid "MovingGenericImagePyramid")
(NumberOfResolutions 2)
(MaximumNumberOfIterations 12)
(NumberOfSpatialSamples 200)
(FinalGridSpacingInPhysicalUnits 16)
(SP_a 200.0)
(ImpactMode "Static")
(ImpactModelsPath0 "MIND/R1D1_3D.pt")
(ImpactModelsPath1 "MIND/R1D1_3D.pt")
(ImpactVoxelSize0 3 3 3)
(ImpactVoxelSize1 2 2 2)
(ImpactPatchSize 0 0 0)
(ResultImageFormat "nii.gz")
(ResultImagePixelType "float")
"""


def ball(shape: tuple[int, ...], centre: tuple[float, ...], radius: float) -> torch.Tensor:
    """A bright ball with a soft border on noise."""
    mesh = np.meshgrid(*map(np.arange, shape), indexing="ij")
    away = np.sqrt(sum((axis - middle) ** 2 for axis, middle in zip(mesh, centre, strict=True)))
    noise = np.random.default_rng(0).normal(0, 3, shape)
    return torch.tensor(200 / (1 + np.exp(away - radius)) + noise, dtype=torch.float32)


@pytest.fixture(scope="session")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a fixed and a moving image, 24 x 20 x 18 voxels."""
    folder = tmp_path_factory.mktemp("pair")
    for name, centre in (("fixed", (9, 10, 12)), ("moving", (10, 11, 12))):
        image = Image.of(ball((18, 20, 24), centre, 6), spacing=(2, 2, 2.5), origin=(-20, -20, 30))
        write_image(image, folder / f"{name}.nii.gz")
    return folder


@pytest.fixture(scope="session")
def finished(pair: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a registration by the command line, with Impact on MIND features."""
    folder = tmp_path_factory.mktemp("run") / "out"
    parameters = folder.parent / "impact.txt"
    parameters.write_text(MAP, encoding="utf-8")
    fixed, moving = (str(pair / f"{name}.nii.gz") for name in ("fixed", "moving"))
    code = main(["-f", fixed, "-m", moving, "-p", str(parameters), "-out", str(folder), "-loglevel", "info"])
    assert code == 0
    return folder


@pytest.fixture
def made_up(tmp_path: Path) -> Callable[..., Path]:
    """Makes a folder that holds nothing but a translation between images on some grid."""

    def make(image: Image, shift: tuple[float, ...] = (1.0, 2.0, 0.0), **keys: object) -> Path:
        n, grid = image.dimension, image.grid
        content = {
            "Transform": "TranslationTransform",
            "NumberOfParameters": n,
            "TransformParameters": list(shift[:n]),
            "InitialTransformParameterFileName": "NoInitialTransform",
            "HowToCombineTransforms": "Compose",
            "FixedImageDimension": n,
            "MovingImageDimension": n,
            "Size": list(grid.size),
            "Index": [0] * n,
            "Spacing": list(grid.spacing),
            "Origin": list(grid.origin),
            "Direction": np.array(grid.direction).T.reshape(-1).tolist(),
            "UseDirectionCosines": True,
            **keys,
        }
        folder = tmp_path / "made-up"
        folder.mkdir()
        ParameterMap.from_dict(content).write(folder / "TransformParameters.0.txt")
        return folder

    return make
