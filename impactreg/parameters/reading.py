"""The ways in which a setting takes its values from a parameter map: per resolution, once, per dimension and so on.

A field of a `Settings` class names its way as a marker in its type; without one it is `PerLevel`:

    number_of_resolutions: Annotated[int, Once] = Field(3, ge=1, description="...")
"""

from collections.abc import Sequence
from typing import Any, ClassVar, NamedTuple

from impactreg.parameters.parameter_map import Found, ParameterMap


class Request(NamedTuple):
    """For what a map is read: the resolution (0 is the coarsest), the label of the component, the image dimension."""

    level: int = 0
    label: str = ""
    dimension: int = 3


class Reading:
    """A way of reading; abstract. `per` says for what there is a value, `many` that the field is a tuple of them."""

    per: ClassVar[str]
    many: ClassVar[bool] = False
    is_key: ClassVar[bool] = True

    @staticmethod
    def find(parameters: ParameterMap, key: str, request: Request) -> list[Found]:
        """Find the values of a key; none when the field keeps its default."""
        raise NotImplementedError

    @staticmethod
    def default(default: Any, _request: Request) -> Any:
        """Fit the default of the field to the request."""
        return default


class PerLevel(Reading):
    """One value for each resolution; entry 0 stands in for those that are missing."""

    per = "resolution"

    @staticmethod
    def find(parameters: ParameterMap, key: str, request: Request) -> list[Found]:
        """Take LABELkey[level], LABELkey[0], key[level] or key[0], the first that is there."""
        found = parameters.find(key, request.level, request.label)
        return [found] if found else []


class Once(Reading):
    """One value for the whole registration: entry 0."""

    per = "registration"

    @staticmethod
    def find(parameters: ParameterMap, key: str, request: Request) -> list[Found]:
        """Take LABELkey[0] or key[0], the first that is there."""
        found = parameters.find(key, 0, request.label)
        return [found] if found else []


class WholeList(Reading):
    """All values of the key, as a tuple."""

    per = "list"
    many = True

    @staticmethod
    def find(parameters: ParameterMap, key: str, request: Request) -> list[Found]:
        """Take all of LABELkey or of key, the first that is there."""
        return _all_of_first(parameters, (request.label + key, key))


class PerDimension(Reading):
    """One value for each dimension of the image, as a tuple; entry 0 stands in for those that are missing."""

    per = "dimension"
    many = True

    @staticmethod
    def find(parameters: ParameterMap, key: str, request: Request) -> list[Found]:
        """Take LABELkey[i], LABELkey[0], key[i] or key[0] for each dimension i."""
        found = (parameters.find(key, i, request.label) for i in range(request.dimension))
        return [each for each in found if each]

    @staticmethod
    def default(default: Any, request: Request) -> Any:
        """Repeat a default of one value for all dimensions."""
        return default * request.dimension if isinstance(default, tuple) and len(default) == 1 else default


class LevelSuffix(Reading):
    """All values of the key that ends in the number of the resolution, as a tuple; the way of the IMPACT metric.

    `ImpactModelsPath1` is for resolution 1; without it `ImpactModelsPath0` counts, and without that `ImpactModelsPath`.
    """

    per = "resolution, in the key"
    many = True

    @staticmethod
    def find(parameters: ParameterMap, key: str, request: Request) -> list[Found]:
        """Take all of LABELkey<level>, LABELkey0, LABELkey, key<level>, key0 or key, the first that is there."""
        labels = (request.label, "") if request.label else ("",)
        keys = [f"{label}{key}{end}" for label in labels for end in (request.level, 0, "")]
        return _all_of_first(parameters, keys)


class ImageDimension(Reading):
    """No key at all: the field is the dimension of the image for which the map is read."""

    per = "image"
    is_key = False

    @staticmethod
    def find(_parameters: ParameterMap, _key: str, _request: Request) -> list[Found]:
        """Take nothing from the map."""
        return []

    @staticmethod
    def default(_default: Any, request: Request) -> Any:
        """Take the dimension from the request."""
        return request.dimension


def _all_of_first(parameters: ParameterMap, keys: Sequence[str]) -> list[Found]:
    for key in keys:
        if values := parameters.get(key):
            return [Found(key, place, value) for place, value in enumerate(values)]
    return []
