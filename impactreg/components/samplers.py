"""Samplers: where in the fixed image a metric is evaluated; chosen by `ImageSampler`.

Random numbers are drawn on the CPU from the generator that is given, so that a seed means the same samples on every
device.
"""

import logging
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar

import torch
from jaxtyping import Float, Int
from torch import Tensor

from impactreg.components.component import Component
from impactreg.components.interpolators import Interpolant
from impactreg.components.sample_regions import Index, LinearCells, MaskLookup, Region
from impactreg.components.sampler_settings import (
    GridSettings,
    RandomCoordinateSettings,
    RandomSettings,
    SamplerSettings,
    per_axis,
)
from impactreg.errors import ParameterError, RegistrationError
from impactreg.images.grid import Grid
from impactreg.images.image import Image
from impactreg.images.masks import Mask

logger = logging.getLogger(__name__)

TRIES_PER_SAMPLE = 10


@dataclass(frozen=True)
class Samples:
    """World points (mm) of the fixed image as float64, and its values there; both on the image's device."""

    points: Float[Tensor, "points dim"]
    values: Float[Tensor, " points"]

    def __len__(self) -> int:
        return len(self.points)


class Sampler(Component, kind="ImageSampler"):
    """Takes samples of the fixed image of a resolution; abstract.

    `image` is that of the resolution, `mask` the fixed mask (already eroded) or None, and `full` the grid of the
    full-resolution fixed image, where it differs. Only voxels between the outermost voxel centres of `full` and within
    the box around the mask are visited.
    """

    is_random: ClassVar[bool]
    Settings = SamplerSettings
    settings: SamplerSettings

    def __init__(
        self, settings: Any, image: Image, mask: Mask | None, generator: torch.Generator, *, full: Grid | None = None
    ) -> None:
        self.settings = settings
        self.image = image
        self.mask = mask
        self.generator = generator
        self.full = full or image.grid
        self.region = Region.at_level(self.full, image.grid).within(mask, image.grid)
        if settings.new_samples_every_iteration and not self.is_random:
            logger.warning('NewSamplesEveryIteration has no effect on (ImageSampler "%s")', type(self).names[0])
        self._prepare()

    @property
    def new_samples_every_iteration(self) -> bool:
        """Whether every iteration is to draw anew; never for samplers that are not random."""
        return self.is_random and self.settings.new_samples_every_iteration

    @property
    def has_sample_region(self) -> bool:
        """Whether each draw is from a random box (`UseRandomSampleRegion`)."""
        return False

    def without_sample_region(self) -> "Sampler":
        """This sampler on the whole image: what the estimation of the step size takes."""
        return self

    def draw(self, *, values: bool = True) -> Samples:
        """Samples: new ones if the sampler is random, else always the same.

        Without `values`, which cost an interpolation, they may be not-a-number. Raises `RegistrationError` where the
        mask leaves too few.
        """
        raise NotImplementedError

    def _prepare(self) -> None:
        """What can fail is done when the sampler is made, not at the first draw."""


class RejectionSampler(Sampler):
    """Draws points of the region until enough of them are inside the mask; abstract."""

    is_random = True
    Settings = RandomSettings
    settings: RandomSettings

    def _indices(self, propose: Callable[[Float[Tensor, "dim count"]], Tensor]) -> Float[Tensor, "dim points"]:
        """Random indices on the image's device and inside the mask; `propose` makes them from numbers in [0, 1)."""
        wanted = self.settings.number_of_spatial_samples
        if self._lookup is None:
            return propose(self._uniform(wanted)).to(self.image.data.device)
        share = self._lookup.share(self.region, least=1 / TRIES_PER_SAMPLE)
        found: list[Tensor] = []
        missing, tries = wanted, TRIES_PER_SAMPLE * wanted
        while missing > 0 and tries > 0:
            count = min(tries, math.ceil(1.1 * missing / share) + 16)
            index = propose(self._uniform(count)).to(self.image.data.device)
            found.append(index[:, self._lookup.contains(index)][:, :missing])
            missing, tries = missing - found[-1].shape[1], tries - count
        if missing > 0:
            raise RegistrationError(
                "Could not find enough image samples within reasonable time. Probably the mask is too small: of "
                f"{TRIES_PER_SAMPLE * wanted} random points {wanted - missing} are in the {self._lookup.mask.name}; "
                'enlarge it, set (ErodeMask "false"), or take (ImageSampler "RandomSparseMask")'
            )
        return torch.cat(found, dim=1)

    @cached_property
    def _lookup(self) -> MaskLookup | None:
        return MaskLookup(self.mask, self.image) if self.mask is not None else None

    def _uniform(self, count: int) -> Float[Tensor, "dim count"]:
        return torch.rand(self.image.dimension, count, dtype=torch.float64, generator=self.generator)


