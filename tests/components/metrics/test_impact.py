"""Impact: each resolution in its own mode."""

import torch
from torch import Tensor, nn

from impactreg.components.metrics.impact import MODES
from impactreg.parameters import ImpactSettings


class Pointwise(nn.Module):
    """Features that depend on each voxel alone."""

    def forward(self, x: Tensor) -> list[Tensor]:
        return [torch.cat([x, torch.sin(x)], dim=1)]


def test_there_is_a_mode_for_every_name():
    allowed = ImpactSettings.model_fields["mode"].annotation.__args__
    assert set(MODES) == set(allowed)


def test_each_resolution_has_its_own_mode(metric, network, pair, samples, transforms):
    path = network(Pointwise())
    given = {
        "ImpactMode": ["Static", "Jacobian"],
        "ImpactModelsPath0": path,
        "ImpactVoxelSize0": 1,
        "ImpactPatchSize0": 3,
        "ImpactDistance0": "NCC",
    }
    values = []
    for level, name in enumerate(given["ImpactMode"]):
        made = metric("Impact", *pair, **given)
        at_level = type(made)(type(made).Settings.read(made.scene.parameter_map, level=level), made.scene)
        assert type(at_level.mode) is MODES[name]
        values.append(at_level.evaluate(transforms["affine"], samples).value)
    # features of single voxels are the same whether they are interpolated or found at the samples
    assert abs(values[0] - values[1]) < 0.02
