"""Image pyramids: an image from coarse to fine, one for each resolution; chosen by `Fixed`/`MovingImagePyramid`.

A schedule has one whole factor for each resolution and axis, coarsest resolution first, x, y, z within a resolution.
"""

import logging
from collections.abc import Iterator, Sequence
from typing import Annotated, Any, ClassVar, Literal, TypeVar

from jaxtyping import Float
from pydantic import Field
from torch import Tensor

from impactreg.components.component import Component
from impactreg.components.pyramid_filters import (
    along_axes,
    discrete_gaussian,
    recursive_gaussian,
    resample,
    shrink,
)
from impactreg.errors import ImageError
from impactreg.images.image import Image
from impactreg.parameters import Once, Settings, WholeList

logger = logging.getLogger(__name__)

Factors = tuple[int, ...]
Role = Literal["fixed", "moving"]
Number = TypeVar("Number", int, float)
_Factors = Annotated[tuple[Annotated[int, Field(ge=0)], ...], WholeList]
_Sigmas = Annotated[tuple[float, ...], WholeList]


class PyramidSettings(Settings):
    """What every pyramid reads; a schedule that is too short is not used at all."""

    image_pyramid_schedule: _Factors = Field(
        (),
        description="Factor of each resolution and axis, x y z of the coarsest first; by default 2 to the number of "
        "finer resolutions.",
    )
    fixed_image_pyramid_schedule: _Factors = Field(
        (), description="As ImagePyramidSchedule, for the fixed image alone, and stronger."
    )
    moving_image_pyramid_schedule: _Factors = Field(
        (), description="As ImagePyramidSchedule, for the moving image alone, and stronger."
    )
    write_pyramid_images_after_each_resolution: bool = Field(
        False,
        description="Whether the images of the pyramids are written, as FixedImagePyramid0.<stage>.R<resolution>.",
    )


class NumberedSettings(PyramidSettings):
    """What pyramids read that may have a schedule of their own among several."""

    fixed_image_pyramid_i_schedule: _Factors = Field(
        (),
        alias="FixedImagePyramid<i>Schedule",
        description="As FixedImagePyramidSchedule, for the fixed pyramid of that number among several.",
    )
    moving_image_pyramid_i_schedule: _Factors = Field(
        (),
        alias="MovingImagePyramid<i>Schedule",
        description="As MovingImagePyramidSchedule, for the moving pyramid of that number among several.",
    )


class GenericSettings(PyramidSettings):
    """What the generic pyramids read; the more special key wins, and the plain schedule over the rescale schedule."""

    image_pyramid_rescale_schedule: _Factors = Field(
        (),
        description="Factor by which each axis is made coarser, for each resolution; by default 2 to the number of "
        "finer resolutions.",
    )
    fixed_image_pyramid_rescale_schedule: _Factors = Field(
        (), description="As ImagePyramidRescaleSchedule, for the fixed image alone, and stronger."
    )
    moving_image_pyramid_rescale_schedule: _Factors = Field(
        (), description="As ImagePyramidRescaleSchedule, for the moving image alone, and stronger."
    )
    image_pyramid_smoothing_schedule: _Sigmas = Field(
        (), description="Standard deviation of the smoothing in millimetres; by default half a voxel of the resolution."
    )
    fixed_image_pyramid_smoothing_schedule: _Sigmas = Field(
        (), description="As ImagePyramidSmoothingSchedule, for the fixed image alone, and stronger."
    )
    moving_image_pyramid_smoothing_schedule: _Sigmas = Field(
        (), description="As ImagePyramidSmoothingSchedule, for the moving image alone, and stronger."
    )
    image_pyramid_use_shrink_image_filter: Annotated[bool, Once] = Field(
        False, description="Whether voxels are picked instead of interpolated linearly."
    )
    compute_pyramid_images_per_resolution: Annotated[bool, Once] = Field(
        False, description="Without effect: an image is always computed when its resolution needs it."
    )