class RandomSampler(RejectionSampler, name="Random"):
    """Voxels drawn with replacement (`itk::ImageRandomSampler`)."""

    def draw(self, *, values: bool = True) -> Samples:
        """As many voxels as `NumberOfSpatialSamples`, new ones each time."""
        first, size = self._ends
        index = self._indices(lambda u: torch.addcmul(first, u, size).floor_())
        return _at_voxels(self.image, index.long().T, values=values)

    @cached_property
    def _ends(self) -> tuple[Tensor, Tensor]:
        return _column(self.region.first), _column(self.region.size)


class RandomCoordinateSampler(RejectionSampler, name="RandomCoordinate"):
    """Points drawn uniformly between the outermost voxel centres (`itk::ImageRandomCoordinateSampler`)."""

    Settings = RandomCoordinateSettings
    settings: RandomCoordinateSettings

    @property
    def has_sample_region(self) -> bool:
        """`UseRandomSampleRegion`."""
        return self.settings.use_random_sample_region

    def without_sample_region(self) -> "RandomCoordinateSampler":
        """This sampler without `UseRandomSampleRegion`, with the same generator."""
        return self._whole if self.has_sample_region else self

    def draw(self, *, values: bool = True) -> Samples:
        """As many points as `NumberOfSpatialSamples`, new ones each time, with interpolated values."""
        first, size = self._random_box() if self.has_sample_region else self._ends
        index = self._indices(lambda u: torch.addcmul(first, u, size))
        origin, matrix = self._to_world
        points = torch.addmm(origin, index.T, matrix)
        if not values:
            return Samples(points, _no_values(points))
        if self.settings.fixed_image_b_spline_interpolation_order == 1:
            return Samples(points, self._linear.values(index))
        return Samples(points, self._interpolant.values(points)[:, 0].to(torch.float64))

    @cached_property
    def _whole(self) -> "RandomCoordinateSampler":
        settings = self.settings.model_copy(update={"use_random_sample_region": False})
        return type(self)(settings, self.image, self.mask, self.generator, full=self.full)

    def _random_box(self) -> tuple[Tensor, Tensor]:
        """The first index and the size of a box at a random place of the region."""
        first, room = self._ends
        return torch.addcmul(first, self._uniform(1), (room - self._box_size).clamp_(min=0)), self._box_size

    @cached_property
    def _ends(self) -> tuple[Tensor, Tensor]:
        return _column(self.region.first), _column(self.region.size) - 1

    @cached_property
    def _to_world(self) -> tuple[Tensor, Tensor]:
        grid, device = self.image.grid, self.image.data.device
        return _column(grid.origin)[:, 0].to(device), torch.tensor(grid.matrix.T.copy(), device=device)

    @cached_property
    def _linear(self) -> LinearCells:
        return LinearCells(self.image.scalar)

    @cached_property
    def _interpolant(self) -> Interpolant:
        image = self.image.with_data(self.image.scalar[None])
        return Interpolant.of(image, self.settings.fixed_image_b_spline_interpolation_order)

    def _prepare(self) -> None:
        if self.has_sample_region:
            self._box_size = self._sample_region_size()

    def _sample_region_size(self) -> Float[Tensor, "dim 1"]:
        """The size of the random box in voxels of this resolution."""
        sides = [(n - 1) * s for n, s in zip(self.full.size, self.full.spacing, strict=True)]
        size = self.settings.sample_region_size or tuple(min(side, max(sides) / 3) for side in sides)
        size = per_axis(size, len(sides), "SampleRegionSize")
        for name, wanted, side in zip("xyz", size, sides, strict=False):
            if wanted > side:
                raise ParameterError(
                    f"(SampleRegionSize {' '.join(f'{v:g}' for v in size)}): {wanted:g} mm along {name} is more than "
                    f"the {side:g} mm of the fixed image; give less, best not more than a third of the image"
                )
        return _column(size) / _column(self.image.grid.spacing)


