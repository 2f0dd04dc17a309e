"""Stacks: for each step along an image's last axis a transform of the axes before it, as for a slice or a time point.

The last coordinate stays as it is and chooses the member whose step is nearest (`itk::StackTransform`). Only stacks of
2D transforms, for 3D images, are read here.
"""

from dataclasses import dataclass, replace
from typing import ClassVar, Self, cast

import torch

from impactreg.components.transforms.affine_forms import AffineLogTransform
from impactreg.components.transforms.bspline import BSplineTransform
from impactreg.components.transforms.evaluated import EvaluatedTransform
from impactreg.components.transforms.linear import TranslationTransform
from impactreg.components.transforms.reading import dimension_of, floats, parameters_of
from impactreg.components.transforms.rotating import EulerTransform
from impactreg.components.transforms.transform import Parameters, Points, Transform
from impactreg.errors import TransformError
from impactreg.parameters import ParameterMap


@dataclass(frozen=True, eq=False)
class StackTransform(EvaluatedTransform):
    """`members`, the first at `origin` (mm, last coordinate) and the others every `spacing` mm; abstract."""

    member: ClassVar[type[Transform]]

    members: tuple[Transform, ...]
    origin: float
    spacing: float

    @property
    def dimension(self) -> int:
        """That of the members and one."""
        return self.members[0].dimension + 1

    @property
    def parameters(self) -> Parameters:  # type: ignore[override]
        """Those of one member after the other."""
        return torch.cat([member.parameters for member in self.members])

    def with_parameters(self, parameters: Parameters) -> Self:
        """The same stack with other parameters of its members."""
        parts = parameters.reshape(len(self.members), -1).unbind()
        return replace(self, members=tuple(m.with_parameters(p) for m, p in zip(self.members, parts, strict=True)))

    def __call__(self, points: Points) -> Points:
        """The transformed points."""
        steps = torch.round((points[:, -1].detach() - self.origin) / self.spacing)
        chosen = steps.clamp(0, len(self.members) - 1).long()
        # grouped by member, and back in their order at the end
        order = torch.argsort(chosen, stable=True)
        numbers, counts = torch.unique_consecutive(chosen[order], return_counts=True)
        parts = points[order][:, :-1].split(counts.tolist())
        moved = [self.members[k](part) for k, part in zip(numbers.tolist(), parts, strict=True)]
        back = torch.argsort(order)
        return torch.cat([torch.cat(moved)[back], points[:, -1:]], dim=1) if moved else points

    def written(self) -> dict[str, list[str | int | float]]:
        """The keys of a member, the parameters of all, and where they stand."""
        own = {key: values for key, values in self.members[0].written().items() if key != "UseCyclicTransform"}
        return {
            **own,
            "NumberOfParameters": [self.parameters.numel()],
            "TransformParameters": self.parameters.tolist(),
            "NumberOfSubTransforms": [len(self.members)],
            "StackOrigin": [self.origin],
            "StackSpacing": [self.spacing],
        }

    @classmethod
    def read(cls, parameter_map: ParameterMap) -> Self:
        """The transform in a TransformParameters file; raises `TransformError` for an image that is not 3D."""
        if dimension_of(parameter_map) != 3:
            where = parameter_map.where("Transform")
            raise TransformError(f"{where}: {cls.names[0]} is read for 3D images only; use elastix's own transformix")
        number, origin, spacing = (
            floats(parameter_map, key)[0] for key in ("NumberOfSubTransforms", "StackOrigin", "StackSpacing")
        )
        if number < 1 or spacing <= 0:
            key = "NumberOfSubTransforms" if number < 1 else "StackSpacing"
            raise TransformError(f"{parameter_map.where(key)}: ({key} ...): a number above 0 is needed")
        values = parameters_of(parameter_map, len(floats(parameter_map, "TransformParameters")))
        if len(values) % int(number):
            where = parameter_map.where("TransformParameters")
            raise TransformError(f"{where}: {len(values)} numbers are not the same for each of {int(number)} members")
        parts = cast(list[Parameters], values.reshape(int(number), -1).tolist())
        given = parameter_map.without("NumberOfParameters")
        members = [cls.member.read(given.replace({"TransformParameters": part})) for part in parts]
        return cls(tuple(members), origin, spacing)


@dataclass(frozen=True, eq=False)
class TranslationStackTransform(StackTransform, name="TranslationStackTransform"):
    """A translation for each step (`elx::TranslationStackTransform`)."""

    member = TranslationTransform


@dataclass(frozen=True, eq=False)
class EulerStackTransform(StackTransform, name="EulerStackTransform"):
    """A rotation and translation for each step, about one centre (`elx::EulerStackTransform`)."""

    member = EulerTransform


@dataclass(frozen=True, eq=False)
class AffineLogStackTransform(StackTransform, name="AffineLogStackTransform"):
    """An affine transform for each step, about one centre (`elx::AffineLogStackTransform`)."""

    member = AffineLogTransform


@dataclass(frozen=True, eq=False)
class BSplineStackTransform(StackTransform, name="BSplineStackTransform"):
    """A B-spline for each step, all on one grid (`elx::BSplineStackTransform`)."""

    member = BSplineTransform
