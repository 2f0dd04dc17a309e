"""The network that a configuration of `plans.json` describes, in the form of nnU-Net 2.4 and in the one before."""

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from impactreg.errors import ModelError
from impactreg.models.topology import Activation, Norm, NormSettings, Sizes, Topology

CONVOLUTIONS = {"Conv2d": 2, "Conv3d": 3}
NORMS: dict[str, Norm] = {
    "InstanceNorm2d": "instance",
    "InstanceNorm3d": "instance",
    "BatchNorm2d": "batch",
    "BatchNorm3d": "batch",
}
ACTIVATIONS: dict[str, Activation] = {"LeakyReLU": "LeakyReLU", "ReLU": "ReLU"}
NETWORKS = {"PlainConvUNet": False, "ResidualEncoderUNet": True}

Whole = Annotated[int, Field(ge=1, le=1 << 16)]
PerStage = Whole | tuple[Whole, ...]
PerAxis = Whole | tuple[PerStage, ...]


class Architecture(BaseModel):
    """`arch_kwargs`, with the name of the network's class before them; other keys are refused unless they are empty."""

    model_config = ConfigDict(frozen=True, extra="allow")

    network: str
    dimension: int
    n_stages: Annotated[int, Field(ge=2, le=16)]
    features_per_stage: PerStage
    conv_op: str
    kernel_sizes: PerAxis
    strides: PerAxis
    n_conv_per_stage: PerStage | None = None
    n_blocks_per_stage: PerStage | None = None
    n_conv_per_stage_decoder: PerStage
    conv_bias: bool = False
    norm_op: str | None = None
    norm_op_kwargs: dict[str, Any] | None = None
    dropout_op: str | None = None
    dropout_op_kwargs: dict[str, Any] | None = None
    nonlin: str | None = None
    nonlin_kwargs: dict[str, Any] | None = None
    nonlin_first: bool = False
    stem_channels: Whole | None = None
    deep_supervision: bool = False


def architecture_of(configuration: Mapping[str, Any], dimension: int) -> Architecture:
    """The architecture of a configuration; raises `ModelError` where it is no U-Net that nnU-Net plans."""
    raw = _newer(configuration) if "architecture" in configuration else _older(configuration, dimension)
    try:
        found = Architecture.model_validate(raw)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(map(str, first["loc"]))
        raise ModelError(f"({key} {first['input']!r:.60}): {first['msg']}") from None
    unknown = sorted(key for key, value in (found.model_extra or {}).items() if value)
    if unknown:
        raise ModelError(f"{found.network} with {', '.join(unknown)} is not among the networks that can be converted")
    return found


def topology_of(architecture: Architecture, channels: int, outputs: int) -> Topology:
    """The shape of the network; raises `ModelError` where the architecture cannot be built."""
    found = architecture
    residual = _chosen(NETWORKS, found.network, "network")
    blocks = found.n_blocks_per_stage if residual else found.n_conv_per_stage
    if blocks is None:
        key = "n_blocks_per_stage" if residual else "n_conv_per_stage"
        raise ModelError(f"{found.network} needs {key}")
    if _chosen(CONVOLUTIONS, found.conv_op, "conv_op") != found.dimension:
        raise ModelError(f"(conv_op {found.conv_op}) does not fit a patch of {found.dimension} axes")
    activation = None if found.nonlin is None else _chosen(ACTIVATIONS, found.nonlin, "nonlin")
    return Topology(
        input_channels=channels,
        outputs=outputs,
        features=_per_stage(found.features_per_stage, found.n_stages),
        kernels=_per_axis(found.kernel_sizes, found),
        strides=_per_axis(found.strides, found),
        encoder_blocks=_per_stage(blocks, found.n_stages),
        decoder_blocks=_per_stage(found.n_conv_per_stage_decoder, found.n_stages - 1),
        residual=residual,
        bias=found.conv_bias,
        norm=_norm(found),
        activation=activation,
        slope=_slope(found),
        activation_first=found.nonlin_first and found.norm_op is not None,
        stem_features=found.stem_channels,
    )


