"""Samplers: where in the fixed image a metric is evaluated; chosen by `ImageSampler`.

Random numbers are drawn on the CPU from the generator that is given, so that a seed means the same samples on every
device.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar

import torch
from jaxtyping import Float, Int
from torch import Tensor

from impactreg.components.component import Component
from impactreg.components.sample_regions import Index, MaskLookup, Region, column
from impactreg.components.sampler_settings import GridSettings, RandomSettings, SamplerSettings, per_axis
from impactreg.errors import RegistrationError
from impactreg.images.grid import Grid
from impactreg.images.image import Image
from impactreg.images.masks import Mask

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
    the box around the mask are visited. `others` are the further fixed images of the resolution with their masks, in a
    registration of several; most samplers do not look at them.
    """

    is_random: ClassVar[bool]
    needs_mask: ClassVar[bool] = False
    Settings = SamplerSettings
    settings: SamplerSettings

    def __init__(
        self,
        settings: Any,
        image: Image,
        mask: Mask | None,
        generator: torch.Generator,
        *,
        full: Grid | None = None,
        others: Sequence[tuple[Image, Mask | None]] = (),
    ) -> None:
        self.others = others
        self.settings = settings
        self.image = image
        self.mask = mask
        self.generator = generator
        self.full = full or image.grid
        self.others = tuple(others)
        self.region = Region.at_level(self.full, image.grid).within(mask, image.grid)
        self._prepare()

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
        lookups = self._lookups
        if not lookups:
            return propose(self._uniform(wanted)).to(self.image.data.device)
        share = min(lookup.share(self.region, least=1 / TRIES_PER_SAMPLE) for lookup in lookups)
        found: list[Tensor] = []
        missing, tries = wanted, TRIES_PER_SAMPLE * wanted
        while missing > 0 and tries > 0:
            count = min(tries, math.ceil(1.1 * missing / share) + 16)
            index = propose(self._uniform(count)).to(self.image.data.device)
            kept = torch.stack([lookup.contains(index) for lookup in lookups]).all(dim=0)
            found.append(index.index_select(1, kept.nonzero()[:missing, 0]))
            missing, tries = missing - found[-1].shape[1], tries - count
        if missing > 0:
            raise RegistrationError(
                "Could not find enough image samples within reasonable time. Probably the mask is too small: of "
                f"{TRIES_PER_SAMPLE * wanted} random points {wanted - missing} are in the "
                f"{' and the '.join(lookup.mask.name for lookup in lookups)}; "
                'enlarge it, set (ErodeMask "false"), or take (ImageSampler "RandomSparseMask")'
            )
        return torch.cat(found, dim=1)

    @cached_property
    def _lookups(self) -> list[MaskLookup]:
        """One for each mask that must contain a sample."""
        return [] if self.mask is None else [MaskLookup(self.mask, self.image)]

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
        return column(self.region.first), column(self.region.size)


class RandomSparseMaskSampler(Sampler, name="RandomSparseMask"):
    """Voxels of the mask drawn with replacement, for small or thin masks (`itk::ImageRandomSamplerSparseMask`)."""

    is_random = True
    needs_mask = True
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
    return Samples(points, image.scalar[tuple(index.flip(1).T)].to(torch.float64) if values else no_values(points))


def _not_empty(voxels: Int[Tensor, "voxels dim"], mask: Mask | None) -> Int[Tensor, "voxels dim"]:
    if not len(voxels):
        name = mask.name if mask else "mask"
        advice = 'enlarge it, set (ErodeMask "false"), or take a finer SampleGridSpacing'
        raise RegistrationError(f"no sample is inside the {name}: {advice}")
    return voxels


def no_values(points: Float[Tensor, "points dim"]) -> Float[Tensor, " points"]:
    """The values of samples whose values nobody asked for."""
    # not zeros: a metric that uses them by mistake must not look right
    return points.new_full((1,), math.nan).expand(len(points))
