"""MIND: the modality independent neighbourhood descriptor with self-similarity context, as a scriptable network."""

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from impactreg.errors import ModelError

NO_TENSOR = torch.tensor([])
ONE_LAYER = torch.tensor([1])

NEIGHBOURS = {
    2: ((1, 0), (0, 1), (1, 2), (2, 1)),
    3: ((0, 1, 1), (1, 1, 0), (1, 0, 1), (1, 1, 2), (2, 1, 1), (1, 2, 1)),
}


class MIND(nn.Module):
    """MIND-SSC: how alike the patches around a voxel are to each other, which hardly depends on the modality.

    For every pair of neighbours of a voxel that are not opposite (12 pairs in 3D, 4 in 2D; `dilation` voxels away)
    the mean squared difference D of their patches ((2 radius + 1)^dimension voxels) gives one channel exp(-(D - min
    D) / V), where V is the mean of D - min D over the channels, kept within 0.001 and 1000 times its mean over the
    image. Image and differences are continued by their border values. Channels stand in the order of the IMPACT
    models. Each image of a batch is described on its own.

    M. P. Heinrich et al., "Towards Realtime Multimodal Fusion for Image-Guided Interventions Using
    Self-similarities", MICCAI 2013.
    """

    pairs: list[tuple[list[int], list[int]]]

    def __init__(self, dimension: int = 3, radius: int = 1, dilation: int = 2) -> None:
        super().__init__()
        if dimension not in NEIGHBOURS or radius < 1 or dilation < 1:
            written = f"dimension {dimension}, radius {radius} and dilation {dilation}"
            raise ModelError(f"MIND has dimension 2 or 3 and a radius and dilation of at least 1, not {written}")
        self.dimension = dimension
        self.dilation = dilation
        self.width = 2 * radius + 1
        # A flat image is a volume of one slice, which is not padded: 2D and 3D are then one piece of code.
        flat = 3 - dimension
        self.image_padding = [dilation] * 2 * dimension + [0, 0] * flat
        self.patch_padding = [radius] * 2 * dimension + [0, 0] * flat
        self.pairs = neighbour_pairs(dimension)

    def forward(
        self,
        x: Tensor,
        nb_layers: Tensor = ONE_LAYER,
        stats: Tensor = NO_TENSOR,
        direction: Tensor = NO_TENSOR,
    ) -> list[Tensor]:
        """The descriptor [batch, 12 or 4, *space] of images [batch, 1, *space], as a list of one layer."""
        if x.dim() != self.dimension + 2 or x.size(1) != 1:
            raise RuntimeError("MIND takes images of one channel and of its own dimension")
        volume = self.normalised(x, stats)
        if self.dimension == 2:
            volume = volume.unsqueeze(2)
        distance = self.patch_distances(volume)
        distance = distance - distance.amin(1, keepdim=True)
        variance = distance.mean(1, keepdim=True)
        # axis by axis: one sum over all would depend on the number of threads
        typical = variance.mean(4, keepdim=True).mean(3, keepdim=True).mean([1, 2], keepdim=True)
        # The last bound only matters where all patches of an image are equal: it gives 1 there instead of 0 / 0.
        variance = torch.minimum(torch.maximum(variance, typical * 0.001), typical * 1000.0).clamp(min=1e-20)
        descriptor = torch.exp(-(distance / variance))
        return [descriptor.squeeze(2) if self.dimension == 2 else descriptor]

    def normalised(self, x: Tensor, stats: Tensor) -> Tensor:
        """The image scaled to 0 to 1 by the given minimum and maximum of the whole image, else by its own."""
        if stats.numel() == 4:
            return (x - stats[0]) / (stats[1] - stats[0] + 1e-6)
        flat = x.flatten(1)
        shape = [-1] + [1] * (self.dimension + 1)
        low = flat.amin(1).reshape(shape)
        high = flat.amax(1).reshape(shape)
        return (x - low) / (high - low + 1e-6)

    def patch_distances(self, volume: Tensor) -> Tensor:
        """Mean squared differences [batch, pair, z, y, x] between the patches of each pair of neighbours."""
        padded = functional.pad(volume, self.image_padding, mode="replicate")
        distances: list[Tensor] = []
        for first, second in self.pairs:
            difference = self.shifted(padded, first, volume) - self.shifted(padded, second, volume)
            distances.append(self.patch_mean(functional.pad(difference**2, self.patch_padding, mode="replicate")))
        return torch.cat(distances, 1)

    def shifted(self, padded: Tensor, offset: list[int], volume: Tensor) -> Tensor:
        """The padded volume as seen `offset` dilations further on, in the size of `volume`."""
        for axis in range(len(offset)):
            index = axis + 5 - len(offset)
            padded = padded.narrow(index, offset[axis] * self.dilation, volume.size(index))
        return padded

    def patch_mean(self, values: Tensor) -> Tensor:
        """The mean over each patch: shifted copies added axis by axis, which is faster than pooling or convolution."""
        for axis in range(5 - self.dimension, 5):
            size = values.size(axis) - self.width + 1
            total = values.narrow(axis, 0, size)
            for start in range(1, self.width):
                total = total + values.narrow(axis, start, size)
            values = total / self.width
        return values


def neighbour_pairs(dimension: int) -> list[tuple[list[int], list[int]]]:
    """The pairs of positions (z, y, x from 0 to 2; 1 is the voxel itself) that are compared, in channel order."""
    neighbours = NEIGHBOURS[dimension]
    return [
        (list(first), list(second))
        for number, first in enumerate(neighbours)
        for second in neighbours[:number]
        if sum((a - b) ** 2 for a, b in zip(first, second, strict=True)) == 2
    ]


def variants() -> dict[str, tuple[int, int, int]]:
    """Name -> (dimension, radius, dilation) of the published models; the older names without a dimension are 3D."""
    sizes = [(radius, dilation) for radius in (1, 2) for dilation in (1, 2)]
    named = {f"MIND/R{r}D{d}_{n}D.pt": (n, r, d) for n in (2, 3) for r, d in sizes}
    return named | {f"MIND/R{r}D{d}.pt": (3, r, d) for r, d in sizes}


def example(dimension: int, size: int = 12) -> Float[Tensor, "batch channel *space"]:
    """A small image to check an exported descriptor with: waves of different lengths, the same on every machine."""
    axes = torch.meshgrid(*[torch.arange(size, dtype=torch.float32)] * dimension, indexing="ij")
    waves = [torch.sin(axis * (number + 2) * 0.37 + number) for number, axis in enumerate(axes)]
    return (torch.stack(waves).sum(0) + torch.stack(waves).prod(0))[None, None]
