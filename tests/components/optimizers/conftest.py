"""A landscape to walk in: the objective of an optimizer with a known value and gradient, on a small image."""

from collections.abc import Callable, Generator
from dataclasses import dataclass, field
from typing import Any

import pytest
import torch
from torch import Tensor

from impactreg.components.optimizers import Evaluation, Step
from impactreg.components.transforms.linear import TranslationTransform
from impactreg.components.transforms.transform import Mapped, Transform
from impactreg.errors import RegistrationError
from impactreg.images.image import Image


@dataclass
class Landscape:
    """0.5 (mu - valley)' curvature (mu - valley) + slope' mu; its approximate gradients are off by `error`."""

    valley: Tensor
    curvature: Tensor
    slope: Tensor
    scales: Tensor
    error: Tensor
    transform: Transform
    fixed: Image
    moving_full: Image
    level: int = 0
    fixed_mask: None = None
    random_sampling: bool = True
    random_sample_region: bool = False
    failures: list[int] = field(default_factory=list)  # the evaluations that have too few samples
    evaluations: int = 0
    draws: int = 0
    asked_for: list[tuple[str, Tensor]] = field(default_factory=list)
    generator: torch.Generator = field(default_factory=lambda: torch.Generator().manual_seed(1))

    @property
    def fixed_full(self) -> Image:
        return self.fixed

    def gradient(self, parameters: Tensor) -> Tensor:
        return self.curvature @ (parameters - self.valley) + self.slope

    def evaluate(self, parameters: Tensor) -> Evaluation:
        self.evaluations += 1
        if self.evaluations in self.failures:
            raise RegistrationError("Too many samples map outside moving image buffer: 1 / 100")
        offset = parameters - self.valley
        value = float(0.5 * offset @ self.curvature @ offset + self.slope @ parameters)
        return Evaluation(value, self.gradient(parameters), {"Extra": value})

    def draw_samples(self) -> None:
        self.draws += 1

    def exact_gradient(self, parameters: Tensor, number_of_samples: int) -> Tensor:
        self.asked_for.append((f"exact {number_of_samples}", parameters))
        return self.gradient(parameters)

    def approximate_gradient(self, parameters: Tensor) -> Tensor:
        self.asked_for.append(("approximate", parameters))
        return self.gradient(parameters) + self.error

    def mapped(self, points: Tensor, parameters: Tensor) -> Mapped:
        return self.transform.with_parameters(parameters).at(points)


@pytest.fixture
def landscape() -> Callable[..., Landscape]:
    """Makes a landscape of as many parameters as `transform` has; what is not said is a round bowl around zero."""

    def make(**said: Any) -> Landscape:
        transform = said.pop("transform", TranslationTransform(torch.zeros(2).double(), torch.zeros(2).double()))
        n = transform.parameters.numel()
        numbers = {
            "valley": torch.zeros(n),
            "curvature": torch.eye(n),
            "slope": torch.zeros(n),
            "scales": torch.ones(n),
            "error": torch.zeros(n),
        }
        for key in numbers:
            numbers[key] = torch.as_tensor(said.pop(key, numbers[key]), dtype=torch.float64)
        if numbers["curvature"].ndim == 1:
            numbers["curvature"] = torch.diag(numbers["curvature"])
        images = {
            "fixed": Image.of(torch.zeros(6, 8), spacing=(1.0, 2.0)),
            "moving_full": Image.of(torch.zeros(6, 8), spacing=(3.0, 4.0)),
        }
        return Landscape(transform=transform, **numbers, **{**images, **said})

    return make


@pytest.fixture
def finish() -> Callable[[Generator[Step, None, str]], tuple[list[Step], str]]:
    """All steps of an optimizer, and the reason to stop that it returns."""

    def run(steps: Generator[Step, None, str]) -> tuple[list[Step], str]:
        taken = []
        while True:
            try:
                taken.append(next(steps))
            except StopIteration as end:
                return taken, end.value

    return run
