"""Maps with the content of the five published IMPACT parameter maps run as they are, but for the path of the models."""

from itertools import pairwise

import pytest
import torch
from torch import Tensor, nn

import impactreg
from impactreg.images import Grid, Image
from impactreg.models.extractor import torchscript
from impactreg.parameters import ParameterMap

GRID = Grid.of((32, 31, 30), (5.0, 5.0, 5.0))
COMMON = {
    "FixedInternalImagePixelType": "float",
    "MovingInternalImagePixelType": "float",
    "UseDirectionCosines": "true",
    "Registration": "MultiMetricMultiResolutionRegistration",
    "FixedImagePyramid": "FixedGenericImagePyramid",
    "MovingImagePyramid": "MovingGenericImagePyramid",
    "Interpolator": "BSplineInterpolator",
    "BSplineInterpolationOrder": 3,
    "Metric": "Impact",
    "Optimizer": "AdaptiveStochasticGradientDescent",
    "ASGDParameterEstimationMethod": "DisplacementDistribution",
    "Transform": "RecursiveBSplineTransform",
    "FinalGridSpacingInPhysicalUnits": 8,
    "HowToCombineTransforms": "Compose",
    "ImageSampler": "RandomCoordinate",
    "NewSamplesEveryIteration": "true",
    "ResampleInterpolator": "FinalBSplineInterpolator",
    "Resampler": "DefaultResampler",
    "DefaultPixelValue": 0,
    "ITKTransformOutputFileNameExtension": "itk.txt",
    "WriteITKCompositeTransform": "true",
    "WriteResultImage": "false",
    "RequiredRatioOfValidSamples": 0.05,
    "ImpactGPU": -1,
    "ImpactUseMixedPrecision": "true",
    # what is published is 2,000 samples and 500 iterations, and as many samples for the step as elastix takes
    "NumberOfSpatialSamples": 40,
    "NumberOfSamplesForExactGradient": 60,
    "NumberOfGradientMeasurements": 1,
    "NumberOfJacobianMeasurements": 50,
    "MaximumNumberOfIterations": 2,
}


class Volumes(nn.Module):
    """Stands in for TS/M730_2_Layers: layers of 3D convolutions, each with a channel more than the one before."""

    def __init__(self, layers: int) -> None:
        super().__init__()
        torch.manual_seed(0)
        widths = [1, *(2 + n for n in range(layers))]
        self.steps = nn.ModuleList(nn.Conv3d(a, b, 3, padding=1) for a, b in pairwise(widths))

    def forward(self, x: Tensor, number: Tensor, statistics: Tensor, direction: Tensor) -> list[Tensor]:
        x = (x - statistics[2]) / statistics[3]
        found: list[Tensor] = []
        for step in self.steps:
            x = torch.tanh(step(x))
            found.append(x)
        return found[: int(number)]