class RandomSparseMaskSampler(Sampler, name="RandomSparseMask"):
    """Voxels of the mask drawn with replacement, for small or thin masks (`itk::ImageRandomSamplerSparseMask`)."""

    is_random = True
    Settings = RandomSettings
    settings: RandomSettings

    def draw(self, *, values: bool = True) -> Samples:
        """As many voxels of the mask as `NumberOfSpatialSamples`, new ones each time."""
        choice = torch.randint(len(self._voxels), (self.settings.number_of_spatial_samples,), generator=self.generator)
        return _at_voxels(self.image, self._voxels[choice.to(self._voxels.device)], values=values)

    def _prepare(self) -> None:
        if self.mask is None:
            raise RegistrationError(
                '(ImageSampler "RandomSparseMask") needs a fixed mask: give one with -fMask, or take "Random"'
            )
        every = (1,) * self.image.dimension
        self._voxels = _not_empty(_voxels(self.image, self.mask, self.region, every), self.mask)


class RegularSampler(Sampler):
    """Takes the same voxels, x fastest, each time; abstract."""

    is_random = False

    def draw(self, *, values: bool = True) -> Samples:
        """The voxels of the grid that are inside the mask, always the same ones; `values` are always there."""
        del values
        return self._samples

    def _step(self) -> Index:
        """The distance of the voxels along x, y, z."""
        raise NotImplementedError

    @cached_property
    def _samples(self) -> Samples:
        voxels = _voxels(self.image, self.mask, self.region, self._step())
        return _at_voxels(self.image, _not_empty(voxels, self.mask))


class FullSampler(RegularSampler, name="Full"):
    """Every voxel (`itk::ImageFullSampler`)."""

    def _step(self) -> Index:
        return (1,) * self.image.dimension


class GridSampler(RegularSampler, name="Grid"):
    """Voxels on a regular grid in the middle of the region (`itk::ImageGridSampler`)."""

    Settings = GridSettings
    settings: GridSettings

    def _step(self) -> Index:
        return per_axis(self.settings.sample_grid_spacing, self.image.dimension, "SampleGridSpacing")


def grid_samples(image: Image, mask: Mask | None, number_of_samples: int, *, full: Grid | None = None) -> Samples:
    """About so many voxels of an image on a regular grid: what elastix takes wherever it looks at the image as a whole.

    The grid fills the box around the mask, with the same whole number of voxels as step along all axes; voxels outside
    the mask are left out, so that none may be left. With `full` (see `Sampler`), only where that image reaches.
    """
    region = Region.of(image.grid) if full is None else Region.at_level(full, image.grid)
    region = region.within(mask, image.grid)
    return _at_voxels(image, _voxels(image, mask, region, region.step_for(number_of_samples)))


def _voxels(image: Image, mask: Mask | None, region: Region, step: Index) -> Int[Tensor, "voxels dim"]:
    index = region.every(step).to(image.data.device)
    if mask is None:
        return index
    return index[mask.contains(image.grid.index_to_world(index.to(torch.float64)))]


def _at_voxels(image: Image, index: Int[Tensor, "points dim"], *, values: bool = True) -> Samples:
    points = image.grid.index_to_world(index.to(torch.float64))
    return Samples(points, image.scalar[tuple(index.flip(1).T)].to(torch.float64) if values else _no_values(points))


def _not_empty(voxels: Int[Tensor, "voxels dim"], mask: Mask | None) -> Int[Tensor, "voxels dim"]:
    if not len(voxels):
        name = mask.name if mask else "mask"
        advice = 'enlarge it, set (ErodeMask "false"), or take a finer SampleGridSpacing'
        raise RegistrationError(f"no sample is inside the {name}: {advice}")
    return voxels


def _no_values(points: Float[Tensor, "points dim"]) -> Float[Tensor, " points"]:
    # not zeros: a metric that uses them by mistake must not look right
    return points.new_full((1,), math.nan).expand(len(points))


def _column(values: Sequence[float]) -> Float[Tensor, "dim 1"]:
    return torch.tensor(values, dtype=torch.float64)[:, None]
