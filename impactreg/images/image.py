"""Image: a tensor of channels on a Grid."""

from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Shaped
from torch import Tensor

from impactreg.errors import ImageError
from impactreg.images.grid import Grid, Numbers


@dataclass(frozen=True, eq=False)
class Image:
    """Voxel values [channel, z, y, x] (2D: [channel, y, x]) on a `Grid`; `ImageError` where the shapes differ."""

    data: Shaped[Tensor, "channel *space"]
    grid: Grid

    def __post_init__(self) -> None:
        if tuple(self.data.shape[1:]) != self.grid.shape:
            raise ImageError(
                f"voxels of shape {tuple(self.data.shape[1:])} do not fit a grid of shape {self.grid.shape}"
            )

    @classmethod
    def of(
        cls,
        values: "Tensor | np.ndarray",
        spacing: "Numbers | list[float] | None" = None,
        origin: "Numbers | list[float] | None" = None,
        direction: "tuple[Numbers, ...] | list[list[float]] | np.ndarray | None" = None,
    ) -> "Image":
        """A scalar image from an array in z, y, x order; spacing (mm), origin (mm, LPS), direction: x, y, z order."""
        data = torch.as_tensor(values)
        return cls(data[None], Grid.of(tuple(data.shape[::-1]), spacing, origin, direction))

    @property
    def dimension(self) -> int:
        """2 or 3."""
        return self.grid.dimension

    @property
    def channels(self) -> int:
        """How many values each voxel has."""
        return int(self.data.shape[0])

    @property
    def scalar(self) -> Shaped[Tensor, "*space"]:
        """The values of a single-channel image; raises `ImageError` for more channels."""
        if self.channels != 1:
            raise ImageError(f"a scalar image is needed, but this one has {self.channels} channels")
        return self.data[0]

    def with_data(self, data: Shaped[Tensor, "channel *space"]) -> "Image":
        """Other values on the same grid."""
        return replace(self, data=data)

    def to(self, *, device: "torch.device | str | None" = None, dtype: "torch.dtype | None" = None) -> "Image":
        """The same image on another device or in another number type."""
        return replace(self, data=self.data.to(device=device, dtype=dtype))

    def numpy(self) -> "np.ndarray":
        """The values as an array, z, y, x (channels last, as ITK has them, when there are several)."""
        data = self.data.detach().cpu()
        return np.asarray(data[0].numpy() if self.channels == 1 else data.movedim(0, -1).numpy())

    def __repr__(self) -> str:
        size, spacing = " x ".join(map(str, self.grid.size)), " x ".join(f"{s:g}" for s in self.grid.spacing)
        channels = f"{self.channels} channel{'s' * (self.channels > 1)}"
        return f"Image({size} voxels of {spacing} mm, {channels}, {self.data.dtype})"
