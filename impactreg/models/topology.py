"""Topology: what a U-Net is made of, stage by stage, checked before anything is built."""

from dataclasses import dataclass
from math import prod
from typing import Literal

from impactreg.errors import ModelError

Sizes = tuple[int, ...]
Norm = Literal["instance", "batch"]
Activation = Literal["LeakyReLU", "ReLU"]

# Far above what networks have, and low enough that a plan made to do harm does not fill the memory.
MOST = {
    "stages": 16,
    "features": 4096,
    "kernel": 15,
    "stride": 16,
    "stride in all": 1024,
    "blocks": 64,
    "channels": 1024,
    "outputs": 4096,
}


@dataclass(frozen=True)
class NormSettings:
    """How features are normalised: the arguments of PyTorch's layer of that name (`norm_op_kwargs`)."""

    kind: Norm = "instance"
    eps: float = 1e-5
    affine: bool = True
    track_running_stats: bool | None = None


@dataclass(frozen=True)
class Topology:
    """The shape of a U-Net of two or three dimensions; sizes along the tensor axes (z, y, x), one entry for each stage.

    Stage s makes `features[s]` channels with kernels of `kernels[s]`, at a stride of `strides[s]`. `encoder_blocks`
    counts the convolutions of each encoder stage, or the residual blocks where `residual`; `decoder_blocks` those of
    each decoder stage, the coarsest first, one less than there are stages. Raises `ModelError` where this does not fit
    together.
    """

    input_channels: int
    outputs: int
    features: Sizes
    kernels: tuple[Sizes, ...]
    strides: tuple[Sizes, ...]
    encoder_blocks: Sizes
    decoder_blocks: Sizes
    residual: bool = False
    bias: bool = True
    norm: NormSettings | None = NormSettings()
    activation: Activation | None = "LeakyReLU"
    slope: float = 0.01
    activation_first: bool = False
    stem_features: int | None = None

    def __post_init__(self) -> None:
        _within("stages", (self.stages,), 2)
        _within("channels", (self.input_channels,))
        _within("outputs", (self.outputs,))
        _within("features", (*self.features, self.stem_features or 1))
        _within("blocks", (*self.encoder_blocks, *self.decoder_blocks))
        _within("kernel", tuple(size for kernel in self.kernels for size in kernel))
        _within("stride", tuple(size for stride in self.strides for size in stride))
        self._check_lengths()
        if any(size % 2 == 0 for kernel in self.kernels for size in kernel):
            raise ModelError(f"a U-Net has kernels of odd sizes, not {_listed(self.kernels)}")
        _within("stride in all", self.stride_products()[self.stages - 1])

    @property
    def dimension(self) -> int:
        """2 or 3."""
        return len(self.kernels[0])

    @property
    def stages(self) -> int:
        """How many stages the encoder has."""
        return len(self.features)

    @property
    def layers(self) -> int:
        """How many feature maps there are: one for each encoder stage, each decoder stage, and the logits."""
        return 2 * self.stages

    def channels(self) -> Sizes:
        """The channels of all layers: encoder from fine to coarse, decoder from coarse to fine, logits."""
        return (*self.features, *self.features[-2::-1], self.outputs)

    def stride_products(self) -> tuple[Sizes, ...]:
        """How many input voxels lie between two samples of each layer, along the tensor axes."""
        axes = range(self.dimension)
        down = [tuple(prod(s[a] for s in self.strides[: n + 1]) for a in axes) for n in range(self.stages)]
        return (*down, *down[-2::-1], down[0])

    def reaches(self) -> tuple[tuple[float, ...], ...]:
        """How many input voxels to each side a sample of each layer sees by its convolutions alone."""
        steps = self.stride_products()
        around = [0.0] * self.dimension
        found = []
        for layer in range(2 * self.stages - 1):
            stage = layer if layer < self.stages else 2 * self.stages - 2 - layer
            for axis, size in enumerate(self.kernels[stage]):
                around[axis] += (size - 1) / 2 * self._steps_between(layer, stage, axis, steps)
            found.append(tuple(around))
        return (*found, found[-1])

    def _steps_between(self, layer: int, stage: int, axis: int, steps: tuple[Sizes, ...]) -> int:
        """The distances, added up, at which the kernels of a stage look to a side; the first of it is still fine."""
        if layer >= self.stages:
            # What is enlarged is known at the distance of the stage below.
            return self.decoder_blocks[layer - self.stages] * steps[stage][axis] + steps[stage + 1][axis] // 2
        before = steps[stage - 1][axis] if stage else 1
        convolutions = self.encoder_blocks[stage] * (2 if self.residual else 1) + (self.residual and stage == 0)
        return before + (convolutions - 1) * steps[stage][axis]

    def _check_lengths(self) -> None:
        per_stage = {"kernels": self.kernels, "strides": self.strides, "encoder blocks": self.encoder_blocks}
        for what, given in per_stage.items():
            if len(given) != self.stages:
                raise ModelError(f"a U-Net of {self.stages} stages has as many {what}, not {len(given)}")
        if len(self.decoder_blocks) != self.stages - 1:
            raise ModelError(
                f"a U-Net of {self.stages} stages has {self.stages - 1} decoder stages, not {len(self.decoder_blocks)}"
            )
        lengths = {len(size) for size in (*self.kernels, *self.strides)}
        if lengths not in ({2}, {3}):
            raise ModelError(
                "kernels and strides of a U-Net have all 2 or all 3 numbers, not "
                f"{_listed(self.kernels)} and {_listed(self.strides)}"
            )


def _within(what: str, values: Sizes, least: int = 1) -> None:
    wrong = next((value for value in values if not least <= value <= MOST[what]), None)
    if wrong is not None:
        raise ModelError(f"a U-Net has {what} from {least} to {MOST[what]}, not {wrong}")


def _listed(sizes: tuple[Sizes, ...]) -> str:
    return " ".join("x".join(map(str, size)) for size in sizes)
