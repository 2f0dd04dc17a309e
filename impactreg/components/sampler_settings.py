"""Settings of the samplers: how many samples, from where, and how often new ones are taken."""

from typing import Annotated, TypeVar

from pydantic import Field

from impactreg.errors import ParameterError
from impactreg.parameters import Once, PerDimension, Settings
from impactreg.parameters.parameter_map import Found, ParameterMap
from impactreg.parameters.reading import Request

N = TypeVar("N", int, float)


class PerLevelAndDimension(PerDimension):
    """A value for each resolution and dimension: entry level * D + i; entry 0 stands in for those that are missing."""

    per = "resolution and dimension"

    @staticmethod
    def find(parameters: ParameterMap, key: str, request: Request) -> list[Found]:
        """Take entry level * D + i, or else entry 0, for each dimension i."""
        first = request.level * request.dimension
        found = (parameters.find(key, first + i, request.label) for i in range(request.dimension))
        return [each for each in found if each]


class SampleGridEntries(PerLevelAndDimension):
    """As its base, but elastix's 2 stands in for a missing entry."""

    @staticmethod
    def find(parameters: ParameterMap, key: str, request: Request) -> list[Found]:
        """Take entry level * D + i, or else 2, for each dimension i."""
        return entries_or("2", parameters, key, request)


def entries_or(missing: str, parameters: ParameterMap, key: str, request: Request) -> list[Found]:
    """Find entry level * D + i, or else what stands in for a missing one, for each dimension i."""
    found = PerLevelAndDimension.find(parameters, key, request)
    first = request.level * request.dimension
    return [f if f.place == first + i else Found(f.key, f.place, missing) for i, f in enumerate(found)]


class SamplerSettings(Settings):
    """What every sampler reads."""

    use_multi_threading_for_samplers: Annotated[bool, Once] = Field(
        True, description="Without effect: samples are always taken all at once."
    )


class RandomSettings(SamplerSettings):
    """What samplers of a given number of samples read."""

    number_of_spatial_samples: int = Field(5000, ge=1, description="How many samples are taken.")


class RandomCoordinateSettings(RandomSettings):
    """What `RandomCoordinate` reads."""

    fixed_image_b_spline_interpolation_order: int = Field(
        1,
        ge=0,
        le=3,
        alias="FixedImageBSplineInterpolationOrder",
        description="Order of the B-spline that interpolates the fixed image, 0 to 3; 1 is linear.",
    )
    use_random_sample_region: bool = Field(
        False, description="Whether all samples of a draw come from one box at a random place in the image."
    )
    sample_region_size: Annotated[tuple[float, ...], PerLevelAndDimension] = Field(
        (),
        description="Size of that box in millimetres; by default a third of the longest side, at most the side.",
    )


class GridSettings(SamplerSettings):
    """What `Grid` reads."""

    sample_grid_spacing: Annotated[tuple[Annotated[int, Field(ge=1)], ...], SampleGridEntries] = Field(
        (2,), description="Distance of the samples along each axis in voxels."
    )


def per_axis(values: tuple[N, ...], dimension: int, key: str) -> tuple[N, ...]:
    """The values for x, y, z of settings made in Python, where one value stands for all axes; else `ParameterError`."""
    if len(values) not in (1, dimension):
        shown = " ".join(f"{value:g}" for value in values)
        raise ParameterError(
            f"({key} {shown}): 1 or {dimension} values are needed for an image of {dimension} dimensions"
        )
    return values * dimension if len(values) == 1 else values
