"""A scriptable U-Net of two or three dimensions whose parameters have the names that nnU-Net gives them."""

import torch
from torch import Tensor, nn
from torch.nn import functional

from impactreg.models.topology import Topology

CONVOLUTIONS = {2: nn.Conv2d, 3: nn.Conv3d}
TRANSPOSED = {2: nn.ConvTranspose2d, 3: nn.ConvTranspose3d}
POOLINGS = {2: nn.AvgPool2d, 3: nn.AvgPool3d}
NORMS = {
    ("instance", 2): nn.InstanceNorm2d,
    ("instance", 3): nn.InstanceNorm3d,
    ("batch", 2): nn.BatchNorm2d,
    ("batch", 3): nn.BatchNorm3d,
}
ALL = 1 << 15


class UNet(nn.Module):
    """An encoder, a decoder with a head at every scale, and the layers between them.

    Parameters are named as in `dynamic_network_architectures` (PlainConvUNet and ResidualEncoderUNet), which nnU-Net
    builds its networks from, so that its checkpoints fit. Any size of image is taken: where a stride does not divide
    it, a decoder stage drops what goes past the encoder's map. F. Isensee et al., "nnU-Net: a self-configuring method
    for deep learning-based biomedical image segmentation", Nature Methods 2021.
    """

    def __init__(self, topology: Topology) -> None:
        super().__init__()
        self.encoder = ResidualEncoder(topology) if topology.residual else PlainEncoder(topology)
        self.decoder = Decoder(topology)

    def forward(self, x: Tensor) -> Tensor:
        """The output of the finest head [batch, output, *space] for images [batch, channel, *space]."""
        return self.decoder.head(self.decoder(self.encoder(x))[-1])

    def layers(self, x: Tensor, number: int) -> list[Tensor]:
        """The first `number` layers: encoder from fine to coarse, decoder from coarse to fine, finest head.

        No more is computed than is asked for.
        """
        found: list[Tensor] = self.encoder(x, number)
        if number > self.encoder.size:
            maps: list[Tensor] = self.decoder(found, number - self.encoder.size)
            found = found + maps
        if number > 2 * self.encoder.size - 1:
            found.append(self.decoder.head(found[-1]))
        return found


class PlainEncoder(nn.Module):
    """Stages of convolutions; the first of a stage has its stride."""

    def __init__(self, topology: Topology) -> None:
        super().__init__()
        self.size = topology.stages
        before = (topology.input_channels, *topology.features)
        self.stages = nn.Sequential(
            *(
                nn.Sequential(
                    ConvBlocks(topology, topology.encoder_blocks[s], before[s], topology.features[s], s, strided=True)
                )
                for s in range(topology.stages)
            )
        )

    def forward(self, x: Tensor, number: int = ALL) -> list[Tensor]:
        """The maps of the first `number` stages, from fine to coarse."""
        maps: list[Tensor] = []
        for stage in self.stages:
            if len(maps) < number:
                x = stage(x)
                maps.append(x)
        return maps


class ResidualEncoder(nn.Module):
    """A stem, then stages of residual blocks; the first of a stage has its stride."""

    def __init__(self, topology: Topology) -> None:
        super().__init__()
        self.size = topology.stages
        stem = topology.stem_features or topology.features[0]
        before = (stem, *topology.features)
        self.stem = ConvBlocks(topology, 1, topology.input_channels, stem, 0, strided=False)
        self.stages = nn.Sequential(*(ResidualBlocks(topology, before[s], s) for s in range(topology.stages)))

    def forward(self, x: Tensor, number: int = ALL) -> list[Tensor]:
        """The maps of the first `number` stages, from fine to coarse."""
        maps: list[Tensor] = []
        x = self.stem(x)
        for stage in self.stages:
            if len(maps) < number:
                x = stage(x)
                maps.append(x)
        return maps


class Decoder(nn.Module):
    """Stages that join the map below, made larger, with the encoder's map of their own scale.

    Each has a head, as in nnU-Net's checkpoints, of which that of the finest scale alone is used.
    """

    def __init__(self, topology: Topology) -> None:
        super().__init__()
        self.dimension = topology.dimension
        transposed, convolution = TRANSPOSED[topology.dimension], CONVOLUTIONS[topology.dimension]
        transpconvs, stages, heads = [], [], []
        for number, scale in enumerate(range(topology.stages - 2, -1, -1)):
            below, width, stride = topology.features[scale + 1], topology.features[scale], topology.strides[scale + 1]
            transpconvs.append(transposed(below, width, stride, stride, bias=topology.bias))  # type: ignore[arg-type]
            blocks = topology.decoder_blocks[number]
            stages.append(ConvBlocks(topology, blocks, 2 * width, width, scale, strided=False))
            heads.append(convolution(width, topology.outputs, 1))
        self.transpconvs = nn.ModuleList(transpconvs)
        self.stages = nn.ModuleList(stages)
        self.seg_layers = nn.ModuleList(heads)

    def forward(self, skips: list[Tensor], number: int = ALL) -> list[Tensor]:
        """The maps of the first `number` decoder stages, from coarse to fine, of an encoder's maps."""
        maps: list[Tensor] = []
        x = skips[-1]
        for enlarge, stage in zip(self.transpconvs, self.stages):  # noqa: B905 (TorchScript knows no strict)
            if len(maps) < number:
                skip = skips[-len(maps) - 2]
                x = stage(torch.cat((self.cropped(enlarge(x), skip), skip), 1))
                maps.append(x)
        return maps

    def head(self, x: Tensor) -> Tensor:
        """The output of the finest head of the last map."""
        output: Tensor = self.seg_layers[-1](x)
        return output

    def cropped(self, x: Tensor, like: Tensor) -> Tensor:
        """The map without what goes past the end of another, where a stride did not divide that one's size."""
        for axis in range(2, self.dimension + 2):
            x = x.narrow(axis, 0, like.size(axis))
        return x


