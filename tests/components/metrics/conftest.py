"""Smooth analytic images that can be put on any grid, scenes of them, and small scripted networks."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from impactreg.components.interpolators import BSplineInterpolator
from impactreg.components.metrics.metric import Metric, Scene
from impactreg.components.samplers import Samples
from impactreg.components.transforms.bspline import BSplineTransform
from impactreg.components.transforms.linear import AffineTransform, TranslationTransform
from impactreg.components.transforms.rotating import EulerTransform
from impactreg.components.transforms.transform import Combination
from impactreg.images import Grid, Image
from impactreg.models.extractor import torchscript
from impactreg.parameters import ParameterMap

CENTRE = torch.tensor([10.0, 12.0, 11.0], dtype=torch.float64)
GRID = Grid.of((12, 14, 13), (2.0, 1.8, 1.9), (-1.0, 0.5, -0.5))
CONTROL = Grid.of((6, 6, 6), (9, 9, 9), (-13, -11, -12))


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
    """Scripts a module and gives the path of its file."""

    def save(module: nn.Module, name: str = "net.pt") -> str:
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