class ImagePyramid(Component, kind="ImagePyramid"):
    """The images of the `levels` resolutions of one image; abstract. Level 0 is the coarsest.

    `role` says whether it is the fixed or the moving image, and so which keys count; `dimension` is that of the image.
    """

    Settings: ClassVar[type[PyramidSettings]] = NumberedSettings
    non_increasing: ClassVar[bool] = True
    """Whether factors are held at 1 or more, and at that of the resolution before or less."""

    def __init__(self, settings: Any, role: Role = "fixed", levels: int = 3, dimension: int = 3) -> None:
        self.settings = settings
        self.role = role
        self.dimension = dimension
        given = _merged(self._schedules(), levels * dimension, f"{role} image pyramid schedule")
        default = [2 ** (levels - 1 - level) for level in range(levels) for _ in range(dimension)]
        schedule = _rows(given or default, dimension)
        self.schedule = _clamped(schedule, 1, f"{role} image pyramid schedule") if self.non_increasing else schedule

    def factors(self, level: int) -> Factors:
        """The factors (x, y, z) of a resolution, as mask erosion needs them."""
        return self.schedule[level]

    def levels(self, image: Image) -> list[Image]:
        """The images of all resolutions, coarsest first; whole numbers become float32."""
        return [self.level(image, level) for level in range(len(self.schedule))]

    def level(self, image: Image, level: int) -> Image:
        """The image of one resolution; raises `ImageError` where the image cannot be made so coarse."""
        if image.dimension != self.dimension:
            raise ImageError(
                f"the {self.role} image has {image.dimension} dimensions, but its pyramid is for {self.dimension}"
            )
        return self._level(image if image.data.is_floating_point() else _as_float(image), level)

    def _level(self, image: Image, level: int) -> Image:
        raise NotImplementedError

    def _schedules(self) -> list[Sequence[int]]:
        """The schedules that are given, the most special one last."""
        settings = self.settings
        return [
            settings.image_pyramid_schedule,
            self._own("image_pyramid_schedule"),
            self._own("image_pyramid_i_schedule"),
        ]

    def _own(self, name: str) -> Any:
        """The setting for the fixed or the moving image alone."""
        return getattr(self.settings, f"{self.role}_{name}")


class SmoothingPyramid(ImagePyramid, name=("FixedSmoothingImagePyramid", "MovingSmoothingImagePyramid")):
    """Recursive Gaussian smoothing of half the factor in voxels, and no fewer voxels (`elx::FixedSmoothingPyramid`).

    Factor 0 leaves an axis as it is; factor 1 smooths with half a voxel.
    """

    non_increasing = False

    def _level(self, image: Image, level: int) -> Image:
        sizes = zip(image.grid.size, self.schedule[level], strict=True)
        matrices = [recursive_gaussian(n, 0.5 * factor) if factor and n > 1 else None for n, factor in sizes]
        return image.with_data(along_axes(image.data, matrices))


class ShrinkingPyramid(ImagePyramid, name=("FixedShrinkingImagePyramid", "MovingShrinkingImagePyramid")):
    """Every factor-th voxel, without smoothing (`elx::FixedShrinkingPyramid`)."""

    def _level(self, image: Image, level: int) -> Image:
        return shrink(image, self.schedule[level], lambda _axis, _n: None)


