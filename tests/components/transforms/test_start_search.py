"""A start that is searched: pairs that overlap little, are far apart or turned."""

import logging
import math

import pytest
import torch

from impactreg.components.setup import Setup
from impactreg.components.transforms.affine_forms import AffineLogTransform
from impactreg.components.transforms.linear import AffineTransform, TranslationTransform
from impactreg.components.transforms.rotating import EulerTransform, SimilarityTransform
from impactreg.errors import RegistrationError
from impactreg.images import Grid, Image, Mask, read_image, read_points
from impactreg.parameters import ParameterMap

SEARCH = {"AutomaticTransformInitialization": True, "AutomaticTransformInitializationMethod": "Search"}
BLOBS = torch.tensor([[-30, 5, 0], [22, 26, -20], [16, -28, 24], [-12, 25, 30], [4, -10, -32], [3, 6, 12]]).double()
HEIGHTS = torch.tensor([3.0, 1, 4, 1.5, 5, 2]).double()
FIXED_GRID = Grid.of((36, 38, 40), (3, 3, 3), (-52.5, -55.5, -58.5))


def rotation(*vector):
    x, y, z = (math.radians(v) for v in vector)
    return torch.linalg.matrix_exp(torch.tensor([[0, -z, y], [z, 0, -x], [-y, x, 0]]).double())


def scene(grid, turn=None, shift=(0.0, 0.0, 0.0), contrast=1.0):
    """Blobs, turned about the world's origin and moved."""
    places = BLOBS if turn is None else BLOBS @ turn.T
    apart = grid.points()[:, None] - places - torch.tensor(shift).double()
    values = (HEIGHTS * torch.sigmoid((14 - apart.norm(dim=2)) / 2)).sum(dim=1)
    return Image((100 * values**contrast).float().reshape(1, *grid.shape), grid)


def moved_grid(size, shift):
    corner = [s - 3 * (n - 1) / 2 for n, s in zip(size, shift, strict=True)]
    return Grid.of(size, (3, 3, 3), corner)


def begin(kind, fixed, moving, *masks, **keys):
    settings = kind.Settings.read(ParameterMap.from_dict({**SEARCH, **keys}), dimension=fixed.dimension)
    return kind.begin(settings, Setup(fixed, moving, *masks))


def miss(transform, turn, shift):
    """By how many millimetres the blobs are missed at most."""
    return float((transform(BLOBS) - BLOBS @ turn.T - torch.tensor(shift).double()).norm(dim=1).max())


@pytest.mark.parametrize("kind", [EulerTransform, SimilarityTransform, AffineTransform, AffineLogTransform])
def test_a_pair_far_apart_and_turned_is_found(kind):
    turn, shift = rotation(10, -20, 22), (150.0, -40.0, 20.0)
    moving = scene(moved_grid((36, 38, 40), shift), turn, shift, contrast=0.5)
    assert miss(begin(kind, scene(FIXED_GRID), moving), turn, shift) < 5


@pytest.mark.parametrize("centre", [{}, {"CenterOfRotationPoint": [40, -20, 10]}, {"ComputeZYX": "true"}])
def test_forty_per_cent_of_overlap_and_thirty_degrees_are_enough(centre, caplog):
    turn, shift = rotation(0, 0, 30), (0.0, 0.0, 0.0)
    moving = scene(moved_grid((36, 38, 16), (0, 0, -30)), turn, contrast=0.5)
    with caplog.at_level(logging.INFO):
        found = begin(EulerTransform, scene(FIXED_GRID), moving, **centre)
    assert miss(found, turn, shift) < 5
    assert "The start was searched: the centre is moved by (" in caplog.text
    assert " % of the fixed image lay in the moving image before, " in caplog.text
    if "CenterOfRotationPoint" in centre:
        assert found.centre.tolist() == [40, -20, 10]


def test_a_translation_is_searched_without_turns():
    shift = (-90.0, 30.0, 60.0)
    moving = scene(moved_grid((36, 38, 40), (-80, 40, 75)), None, shift)
    assert miss(begin(TranslationTransform, scene(FIXED_GRID), moving), torch.eye(3).double(), shift) < 5


