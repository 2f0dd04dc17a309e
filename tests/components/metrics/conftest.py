"""Smooth analytic images that can be put on any grid, scenes of them, and small scripted networks."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from impactreg.components.interpolators import BSplineInterpolator
from impactreg.components.metrics.metric import Metric, Scene
from impactreg.components.samplers import RandomSampler, Samples
from impactreg.components.transforms.bspline import BSplineTransform
from impactreg.components.transforms.linear import AffineTransform, TranslationTransform
from impactreg.components.transforms.rotating import EulerTransform
from impactreg.components.transforms.transform import Combination
from impactreg.images import Grid, Image, Mask
from impactreg.models.extractor import torchscript
from impactreg.parameters import ParameterMap

CENTRE = torch.tensor([10.0, 12.0, 11.0], dtype=torch.float64)
GRID = Grid.of((12, 14, 13), (2.0, 1.8, 1.9), (-1.0, 0.5, -0.5))
CONTROL = Grid.of((6, 6, 6), (9, 9, 9), (-13, -11, -12))


class Convolutions(nn.Module):
    """Two layers of 3x3x3 convolutions, the second at every second voxel."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first = nn.Conv3d(1, 4, 3, padding=1)
        self.second = nn.Conv3d(4, 6, 3, padding=1, stride=2)

    def forward(self, x: Tensor, number: Tensor) -> list[Tensor]:
        first = torch.tanh(self.first(x))
        return [first, torch.tanh(self.second(first))]