class RecursivePyramid(ImagePyramid, name=("FixedRecursiveImagePyramid", "MovingRecursiveImagePyramid")):
    """Discrete Gaussian smoothing and shrinking, each level from the next finer one (`elx::FixedRecursivePyramid`).

    Where the factors of a resolution are no multiples of those of the next finer one, each is made from the image
    itself, and axes of factor 1 are smoothed as well (`itk::RecursiveMultiResolutionPyramidImageFilter`).
    """

    def levels(self, image: Image) -> list[Image]:
        """The images of all resolutions, coarsest first; whole numbers become float32."""
        if not self._divisible:
            return super().levels(image)
        return list(self._finest_first(self.level(image, len(self.schedule) - 1)))[::-1]

    def _level(self, image: Image, level: int) -> Image:
        if not self._divisible:
            return _halved(image, self.schedule[level], smooth_all=True)
        finest = _halved(image, self.schedule[-1])
        return next(made for k, made in enumerate(self._finest_first(finest)) if k == len(self.schedule) - 1 - level)

    @property
    def _divisible(self) -> bool:
        pairs = zip(self.schedule, self.schedule[1:], strict=False)
        return all(a % b == 0 for coarse, fine in pairs for a, b in zip(coarse, fine, strict=True))

    def _finest_first(self, image: Image) -> Iterator[Image]:
        yield image
        for coarse, fine in zip(self.schedule[-2::-1], self.schedule[:0:-1], strict=True):
            image = _halved(image, tuple(a // b for a, b in zip(coarse, fine, strict=True)))
            yield image


class GenericPyramid(ImagePyramid, name=("FixedGenericImagePyramid", "MovingGenericImagePyramid")):
    """Recursive Gaussian smoothing and resampling, each with its own schedule (`elx::FixedGenericPyramid`).

    By default the smoothing is half a voxel of the resolution, but none for factor 1 at the finest resolution, and none
    at all where every factor is 1. A smoothing schedule of zeros counts as none given, as in elastix. Axes with a sigma
    of 0 beside others are not smoothed; elastix refuses them.
    """

    Settings = GenericSettings

    def __init__(self, settings: Any, role: Role = "fixed", levels: int = 3, dimension: int = 3) -> None:
        super().__init__(settings, role, levels, dimension)
        name = f"{role} image pyramid smoothing schedule"
        schedules = [settings.image_pyramid_smoothing_schedule, self._own("image_pyramid_smoothing_schedule")]
        given = _merged(schedules, levels * dimension, name)
        if given and not any(given):
            logger.warning("the %s is all 0, which elastix takes for no schedule: the default smoothing is used", name)
        self._sigmas = _clamped(_rows(given, dimension), 0.0, name) if given and any(given) else None

    def sigmas(self, level: int, spacing: Sequence[float]) -> tuple[float, ...]:
        """The standard deviations (mm; x, y, z) of the smoothing of a resolution, for an image of this spacing."""
        if self._sigmas is not None:
            return self._sigmas[level]
        factors = self.schedule[level]
        if all(f == 1 for row in self.schedule for f in row):
            return (0.0,) * self.dimension
        finest = level == len(self.schedule) - 1
        return tuple(0.0 if finest and f == 1 else 0.5 * f * s for f, s in zip(factors, spacing, strict=True))

    def _level(self, image: Image, level: int) -> Image:
        spacing = image.grid.spacing
        sigmas = self.sigmas(level, spacing)

        def smooth(axis: int, n: int) -> Float[Tensor, "n n"] | None:
            return recursive_gaussian(n, sigmas[axis] / spacing[axis]) if sigmas[axis] > 0 and n > 1 else None

        coarsen = shrink if self.settings.image_pyramid_use_shrink_image_filter else resample
        return coarsen(image, self.schedule[level], smooth)

    def _schedules(self) -> list[Sequence[int]]:
        return [
            self.settings.image_pyramid_rescale_schedule,
            self.settings.image_pyramid_schedule,
            self._own("image_pyramid_rescale_schedule"),
            self._own("image_pyramid_schedule"),
        ]


def _halved(image: Image, factors: Factors, *, smooth_all: bool = False) -> Image:
    """Smoothed by half the factor in voxels and shrunken by it; factor 1 leaves an axis, unless all are smoothed."""

    def smooth(axis: int, n: int) -> Float[Tensor, "n n"] | None:
        return discrete_gaussian(n, (0.5 * factors[axis]) ** 2) if smooth_all or factors[axis] > 1 else None

    return shrink(image, factors, smooth)


def _as_float(image: Image) -> Image:
    return image.with_data(image.data.float())


def _merged(schedules: Sequence[Sequence[Number]], length: int, name: str) -> list[Number] | None:
    """Each entry from the last schedule that has it; None where some entry is in none of them."""
    longest = max(len(schedule) for schedule in schedules)
    if longest < length:
        if longest:
            logger.warning("the %s has %d of %d values: the default schedule is used", name, longest, length)
        return None
    if longest > length:
        logger.warning("the %s has %d values, of which the first %d are used", name, longest, length)
    return [next(s[i] for s in reversed(schedules) if i < len(s)) for i in range(length)]


def _rows(values: Sequence[Number], dimension: int) -> tuple[tuple[Number, ...], ...]:
    return tuple(tuple(values[i : i + dimension]) for i in range(0, len(values), dimension))


def _clamped(schedule: tuple[tuple[Number, ...], ...], least: Number, name: str) -> tuple[tuple[Number, ...], ...]:
    """No entry below `least`, nor above that of the resolution before."""
    rows = [tuple(max(least, value) for value in schedule[0])]
    for row in schedule[1:]:
        rows.append(tuple(max(least, min(value, before)) for value, before in zip(row, rows[-1], strict=True)))
    if tuple(rows) != schedule:
        logger.warning("the %s may not increase nor go below %g: it is adjusted to %s", name, least, tuple(rows))
    return tuple(rows)
