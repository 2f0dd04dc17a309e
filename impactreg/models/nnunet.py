"""An nnU-Net model becomes a feature extractor for Impact: its network, normalisation and orientation in one file."""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from impactreg.errors import ModelError
from impactreg.models.checkpoints import fill, network_weights
from impactreg.models.export import ExportReport, export
from impactreg.models.geometry import Layer
from impactreg.models.inspection import impact_line
from impactreg.models.normalisation import Normalise
from impactreg.models.orientation import Orientation
from impactreg.models.package_checks import plan_of
from impactreg.models.package_layout import FINAL, Trained, trained_in
from impactreg.models.plans import Plan
from impactreg.models.topology import Topology
from impactreg.models.unet import ALL, UNet
from impactreg.models.unpacking import Contents

NO_TENSOR = torch.tensor([])
EVERY_LAYER = torch.tensor([ALL - 1], dtype=torch.int16)
SECOND = 2
"""How many layers the printed mask asks for: the second, still detailed and already learnt."""


class FeatureExtractor(nn.Module):
    """A U-Net of nnU-Net under the contract of `Extractor`: raw intensities in, layers out, on the image's own axes.

    Layers are the maps of the encoder from fine to coarse, those of the decoder from coarse to fine, and the logits.
    """

    def __init__(self, plan: Plan, network: UNet) -> None:
        super().__init__()
        self.normalise = Normalise(plan.normalisations)
        self.orientation = Orientation(plan.orientation, plan.image_axes)
        self.network = network

    def forward(
        self,
        x: Tensor,
        nb_layers: Tensor = EVERY_LAYER,
        stats: Tensor = NO_TENSOR,
        direction: Tensor = NO_TENSOR,
    ) -> list[Tensor]:
        """The first `nb_layers` layers [batch, channel, *space] of images [batch, channel, *space]."""
        turn = self.orientation.turn(direction)
        x = self.orientation(self.normalise(x, stats), turn)
        layers = self.network.layers(x, int(nb_layers))
        return [self.orientation.back(layer, turn) for layer in layers]


@dataclass(frozen=True)
class Conversion:
    """What was converted: the plan, the fold whose weights were taken, those that there are, and the exported file."""

    plan: Plan
    fold: str
    folds: tuple[str, ...]
    report: ExportReport

    def lines(self) -> list[str]:
        """The lines of a parameter file that use the model; what else should be known stands behind `//`."""
        plan, topology = self.plan, self.plan.topology
        return [
            impact_line("ModelsPath", str(self.report.path)),
            impact_line("Dimension", topology.dimension),
            impact_line("NumberOfChannels", topology.input_channels),
            impact_line("PatchSize", *plan.patch()),
            impact_line("VoxelSize", *self._voxel_size()),
            impact_line("LayersMask", "1".rjust(SECOND, "0")),
            *(f"// {line}" for line in (*self._notes(), *self._layers())),
        ]

    def _voxel_size(self) -> tuple[float, ...]:
        between = self.plan.slice_spacing
        return self.plan.voxel_size() + ((between,) if between else ())

    def _notes(self) -> Iterator[str]:
        plan = self.plan
        if len(self.folds) > 1:
            yield f"Fold {self.fold} of {', '.join(self.folds)}: an extractor is one network, not the mean of several."
        if plan.slice_spacing:
            yield "Voxel size of 3D images in Static mode; in Jacobian mode and for 2D images its first two numbers."
        if plan.orientation is None:
            yield "dataset.json has no image_orientation: images are seen as they are stored; --orientation tells it."
        else:
            yield f"Patch and voxel size along the axes of {plan.orientation} images (where x, y, z come from)."
        if any(one.inside_mask for one in plan.normalisations):
            yield "Trained on intensities normalised where they are not 0; here the statistics are of the whole image."

    def _layers(self) -> Iterator[str]:
        topology = self.plan.topology
        deep = topology.stages
        kinds = ["encoder"] * deep + ["decoder"] * (deep - 1) + [f"logits of {', '.join(self.plan.outputs)}"]
        strides = topology.stride_products()
        for number, (kind, width, stride) in enumerate(zip(kinds, topology.channels(), strides, strict=True)):
            steps = stride if len(set(stride)) > 1 else stride[:1]
            yield f"layer {number}: {kind}, {width} channels, stride {'x'.join(map(str, steps))}"


def convert(
    path: Path,
    output: Path,
    *,
    configuration: str | None = None,
    fold: str | None = None,
    orientation: str | None = None,
) -> Conversion:
    """Writes the network in a folder of nnU-Net, an installed package or a zip file as a TorchScript extractor.

    `configuration` and `fold` choose where there are several (by default fold 0, else the first); `orientation` counts
    instead of `image_orientation`. The file is checked against the network. Nothing of the package is run, and the
    checkpoint is read as numbers only. Raises `ModelError` for what is no such model, and `OutputError`.
    """
    contents = Contents.of(path)
    trained = trained_in(contents, configuration)
    plan = plan_of(contents, trained, orientation)
    chosen = _fold(trained, fold, path)
    with _checkpoint(contents, trained, chosen) as checkpoint:
        network = load(plan.topology, checkpoint)
    module = FeatureExtractor(plan, network).eval()
    known = layers_of(plan.topology)
    report = export(module, output, example=example(plan.topology), name=output.stem, layers=known)
    return Conversion(plan, chosen, trained.folds, report)


def load(topology: Topology, checkpoint: Path) -> UNet:
    """The network of a topology with the weights of a checkpoint; raises `ModelError` where they do not fit."""
    with torch.device("meta"):
        network = UNet(topology)
    fill(network, network_weights(checkpoint), str(checkpoint))
    return network.eval().requires_grad_(False)


def layers_of(topology: Topology) -> tuple[Layer, ...]:
    """Where the layers of a network lie on an image that lies as its training images did.

    The reach is that of the convolutions; instance normalisation makes all of a map depend on all of it.
    """
    start = (0.0,) * topology.dimension
    facts = zip(topology.channels(), topology.stride_products(), topology.reaches(), strict=True)
    return tuple(Layer(width, tuple(map(float, stride)), start, reach, True) for width, stride, reach in facts)


def example(topology: Topology) -> Tensor:
    """A small image of noise to check an export with: two samples in the coarsest stage, the fewest it normalises."""
    strides = topology.stride_products()[topology.stages - 1]
    longest = strides.index(max(strides))
    shape = [stride + 1 if axis == longest else min(8, stride + 1) for axis, stride in enumerate(strides)]
    generator = torch.Generator().manual_seed(0)
    return torch.randn((1, topology.input_channels, *shape), generator=generator)


@contextmanager
def _checkpoint(contents: Contents, trained: Trained, fold: str) -> Iterator[Path]:
    file = trained.files[f"fold_{fold}/{FINAL}"]
    if not contents.zipped:
        yield contents.path / file
        return
    with tempfile.TemporaryDirectory(prefix="impactreg-checkpoint-") as folder:
        contents.unpack(Path(folder), {file: FINAL})
        yield Path(folder) / FINAL


def _fold(trained: Trained, fold: str | None, path: Path) -> str:
    if not trained.folds:
        raise ModelError(f"{path}: there is no fold_<N>/{FINAL} in {trained.name}; train to the end first")
    if fold is None:
        return trained.folds[0]
    if fold not in trained.folds:
        raise ModelError(f"{path}: fold {fold} has no {FINAL}; there are folds {', '.join(trained.folds)}")
    return fold