class Planes(nn.Module):
    """Stands in for SAM2.1 tiny: a 2D model of three channels that sees every fourth pixel."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.step = nn.Conv2d(3, 6, 7, padding=3, stride=4)

    def forward(self, x: Tensor, number: Tensor, statistics: Tensor) -> list[Tensor]:
        return [torch.tanh(self.step((x - statistics[0]) / (statistics[1] - statistics[0])))]


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    (folder / "TS").mkdir()
    (folder / "SAM2.1").mkdir()
    with torchscript():
        for path, module in (
            ("TS/M730_2_Layers.pt", Volumes(2)),
            ("TS/M730_8_Layers.pt", Volumes(8)),
            ("SAM2.1/Tiny.pt", Planes()),
        ):
            torch.jit.script(module.eval()).save(str(folder / path))
    return folder


def levels(count, **keys):
    """The pyramids of so many resolutions, and keys whose values are one of each resolution."""
    ones = [1] * 3 * count
    suffixed = {f"{key}{level}": value for key, values in keys.items() for level, value in enumerate(values)}
    return {
        "NumberOfResolutions": count,
        "ImagePyramidRescaleSchedule": ones,
        "ImagePyramidSmoothingSchedule": ones,
        **suffixed,
    }


VOXELS = [[v] * 3 for v in (6, 3, 1.5, 1)]
TS = "/Data/Models/TS/M730_2_Layers.pt"
SAM = "/Data/Models/SAM2.1/Tiny.pt"
MAPS = {
    "Recommended": levels(
        4,
        ImpactModelsPath=[TS] * 4,
        ImpactDimension=[3] * 4,
        ImpactNumberOfChannels=[1] * 4,
        ImpactPatchSize=[[11, 11, 11]] * 4,
        ImpactVoxelSize=VOXELS,
        ImpactLayersMask=["01"] * 4,
        ImpactSubsetFeatures=[64] * 4,
        ImpactPCA=[0] * 4,
        ImpactLayersWeight=[1.0] * 4,
        ImpactDistance=["L2"] * 4,
    )
    | {"ImpactMode": "Jacobian"},
    "Static": levels(
        2,
        ImpactModelsPath=[TS] * 2,
        ImpactPatchSize=[[0, 0, 0]] * 2,
        ImpactVoxelSize=VOXELS[:2],
        ImpactLayersMask=["01"] * 2,
        ImpactSubsetFeatures=[64] * 2,
        ImpactDistance=["L2"] * 2,
    )
    | {"ImpactMode": "Static", "ImpactFeaturesMapUpdateInterval": -1, "ImpactWriteFeatureMaps": "false"},
    "Jacobian": levels(
        2,
        ImpactModelsPath=[TS] * 2,
        ImpactPatchSize=[[11, 11, 11]] * 2,
        ImpactVoxelSize=VOXELS[:2],
        ImpactLayersMask=["01"] * 2,
        ImpactSubsetFeatures=[64] * 2,
        ImpactDistance=["L2"] * 2,
    )
    | {"ImpactMode": "Jacobian"},
    "SAM": levels(
        2,
        ImpactModelsPath=[SAM] * 2,
        ImpactDimension=[2] * 2,
        ImpactNumberOfChannels=[3] * 2,
        ImpactPatchSize=[[29, 29]] * 2,
        ImpactVoxelSize=[[1.5, 1.5], [1, 1]],
        ImpactLayersMask=["1"] * 2,
        ImpactSubsetFeatures=[64] * 2,
        ImpactDistance=["L2"] * 2,
    )
    | {"ImpactMode": "Jacobian"},
    "AllOptions": levels(
        2,
        ImpactModelsPath=["/Data/Models/TS/M730_8_Layers.pt", [SAM, TS]],
        ImpactDimension=[3, [2, 3]],
        ImpactNumberOfChannels=[1, [3, 1]],
        ImpactPatchSize=[[11, 11, 11], [29, 29, 11, 11, 11]],
        ImpactVoxelSize=[[3, 3, 3], [1.5, 1.5, 1.5, 1.5, 1.5]],
        ImpactLayersMask=["00000001", ["1", "01"]],
        ImpactSubsetFeatures=[64, [64, 64]],
        ImpactPCA=[0, [0, 0]],
        ImpactLayersWeight=[1.0, [1.0, 1.0]],
        ImpactDistance=["Dice", ["L2", "L2"]],
    )
    | {"ImpactMode": ["Jacobian", "Jacobian"]},
}


def wavy(shift):
    x, y, z = (GRID.points()[:, axis] - shift for axis in range(3))
    values = 100 * (torch.sin(x / 14) + torch.cos(y / 12 + x / 22) + torch.sin(z / 16))
    return Image(values.reshape(1, *GRID.shape).float(), GRID)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", MAPS)
def test_a_published_map_runs_with_stand_in_models(name, models):
    parameter_map = ParameterMap.from_dict({**COMMON, **MAPS[name]}, f"{name}.txt")
    result = impactreg.register(wavy(0), wavy(1.0), parameter_map, models=[models], device="cpu", seed=1)
    rows = result.iterations[0]
    assert [len(level) for level in rows] == [2] * len(rows)
    assert len(rows) == MAPS[name]["NumberOfResolutions"]
    assert all(torch.isfinite(torch.tensor(row["2:Metric"])) for level in rows for row in level)
