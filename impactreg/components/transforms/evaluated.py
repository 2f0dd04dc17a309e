"""Transforms that files hold and the PyTorch loop does not optimise: they are evaluated, and refused before a run."""

from typing import Annotated, NoReturn, Self

from jaxtyping import Float
from pydantic import Field
from torch import Tensor

from impactreg.components.component import AnySettings
from impactreg.components.setup import Setup
from impactreg.components.transforms.transform import Mapped, Parameters, Points, SecondMoment, Transform
from impactreg.errors import ParameterError, TransformError
from impactreg.parameters import Once, Refused, Settings

_REFUSED = "this transform is read and applied here, but optimised by elastix alone: use --engine elastix"


class EvaluatedSettings(Settings):
    """Refuses the transform in a parameter file, with file and line, before anything runs."""

    transform: Annotated[str, Once] = Field("", description="Its name; not to be chosen for the PyTorch loop.")

    def check(self) -> None:
        """A parameter file that chooses it is refused."""
        if self.transform:
            raise Refused("transform", _REFUSED)


class EvaluatedPoints(Mapped):
    """Transformed points alone; to ask for derivatives to the parameters is a `TransformError`."""

    def __init__(self, points: Points, what: str) -> None:
        self.points = points
        self._what = what

    def pull_back(self, gradient: Points) -> Parameters:
        """Not possible."""
        del gradient
        self._refuse()

    def push_forward(self, direction: Parameters) -> Points:
        """Not possible."""
        del direction
        self._refuse()

    def gram(self, scales: Parameters) -> Float[Tensor, "points dim dim"]:
        """Not possible."""
        del scales
        self._refuse()

    def second_moment(self, scales: Parameters) -> SecondMoment:
        """Not possible."""
        del scales
        self._refuse()

    def squared_columns(self) -> Parameters:
        """Not possible."""
        self._refuse()

    def _refuse(self) -> NoReturn:
        raise TransformError(f"{self._what}: it can be an initial transform, but not be optimised")


class EvaluatedTransform(Transform):
    """A transform that can be read, applied, written and be an initial transform; abstract."""

    Settings = EvaluatedSettings

    @classmethod
    def begin(cls, settings: AnySettings, setup: Setup) -> Self:
        """Raises `ParameterError`: elastix alone optimises it."""
        del settings, setup
        raise ParameterError(f'(Transform "{cls.names[0] if cls.names else cls.__name__}"): {_REFUSED}')

    def at(self, points: Points) -> Mapped:
        """The transformed points, without derivatives."""
        return EvaluatedPoints(self(points), f"a {type(self).__name__} is not optimised here")
