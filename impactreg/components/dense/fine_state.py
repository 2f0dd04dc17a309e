"""How far a fine registration has come: its iterations as they are told, and the state from which it can go on."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from impactreg.components.dense.descent import Adam, GaussNewton
from impactreg.components.dense.fine_settings import FineSettings

Field = Float[Tensor, "dim *space"]


@dataclass(frozen=True)
class Iterate:
    """One iteration: the distance and the regularization at its start, the length of the gradient, the rate of the
    step, and the seconds it took.
    """

    level: int
    number: int
    distance: float
    regularization: float
    gradient: float
    rate: float
    seconds: float

    @property
    def value(self) -> float:
        """What is minimised."""
        return self.distance + self.regularization


@dataclass(eq=False)
class State:
    """All that a run needs to go on: the resolution, the control points, the optimizer and what is random.

    `reference` are the control points for which the moving features were last taken from the warped image, and
    `scales` what the terms are multiplied by, for `(ImpactLossScale "Start")`.
    """

    level: int
    iteration: int
    parameters: Field
    optimizer: Adam | GaussNewton
    reference: Tensor | None = None
    values: list[float] = field(default_factory=list)
    scales: tuple[float, ...] = ()

    def kept(self) -> dict[str, Any]:
        """All of it as tensors and numbers, which `torch.load` reads with `weights_only`."""
        optimizer = self.optimizer
        moments = [optimizer.done, optimizer.mean, optimizer.square] if isinstance(optimizer, Adam) else []
        return {
            "level": self.level,
            "iteration": self.iteration,
            "parameters": self.parameters,
            "moments": moments,
            "reference": self.reference,
            "values": list(self.values),
            "scales": list(self.scales),
        }

    @classmethod
    def of(cls, kept: Mapping[str, Any], settings: Sequence[FineSettings], device: torch.device) -> "State":
        """The state that `kept` has been made from, with the settings of all resolutions."""
        parameters, reference = kept["parameters"].to(device), kept["reference"]
        optimizer = optimizer_of(settings[kept["level"]])
        if isinstance(optimizer, Adam) and kept["moments"]:
            done, mean, square = kept["moments"]
            optimizer.done, optimizer.mean, optimizer.square = done, mean.to(device), square.to(device)
        return cls(
            kept["level"],
            kept["iteration"],
            parameters,
            optimizer,
            None if reference is None else reference.to(device),
            list(kept["values"]),
            tuple(kept.get("scales", ())),
        )


def optimizer_of(asked: FineSettings) -> Adam | GaussNewton:
    """The optimizer of a resolution before its first step."""
    if asked.fine_optimizer == "Adam":
        return Adam(asked.learning_rate, asked.maximum_number_of_iterations, asked.final_learning_rate)
    return GaussNewton(asked.maximum_step, asked.conjugate_gradient_iterations)
