"""Conversion: the extractor makes the network's layers, on the image's own axes, and tells how to use it."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from impactreg.errors import ModelError
from impactreg.models.extractor import Extractor
from impactreg.models.nnunet import FeatureExtractor, convert, example, load
from impactreg.models.orientation import FROM, Orientation
from impactreg.models.plans import Normalisation, Plan
from impactreg.models.topology import Topology
from impactreg.models.unet import UNet
from impactreg.parameters import ParameterMap

TOPOLOGY = Topology(
    input_channels=1,
    outputs=3,
    features=(2, 3, 4),
    kernels=((1, 3, 3), (3, 3, 3), (3, 3, 3)),
    strides=((1, 1, 1), (1, 2, 2), (2, 2, 2)),
    encoder_blocks=(1, 2, 1),
    decoder_blocks=(1, 1),
)
FLAT = Topology(1, 2, (2, 3), ((3, 3),) * 2, ((1, 1), (2, 2)), (1, 1), (1,), residual=True)


def direction(letters: str) -> list[list[float]]:
    return torch.tensor([FROM[letter] for letter in letters]).T.tolist()


def test_the_extractor_makes_the_layers_of_the_network(training, tmp_path: Path) -> None:
    folder = training.write(tmp_path / "results", TOPOLOGY)
    made = convert(folder, tmp_path / "out" / "net.pt")
    extractor = Extractor.load(made.report.path)
    assert (made.report.arguments, made.report.method, made.fold) == (4, "script", "0")
    network = load(TOPOLOGY, folder / "fold_0" / "checkpoint_final.pth")
    x = torch.randn(1, 1, 8, 12, 12) * 50 + 100
    for number in range(1, TOPOLOGY.layers + 1):
        found = extractor.layers(x, number, [0, 500, 80, 40], direction("RPI"))
        expected = network.layers((x - 80) / 40, TOPOLOGY.layers)[:number]
        assert len(found) == number
        assert all(torch.allclose(*pair, atol=1e-4) for pair in zip(found, expected, strict=True))


def test_with_the_image_alone_all_layers_come(training, tmp_path: Path) -> None:
    made = convert(training.write(tmp_path / "results", FLAT), tmp_path / "net.pt")
    x = torch.randn(2, 1, 12, 16)
    found = Extractor.load(made.report.path).module(x)
    assert [layer.shape[1] for layer in found] == list(FLAT.channels())


@pytest.mark.parametrize("letters", ["RPI", "LPI", "SAR", "PIL"])
def test_features_do_not_depend_on_how_an_image_is_stored(letters: str) -> None:
    plan = Plan("3d", TOPOLOGY, (1.0,) * 3, (8,) * 3, (1, 0, 2), (Normalisation("NoNormalization"),), "RPI", ())
    module = FeatureExtractor(plan, UNet(TOPOLOGY).eval()).eval()
    x = torch.randn(1, 1, 8, 8, 8)
    turn = Orientation("RPI", (0, 1, 2)).turn(torch.tensor(direction(letters)))
    with torch.no_grad():
        stored = Orientation("RPI", (0, 1, 2)).back(x, turn)
        expected = module(x, direction=torch.tensor(direction("RPI")))
        found = module(stored, direction=torch.tensor(direction(letters)))
    for one, other in zip(found, expected, strict=True):
        assert torch.allclose(one, Orientation("RPI", (0, 1, 2)).back(other, turn), atol=1e-6)


def test_every_layer_has_a_gradient(training, tmp_path: Path) -> None:
    ct = {"mean": 0.0, "std": 100.0, "percentile_00_5": 300.0, "percentile_99_5": 400.0}
    plans = training.plans(TOPOLOGY, foreground_intensity_properties_per_channel={"0": ct})
    plans["configurations"]["3d_fullres"]["normalization_schemes"] = ["CTNormalization"]
    made = convert(training.write(tmp_path / "results", TOPOLOGY, plans=plans), tmp_path / "net.pt")
    extractor = Extractor.load(made.report.path)
    x = torch.randn(1, 1, 8, 12, 12, requires_grad=True)
    for layer in extractor.layers(x, TOPOLOGY.layers, [0, 1, 0, 1], direction("RPI")):
        weights = torch.randn(layer.shape)
        (gradient,) = torch.autograd.grad((layer * weights).sum(), x, retain_graph=True)
        assert float(gradient.abs().max()) > 0


def test_the_lines_are_a_parameter_file(training, tmp_path: Path) -> None:
    folder = training.write(tmp_path / "results", TOPOLOGY, plans={"transpose_forward": [1, 0, 2]}, folds=("0", "1"))
    made = convert(folder, tmp_path / "net.pt", fold="1")
    (tmp_path / "map.txt").write_text("\n".join(made.lines()) + "\n")
    found = ParameterMap.read(tmp_path / "map.txt")
    read = {key: tuple(found[key]) for key in found}
    assert read["ImpactModelsPath0"] == (str(tmp_path / "net.pt"),)
    assert read["ImpactPatchSize0"] == ("64", "32", "48")
    assert read["ImpactVoxelSize0"] == ("2", "3", "1.5")
    assert (read["ImpactDimension0"], read["ImpactNumberOfChannels0"]) == (("3",), ("1",))
    assert read["ImpactLayersMask0"] == ("01",)
    notes = [line for line in made.lines() if line.startswith("//")]
    assert "// Fold 1 of 0, 1: an extractor is one network, not the mean of several." in notes
    assert "// layer 2: encoder, 4 channels, stride 2x4x4" in notes
    assert "// layer 5: logits of background, organ 1, organ 2, 3 channels, stride 1" in notes


def test_notes_tell_what_is_not_known(training, tmp_path: Path) -> None:
    plans = training.plans(FLAT, original_median_spacing_after_transp=[5.0, 1.5, 2.0])
    plans["configurations"]["2d"]["use_mask_for_norm"] = [True]
    folder = training.write(tmp_path / "results", FLAT, plans=plans, dataset={"image_orientation": None})
    lines = convert(folder, tmp_path / "net.pt").lines()
    assert "(ImpactVoxelSize0 2 1.5 5)" in lines
    assert "(ImpactPatchSize0 64 48)" in lines
    assert any("no image_orientation" in line for line in lines)
    assert any("normalised where they are not 0" in line for line in lines)
    assert not any(
        "no image_orientation" in one for one in convert(folder, tmp_path / "b.pt", orientation="RPI").lines()
    )


def test_folds_and_configurations_are_chosen(training, tmp_path: Path) -> None:
    place = tmp_path / "results"
    folder = training.write(place, TOPOLOGY, folds=("all", "2"))
    training.write(place, FLAT)
    assert convert(folder, tmp_path / "a.pt").fold == "2"
    assert convert(place, tmp_path / "b.pt", configuration="2d").plan.topology == FLAT
    with pytest.raises(ModelError, match=r"fold 7 has no checkpoint_final\.pth; there are folds 2, all"):
        convert(folder, tmp_path / "c.pt", fold="7")
    with pytest.raises(ModelError, match="name one with --configuration"):
        convert(place, tmp_path / "c.pt")
    with pytest.raises(ModelError, match="there is no folder of 3d_lowres; there is"):
        convert(place, tmp_path / "c.pt", configuration="3d_lowres")
    (folder / "fold_2" / "checkpoint_final.pth").write_bytes(b"")
    with pytest.raises(ModelError, match="truncated"):
        convert(folder, tmp_path / "c.pt")
    assert not (tmp_path / "c.pt").exists()


def test_an_example_leaves_the_coarsest_stage_two_samples() -> None:
    deep = replace(TOPOLOGY, strides=((1, 1, 1), (1, 4, 8), (2, 4, 4)))
    for topology in (TOPOLOGY, FLAT, deep):
        with torch.no_grad():
            coarsest = UNet(topology).eval().encoder(example(topology))[-1]
        assert coarsest.shape[2:].numel() >= 2
