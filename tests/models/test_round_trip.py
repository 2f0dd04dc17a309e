"""Random nnU-Net plans become networks, checkpoints, packages, extractors, and register a real image with Impact."""

import tempfile
from collections.abc import Iterator
from itertools import permutations
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from impactreg.images import Image, read_image
from impactreg.models.extractor import Extractor
from impactreg.models.names import ReleaseTag
from impactreg.models.nnunet import convert, example, load
from impactreg.models.package_checks import plan_of
from impactreg.models.package_layout import trained_in
from impactreg.models.packages import install, pack
from impactreg.models.topology import NormSettings, Topology
from impactreg.models.unpacking import Contents
from impactreg.parameters import ParameterMap
from impactreg.registration.pipeline import register

STAGE = {
    "NumberOfResolutions": 1,
    "Metric": "Impact",
    "ImpactMode": "Static",
    "ImpactGPU": -1,
    "Interpolator": "BSplineInterpolator",
    "Transform": "TranslationTransform",
    "Optimizer": "StandardGradientDescent",
    "SP_a": 0.1,
    "ImageSampler": "RandomCoordinate",
    "NumberOfSpatialSamples": 100,
    "MaximumNumberOfIterations": 2,
    "AutomaticTransformInitialization": False,
    "WriteResultImage": False,
    "RandomSeed": 1,
}
SCHEMES = ["ZScoreNormalization", "CTNormalization", "RescaleTo01Normalization", "NoNormalization"]
CT = {"mean": 60.0, "std": 40.0, "percentile_00_5": 0.0, "percentile_99_5": 200.0}


@st.composite
def topologies(draw: st.DrawFn) -> Topology:
    dimension = draw(st.sampled_from([2, 3, 3]))
    stages = draw(st.integers(2, 3))
    sizes = st.tuples(*[st.sampled_from([1, 3])] * dimension)
    steps = st.tuples(*[st.integers(1, 2)] * dimension)
    residual = draw(st.booleans())
    norm = st.sampled_from([NormSettings(), NormSettings(), NormSettings("batch"), NormSettings(affine=False), None])
    return Topology(
        input_channels=draw(st.integers(1, 2)),
        outputs=draw(st.integers(1, 3)),
        features=tuple(draw(st.lists(st.integers(2, 4), min_size=stages, max_size=stages))),
        kernels=tuple(draw(st.lists(sizes, min_size=stages, max_size=stages))),
        strides=((1,) * dimension, *draw(st.lists(steps, min_size=stages - 1, max_size=stages - 1))),
        encoder_blocks=tuple(draw(st.lists(st.integers(1, 2), min_size=stages, max_size=stages))),
        decoder_blocks=(1,) * (stages - 1),
        residual=residual,
        bias=draw(st.booleans()),
        norm=draw(norm),
        activation=draw(st.sampled_from(["LeakyReLU", "ReLU"])),
    )


@pytest.fixture(scope="module")
def crop(shared: Path) -> Iterator[Image]:
    """Some of the middle of a real head."""
    image = read_image(shared / "data" / "brain_mr_ct_template" / "fixed_t1.nii.gz")
    part = tuple(slice(size // 2 - 10, size // 2 + 10) for size in image.grid.shape)
    return Image.of(
        image.data[0][part].float(), spacing=image.grid.spacing, origin=(0, 0, 0), direction=image.grid.direction
    )


@settings(max_examples=20, suppress_health_check=list(HealthCheck), database=None)
@given(topology=topologies())
def test_random_plans_come_through_a_package_with_all_their_weights(training, topology: Topology) -> None:
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        trained = training.write(place, topology)
        made = pack(trained, place, name="model_seg_t1", release=ReleaseTag.parse("r20240915"))
        assert made.findings == ()
        installed = install(made.path, folder=place / "cache").path / trained.name
        contents = Contents.of(installed)
        plan = plan_of(contents, trained_in(contents))
        assert plan.topology == topology
        network = load(plan.topology, installed / "fold_0" / "checkpoint_final.pth")
        weights = torch.load(trained / "fold_0" / "checkpoint_final.pth", weights_only=False)["network_weights"]
        assert all(torch.equal(value, weights[name]) for name, value in network.state_dict().items())
        with torch.no_grad():
            layers = network.layers(example(topology), topology.layers)
        assert [layer.shape[1] for layer in layers] == list(topology.channels())


@settings(max_examples=3, suppress_health_check=list(HealthCheck), database=None, derandomize=True)
@given(
    topology=topologies(),
    scheme=st.sampled_from(SCHEMES),
    transpose=st.sampled_from(list(permutations(range(3)))),
    orientation=st.sampled_from([None, "RPI", "LAS", "SAL"]),
)
def test_random_plans_become_extractors_that_register(
    training, crop: Image, topology: Topology, scheme: str, transpose: tuple[int, ...], orientation: str | None
) -> None:
    torch.manual_seed(0)
    plans = training.plans(topology, transpose_forward=transpose)
    plans["foreground_intensity_properties_per_channel"] = {"0": CT, "1": CT}
    for configuration in plans["configurations"].values():
        configuration["normalization_schemes"] = [scheme] * topology.input_channels
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        trained = training.write(place, topology, plans=plans, dataset={"image_orientation": orientation})
        made = pack(trained, place, name="model_seg_t1", release=ReleaseTag.parse("r20240915"))
        installed = install(made.path, folder=place / "cache")
        converted = convert(installed.path, place / "net.pt")
        assert converted.plan.topology == topology
        used = _registered(place, converted.lines(), crop, topology)
        assert len(used.iterations[0][0]) == 2
        extractor = Extractor.load(place / "net.pt")
        x = crop.data[None, :, 0] if topology.dimension == 2 else crop.data[None]
        x = x.expand(1, topology.input_channels, *x.shape[2:])
        found = extractor.layers(x, topology.layers, [0, 255, 60, 40], crop.grid.direction)
        assert [layer.shape[1] for layer in found] == list(topology.channels())


def _registered(place: Path, lines: list[str], crop: Image, topology: Topology):
    """The result of two iterations with the printed lines; small voxels and patches fit the crop."""
    (place / "map.txt").write_text("\n".join(lines) + "\n")
    voxel = {"ImpactVoxelSize0": crop.grid.spacing, "ImpactPatchSize0": [0] * topology.dimension}
    return register(crop, crop, ParameterMap.read(place / "map.txt").replace({**STAGE, **voxel}))