class ConvBlocks(nn.Module):
    """Convolutions one after the other, as nnU-Net's StackedConvBlocks."""

    def __init__(
        self, topology: Topology, number: int, channels: int, features: int, stage: int, *, strided: bool
    ) -> None:
        super().__init__()
        kernel, stride = topology.kernels[stage], topology.strides[stage]
        ones = (1,) * topology.dimension
        self.convs = nn.Sequential(
            *(
                ConvBlock(
                    topology,
                    channels if place == 0 else features,
                    features,
                    kernel,
                    stride if strided and place == 0 else ones,
                )
                for place in range(number)
            )
        )

    def forward(self, x: Tensor) -> Tensor:
        """The last convolution's features."""
        output: Tensor = self.convs(x)
        return output


class ConvBlock(nn.Module):
    """Convolution, normalisation, activation; nnU-Net's dropout does nothing once a network is trained."""

    def __init__(
        self,
        topology: Topology,
        channels: int,
        features: int,
        kernel: tuple[int, ...],
        stride: tuple[int, ...],
        *,
        bias: bool | None = None,
        activated: bool = True,
    ) -> None:
        super().__init__()
        padding = tuple((size - 1) // 2 for size in kernel)
        biased = topology.bias if bias is None else bias
        convolution = CONVOLUTIONS[topology.dimension]
        self.conv = convolution(channels, features, kernel, stride, padding, bias=biased)  # type: ignore[arg-type]
        self.norm = _norm(topology, features)
        self.nonlin = _activation(topology) if activated else nn.Identity()
        self.activation_first = topology.activation_first

    def forward(self, x: Tensor) -> Tensor:
        """Features [batch, feature, *space]."""
        x = self.conv(x)
        output: Tensor = self.norm(self.nonlin(x)) if self.activation_first else self.nonlin(self.norm(x))
        return output


class ResidualBlocks(nn.Module):
    """Residual blocks one after the other, as nnU-Net's StackedResidualBlocks."""

    def __init__(self, topology: Topology, channels: int, stage: int) -> None:
        super().__init__()
        features, kernel, stride = topology.features[stage], topology.kernels[stage], topology.strides[stage]
        ones = (1,) * topology.dimension
        blocks = [ResidualBlock(topology, channels, features, kernel, stride)]
        rest = range(1, topology.encoder_blocks[stage])
        self.blocks = nn.Sequential(*blocks, *(ResidualBlock(topology, features, features, kernel, ones) for _ in rest))

    def forward(self, x: Tensor) -> Tensor:
        """The last block's features."""
        output: Tensor = self.blocks(x)
        return output


class ResidualBlock(nn.Module):
    """Two convolutions beside a short cut of average pooling and a 1 x 1 convolution, as far as these are needed.

    T. He et al., "Bag of tricks for image classification with convolutional neural networks", CVPR 2019 (ResNet-D).
    """

    def __init__(
        self, topology: Topology, channels: int, features: int, kernel: tuple[int, ...], stride: tuple[int, ...]
    ) -> None:
        super().__init__()
        ones = (1,) * topology.dimension
        self.conv1 = ConvBlock(topology, channels, features, kernel, stride)
        self.conv2 = ConvBlock(topology, features, features, kernel, ones, activated=False)
        self.nonlin2 = _activation(topology)
        short: list[nn.Module] = []
        if stride != ones:
            # The last window may be incomplete, like the last step of the convolution.
            short.append(POOLINGS[topology.dimension](stride, stride, ceil_mode=True))  # type: ignore[arg-type]
        if channels != features:
            short.append(ConvBlock(topology, channels, features, ones, ones, bias=False, activated=False))
        self.skip = nn.Sequential(*short)

    def forward(self, x: Tensor) -> Tensor:
        """Features [batch, feature, *space]."""
        output: Tensor = self.nonlin2(self.conv2(self.conv1(x)) + self.skip(x))
        return output


class Leaky(nn.Module):
    """A leaky rectifier in place, which spares the memory of one map."""

    def __init__(self, slope: float) -> None:
        super().__init__()
        self.slope = slope

    def forward(self, x: Tensor) -> Tensor:
        """The input's positive part, and `slope` times its negative one."""
        return functional.leaky_relu_(x, self.slope)


def _activation(topology: Topology) -> nn.Module:
    if topology.activation is None:
        return nn.Identity()
    return Leaky(topology.slope) if topology.activation == "LeakyReLU" else nn.ReLU(inplace=True)


def _norm(topology: Topology, features: int) -> nn.Module:
    settings = topology.norm
    if settings is None:
        return nn.Identity()
    tracked = settings.kind == "batch" if settings.track_running_stats is None else settings.track_running_stats
    layer = NORMS[settings.kind, topology.dimension]
    return layer(features, eps=settings.eps, affine=settings.affine, track_running_stats=tracked)
