"""The same seed gives the same parameters bit by bit, on one thread and on several."""

import pytest
import torch
from torch import nn

from impactreg.images import Image
from impactreg.parameters import ParameterMap
from impactreg.registration.case import Case
from impactreg.registration.multi_resolution import MultiMetricMultiResolutionRegistration
from impactreg.registration.results import Recorder

SHAPE = (36, 40, 38)
COMMON = {
    "Registration": "MultiMetricMultiResolutionRegistration",
    "NumberOfResolutions": 1,
    "Interpolator": "BSplineInterpolator",
    "BSplineInterpolationOrder": 3,
    "ImageSampler": "RandomCoordinate",
    # enough for PyTorch to share out every step
    "NumberOfSpatialSamples": 4000,
    "NewSamplesEveryIteration": True,
    "Transform": "BSplineTransform",
    "FinalGridSpacingInPhysicalUnits": 16,
    "Optimizer": "AdaptiveStochasticGradientDescent",
    "NumberOfGradientMeasurements": 2,
    "MaximumNumberOfIterations": 2,
    "AutomaticTransformInitialization": False,
    "AutomaticScalesEstimation": True,
    "ImpactMode": "Static",
    "ImpactModelsPath0": "MIND/R1D2_3D.pt",
    "ImpactVoxelSize0": 2,
    "WriteResultImage": False,
    "RandomSeed": 3,
}
MI, RIGID = {"Metric": "AdvancedMattesMutualInformation"}, {"Transform": "EulerTransform"}
FIXED_SAMPLES = {"ImageSampler": "Grid", "NewSamplesEveryIteration": False}
RUNS = {
    "MeanSquares": {"Metric": "AdvancedMeanSquares"},
    "NCC": {"Metric": "AdvancedNormalizedCorrelation"},
    "Mattes MI": MI,
    "NMI": {"Metric": "NormalizedMutualInformation"},
    "bending energy": {"Metric": ["AdvancedMeanSquares", "TransformBendingEnergyPenalty"]},
    "Impact L2": {"Metric": "Impact", "ImpactDistance0": "L2"},
    "Impact L1Cosine, principal components": {"Metric": "Impact", "ImpactDistance0": "L1Cosine", "ImpactPCA0": 3},
    "rigid MI": {**MI, **RIGID},
    "affine MeanSquares": {"Metric": "AdvancedMeanSquares", "Transform": "AffineTransform"},
    "every voxel": {**MI, "ImageSampler": "Full", "NewSamplesEveryIteration": False},
    "LBFGS": {"Metric": "AdvancedMeanSquares", "Optimizer": "QuasiNewtonLBFGS", **FIXED_SAMPLES},
    "conjugate gradients": {"Metric": "AdvancedMeanSquares", "Optimizer": "ConjugateGradient", **FIXED_SAMPLES},
    "recursive pyramids": {
        "Metric": "AdvancedMeanSquares",
        "FixedImagePyramid": "FixedRecursiveImagePyramid",
        "MovingImagePyramid": "MovingRecursiveImagePyramid",
        "ASGDParameterEstimationMethod": "DisplacementDistribution",
    },
    "searched start": {
        **MI,
        **RIGID,
        "AutomaticTransformInitialization": True,
        "AutomaticTransformInitializationMethod": "Search",
    },
}


@pytest.fixture(autouse=True)
def models(tmp_path_factory, monkeypatch):
    """Built-in models are made in a folder of this test run."""
    monkeypatch.setenv("IMPACTREG_CACHE", str(tmp_path_factory.getbasetemp() / "models"))


@pytest.fixture
def threads():
    """Sets the number of threads, and puts it back."""
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


def blobs(shift):
    """Smooth blobs and a little noise, which is the same in every run."""
    generator = torch.Generator().manual_seed(1)
    places = torch.rand(12, 3, generator=generator, dtype=torch.float64) * 60 + 8
    axes = [torch.arange(n, dtype=torch.float64) * 2 for n in SHAPE]
    points = torch.stack(torch.meshgrid(*axes, indexing="ij"), dim=-1) - shift
    values = sum(torch.exp(-(points - place).square().sum(dim=-1) / 200) * (i + 3) for i, place in enumerate(places))
    noise = torch.randn(SHAPE, generator=generator, dtype=torch.float64)
    return Image.of((10 * values + 0.2 * noise).float(), [2.0] * 3)


def run(**keys):
    parameters = ParameterMap.from_dict({**COMMON, **keys})
    case = Case(blobs(0.0), blobs(3.0))
    return MultiMetricMultiResolutionRegistration(parameters).run(case, None, Recorder(None, 0, parameters, case))


def metrics(result):
    return [row["2:Metric"] for level in result.iterations for row in level]


@pytest.mark.slow
@pytest.mark.parametrize("name", RUNS)
def test_the_parameters_do_not_depend_on_the_number_of_threads(name, threads):
    threads(1)
    alone = run(**RUNS[name])
    assert float(alone.transform.parameters.abs().max()) > 0
    threads(4)
    together = run(**RUNS[name])
    assert torch.equal(together.transform.parameters, alone.transform.parameters)
    assert metrics(together) == metrics(alone)


class Network(nn.Module):
    """Two convolutions as feature networks have them."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.second = nn.Conv3d(1, 16, 3, padding=1), nn.Conv3d(16, 16, 3, padding=1, stride=2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.second(torch.relu(self.first(x)))


def test_convolutions_do_not_depend_on_the_number_of_threads(threads):
    image, network, found = blobs(0.0).data[None], Network().eval(), []
    for number in (1, 2, 4):
        threads(number)
        with torch.no_grad():
            found.append(network(image))
    assert torch.equal(found[0], found[1])
    assert torch.equal(found[0], found[2])
