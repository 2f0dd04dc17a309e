"""Features of the fixed image are computed for all voxels once as much was spent on samples, and then looked up."""

import math

import pytest
import torch
from torch import nn

from impactreg.components.metrics import fixed_features
from impactreg.images import Grid, Image, Mask

GRID = Grid.of((12, 14, 13), (2.0, 1.8, 1.9), (-1.0, 0.5, -0.5))
KEYS = {
    "ImpactMode": "Jacobian",
    "ImpactPatchSize": [5, 5, 5],
    "ImpactVoxelSize": [2.0, 1.8, 1.9],
    "ImpactLayersMask": "11",
}


class Net(nn.Module):
    """Two convolutions of 3 x 3 x 3, each a layer."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.second = nn.Conv3d(1, 2, 3, padding=1), nn.Conv3d(2, 3, 3, padding=1)

    def forward(self, x):
        x = torch.tanh(self.first(x))
        return [x, torch.tanh(self.second(x))]


@pytest.fixture
def mode(metric, network, image):
    def make(evaluation="Dense", mask=None, **keys):
        fixed = image(GRID)
        made = metric(
            "Impact",
            fixed,
            image(GRID, 1.0),
            changes={"fixed_mask": mask},
            ImpactModelsPath=network(Net()),
            ImpactEvaluation=evaluation,
            **{**KEYS, **keys},
        )
        return made.mode

    return make


def voxels(count=300, seed=0):
    generator = torch.Generator().manual_seed(seed)
    index = torch.stack([torch.randint(n, (count,), generator=generator) for n in GRID.size], dim=1)
    return GRID.index_to_world(index.double())


def at(mode, points):
    with torch.no_grad():
        return mode._fixed_features[0].at(points, None)


def spent(mode):
    return mode._fixed_features[0]._spent


def test_features_of_all_voxels_are_those_of_patches(mode):
    dense, patches = mode("Dense"), mode("Patches")
    for seed in range(12):
        for found, known in zip(at(dense, voxels(seed=seed)), at(patches, voxels(seed=seed)), strict=True):
            torch.testing.assert_close(found, known, rtol=1e-4, atol=1e-5)
    assert dense._fixed_features[0]._kept is not None
    assert patches._fixed_features[0]._kept is None


def test_nothing_is_shown_to_the_model_any_more_once_all_is_known(mode):
    dense = mode("Dense")
    while dense._fixed_features[0]._kept is None:
        at(dense, voxels())
    before = spent(dense)
    at(dense, voxels(seed=5))
    assert spent(dense) == before


def test_as_much_is_spent_before_as_all_voxels_cost(mode):
    dense = mode("Dense")
    features = dense._fixed_features[0]
    while features._kept is None:
        at(dense, voxels(40))
        cost = features._cost(voxels(1))
        assert spent(dense) <= cost + 40 * 125
    assert spent(dense) >= cost


def test_points_between_voxels_are_not_looked_up(mode):
    given = mode("Auto")
    for seed in range(12):
        at(given, voxels(seed=seed))
    features = given._fixed_features[0]
    points = voxels(20) + torch.tensor([0.3, 0.0, 0.0])
    before = spent(given)
    at(given, points)
    assert spent(given) > before
    assert features._kept is not None


def test_voxels_outside_the_mask_are_found_by_patches(mode):
    inside = torch.zeros(1, *GRID.shape)
    inside[:, :, :, :6] = 1
    dense, patches = mode("Dense", mask=Mask.of(Image(inside, GRID))), mode("Patches")
    some = GRID.index_to_world(torch.tensor([[2.0, 3.0, 4.0], [5.0, 9.0, 7.0]], dtype=torch.float64))
    while dense._fixed_features[0]._kept is None:
        at(dense, voxels())
    before = spent(dense)
    at(dense, some)
    assert spent(dense) == before
    found, known = at(dense, voxels(seed=3)), at(patches, voxels(seed=3))
    assert spent(dense) > before
    for one, other in zip(found, known, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)


def test_large_images_are_not_kept(mode, monkeypatch):
    monkeypatch.setattr(fixed_features, "MOST_NUMBERS", 1000)
    dense = mode("Dense")
    for seed in range(12):
        at(dense, voxels(seed=seed))
    assert dense._fixed_features[0]._kept is None
    assert dense._fixed_features[0]._cost(voxels(1)) == math.inf


@pytest.mark.parametrize("side", [5, 64])
def test_blocks_hold_every_voxel_once(monkeypatch, side):
    monkeypatch.setattr(fixed_features, "BLOCK", side)
    index = torch.cat(list(fixed_features._blocks(GRID, voxels(1))))
    places = fixed_features._raster(GRID, index.long())
    assert sorted(places.tolist()) == list(range(GRID.number_of_voxels))