def test_a_pair_that_lies_well_is_not_turned():
    found = begin(EulerTransform, scene(FIXED_GRID), scene(FIXED_GRID, contrast=0.5))
    assert float(found.parameters[:3].abs().max()) < 0.02
    assert float(found.parameters[3:].abs().max()) < 2


def test_flat_images_are_searched_too():
    grid = Grid.of((60, 64), (2, 2), (-59, -63))
    places = BLOBS[:, :2] * 1.5

    def flat(grid, turn, shift):
        apart = grid.points()[:, None] - places @ turn.T - torch.tensor(shift).double()
        values = (HEIGHTS * torch.sigmoid((14 - apart.norm(dim=2)) / 2)).sum(dim=1)
        return Image(values.float().reshape(1, *grid.shape), grid)

    turn, shift = rotation(0, 0, 25)[:2, :2], [70.0, -20.0]
    moved = Grid.of((60, 64), (2, 2), (15, -85))
    found = begin(EulerTransform, flat(grid, torch.eye(2).double(), [0.0, 0.0]), flat(moved, turn, shift))
    assert float((found(places) - places @ turn.T - torch.tensor(shift)).norm(dim=1).max()) < 5


def test_masks_say_what_is_compared():
    inside = torch.zeros(FIXED_GRID.shape, dtype=torch.bool)
    inside[4:-4, 4:-4, 4:-4] = True
    shift = (60.0, 60.0, 0.0)
    moving = scene(moved_grid((36, 38, 40), shift), None, shift)
    masks = Mask(inside, FIXED_GRID), Mask(inside, moving.grid)
    assert miss(begin(EulerTransform, scene(FIXED_GRID), moving, *masks), torch.eye(3).double(), shift) < 5


def test_images_without_content_cannot_be_searched():
    empty = Image(torch.zeros(1, *FIXED_GRID.shape), FIXED_GRID)
    with pytest.raises(RegistrationError, match=r'Method "Search"\): no position makes the images resemble each other'):
        begin(EulerTransform, scene(FIXED_GRID), empty)


def test_it_does_nothing_unless_it_is_asked_for():
    moving = scene(moved_grid((36, 38, 40), (150, 0, 0)), None, (150.0, 0.0, 0.0))
    found = begin(EulerTransform, scene(FIXED_GRID), moving, AutomaticTransformInitialization=False)
    assert not found.parameters.any()


def test_a_turned_transform_has_the_rotation_as_matrix():
    turn = rotation(30, -25, 40)
    for kind in (EulerTransform, SimilarityTransform, AffineTransform, AffineLogTransform):
        start = kind(kind.identity_parameters(3), torch.zeros(3).double())
        torch.testing.assert_close(start.turned(turn).matrix(), turn, rtol=0, atol=1e-9)
    with pytest.raises(RegistrationError, match="a TranslationTransform cannot start turned"):
        TranslationTransform(torch.zeros(3).double(), torch.zeros(3).double()).turned(turn)


def test_a_real_pair_moved_by_150_mm_is_found(shared):
    folder = shared / "data/brain_t1_pd"
    fixed, moving = (read_image(folder / f"{n}.nii.gz") for n in ("fixed_t1", "moving_pd_original"))
    points, silver = read_points(folder / "fixed_points.txt").points, ParameterMap.read(folder / "silver_rigid.txt")
    truth = EulerTransform.read(silver)(points) + torch.tensor([150.0, 0, 0])
    grid = moving.grid
    away = Image(
        moving.data, Grid.of(grid.size, grid.spacing, [grid.origin[0] + 150, *grid.origin[1:]], grid.direction)
    )
    found = begin(EulerTransform, fixed.to(dtype=torch.float32), away.to(dtype=torch.float32))
    assert float((found(points) - truth).norm(dim=1).mean()) < 6


def test_lungs_with_a_fixed_mask_alone_are_found(shared):
    folder = shared / "data/lung_ct"
    fixed, moving = (read_image(folder / n).to(dtype=torch.float32) for n in ("fixed_image.mha", "moving_image.nii.gz"))
    mask = Mask.of(read_image(folder / "fixed_mask.mha"), name="mask", on=fixed.grid)
    theirs, ours = (read_points(folder / f"{n}_landmarks.txt").points for n in ("moving", "fixed"))
    found = begin(AffineTransform, fixed, moving, mask)
    assert float((found(ours) - theirs).norm(dim=1).mean()) < 12
