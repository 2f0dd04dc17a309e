"""Export: what is written, and what the self-check refuses."""

import hashlib

import pytest
import torch
from torch import Tensor, nn

from impactreg.errors import ModelError, OutputError
from impactreg.models.export import export
from impactreg.models.extractor import Extractor
from impactreg.models.mind import MIND, NO_TENSOR, ONE_LAYER

EXAMPLE = torch.linspace(-1, 1, 144).sin().reshape(1, 1, 12, 12)


class Network(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(1, 4, 3, padding=1)
        self.second = nn.Sequential(nn.Conv2d(4, 8, 3, stride=2, padding=1), nn.BatchNorm2d(8))

    def forward(
        self, x: Tensor, number: Tensor = ONE_LAYER + 1, statistics: Tensor = NO_TENSOR, direction: Tensor = NO_TENSOR
    ) -> list[Tensor]:
        first = self.first(x - statistics[0] if statistics.numel() == 4 else x)
        return [first] if int(number) == 1 else [first, self.second(first)]


class Single(nn.Module):
    def forward(self, x: Tensor) -> list[Tensor]:
        return [x * 2]


class Pair(nn.Module):
    def forward(self, x: Tensor, number: Tensor) -> list[Tensor]:
        return [x * (i + 1) for i in range(int(number))][:3]


class SizeDependent(nn.Module):
    """A choice that tracing fixes: larger images are treated otherwise."""

    def forward(self, x: Tensor) -> list[Tensor]:
        return [x * 2 if x.shape[-1] > 12 else x * 3]


class NoList(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x


class Unscriptable(nn.Module):
    def forward(self, *x: Tensor) -> list[Tensor]:
        return [value * 2 for value in x]


def test_a_network_is_exported_checked_and_described(tmp_path):
    module = Network()
    report = export(module, tmp_path / "models" / "net.pt", example=EXAMPLE, name="net")
    assert report.sha256 == hashlib.sha256(report.path.read_bytes()).hexdigest()
    assert (report.method, report.arguments, report.differentiable) == ("script", 4, True)
    assert [(layer.channels, layer.stride, layer.offset) for layer in report.layers] == [
        (4, (1, 1), (0, 0)),
        (8, (2, 2), (0, 0)),
    ]
    assert [path.name for path in report.path.parent.iterdir()] == ["net.pt"]
    found = Extractor.load(report.path).layers(EXAMPLE, 2, [0.5, 1.0, 0.0, 0.0], torch.eye(2))
    expected = module.eval()(EXAMPLE, torch.tensor(2), torch.tensor([0.5, 1, 0, 0]))
    torch.testing.assert_close(found, expected)


def test_the_module_stays_as_it_was(tmp_path):
    module = Network().train()
    export(module, tmp_path / "net.pt", example=EXAMPLE, name="net")
    assert module.training
    assert module.first.weight.requires_grad


@pytest.mark.parametrize(("module", "arguments", "layers"), [(Single(), 1, 1), (Pair(), 2, 3), (MIND(2), 4, 1)])
def test_networks_of_fewer_arguments_are_exported(tmp_path, module, arguments, layers):
    report = export(module, tmp_path / "net.pt", example=EXAMPLE, name="net")
    assert (report.arguments, len(report.layers)) == (arguments, layers)


def test_the_same_module_gives_the_same_bytes(tmp_path):
    reports = [export(MIND(2), tmp_path / name, example=EXAMPLE, name="MIND") for name in ("a.pt", "b.pt")]
    assert reports[0].sha256 == reports[1].sha256


def test_a_module_that_cannot_be_scripted_can_be_traced_when_asked(tmp_path):
    with pytest.raises(ModelError, match="net: the module cannot be exported by method 'script': "):
        export(Unscriptable(), tmp_path / "net.pt", example=EXAMPLE, name="net")
    report = export(Unscriptable(), tmp_path / "net.pt", example=EXAMPLE, name="net", method="trace")
    assert report.method == "trace"


@pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning")
def test_a_traced_graph_that_disagrees_is_refused_and_nothing_is_written(tmp_path):
    with pytest.raises(ModelError, match=r"net: the exported layer 1 differs .* \[1, 1, 24, 24\]; tracing fixes sizes"):
        export(SizeDependent(), tmp_path / "net.pt", example=EXAMPLE, name="net", method="trace")
    assert list(tmp_path.iterdir()) == []
    export(SizeDependent(), tmp_path / "net.pt", example=EXAMPLE, name="net")


def test_a_refused_export_leaves_an_older_file_alone(tmp_path):
    (tmp_path / "net.pt").write_text("older")
    with pytest.raises(ModelError, match="a list of tensors is needed"):
        export(NoList(), tmp_path / "net.pt", example=EXAMPLE, name="net")
    assert (tmp_path / "net.pt").read_text() == "older"


def test_another_method_is_refused(tmp_path):
    with pytest.raises(ModelError, match="by method 'script' or 'trace', not 'onnx'"):
        export(Single(), tmp_path / "net.pt", example=EXAMPLE, name="net", method="onnx")


def test_a_folder_that_cannot_be_made_is_told(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match=r"net\.pt: the model cannot be written: "):
        export(Single(), tmp_path / "file" / "net.pt", example=EXAMPLE, name="net")


def test_a_folder_in_the_place_of_the_file_is_told(tmp_path):
    (tmp_path / "net.pt").mkdir()
    with pytest.raises(OutputError, match=r"net\.pt: the model cannot be written: "):
        export(Single(), tmp_path / "net.pt", example=EXAMPLE, name="net")
    assert [path.name for path in tmp_path.iterdir()] == ["net.pt"]
