"""What nnU-Net does to intensities before its network, as a scriptable module."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from impactreg.models.plans import Normalisation

LEAST = 1e-8
PULL = 1e-3


class Normalise(nn.Module):
    """Each channel normalised as the plan says.

    CTNormalization clips to the foreground's percentiles 0.5 and 99.5, and takes its mean and deviation; a clipped
    value keeps a thousandth of its gradient, without which neither an optimiser nor a measurement could see through an
    image that lies outside. ZScore and RescaleTo01 use the statistics of the whole image where they are given, for all
    channels alike, and else those of each image and channel. ZScore inside a mask leaves 0 where the image is 0; the
    statistics of the whole image include these voxels, those that it finds itself do not.
    """

    schemes: list[str]
    masked: list[bool]
    means: list[float]
    deviations: list[float]
    lows: list[float]
    highs: list[float]

    def __init__(self, normalisations: Sequence[Normalisation]) -> None:
        super().__init__()
        known = [one.intensities for one in normalisations]
        self.schemes = [one.scheme for one in normalisations]
        self.least = LEAST
        self.pull = PULL
        self.masked = [one.inside_mask for one in normalisations]
        self.means = [found.mean if found else 0.0 for found in known]
        self.deviations = [max(found.std, LEAST) if found else 1.0 for found in known]
        self.lows = [found.percentile_00_5 if found else 0.0 for found in known]
        self.highs = [found.percentile_99_5 if found else 0.0 for found in known]

    def forward(self, x: Tensor, stats: Tensor) -> Tensor:
        """Images [batch, channel, *space]; `stats` is empty or [minimum, maximum, mean, sigma] of the whole image."""
        if x.size(1) != len(self.schemes):
            raise RuntimeError("the model takes images of another number of channels")
        channels: list[Tensor] = []
        for number, scheme in enumerate(self.schemes):
            channel = x.narrow(1, number, 1)
            if scheme == "CTNormalization":
                channel = self.clipped(channel, number)
            elif scheme == "ZScoreNormalization":
                channel = self.standardised(channel, stats, self.masked[number])
            elif scheme == "RescaleTo01Normalization":
                channel = self.rescaled(channel, stats)
            elif scheme == "RGBTo01Normalization":
                channel = channel / 255.0
            channels.append(channel)
        return channels[0] if len(channels) == 1 else torch.cat(channels, 1)

    def clipped(self, x: Tensor, number: int) -> Tensor:
        """CTNormalization."""
        inside = x.clamp(self.lows[number], self.highs[number])
        outside = (x - inside) * self.pull
        return (inside + (outside - outside.detach()) - self.means[number]) / self.deviations[number]

    def standardised(self, x: Tensor, stats: Tensor, masked: bool) -> Tensor:
        """ZScoreNormalization."""
        if stats.numel() == 4:
            result = (x - stats[2]) / stats[3].clamp(min=self.least)
            return result * (x != 0) if masked else result
        weight = (x != 0).to(x.dtype) if masked else torch.ones_like(x)
        shape = [-1] + [1] * (x.dim() - 1)
        count = weight.flatten(1).sum(1).clamp(min=1.0).reshape(shape)
        mean = (x * weight).flatten(1).sum(1).reshape(shape) / count
        variance = (((x - mean) * weight) ** 2).flatten(1).sum(1).reshape(shape) / count
        return (x - mean) * weight / variance.clamp(min=self.least * self.least).sqrt()

    def rescaled(self, x: Tensor, stats: Tensor) -> Tensor:
        """RescaleTo01Normalization."""
        if stats.numel() == 4:
            return (x - stats[0]) / (stats[1] - stats[0]).clamp(min=self.least)
        flat = x.flatten(1)
        shape = [-1] + [1] * (x.dim() - 1)
        low = flat.amin(1).reshape(shape)
        return (x - low) / (flat.amax(1).reshape(shape) - low).clamp(min=self.least)
