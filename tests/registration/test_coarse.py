"""The coarse stage in a chain: grids of any place, warm starts, tables, files, refusals."""

from pathlib import Path

import pytest
import torch
from torch import Tensor

import impactreg
from impactreg.components.optimizers.optimizer import STOPPED
from impactreg.components.transforms.displacement import DeformationFieldTransform
from impactreg.components.transforms.files import read_transform
from impactreg.components.transforms.linear import TranslationTransform
from impactreg.components.transforms.transform import Combination
from impactreg.components.warping import warp
from impactreg.errors import ParameterError, RegistrationError
from impactreg.images import Grid, Image, Mask, read_image, write_image
from impactreg.parameters import ParameterMap
from impactreg.registration.case import Case, Iteration
from impactreg.registration.coarse import DONE, ImpactCoarseRegistration
from impactreg.registration.results import Recorder

KEYS = {
    "Registration": "ImpactCoarseRegistration",
    "ImpactGridSpacing": 3,
    "ImpactDisplacementHalfWidth": 2,
    "WriteResultImage": False,
}
OBLIQUE = [[0.0, -0.8, 0.6], [1.0, 0.0, 0.0], [0.0, 0.6, 0.8]]
FIXED = Grid.of((36, 33, 30), (2.0, 2.0, 2.0), (10.0, -20.0, 5.0), OBLIQUE)
BLOBS = torch.tensor(
    [[20.0, 20, 20], [40, 22, 25], [25, 40, 40], [45, 45, 20], [30, 30, 30], [50, 30, 45], [15, 45, 25], [35, 15, 45]],
    dtype=torch.float64,
)


def picture(grid: Grid, *shift: float) -> Image:
    """Blobs at places in the fixed image's own millimetres, moved by `shift` world millimetres, on any grid."""
    centres = torch.tensor(FIXED.origin, dtype=torch.float64) + BLOBS @ torch.tensor(OBLIQUE, dtype=torch.float64).T
    moved = grid.points() - torch.tensor(shift or (0.0, 0.0, 0.0), dtype=torch.float64)
    widths = torch.linspace(4, 8, len(BLOBS), dtype=torch.float64)
    values = (
        torch.exp(-(torch.cdist(moved, centres) ** 2) / (2 * widths**2)) @ torch.linspace(1, 2, len(BLOBS)).double()
    )
    return Image(values.reshape(1, *grid.shape).float() * 100, grid)


def along(*millimetres: float) -> Tensor:
    """A world vector of millimetres along the fixed image's own axes."""
    return torch.tensor(OBLIQUE, dtype=torch.float64) @ torch.tensor(millimetres, dtype=torch.float64)


MIDDLE = torch.tensor([FIXED.origin], dtype=torch.float64) + along(30.0, 30.0, 30.0)


def is_moved(found: Combination, by: Tensor) -> bool:
    """Whether the middle is moved so, to a sixth of a cell."""
    return bool((found(MIDDLE) - MIDDLE - by).norm() < 1.0)


def run(case: Case, initial: Combination | None = None, **keys: object) -> Combination:
    parameter_map = ParameterMap.from_dict({**KEYS, **keys})
    stage = ImpactCoarseRegistration(parameter_map)
    stage.check(case)
    return stage.run(case, initial, Recorder(None, 0, parameter_map, case)).transform


def test_a_shift_is_found_in_millimetres_whatever_the_grids_are() -> None:
    elsewhere = Grid.of((60, 50, 56), (1.5, 2.0, 1.75), (-45.0, -25.0, -15.0))
    shift = along(6.0, -6.0, 0.0)
    found = run(Case(picture(FIXED), picture(elsewhere, *shift.tolist())))
    assert is_moved(found, shift)


def test_the_result_holds_the_transform_before_and_what_the_search_adds() -> None:
    start = Combination(TranslationTransform(along(13.0, 5.0, -2.0), torch.zeros(3, dtype=torch.float64)))
    shift = along(13.0, -1.0, -2.0)
    found = run(Case(picture(FIXED), picture(FIXED, *shift.tolist())), start)
    assert found.initial is None
    assert is_moved(found, shift)


def test_an_earlier_field_is_followed_before_the_search() -> None:
    data = torch.ones(3, *FIXED.shape) * along(9.0, 3.0, 0.0)[:, None, None, None].float()
    start = Combination(DeformationFieldTransform(Image(data, FIXED)))
    shift = along(3.0, 3.0, 0.0)
    assert is_moved(run(Case(picture(FIXED), picture(FIXED, *shift.tolist())), start), shift)


def test_images_in_2d_are_registered() -> None:
    grid = Grid.of((48, 44), (2.0, 2.0))
    generator = torch.Generator().manual_seed(0)
    noise = torch.nn.functional.avg_pool2d(torch.randn(1, 1, 60, 60, generator=generator), 7, 1)[0]
    found = run(Case(Image(noise[:, 5:49, 3:51], grid), Image(noise[:, 2:46, 0:48], grid)))
    where = torch.tensor([[46.0, 42.0], [40.0, 50.0]], dtype=torch.float64)
    assert (found(where) - where - 6.0).abs().max() < 0.5