def _newer(configuration: Mapping[str, Any]) -> dict[str, Any]:
    described = configuration["architecture"]
    patch = configuration.get("patch_size")
    if not isinstance(described, dict) or not isinstance(described.get("arch_kwargs"), dict):
        raise ModelError("(architecture): network_class_name and arch_kwargs are needed")
    network = str(described.get("network_class_name")).rpartition(".")[2]
    return {**described["arch_kwargs"], "network": network, "dimension": len(patch) if patch else 0}


def _older(configuration: Mapping[str, Any], dimension: int) -> dict[str, Any]:
    """Plans before nnU-Net 2.4: what they do not say was fixed then."""
    needed = (
        "UNet_class_name",
        "UNet_base_num_features",
        "unet_max_num_features",
        "n_conv_per_stage_encoder",
        "n_conv_per_stage_decoder",
        "conv_kernel_sizes",
        "pool_op_kernel_sizes",
    )
    missing = [key for key in needed if key not in configuration]
    if missing:
        raise ModelError(f"there is neither an architecture nor {missing[0]}: no network is described")
    network, base, most, blocks, decoder, kernels, strides = (configuration[key] for key in needed)
    if not isinstance(blocks, list) or not all(
        isinstance(value, int) and 0 < value <= 1 << 16 for value in (base, most)
    ):
        raise ModelError(
            "(n_conv_per_stage_encoder) is a list, UNet_base_num_features and unet_max_num_features numbers"
        )
    residual = network == "ResidualEncoderUNet"
    return {
        "network": network,
        "dimension": dimension,
        "n_stages": len(blocks),
        "features_per_stage": [min(base << min(stage, 16), most) for stage in range(len(blocks))],
        "conv_op": f"Conv{dimension}d",
        "kernel_sizes": kernels,
        "strides": strides,
        "n_blocks_per_stage" if residual else "n_conv_per_stage": blocks,
        "n_conv_per_stage_decoder": decoder,
        "conv_bias": True,
        "norm_op": f"InstanceNorm{dimension}d",
        "norm_op_kwargs": {"eps": 1e-5, "affine": True},
        "nonlin": "LeakyReLU",
    }


def _chosen(known: Mapping[str, Any], written: str, key: str) -> Any:
    """What a dotted Python name means by its last part; nothing is imported by it."""
    name = written.rpartition(".")[2]
    if name not in known:
        raise ModelError(f"({key} {written!r:.80}): one of {', '.join(known)} is needed")
    return known[name]


def _per_stage(value: PerStage, stages: int) -> Sizes:
    return value if isinstance(value, tuple) else (value,) * stages


def _per_axis(value: PerAxis, architecture: Architecture) -> tuple[Sizes, ...]:
    stages = value if isinstance(value, tuple) else (value,) * architecture.n_stages
    return tuple(_per_stage(sizes, architecture.dimension) for sizes in stages)


def _norm(architecture: Architecture) -> NormSettings | None:
    if architecture.norm_op is None:
        return None
    kind = _chosen(NORMS, architecture.norm_op, "norm_op")
    given = architecture.norm_op_kwargs or {}
    eps, affine = given.get("eps", 1e-5), given.get("affine", kind == "batch")
    tracked = given.get("track_running_stats")
    if not isinstance(eps, float | int) or not 0 < eps < 1:
        raise ModelError(f"(norm_op_kwargs eps {eps!r:.40}): a small positive number is needed")
    return NormSettings(kind, float(eps), bool(affine), None if tracked is None else bool(tracked))


def _slope(architecture: Architecture) -> float:
    slope = (architecture.nonlin_kwargs or {}).get("negative_slope", 0.01)
    if not isinstance(slope, float | int) or not 0 <= slope < 10:
        raise ModelError(f"(nonlin_kwargs negative_slope {slope!r:.40}): a number from 0 on is needed")
    return float(slope)
