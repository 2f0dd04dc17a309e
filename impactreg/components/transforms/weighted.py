"""Weighted combinations of transforms that were found before: a statistical model whose parameters are the weights."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Self, cast

import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor

from impactreg.components.component import AnySettings
from impactreg.components.setup import Setup
from impactreg.components.transforms.files import read_transform
from impactreg.components.transforms.linear import DenseMapped
from impactreg.components.transforms.reading import existing_file, parameters_of
from impactreg.components.transforms.transform import Combination, Mapped, Parameters, Points, Transform
from impactreg.errors import ParameterError, TransformError
from impactreg.parameters import Once, ParameterMap, Settings, WholeList


class WeightedCombinationSettings(Settings):
    """What `WeightedCombinationTransform` reads."""

    sub_transforms: Annotated[tuple[str, ...], WholeList] = Field(
        (), description="The TransformParameters files of the transforms that are combined."
    )
    normalize_combination_weights: Annotated[bool, Once] = Field(
        False, description="Whether the weights are divided by their sum; they start at 1 / number then, else at 0."
    )
    scales: Annotated[tuple[float, ...], WholeList] = Field(
        (), description="Squared scales, one for each weight; default 1."
    )
    automatic_scales_estimation: Annotated[bool, Once] = Field(
        False, description="Whether to estimate the scales from the Jacobian at the start."
    )


@dataclass(frozen=True, eq=False)
class WeightedCombinationTransform(Transform, name="WeightedCombinationTransform"):
    """T(x) = x + sum of w (S(x) - x) over sub-transforms S, or sum of w S(x) / sum of w when `normalized`.

    (`itk::WeightedCombinationTransform`.) `files` are those of the sub-transforms, in their order. Raises
    `TransformError` for weights that cannot be normalised, and where there is not one for each sub-transform.
    """

    Settings = WeightedCombinationSettings

    parameters: Parameters
    members: tuple[Combination, ...]
    files: tuple[str, ...]
    normalized: bool = False

    def __post_init__(self) -> None:
        if len({member.dimension for member in self.members}) != 1 or len(self.members) != self.parameters.numel():
            raise TransformError("a weighted combination needs sub-transforms of one dimension, with a weight each")
        if self.normalized and abs(float(self.parameters.sum())) < 1e-10:
            raise TransformError("the weights of a combination cannot be normalised: their sum is 0")

    @property
    def dimension(self) -> int:
        """2 or 3."""
        return self.members[0].dimension

    @classmethod
    def begin(cls, settings: AnySettings, setup: Setup) -> Self:
        """Equal weights: 0, or 1 / number when normalised. Raises `ParameterError` without sub-transforms."""
        given = cast(WeightedCombinationSettings, settings)
        del setup
        if not given.sub_transforms:
            raise ParameterError(
                '(Transform "WeightedCombinationTransform") needs the files that it combines: add (SubTransforms ...)'
            )
        number, normalized = len(given.sub_transforms), given.normalize_combination_weights
        weights = torch.full((number,), 1 / number if normalized else 0.0, dtype=torch.float64)
        members = tuple(read_transform(Path(name)) for name in given.sub_transforms)
        return cls(weights, members, tuple(str(Path(n).absolute()) for n in given.sub_transforms), normalized)

    def with_parameters(self, parameters: Parameters) -> Self:
        """Other weights, and the sub-transforms on the same device as these."""
        device = parameters.device
        stays = device == self.parameters.device
        members = self.members if stays else tuple(member.to(device) for member in self.members)
        return replace(self, parameters=parameters, members=members)

    def __call__(self, points: Points) -> Points:
        """The transformed points."""
        return points + self._moves(points) @ self._weights.to(points)

    def at(self, points: Points) -> Mapped:
        """The transformed points with the Jacobian there."""
        moves = self._moves(points)
        moved = moves @ self._weights.to(points)
        if not self.normalized:
            return DenseMapped(points + moved, moves)
        return DenseMapped(points + moved, (moves - moved[:, :, None]) / self.parameters.sum().to(points))

    def default_scales(self, settings: AnySettings) -> Parameters:
        """`Scales`, or 1 for each weight."""
        given = cast(WeightedCombinationSettings, settings).scales
        if given and len(given) != len(self.members):
            raise TransformError(f"(Scales ...) of {self.names[0]} has {len(self.members)} numbers, not {len(given)}")
        return torch.tensor(given or [1.0] * len(self.members), dtype=torch.float64)

    def written(self) -> dict[str, list[str | int | float]]:
        """The weights and the files of the sub-transforms."""
        return {
            "NumberOfParameters": [self.parameters.numel()],
            "TransformParameters": self.parameters.tolist(),
            "NormalizeCombinationWeights": [str(self.normalized).lower()],
            "SubTransforms": list(self.files),
        }

    @classmethod
    def read(cls, parameter_map: ParameterMap) -> Self:
        """The transform in a TransformParameters file; sub-transforms are looked for here, then beside the file."""
        names = parameter_map.get("SubTransforms", ())
        where = parameter_map.where("SubTransforms")
        if not names:
            raise TransformError(f"{where}: a transform needs (SubTransforms ...), which is missing")
        files = [existing_file(parameter_map, "SubTransforms", entry=k) for k in range(len(names))]
        if parameter_map.source and parameter_map.source.resolve() in [file.resolve() for file in files]:
            raise TransformError(f"{where}: (SubTransforms ...) names the file itself")
        try:
            members = tuple(read_transform(file) for file in files)
        except RecursionError:
            raise TransformError(f"{where}: the sub-transforms refer to each other without an end") from None
        normalized = parameter_map.first("NormalizeCombinationWeights", "false") == "true"
        weights = parameters_of(parameter_map, len(names))
        try:
            return cls(weights, members, tuple(str(file.absolute()) for file in files), normalized)
        except TransformError as error:
            raise TransformError(f"{where}: {error}") from None

    @property
    def _weights(self) -> Parameters:
        return self.parameters / self.parameters.sum() if self.normalized else self.parameters

    def _moves(self, points: Points) -> Float[Tensor, "points dim members"]:
        """S(x) - x for every sub-transform."""
        return torch.stack([member(points) - points for member in self.members], dim=2)
