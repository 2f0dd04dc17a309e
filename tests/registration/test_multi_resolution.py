"""The loop: reference runs of Impact, known shifts found, tables, levels, stopping."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from impactreg.components.optimizers.optimizer import STOPPED
from impactreg.components.transforms.linear import TranslationTransform
from impactreg.components.transforms.transform import Combination
from impactreg.errors import ParameterError, RegistrationError
from impactreg.images import Grid, Image, Mask
from impactreg.images.files import read_image
from impactreg.models.extractor import torchscript
from impactreg.parameters import ParameterMap
from impactreg.registration.case import Case
from impactreg.registration.multi_resolution import MultiMetricMultiResolutionRegistration
from impactreg.registration.results import Recorder

BLOBS = torch.tensor(
    [[-22, 0, 0], [18, 16, -10], [12, -20, 12], [-8, 18, 14], [0, -6, -20], [2, 4, 8]], dtype=torch.float64
)
WIDTHS = torch.tensor([11.0, 9.0, 10.0, 8.0, 9.0, 6.0], dtype=torch.float64)
CENTRED = Grid.of((32, 30, 28), (3, 3, 3), (-46.5, -43.5, -40.5))
EULER = {"Transform": "EulerTransform", "Scales": 1000}
KEYS = {
    "Registration": "MultiResolutionRegistration",
    "NumberOfResolutions": 1,
    "Interpolator": "LinearInterpolator",
    "ImageSampler": "RandomCoordinate",
    "NumberOfSpatialSamples": 300,
    "NewSamplesEveryIteration": True,
    "Metric": "AdvancedMeanSquares",
    "Transform": "TranslationTransform",
    "Optimizer": "StandardGradientDescent",
    "AutomaticTransformInitialization": False,
    "MaximumNumberOfIterations": 3,
    "SP_a": 0.05,
    "SP_A": 20,
    "SP_alpha": 0.602,
    "ImpactMode": "Static",
    "ImpactModelsPath0": "MIND/R1D2_3D.pt",
    "ImpactVoxelSize0": 3,
    "WriteResultImage": False,
}
STATIC = [
    *(f"Static_{distance}_translation" for distance in ("L1", "L2", "NCC", "DotProduct", "Dice")),
    *(f"Static_{distance}_bspline" for distance in ("L1", "L2", "L2_pca3", "NCC", "DotProduct", "Dice")),
]


@pytest.fixture(autouse=True)
def models(tmp_path_factory, monkeypatch):
    """Built-in models are made in a folder of this test run."""
    monkeypatch.setenv("IMPACTREG_CACHE", str(tmp_path_factory.getbasetemp() / "models"))


def blobs(grid, *shift):
    """Blobs with edges, moved by `shift` millimetres, on any grid."""
    points = grid.points()[:, None] - BLOBS[:, : grid.dimension] - torch.tensor(shift or [0.0] * grid.dimension)
    values = 100 * torch.sigmoid((WIDTHS - points.norm(dim=2)) / 1.5)
    return Image(
        (values * torch.tensor([1.0, 0.7, 0.5, 0.8, 0.6, -0.6])).sum(dim=1).reshape(1, *grid.shape).float(), grid
    )


def run(fixed, moving, initial=None, watch=None, seed=None, masks=(None, None), **keys):
    parameters = ParameterMap.from_dict({**KEYS, **keys}, "map.txt")
    case = Case(fixed, moving, *masks, seed=seed)
    return MultiMetricMultiResolutionRegistration(parameters).run(
        case, initial, Recorder(None, 0, parameters, case), watch
    )


def shift(*by):
    return Combination(TranslationTransform(torch.tensor(by, dtype=torch.float64), torch.zeros(len(by)).double()))


def moved(result, at=(0.0, 0.0, 0.0)):
    """Where the whole chain takes a point to, as a displacement."""
    points = torch.tensor([at], dtype=torch.float64)
    return (result.transform(points) - points)[0]


@pytest.mark.parametrize("case", STATIC)
def test_static_impact_follows_the_reference(shared, case):
    root = shared / "reference/impact_elastix"
    parameters = ParameterMap.read(root / case / "map.txt")
    parameters = parameters.replace(ImpactModelsPath0=str(root / "inputs/toy_2_layers.pt"))
    images = (read_image(root / f"inputs/{name}.mha").to(dtype=torch.float32) for name in ("fixed", "moving"))
    given = Case(*images)
    seen = []

    class Kept(Recorder):
        def iteration(self, level, number, columns, transform):
            seen.append(transform.parameters)

    result = MultiMetricMultiResolutionRegistration(parameters).run(given, None, Kept(None, 0, parameters, given))
    rows = (root / case / "IterationInfo.0.R0.txt").read_text(encoding="utf-8").splitlines()[1:]
    expected = [float(row.split("\t")[1]) for row in rows]
    assert [row["2:Metric"] for row in result.iterations[0]] == pytest.approx(expected, rel=1e-4)
    for number, found in enumerate(seen):
        file = ParameterMap.read(root / case / f"TransformParameters.0.R0.It{number:07d}.txt")
        theirs = torch.tensor(file.numbers("TransformParameters")).double()
        torch.testing.assert_close(found, theirs, rtol=0, atol=1e-3 * float(theirs.abs().max()))


# A known shift, which the reference loses as soon as its transform is not the identity at the start of a resolution.

FIND = {
    "Metric": "Impact",
    "Optimizer": "RegularStepGradientDescent",
    "MaximumStepLength": 4.0,
    "MinimumStepLength": 0.02,
    "MaximumNumberOfIterations": 25,
    "ImageSampler": "Grid",
    "SampleGridSpacing": [3] * 6,
    "NewSamplesEveryIteration": False,
}


@pytest.mark.parametrize(
    ("levels", "initial", "interval"),
    [(2, None, -1), (1, None, 20), (1, (6.0, 0.0, 0.0), -1), (2, (6.0, 0.0, 0.0), -1)],
)
def test_a_known_shift_of_12_mm_is_found(levels, initial, interval):
    found = run(
        blobs(CENTRED),
        blobs(CENTRED, 12.0, 0.0, 0.0),
        initial and shift(*initial),
        NumberOfResolutions=levels,
        ImpactFeaturesMapUpdateInterval=interval,
        **FIND,
    )
    assert moved(found).tolist() == pytest.approx([12, 0, 0], abs=0.3)


TURN = torch.tensor([[0.8, -0.6, 0.0], [0.48, 0.64, -0.6], [0.36, 0.48, 0.8]]).double().numpy()
OBLIQUE = Grid.of(CENTRED.size, CENTRED.spacing, TURN @ CENTRED.origin, TURN)


class Pointwise(nn.Module):
    """Features that turn with the image, which those of MIND do not."""

    def forward(self, x: Tensor) -> list[Tensor]:
        return [torch.cat([x / 50, torch.sin(x / 20)], dim=1)]


@pytest.mark.parametrize("moving", [CENTRED, OBLIQUE])
@pytest.mark.parametrize("fixed", [CENTRED, OBLIQUE])
def test_oblique_images_lead_to_the_transform_of_upright_ones(tmp_path, fixed, moving):
    with torchscript():
        torch.jit.script(Pointwise().eval()).save(str(tmp_path / "net.pt"))
    model = {"ImpactModelsPath0": str(tmp_path / "net.pt")}
    found = run(blobs(fixed), blobs(moving, 7.0, -4.0, 3.0), NumberOfResolutions=2, **{**FIND, **model})
    assert moved(found).tolist() == pytest.approx([7, -4, 3], abs=0.15)


def test_mind_finds_a_shift_between_oblique_images():
    found = run(blobs(OBLIQUE), blobs(OBLIQUE, 7.0, -4.0, 3.0), NumberOfResolutions=2, **FIND)
    assert moved(found).tolist() == pytest.approx([7, -4, 3], abs=0.3)


# The loop itself.

FLAT = Grid.of((30, 26), (3, 3), (-43.5, -37.5))


def flat_pair():
    return blobs(FLAT), blobs(FLAT, 3.0, -2.0)


def test_every_iteration_has_a_row_and_every_resolution_a_table_and_a_reason():
    result = run(*flat_pair(), NumberOfResolutions=3, MaximumNumberOfIterations=[4, 2, 3])
    assert [len(rows) for rows in result.iterations] == [4, 2, 3]
    assert set(result.iterations[0][0]) == {"2:Metric", "3:StepSize", "4:||Gradient||", "Time[ms]"}
    assert result.stop_reasons == ("Maximum number of iterations has been reached",) * 3


def test_the_value_falls():
    result = run(*flat_pair(), ImageSampler="Full", MaximumNumberOfIterations=15, SP_a=0.02)
    values = [row["2:Metric"] for row in result.iterations[0]]
    assert values[-1] < 0.7 * values[0]


def test_the_watcher_sees_every_iteration_in_order():
    seen = []
    run(*flat_pair(), watch=seen.append, NumberOfResolutions=2, MaximumNumberOfIterations=2)
    assert [(i.stage, i.level, i.levels, i.number, i.of) for i in seen] == [
        (0, 0, 2, 0, 2),
        (0, 0, 2, 1, 2),
        (0, 1, 2, 0, 2),
        (0, 1, 2, 1, 2),
    ]
    assert all(i.columns["2:Metric"] > 0 for i in seen)


def test_the_watcher_stops_the_run_with_the_transform_so_far():
    stopped = run(*flat_pair(), watch=lambda i: i.level == 1, NumberOfResolutions=3)
    assert [len(rows) for rows in stopped.iterations] == [3, 1]
    assert stopped.stop_reasons[-1] == STOPPED
    assert bool((stopped.transform.parameters != 0).any())


def test_a_watcher_that_returns_something_else_than_true_stops_nothing():
    assert len(run(*flat_pair(), watch=lambda _: "yes").iterations[0]) == 3


def test_the_seed_of_the_case_replaces_that_of_the_map():
    plain = run(*flat_pair(), RandomSeed=5).transform.parameters
    assert torch.equal(run(*flat_pair(), RandomSeed=5).transform.parameters, plain)
    assert torch.equal(run(*flat_pair(), seed=5, RandomSeed=9).transform.parameters, plain)
    assert not torch.equal(run(*flat_pair(), seed=9, RandomSeed=5).transform.parameters, plain)


def test_the_initial_transform_is_composed_or_added():
    initial = shift(2.0, 1.0)
    composed, added = (
        run(*flat_pair(), initial, HowToCombineTransforms=how, **EULER).transform for how in ("Compose", "Add")
    )
    points = FLAT.points()
    assert composed.compose
    assert torch.allclose(composed(points), composed.current(initial(points)))
    assert not added.compose
    assert torch.allclose(added(points), added.current(points) + points.new_tensor([2.0, 1.0]))


@pytest.mark.parametrize(("how", "expected"), [("Compose", 3.0), ("Add", 0.0)])
def test_control_points_lie_where_a_composed_initial_transform_takes_the_image(how, expected):
    keys = {"Transform": "BSplineTransform", "FinalGridSpacingInPhysicalUnits": 10, "HowToCombineTransforms": how}
    found = run(*flat_pair(), shift(3.0, 0.0), **keys).transform.current
    assert found.grid.centre == pytest.approx((expected, 0))


def test_a_spline_is_refined_from_resolution_to_resolution():
    grids = []
    keys = {"Transform": "BSplineTransform", "FinalGridSpacingInPhysicalUnits": 10, "SP_a": 1}

    class Kept(Recorder):
        def level_done(self, level, transform):
            grids.append(transform.current.grid.spacing)

    parameters = ParameterMap.from_dict({**KEYS, "NumberOfResolutions": 3, **keys})
    case = Case(*flat_pair())
    MultiMetricMultiResolutionRegistration(parameters).run(case, None, Kept(None, 0, parameters, case))
    assert grids == [(40, 40), (20, 20), (10, 10)]


def test_several_metrics_are_weighted_and_told_apart():
    keys = {"Registration": "MultiMetricMultiResolutionRegistration", "Metric": ["AdvancedMeanSquares"] * 2}
    weights = {"Metric0Weight": 0.25, "Metric1Weight": 2}
    row = run(*flat_pair(), **keys, **weights).iterations[0][0]
    assert row["2:Metric"] == pytest.approx(0.25 * row["2:Metric0"] + 2 * row["2:Metric1"])
    assert row["2:Metric0"] == pytest.approx(row["2:Metric1"])
    assert row["4:||Gradient||"] == pytest.approx(2.25 * row["4:||Gradient0||"])


def test_impact_beside_mean_squares_finds_the_shift():
    both = {**FIND, "Registration": "MultiMetricMultiResolutionRegistration"}
    both["Metric"] = ["Impact", "AdvancedMeanSquares"]
    found = run(blobs(CENTRED), blobs(CENTRED, 6.0, 0.0, 0.0), Metric0Weight=1, Metric1Weight=1e-5, **both)
    assert moved(found).tolist() == pytest.approx([6, 0, 0], abs=0.4)


def test_masks_are_eroded_where_the_map_asks():
    fixed, moving = flat_pair()
    inside = torch.zeros(FLAT.shape, dtype=torch.bool)
    inside[4:-4, 4:-4] = True
    mask = Mask(inside, FLAT)
    keys = {"ImageSampler": "Full", "NumberOfResolutions": 2, "MaximumNumberOfIterations": 1, "SP_a": 0}
    keys |= {f"{side}ImagePyramid": f"{side}ShrinkingImagePyramid" for side in ("Fixed", "Moving")}
    whole, eroded = (
        run(fixed, moving, masks=(mask, None), ErodeMask=erode, **keys).iterations[1][0]["2:Metric"]
        for erode in (False, True)
    )
    points = FLAT.points()
    difference = (moving.data - fixed.data).double().flatten() ** 2
    for found, kept in ((whole, mask), (eroded, mask.eroded((1.0, 1.0), moving=False))):
        assert found == pytest.approx(float(difference[kept.contains(points)].mean()), rel=1e-5)


def test_without_direction_cosines_grids_lie_along_the_axes():
    turn = [[0.8, -0.6], [0.6, 0.8]]
    fixed, moving = (Image(i.data, replace(i.grid, direction=tuple(map(tuple, turn)))) for i in flat_pair())
    ignored = run(fixed, moving, UseDirectionCosines=False)
    assert torch.equal(ignored.transform.parameters, run(*flat_pair()).transform.parameters)
    assert not torch.equal(run(fixed, moving).transform.parameters, ignored.transform.parameters)


def test_images_that_do_not_overlap_are_told():
    far = blobs(Grid.of((30, 26), (3, 3), (1000, 1000)))
    with pytest.raises(RegistrationError, match="Too many samples map outside moving image buffer"):
        run(blobs(FLAT), far)


def test_a_wrong_value_of_a_later_resolution_names_its_place():
    with pytest.raises(ParameterError, match="NumberOfSpatialSamples"):
        run(*flat_pair(), NumberOfResolutions=2, NumberOfSpatialSamples=[100, "many"])
