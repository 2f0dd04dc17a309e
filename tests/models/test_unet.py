"""The U-Net: layers, early exit, any size, and parity with the networks that nnU-Net builds."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from impactreg.errors import ModelError
from impactreg.models.checkpoints import COPIES
from impactreg.models.extractor import torchscript
from impactreg.models.topology import NormSettings, Topology
from impactreg.models.unet import UNet

PLAIN = Topology(
    input_channels=2,
    outputs=3,
    features=(4, 6, 8),
    kernels=((1, 3, 3), (3, 3, 3), (3, 3, 3)),
    strides=((1, 1, 1), (1, 2, 2), (2, 2, 2)),
    encoder_blocks=(2, 1, 2),
    decoder_blocks=(2, 1),
)
FLAT = replace(PLAIN, kernels=((3, 3),) * 3, strides=((1, 1), (2, 2), (2, 1)))
RESIDUAL = replace(PLAIN, residual=True, features=(4, 6, 6), encoder_blocks=(1, 3, 2))
VARIANTS = {
    "plain 3D": PLAIN,
    "plain 2D": FLAT,
    "residual 3D": RESIDUAL,
    "residual 2D": replace(FLAT, residual=True, stem_features=5),
    "batch norm, ReLU, no bias": replace(PLAIN, norm=NormSettings("batch"), activation="ReLU", bias=False),
    "no norm, another slope": replace(FLAT, norm=None, slope=0.2),
    "activation first": replace(FLAT, activation_first=True, norm=NormSettings(affine=False, eps=1e-3)),
    "four stages": replace(
        RESIDUAL,
        features=(3, 4, 5, 6),
        kernels=((3, 3, 3),) * 4,
        strides=((1, 1, 1), (2, 2, 2), (2, 2, 2), (1, 2, 2)),
        encoder_blocks=(1, 2, 2, 1),
        decoder_blocks=(1, 2, 1),
    ),
}


def image(topology: Topology, *shape: int) -> Tensor:
    return torch.randn(2, topology.input_channels, *(shape or (8, 16, 16)[-topology.dimension :]))


def heads(network: UNet, maps: list[Tensor]) -> list[Tensor]:
    """The output of each head of the decoder for its map, the finest first: what a training compares."""
    return [head(one) for head, one in zip(network.decoder.seg_layers, maps, strict=True)][::-1]


def original(topology: Topology) -> nn.Module:
    """The network that nnU-Net builds, with deep supervision as in training."""
    unet = pytest.importorskip(
        "dynamic_network_architectures.architectures.unet",
        reason="dynamic-network-architectures is not installed (pip install --no-deps dynamic-network-architectures)",
        exc_type=ImportError,
    )
    flat = topology.dimension == 2
    norms = {"instance": (nn.InstanceNorm3d, nn.InstanceNorm2d), "batch": (nn.BatchNorm3d, nn.BatchNorm2d)}
    norm = topology.norm
    given: dict[str, Any] = {
        "input_channels": topology.input_channels,
        "n_stages": topology.stages,
        "features_per_stage": topology.features,
        "conv_op": nn.Conv2d if flat else nn.Conv3d,
        "kernel_sizes": topology.kernels,
        "strides": topology.strides,
        "num_classes": topology.outputs,
        "n_conv_per_stage_decoder": topology.decoder_blocks,
        "conv_bias": topology.bias,
        "norm_op": norms[norm.kind][flat] if norm else None,
        "norm_op_kwargs": {"eps": norm.eps, "affine": norm.affine} if norm else None,
        "nonlin": nn.LeakyReLU if topology.activation == "LeakyReLU" else nn.ReLU,
        "nonlin_kwargs": {"negative_slope": topology.slope} if topology.activation == "LeakyReLU" else {},
        "deep_supervision": True,
    }
    if topology.residual:
        stem = topology.stem_features
        network = unet.ResidualEncoderUNet(n_blocks_per_stage=topology.encoder_blocks, stem_channels=stem, **given)
    else:
        first = topology.activation_first
        network = unet.PlainConvUNet(n_conv_per_stage=topology.encoder_blocks, nonlin_first=first, **given)
    return network.eval()


@pytest.mark.parametrize("topology", VARIANTS.values(), ids=VARIANTS)
def test_every_layer_equals_that_of_nnunets_network(topology: Topology) -> None:
    theirs, ours = original(topology), UNet(topology).eval()
    for parameter in theirs.parameters():
        nn.init.normal_(parameter, 0, 0.3)
    ours.load_state_dict({name: value for name, value in theirs.state_dict().items() if not COPIES.search(name)})
    decoded: list[Tensor] = []
    for stage in theirs.decoder.stages:
        stage.register_forward_hook(lambda *seen: decoded.append(seen[-1]))
    x = image(topology)
    with torch.no_grad():
        outputs = theirs(x)
        expected = [*theirs.encoder(x), *decoded, outputs[0]]
        found = ours.layers(x, topology.layers)
        supervised = heads(ours, ours.decoder(ours.encoder(x)))
        assert torch.equal(ours(x), found[-1])
    assert len(found) == len(expected) == topology.layers
    for one, other in zip([*found, *supervised], [*expected, *outputs], strict=True):
        assert torch.allclose(one, other, rtol=1e-5, atol=1e-5 * max(1.0, float(other.abs().max())))


@pytest.mark.parametrize("topology", VARIANTS.values(), ids=VARIANTS)
def test_layers_have_the_channels_and_strides_of_the_topology_for_any_size(topology: Topology) -> None:
    network = UNet(topology).eval()
    x = image(topology, *(11, 13, 17)[: topology.dimension])
    with torch.no_grad():
        layers = network.layers(x, topology.layers)
    strides = topology.stride_products()
    for layer, channels, stride in zip(layers, topology.channels(), strides, strict=True):
        assert layer.shape[1] == channels
        assert list(layer.shape[2:]) == [-(-size // step) for size, step in zip(x.shape[2:], stride, strict=True)]


class Scripted(nn.Module):
    def __init__(self, topology: Topology) -> None:
        super().__init__()
        self.network = UNet(topology)

    def forward(self, x: Tensor, number: int) -> list[Tensor]:
        return self.network.layers(x, number)


@pytest.mark.parametrize("topology", [PLAIN, VARIANTS["residual 2D"]], ids=["plain", "residual"])
def test_a_scripted_network_makes_as_many_layers_as_are_asked_for(topology: Topology) -> None:
    module = Scripted(topology).eval()
    with torchscript():
        scripted = torch.jit.script(module)
    x = image(topology)
    for number in range(1, topology.layers + 3):
        found = scripted(x, number)
        assert len(found) == min(number, topology.layers)
        assert all(torch.equal(*pair) for pair in zip(found, module(x, number), strict=True))


def test_no_more_is_computed_than_is_asked_for() -> None:
    network = UNet(PLAIN).eval()

    def complain(*_: object) -> None:
        pytest.fail("the third stage is not needed")

    network.encoder.stages[2].register_forward_hook(complain)
    network.decoder.register_forward_hook(complain)
    assert len(network.layers(image(PLAIN), 2)) == 2


def test_encoder_and_decoder_work_alone_and_have_gradients() -> None:
    network = UNet(replace(PLAIN, norm=None))
    x = image(PLAIN).requires_grad_()
    maps = network.decoder(network.encoder(x))
    assert [one.shape[1] for one in maps] == [6, 4]
    sum(head.square().sum() for head in heads(network, maps)).backward()
    assert x.grad is not None
    assert float(x.grad.abs().sum()) > 0
    assert all(parameter.grad is not None for parameter in network.parameters())


@pytest.mark.parametrize(
    "topology", [replace(FLAT, norm=None), replace(RESIDUAL, norm=None)], ids=["plain", "residual"]
)
def test_a_layer_sees_no_further_than_its_reach(topology: Topology) -> None:
    network = UNet(topology).double()
    size = 64 if topology.dimension == 2 else 40
    x = torch.randn(1, 2, *[size] * topology.dimension, dtype=torch.float64, requires_grad=True)
    layers = network.layers(x, topology.layers)
    for layer, stride, reach in zip(layers, topology.stride_products(), topology.reaches(), strict=True):
        middle = [count // 2 for count in layer.shape[2:]]
        sample = layer[(0, slice(None), *middle)]
        (gradient,) = torch.autograd.grad(sample.square().sum(), x, retain_graph=True)
        seen = torch.nonzero(gradient[0].abs().sum(0))
        for axis, index in enumerate(middle):
            place = index * stride[axis]
            assert place - seen[:, axis].min() <= reach[axis]
            assert seen[:, axis].max() - place <= reach[axis]
            assert place - seen[:, axis].min() >= min(place, reach[axis] - 4 * stride[axis])


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"features": (4,)}, "stages from 2"),
        ({"features": (4, 10**9, 8)}, "features from 1 to 4096, not 1000000000"),
        ({"strides": ((1, 1, 1), (2, 2, 2))}, "3 stages has as many strides, not 2"),
        ({"decoder_blocks": (1,)}, "2 decoder stages, not 1"),
        ({"kernels": ((2, 3, 3),) * 3}, "kernels of odd sizes"),
        ({"kernels": ((3, 3),) * 3}, "all 2 or all 3 numbers"),
        ({"outputs": 0}, "outputs from 1"),
        ({"strides": ((16, 16, 16),) * 3}, "stride in all from 1 to 1024, not 4096"),
    ],
)
def test_what_does_not_fit_together_is_refused(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(ModelError, match=said):
        replace(PLAIN, **changes)