class SmallUNet(nn.Module):
    """One level down and up again, with a field of view of 10 voxels."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.down = nn.Conv3d(1, 3, 3, padding=1)
        self.below = nn.Conv3d(3, 4, 3, padding=1)
        self.up = nn.Conv3d(7, 4, 3, padding=1)

    def forward(self, x: Tensor) -> list[Tensor]:
        first = torch.relu(self.down(x))
        second = torch.relu(self.below(nn.functional.max_pool3d(first, 2)))
        wide = nn.functional.interpolate(second, scale_factor=2.0, mode="nearest")
        return [torch.tanh(self.up(torch.cat([first, wide], dim=1)))]


class Pointwise(nn.Module):
    """Features that depend on each voxel alone."""

    def forward(self, x: Tensor) -> list[Tensor]:
        return [torch.cat([x, torch.sin(x), torch.exp(-x / 4)], dim=1)]


class Differences(nn.Module):
    """Differences to the next voxel along x, y and z, and the number of voxels along each."""

    def forward(self, x: Tensor) -> list[Tensor]:
        d = torch.zeros_like(x).repeat(1, 3, 1, 1, 1)
        d[:, 0:1, :, :, :-1] = x[:, :, :, :, 1:] - x[:, :, :, :, :-1]
        d[:, 1:2, :, :-1] = x[:, :, :, 1:] - x[:, :, :, :-1]
        d[:, 2:3, :-1] = x[:, :, 1:] - x[:, :, :-1]
        return [d]


class Colours(nn.Module):
    """Takes three channels."""

    def forward(self, x: Tensor) -> list[Tensor]:
        return [(x * torch.tensor([1.0, 2.0, 4.0]).reshape(1, 3, 1, 1, 1)).sum(dim=1, keepdim=True)]


NETWORKS = {each.__name__: each for each in (Convolutions, SmallUNet, Pointwise, Differences, Colours)}


def numbers(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


def wavy(grid: Grid, shift: float = 0.0) -> Image:
    """A smooth function of the world, moved by `shift` millimetres along x, at the voxels of a grid."""
    points = grid.points()
    x, y, z = (points[:, i % grid.dimension] - shift * (i == 0) for i in range(3))
    values = 3 + torch.sin(x / 4) + torch.cos(y / 5 + 0.3 * x / 4) + torch.sin(z / 4.5 + 1)
    return Image(values.reshape(1, *grid.shape).float(), grid)


def made_scene(fixed: Image, moving: Image, seed: int = 0, order: int = 3, **keys: object) -> Scene:
    interpolator = BSplineInterpolator(
        BSplineInterpolator.Settings.read(ParameterMap.from_dict({"BSplineInterpolationOrder": order}))
    )
    parameter_map = ParameterMap.from_dict({"ImpactMode": "Static", **keys}, "map.txt")
    return Scene(fixed, moving, interpolator, torch.Generator().manual_seed(seed), parameter_map)


@pytest.fixture
def image() -> Callable[..., Image]:
    """An image of a smooth function of the world on a grid."""
    return wavy


@pytest.fixture
def scene() -> Callable[..., Scene]:
    """A scene of two images under some parameters."""
    return made_scene


@pytest.fixture
def metric() -> Callable[..., Metric]:
    """A metric by its name, in a scene of its own."""

    def make(name: str, fixed: Image, moving: Image, *, changes: dict[str, object] | None = None, **keys: object):
        scene = made_scene(fixed, moving, **keys)
        for key, value in (changes or {}).items():
            object.__setattr__(scene, key, value)
        component = Metric.named(name)
        settings = component.Settings.read(
            scene.parameter_map, level=scene.level, label=scene.label, dimension=fixed.dimension
        )
        return component(settings, scene)

    return make


@pytest.fixture
def pair() -> tuple[Image, Image]:
    """A fixed image, and a moving one that lies 1.5 mm farther along x on another, turned grid."""
    turn = [[0.995, -0.0998, 0], [0.0998, 0.995, 0], [0, 0, 1]]
    return wavy(GRID), wavy(Grid.of((14, 13, 15), (1.9, 2.1, 1.8), (-2.0, -1.5, -1.0), turn), 1.5)


@pytest.fixture
def samples() -> Samples:
    """World points well inside the images of `pair`."""
    points = torch.rand(70, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    points = points * 14 + torch.tensor([3.0, 5.0, 4.0], dtype=torch.float64)
    return Samples(points, torch.rand(70, generator=torch.Generator().manual_seed(2), dtype=torch.float64))


@pytest.fixture
def voxels(pair: tuple[Image, Image]) -> Samples:
    """Voxels of the fixed image well inside of it."""
    fixed = pair[0]
    settings = RandomSampler.Settings.read(ParameterMap.from_dict({"NumberOfSpatialSamples": 150}))
    mask = Mask(torch.ones(fixed.grid.shape, dtype=torch.bool), fixed.grid)
    return RandomSampler(settings, fixed, mask, torch.Generator().manual_seed(5)).draw(values=False)


@pytest.fixture
def transforms() -> dict[str, Combination]:
    """A transform of each kind, all of them small."""
    noise = torch.randn(3 * CONTROL.number_of_voxels, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    return {
        "translation": Combination(TranslationTransform(numbers(0.5, -0.3, 0.2), 0 * CENTRE)),
        "euler": Combination(EulerTransform(numbers(0.05, -0.04, 0.06, 0.5, -0.3, 0.2), CENTRE)),
        "affine": Combination(
            AffineTransform(numbers(1.03, 0.02, 0, -0.01, 0.98, 0.03, 0, 0.02, 1.01, 0.5, -0.3, 0.2), CENTRE)
        ),
        "spline": Combination(BSplineTransform(noise * 0.4, CONTROL)),
    }


@pytest.fixture
def network(tmp_path: Path) -> Callable[..., str]:
    """Scripts a module, or one of `NETWORKS` by its name, and gives the path of its file."""

    def save(given: "nn.Module | str", name: str = "net.pt", dtype: torch.dtype = torch.float32) -> str:
        module = NETWORKS[given]().to(dtype) if isinstance(given, str) else given
        with torchscript():
            torch.jit.script(module.eval()).save(str(tmp_path / name))
        return str(tmp_path / name)

    return save


@pytest.fixture
def assert_slopes() -> Callable[..., None]:
    """Holds a metric's gradient against central differences of its value, along some random directions."""

    def check(metric: Metric, transform: Combination, samples: Samples, rtol: float = 2e-4, step: float = 1e-4) -> None:
        gradient = metric.evaluate(transform, samples).gradient
        generator = torch.Generator().manual_seed(6)
        for _ in range(3):
            direction = torch.randn(gradient.shape, generator=generator, dtype=torch.float64)
            # towards the gradient as well: a random direction alone is nearly orthogonal to it
            direction = direction / direction.norm() + gradient / gradient.norm()
            high, low = (
                metric.evaluate(transform.with_parameters(transform.parameters + by), samples, gradient=False).value
                for by in (step * direction, -step * direction)
            )
            assert float(gradient @ direction) == pytest.approx((high - low) / (2 * step), rel=rtol, abs=1e-7)

    return check
