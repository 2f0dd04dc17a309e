"""What becomes of a layer of maps: principal components, labels, the image's grid; computed slab by slab."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from impactreg.errors import ModelError
from impactreg.images.grid import Grid
from impactreg.images.image import Image
from impactreg.images.storage import Storage, slabs
from impactreg.models import reduction
from impactreg.models.regridding import Regridding

Step = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Finishing:
    """What is wanted of a layer: `components` of its channels, or `labels`, on `grid` (None: on its own).

    Labels are the channels with the highest values (`argmax`). On another grid the values of channels are interpolated
    linearly, and labels follow from these.
    """

    components: int | None = None
    labels: bool = False
    grid: Grid | None = None

    def finished(self, layer: Image, name: str, storage: Storage) -> Image:
        """The layer as it is wanted; `name` is said in a `ModelError` where its channels are too few."""
        regridding = Regridding(layer, self.grid or layer.grid, 1)
        if self.components is not None:
            return _each(regridding, _projection(layer, self.components, name), self.components, torch.float32, storage)
        if self.labels:
            if layer.channels < 2:
                raise ModelError(f"{name} has one channel; labels are the highest of several")
            kind = torch.uint8 if layer.channels <= 256 else torch.int16
            return _each(regridding, lambda values: values.argmax(0, keepdim=True), 1, kind, storage)
        return regridding.all(storage)


def _each(regridding: Regridding, step: Step, channels: int, kind: torch.dtype, storage: Storage) -> Image:
    grid = regridding.grid
    data = storage.zeros((channels, *grid.shape), kind)
    held = 4 * max(channels, regridding.image.channels) * grid.number_of_voxels // grid.shape[0]
    for part in slabs(grid.shape[0], held):
        data[:, part] = step(regridding.rows(part))
        storage.release()
    return Image(data, grid)


def _projection(layer: Image, components: int, name: str) -> Step:
    try:
        basis = reduction.fit(layer.data, components).T
    except ModelError as error:
        raise ModelError(f"{name}: {error}") from None
    mean = layer.data.flatten(1).mean(1, dtype=torch.float64)
    shift = (basis.double() @ mean).float()[:, None]
    return lambda values: (basis @ values.flatten(1) - shift).reshape(-1, *values.shape[1:])
