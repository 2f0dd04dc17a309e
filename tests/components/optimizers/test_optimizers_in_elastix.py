"""The optimizers next to elastix's own, run in the test: the same iterations on the same mean squared difference."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from impactreg.components.interpolators import Interpolant
from impactreg.components.optimizers import Evaluation, Optimizer
from impactreg.components.scales import scales_of
from impactreg.components.setup import Setup
from impactreg.components.transforms.transform import Combination, Transform
from impactreg.images.image import Image
from impactreg.parameters import ParameterMap

pytestmark = pytest.mark.itk

SPACING, ORIGIN = (1.0, 1.5), (0.3, 0.4)
DETERMINISTIC = {
    "Registration": "MultiResolutionRegistration",
    "Metric": "AdvancedMeanSquares",
    "ImageSampler": "Full",
    "Interpolator": "LinearInterpolator",
    "FixedImagePyramid": "FixedShrinkingImagePyramid",
    "MovingImagePyramid": "MovingShrinkingImagePyramid",
    "ImagePyramidSchedule": ["1", "1"],
    "NumberOfResolutions": "1",
    "MaximumNumberOfIterations": "25",
    "AutomaticScalesEstimation": "true",
    "AutomaticTransformInitialization": "false",
    "HowToCombineTransforms": "Compose",
    "FinalGridSpacingInPhysicalUnits": "12",
    "NewSamplesEveryIteration": "false",
    "WriteResultImage": "false",
}
ADAPTIVE = {"Optimizer": "AdaptiveStochasticGradientDescent"}
BY_DISPLACEMENT = {
    **ADAPTIVE,
    "ASGDParameterEstimationMethod": "DisplacementDistribution",
    "NoiseCompensation": "false",
}
# Perturbations of next to nothing make elastix's random measurements those of a single place.
BY_MOMENT = {**ADAPTIVE, "MaximumStepLength": "0.0001"}


def blob(x_shift, y_shift):
    y, x = np.mgrid[0:40, 0:50].astype(float)
    bump = 100 * np.exp(-((x - 25 - x_shift) ** 2) / 60 - (y - 20 - y_shift) ** 2 / 90)
    return (0.01 * bump + 0.2 * np.sin((x + x_shift) / 5) + 0.15 * np.cos((y + y_shift) / 6)).astype(np.float32)


FIXED, MOVING = blob(0, 0), blob(1.5, -1)


def in_elastix(keys, folder):
    """The columns of IterationInfo and the final parameters of a run of real elastix."""
    import itk

    images = [itk.image_from_array(values) for values in (FIXED, MOVING)]
    for image in images:
        image.SetSpacing(SPACING)
    images[1].SetOrigin(ORIGIN)
    parameters = itk.ParameterObject.New()
    parameters.AddParameterMap({key: [value] if isinstance(value, str) else value for key, value in keys.items()})
    run = itk.ElastixRegistrationMethod.New(*images)
    run.SetParameterObject(parameters)
    run.SetOutputDirectory(str(folder))
    run.SetLogToConsole(False)
    run.UpdateLargestPossibleRegion()
    head, *rows = [line.split("\t") for line in (folder / "IterationInfo.0.R0.txt").read_text().splitlines()]
    columns = dict(zip(head, np.array(rows, dtype=float).T, strict=True))
    final = run.GetTransformParameterObject().GetParameter(0, "TransformParameters")
    return columns, np.array([float(value) for value in final])


def in_this_package(keys):
    """The same, without elastix; the metric is written out here."""
    parameters = ParameterMap.from_dict(keys)
    fixed = Image.of(torch.from_numpy(FIXED).double(), spacing=SPACING)
    moving = Image.of(torch.from_numpy(MOVING).double(), spacing=SPACING, origin=ORIGIN)
    kind = Transform.named(keys["Transform"])
    settings = kind.Settings.read(parameters, label="Transform0", dimension=2)
    setup = Setup(fixed, moving, levels=1)
    start = kind.begin(settings, setup).at_level(0, settings, setup)
    interpolant, points, values = Interpolant.of(moving, 1), fixed.grid.points(), fixed.scalar.reshape(-1)

    def evaluate(mu):
        mapped = start.with_parameters(mu).at(points)
        counts = interpolant.inside(mapped.points)
        found = interpolant.at(mapped.points)
        difference = torch.where(counts, found.values.reshape(-1) - values, 0.0) / counts.sum()
        gradient = mapped.pull_back(found.pull_back(2 * difference[:, None]))
        return Evaluation(float(difference.square().sum() * counts.sum()), gradient)

    objective = SimpleNamespace(
        scales=scales_of(Combination(start), settings, fixed),
        level=0,
        fixed=fixed,
        fixed_full=fixed,
        moving_full=moving,
        fixed_mask=None,
        random_sampling=False,
        random_sample_region=False,
        generator=torch.Generator().manual_seed(0),
        evaluate=evaluate,
        mapped=lambda at, mu: start.with_parameters(mu).at(at),
    )
    chosen = Optimizer.named(keys["Optimizer"])
    return list(
        chosen(chosen.Settings.read(parameters, label="Optimizer0", dimension=2)).steps(objective, start.parameters)
    )


@pytest.mark.parametrize("transform", ["TranslationTransform", "EulerTransform", "AffineTransform", "BSplineTransform"])
@pytest.mark.parametrize(
    "optimizer",
    [
        pytest.param(BY_DISPLACEMENT, id="displacements"),
        pytest.param(BY_MOMENT, id="second moment"),
        pytest.param(
            {**ADAPTIVE, "AutomaticParameterEstimation": "false", "SP_a": "6000", "SigmoidScale": "0.0000003"},
            id="by hand",
        ),
        pytest.param({"Optimizer": "StandardGradientDescent", "SP_a": "300"}, id="standard"),
        pytest.param(
            {"Optimizer": "RegularStepGradientDescent", "MaximumStepLength": "1", "MinimumStepLength": "0.01"},
            id="regular",
        ),
    ],
)
def test_iterations_are_those_of_elastix(transform, optimizer, tmp_path):
    keys = {**DETERMINISTIC, **optimizer, "Transform": transform}
    if transform == "TranslationTransform" and optimizer is BY_DISPLACEMENT:
        pytest.skip("elastix takes the root of a rounding error, which may be negative")
    theirs, final = in_elastix(keys, tmp_path)
    ours = in_this_package(keys)
    assert len(ours) == len(theirs["1:ItNr"])
    assert [step.value for step in ours] == pytest.approx(theirs["2:Metric"], abs=2e-6)
    assert [step.gradient_norm for step in ours] == pytest.approx(theirs["4:||Gradient||"], abs=2e-6)
    for column in ours[0].columns:
        assert [step.columns[column] for step in ours] == pytest.approx(theirs[column], rel=2e-4, abs=2e-6)
    assert ours[-1].parameters.numpy() == pytest.approx(final, abs=1e-4)