def test_masks_are_seen_where_the_transform_before_puts_them() -> None:
    start = Combination(TranslationTransform(along(12.0, 0.0, 0.0), torch.zeros(3, dtype=torch.float64)))
    shift = along(18.0, 0.0, 0.0)
    fixed, moving = picture(FIXED), picture(FIXED, *shift.tolist())
    masks = [Mask(image.scalar > 5, FIXED) for image in (fixed, moving)]
    assert is_moved(run(Case(fixed, moving, *masks), start), shift)


def test_every_pass_has_a_row_and_the_watcher_stops_the_run() -> None:
    case, parameter_map = Case(picture(FIXED), picture(FIXED, 2.0)), ParameterMap.from_dict(KEYS)
    stage = ImpactCoarseRegistration(parameter_map)
    seen: list[Iteration] = []
    whole = stage.run(case, None, Recorder(None, 0, parameter_map, case), seen.append)
    assert [row["3b:Direction"] for row in whole.iterations[0]] == ["forward"] * 7 + ["backward"] * 7
    assert (whole.stop_reasons, seen[0].of, seen[-1].number) == ((DONE,), 14, 13)
    assert set(seen[0].columns) == {"2:Metric", "3a:Coupling", "3b:Direction", "Time[ms]"}
    stopped = stage.run(case, None, Recorder(None, 0, parameter_map, case), lambda at: at.number == 2)
    assert (len(stopped.iterations[0]), stopped.stop_reasons) == (3, (STOPPED,))


def test_the_log_tells_how_much_the_field_folds(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    run(Case(picture(FIXED), picture(FIXED, 2.0)))
    assert "voxels are folded, SDlogJ" in caplog.text


def test_channels_are_chosen_at_random_by_the_seed_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("IMPACTREG_CACHE", str(tmp_path))
    case = Case(picture(FIXED), picture(FIXED, 4.0))
    keys = {"ImpactModelsPath0": "MIND/R1D2_3D.pt", "ImpactSubsetFeatures0": 3, "ImpactInverseConsistency": False}
    fields = [run(case, **keys, RandomSeed=seed).current.field.data for seed in (1, 1, 2)]  # type: ignore[attr-defined]
    assert torch.equal(fields[0], fields[1])
    assert not torch.equal(fields[0], fields[2])
    reduced = run(case, **{**keys, "ImpactSubsetFeatures0": 0, "ImpactPCA0": 4})
    assert reduced(MIDDLE).isfinite().all()


def test_the_field_is_written_for_transformix_and_read_back(tmp_path: Path) -> None:
    result = impactreg.register(
        picture(FIXED), picture(FIXED, 4.0), KEYS, output_directory=tmp_path, engine="torch", log=None
    )
    again = read_transform(tmp_path / "TransformParameters.0.txt")
    torch.testing.assert_close(again(MIDDLE), result.transform(MIDDLE))
    assert "3a:Coupling" in (tmp_path / "IterationInfo.0.R0.txt").read_text()


@pytest.mark.itk
def test_elastix_transformix_reads_the_field(tmp_path: Path) -> None:
    import itk

    moving = picture(FIXED, 4.0)
    result = impactreg.register(picture(FIXED), moving, KEYS, output_directory=tmp_path, engine="torch", log=None)
    write_image(moving, tmp_path / "moving.mha")
    parameters = itk.ParameterObject.New()
    parameters.AddParameterFile(str(tmp_path / "TransformParameters.0.txt"))
    parameters.SetParameter(0, "ResultImagePixelType", "float")
    warped = itk.transformix_filter(itk.imread(str(tmp_path / "moving.mha"), itk.F), parameters)
    itk.imwrite(warped, str(tmp_path / "warped.mha"))
    expected = warp(moving, result.transform, FIXED, order=3)
    torch.testing.assert_close(read_image(tmp_path / "warped.mha").data, expected.data, atol=0.02, rtol=0)


def test_unknown_keys_are_told_with_the_key_that_was_meant() -> None:
    stage = ImpactCoarseRegistration(ParameterMap.from_dict({**KEYS, "ImpactGridSpacng": 3}))
    assert [each.key for each in stage.unknown()] == ["ImpactGridSpacng"]


def test_another_distance_than_squares_is_refused() -> None:
    keys = {**KEYS, "ImpactModelsPath0": "MIND/R1D2_3D.pt", "ImpactDistance0": "NCC"}
    with pytest.raises(ParameterError, match=r'ImpactDistance0 "NCC"\): the coarse stage compares by squares'):
        ImpactCoarseRegistration(ParameterMap.from_dict(keys))


def test_cells_larger_than_the_image_are_refused_before_the_run() -> None:
    stage = ImpactCoarseRegistration(ParameterMap.from_dict({**KEYS, "ImpactGridSpacing": 64}))
    with pytest.raises(RegistrationError, match="smaller than a cell"):
        stage.check(Case(picture(FIXED), picture(FIXED)))
