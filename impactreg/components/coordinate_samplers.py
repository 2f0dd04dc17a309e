"""Samplers of points between voxels: in the whole image or in a random box, of one image or of all fixed images."""

from functools import cached_property
from typing import Self

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from impactreg.components.interpolators import Interpolant
from impactreg.components.sample_regions import TOLERANCE, LinearCells, MaskLookup, column
from impactreg.components.sampler_settings import RandomCoordinateSettings, per_axis
from impactreg.components.samplers import RejectionSampler, Samples, no_values
from impactreg.errors import ParameterError, RegistrationError

SAME_DIRECTION = 1e-6
"""How much direction cosines may differ and be taken for the same: what a header of single precision loses."""


class CoordinateSampler(RejectionSampler):
    """Draws points of a box uniformly and interpolates the fixed image there; abstract.

    With `UseRandomSampleRegion`, each draw is from a smaller box of `SampleRegionSize` at a random place.
    """

    Settings = RandomCoordinateSettings
    settings: RandomCoordinateSettings

    @property
    def has_sample_region(self) -> bool:
        """`UseRandomSampleRegion`."""
        return self.settings.use_random_sample_region

    def without_sample_region(self) -> Self:
        """This sampler without `UseRandomSampleRegion`, with the same generator."""
        return self._whole if self.has_sample_region else self

    def draw(self, *, values: bool = True) -> Samples:
        """As many points as `NumberOfSpatialSamples`, new ones each time, with interpolated values."""
        first, size = self._random_box() if self.has_sample_region else self._ends
        index = self._indices(lambda u: torch.addcmul(first, u, size))
        origin, matrix = self._to_world
        points = torch.addmm(origin, index.T, matrix)
        if not values:
            return Samples(points, no_values(points))
        if self.settings.fixed_image_b_spline_interpolation_order == 1:
            return Samples(points, self._linear.values(index))
        return Samples(points, self._interpolant.values(points)[:, 0].to(torch.float64))

    @property
    def _ends(self) -> tuple[Tensor, Tensor]:
        """The first index of the box and its size, both of x, y, z in a column."""
        raise NotImplementedError

    @cached_property
    def _whole(self) -> Self:
        settings = self.settings.model_copy(update={"use_random_sample_region": False})
        return type(self)(settings, self.image, self.mask, self.generator, full=self.full, others=self.others)

    def _random_box(self) -> tuple[Tensor, Tensor]:
        """The first index and the size of a box at a random place of the whole one."""
        first, room = self._ends
        return torch.addcmul(first, self._uniform(1), (room - self._box_size).clamp_(min=0)), self._box_size

    @cached_property
    def _to_world(self) -> tuple[Tensor, Tensor]:
        grid, device = self.image.grid, self.image.data.device
        return column(grid.origin)[:, 0].to(device), torch.tensor(grid.matrix.T.copy(), device=device)

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
        return column(size) / column(self.image.grid.spacing)


class RandomCoordinateSampler(CoordinateSampler, name="RandomCoordinate"):
    """Points drawn uniformly between the outermost voxel centres (`itk::ImageRandomCoordinateSampler`)."""

    @cached_property
    def _ends(self) -> tuple[Tensor, Tensor]:
        return column(self.region.first), column(self.region.size) - 1


class MultiInputRandomCoordinateSampler(CoordinateSampler, name="MultiInputRandomCoordinate"):
    """Points drawn uniformly from where all fixed images of a registration of several overlap
    (`itk::MultiInputImageRandomCoordinateSampler`).

    A sample lies between the outermost voxel centres of every image, and in every mask; the images need the same
    directions, else `RegistrationError`. elastix looks at no mask when the first image has none, may lay a random box
    where no mask is, and puts it beside the image where it does not fit.
    """

    def _random_box(self) -> tuple[Tensor, Tensor]:
        first, room = self._ends
        size = torch.minimum(self._box_size, room)
        return torch.addcmul(first, self._uniform(1), room - size), size

    @cached_property
    def _ends(self) -> tuple[Tensor, Tensor]:
        grid = self.image.grid
        first, last = np.array(self.region.first, dtype=float), np.array(self.region.last, dtype=float)
        for other, _ in self.others:
            corners = np.array([[0] * grid.dimension, [n - 1 for n in other.grid.size]], dtype=float)
            world = corners @ other.grid.matrix.T + np.array(other.grid.origin)
            low, high = (world - np.array(grid.origin)) @ np.array(grid.inverse_matrix).T
            first, last = np.maximum(first, low), np.minimum(last, high)
        if (last < first - TOLERANCE).any():
            raise RegistrationError(
                f'(ImageSampler "{type(self).names[0]}"): the fixed images and the mask have no common part; look at '
                "their origins and spacings"
            )
        return column(first.tolist()), column((last - first).clip(min=0).tolist())

    @cached_property
    def _lookups(self) -> list[MaskLookup]:
        masks = [self.mask, *(mask for _, mask in self.others)]
        return [MaskLookup(mask, self.image) for mask in masks if mask is not None]

    def _prepare(self) -> None:
        super()._prepare()
        for number, (other, _) in enumerate(self.others, start=1):
            if not np.allclose(other.grid.direction, self.image.grid.direction, atol=SAME_DIRECTION):
                raise RegistrationError(
                    f'(ImageSampler "{type(self).names[0]}"): all fixed images need the same direction cosines, but '
                    f"those of another one (number {number} beside the metric's own) differ; resample it, or take "
                    '"RandomCoordinate"'
                )
        self._ends  # noqa: B018 -- what can fail is done now
