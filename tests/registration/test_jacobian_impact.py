"""Registrations by Impact in Jacobian mode: the reference's trajectories, known shifts, modes that change."""

import pytest
import torch
from torch import Tensor, nn

from impactreg.images import Grid, Image
from impactreg.images.files import read_image
from impactreg.models.extractor import torchscript
from impactreg.parameters import ParameterMap
from impactreg.registration.case import Case
from impactreg.registration.multi_resolution import MultiMetricMultiResolutionRegistration
from impactreg.registration.results import Recorder

# Of Cosine and L1Cosine the reference's own gradients are wrong.
DISTANCES = ("L1", "L2", "NCC", "DotProduct", "Dice")
CENTRES = torch.tensor([[-22, 0, 0], [18, 16, -10], [12, -20, 12], [-8, 18, 14], [0, -6, -20]], dtype=torch.float64)
GRID = Grid.of((26, 24, 22), (3, 3, 3), (-37.5, -34.5, -31.5))
KEYS = {
    "Registration": "MultiResolutionRegistration",
    "NumberOfResolutions": 2,
    "FixedImagePyramid": "FixedSmoothingImagePyramid",
    "MovingImagePyramid": "MovingSmoothingImagePyramid",
    "Interpolator": "LinearInterpolator",
    "ImageSampler": "RandomCoordinate",
    "NumberOfSpatialSamples": 200,
    "NewSamplesEveryIteration": True,
    "Metric": "Impact",
    "ImpactMode": "Jacobian",
    "ImpactVoxelSize0": 4,
    "ImpactVoxelSize1": 2.5,
    "ImpactPatchSize0": 5,
    "ImpactDistance0": "L2",
    "Transform": "TranslationTransform",
    "Optimizer": "RegularStepGradientDescent",
    "MaximumNumberOfIterations": 25,
    "MaximumStepLength": 3.0,
    "MinimumStepLength": 0.05,
    "AutomaticTransformInitialization": False,
    "AutomaticScalesEstimation": False,
    "RequiredRatioOfValidSamples": 0.05,
    "WriteResultImage": False,
}


class Net(nn.Module):
    """One layer of convolutions."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first = nn.Conv3d(1, 6, 3, padding=1)

    def forward(self, x: Tensor) -> list[Tensor]:
        return [torch.tanh(self.first(x / 50))]


@pytest.fixture
def model(tmp_path):
    with torchscript():
        torch.jit.script(Net().eval()).save(str(tmp_path / "net.pt"))
    return str(tmp_path / "net.pt")


def blobs(*shift):
    points = GRID.points()[:, None] - CENTRES - torch.tensor(shift or [0.0] * 3)
    values = 100 * torch.sigmoid((10 - points.norm(dim=2)) / 1.5)
    return Image(values.sum(dim=1).reshape(1, *GRID.shape).float(), GRID)


def run(fixed, moving, seed=1, recorder=Recorder, **keys):
    parameters = ParameterMap.from_dict({**KEYS, **keys}, "map.txt")
    case = Case(fixed, moving, seed=seed)
    return MultiMetricMultiResolutionRegistration(parameters).run(case, None, recorder(None, 0, parameters, case))


def displacement(result):
    points = torch.zeros(1, 3, dtype=torch.float64)
    return (result.transform(points) - points)[0]


@pytest.mark.parametrize("distance", DISTANCES)
def test_a_translation_follows_the_reference_from_iteration_to_iteration(shared, distance):
    root = shared / "reference/impact_elastix"
    folder = root / f"Jacobian_{distance}_translation"
    parameters = ParameterMap.read(folder / "map.txt").replace(ImpactModelsPath0=str(root / "inputs/toy_2_layers.pt"))
    case = Case(*(read_image(root / f"inputs/{name}.mha").to(dtype=torch.float32) for name in ("fixed", "moving")))
    seen = []

    class Kept(Recorder):
        def iteration(self, level, number, columns, transform):
            seen.append(transform.parameters)

    result = MultiMetricMultiResolutionRegistration(parameters).run(case, None, Kept(None, 0, parameters, case))
    rows = (folder / "IterationInfo.0.R0.txt").read_text(encoding="utf-8").splitlines()[1:]
    expected = [float(row.split("\t")[1]) for row in rows]
    assert [row["2:Metric"] for row in result.iterations[0]] == pytest.approx(expected, rel=1e-4)
    for number, found in enumerate(seen):
        file = ParameterMap.read(folder / f"TransformParameters.0.R0.It{number:07d}.txt")
        theirs = torch.tensor(file.numbers("TransformParameters")).double()
        torch.testing.assert_close(found, theirs, rtol=0, atol=2e-3 * float(theirs.abs().max()))


@pytest.mark.parametrize("modes", [["Jacobian"], ["Static", "Jacobian"], ["Jacobian", "Static"]])
def test_a_known_shift_is_found_over_two_resolutions_in_any_mode(model, modes):
    result = run(
        blobs(), blobs(6, -4, 3), ImpactModelsPath0=model, ImpactMode=modes, ImpactFeaturesMapUpdateInterval=-1
    )
    torch.testing.assert_close(displacement(result), torch.tensor([6.0, -4, 3]).double(), rtol=0, atol=0.5)


def test_the_same_seed_gives_the_same_registration(model):
    keys = {"ImpactModelsPath0": model, "MaximumNumberOfIterations": 3}
    first, again, other = (run(blobs(), blobs(6, -4, 3), seed, **keys).transform.parameters for seed in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_planes_of_a_2d_model_find_a_shift_of_3d_images(tmp_path):
    class Flat(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(0)
            self.first = nn.Conv2d(1, 6, 3, padding=1)

        def forward(self, x: Tensor) -> list[Tensor]:
            return [torch.tanh(self.first(x / 50))]

    with torchscript():
        torch.jit.script(Flat().eval()).save(str(tmp_path / "flat.pt"))
    keys = {"ImpactModelsPath0": str(tmp_path / "flat.pt"), "ImpactDimension0": 2}
    result = run(blobs(), blobs(6, -4, 3), **keys)
    torch.testing.assert_close(displacement(result), torch.tensor([6.0, -4, 3]).double(), rtol=0, atol=0.7)
