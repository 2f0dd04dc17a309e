"""The TorchScript contract: what is passed, what is refused, and in which words."""

import multiprocessing
import pickle
import zipfile

import pytest
import torch
from torch import Tensor, nn

from impactreg.errors import ModelError
from impactreg.models.extractor import Extractor, rounded_direction

EYE = [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]]
STATISTICS = [-1.0, 2.0, 0.5, 0.25]
X = torch.linspace(-1, 2, 60).reshape(1, 1, 3, 4, 5)


class One(nn.Module):
    def forward(self, x: Tensor) -> list[Tensor]:
        return [x, 2 * x]


class Two(nn.Module):
    def forward(self, x: Tensor, number: Tensor) -> list[Tensor]:
        assert number.dtype == torch.int16
        assert number.dim() == 0
        return [x * (i + 1) for i in range(int(number))]


class Three(nn.Module):
    def forward(self, x: Tensor, number: Tensor, statistics: Tensor) -> list[Tensor]:
        assert statistics.dtype == torch.float32
        assert statistics.numel() == 4
        return [(x - statistics[2]) / statistics[3]]


class Four(nn.Module):
    def forward(self, x: Tensor, number: Tensor, statistics: Tensor, direction: Tensor) -> list[Tensor]:
        assert direction.dtype == torch.int16
        return [x + statistics[0], x * direction[0, 1] + direction[1, 0]]


class Five(nn.Module):
    def forward(self, x: Tensor, a: Tensor, b: Tensor, c: Tensor, d: Tensor) -> list[Tensor]:
        return [x]


class WholeNumberArgument(nn.Module):
    def forward(self, x: Tensor, number: int) -> list[Tensor]:
        return [x]


class NoList(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x


class Pair(nn.Module):
    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return x, x


class Numbers(nn.Module):
    def forward(self, x: Tensor) -> list[int]:
        return [1, 2]


class Flat(nn.Module):
    def forward(self, x: Tensor) -> list[Tensor]:
        return [x, x.flatten(2)]


class OtherBatch(nn.Module):
    def forward(self, x: Tensor) -> list[Tensor]:
        return [torch.cat([x, x])]


class Empty(nn.Module):
    def forward(self, x: Tensor) -> list[Tensor]:
        return [x[:, :, :0]]


class Labels(nn.Module):
    def forward(self, x: Tensor) -> list[Tensor]:
        return [x.long(), x > 0]


class Waves(nn.Module):
    def forward(self, x: Tensor) -> list[Tensor]:
        return [torch.fft.fftn(x)]


class Root(nn.Module):
    def forward(self, x: Tensor) -> list[Tensor]:
        return [x, x.sqrt()]


class Infinite(nn.Module):
    def forward(self, x: Tensor) -> list[Tensor]:
        return [x / torch.zeros_like(x).abs()]


@pytest.mark.parametrize(("module", "arguments"), [(One(), 1), (Two(), 2), (Three(), 3), (Four(), 4)])
def test_the_number_of_arguments_is_read_from_the_schema(load, module, arguments):
    assert load(module).arguments == arguments


def test_one_argument_is_the_image_alone(load):
    layers = load(One()).layers(X, 2, STATISTICS, EYE)
    assert [torch.equal(layer, n * X) for n, layer in enumerate(layers, 1)] == [True, True]


def test_two_arguments_add_the_number_of_layers_as_an_int16_scalar(load):
    assert len(load(Two()).layers(X, 3, STATISTICS, EYE)) == 3


def test_three_arguments_add_the_statistics(load):
    (layer,) = load(Three()).layers(X, 1, STATISTICS, EYE)
    torch.testing.assert_close(layer, (X - 0.5) / 0.25)


def test_four_arguments_add_the_direction_as_rounded_int16(load):
    direction = [[0.1, -0.99, 0.0], [0.9, 0.1, 0.0], [0.0, 0.0, 1.0]]
    low, turned = load(Four()).layers(X, 2, STATISTICS, direction)
    torch.testing.assert_close(low, X - 1)
    torch.testing.assert_close(turned, -X + 1)


def test_directions_are_rounded_away_from_zero_as_in_cpp():
    assert rounded_direction([[0.5, -0.5], [0.49, -1.0]]).tolist() == [[1, -1], [0, -1]]


def test_no_more_layers_than_asked_for_come_back(load):
    assert len(load(One()).layers(X, 1, STATISTICS, EYE)) == 1


def test_gradients_flow_to_the_image_but_parameters_have_none(load):
    extractor = load(nn.Sequential(nn.Conv3d(1, 2, 1), _Listed()))
    x = X.clone().requires_grad_(True)
    extractor.layers(x, 1, STATISTICS, EYE)[0].sum().backward()
    assert x.grad is not None
    assert not any(parameter.requires_grad for parameter in extractor.module.parameters())


class _Listed(nn.Module):
    def forward(self, x: Tensor) -> list[Tensor]:
        return [x]


@pytest.mark.parametrize(
    ("module", "number", "message"),
    [
        (One(), 3, "net.pt: the model returns 2 layers; 3 are asked for"),
        (NoList(), 1, "net.pt: the model returns a Tensor; a list of tensors is needed"),
        (Pair(), 1, "net.pt: the model returns a tuple of Tensor; a list of tensors is needed"),
        (Numbers(), 1, "net.pt: the model returns a list of int; a list of tensors is needed"),
        (Flat(), 2, "net.pt: layer 2 of 2 has the shape [1, 1, 60]; [batch, channel, z, y, x] with batch 1 is needed"),
        (OtherBatch(), 1, "net.pt: layer 1 of 1 has the shape [2, 1, 3, 4, 5]; [batch, channel, z, y, x] with batch 1"),
        (Empty(), 1, "net.pt: layer 1 of 1 has the shape [1, 1, 0, 4, 5]"),
        (Waves(), 1, "net.pt: layer 1 of 1 has the type torch.complex64; real numbers are needed"),
        (Root(), 2, "net.pt: layer 2 of 2 has values that are not finite numbers"),
        (Infinite(), 1, "net.pt: layer 1 of 1 has values that are not finite numbers"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, nn.Module) else "",
)
def test_a_broken_contract_is_one_clear_line(load, module, number, message):
    with pytest.raises(ModelError) as error:
        load(module).layers(X, number, STATISTICS, EYE)
    assert str(error.value).startswith(message)
    assert "\n" not in str(error.value)


def test_whole_numbers_become_floating_point_ones(load):
    found = load(Labels()).layers(X, 2, STATISTICS, EYE)
    assert [layer.dtype for layer in found] == [torch.float32, torch.float32]
    torch.testing.assert_close(found[0], X.trunc())
    torch.testing.assert_close(found[1], (X > 0).float())


def test_a_layer_that_is_not_asked_for_may_be_anything(load):
    assert len(load(Root()).layers(X, 1, STATISTICS, EYE)) == 1


def test_not_a_number_in_the_image_is_told_as_such(load):
    with pytest.raises(ModelError, match="not finite numbers, as has its input"):
        load(One()).layers(X * float("nan"), 1, STATISTICS, EYE)


def test_an_input_that_the_model_cannot_take_names_its_size_and_the_reason(load):
    extractor = load(nn.Sequential(nn.Conv3d(1, 2, 5), _Listed()))
    with pytest.raises(
        ModelError, match=r"net\.pt: the model cannot take an input of \[1, 1, 3, 4, 5\]: .*[Kk]ernel"
    ) as error:
        extractor.layers(X, 1, STATISTICS, EYE)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("module", "message"),
    [
        (Five(), "forward takes 5 arguments; 1 to 4 tensors are needed: an image, a number of layers"),
        (WholeNumberArgument(), r"forward takes \(number: int\); 1 to 4 tensors are needed"),
    ],
)
def test_other_arguments_are_refused(load, module, message):
    with pytest.raises(ModelError, match=message):
        load(module)


def test_a_missing_file_is_told(tmp_path):
    with pytest.raises(ModelError, match=r"none\.pt: the model cannot be read: No such file"):
        Extractor.load(tmp_path / "none.pt")


class Bomb:
    def __reduce__(self):
        return pytest.fail, ("a model file was unpickled",)


@pytest.mark.parametrize("kind", ["pickle", "state", "pickled module", "text", "truncated", "other zip", "folder"])
def test_other_files_are_told_apart_and_never_unpickled(load, tmp_path, kind):
    path = tmp_path / "other.pt"
    if kind == "pickle":
        path.write_bytes(pickle.dumps(Bomb()))
    elif kind == "state":
        torch.save({"weight": torch.ones(3)}, path)
    elif kind == "pickled module":
        torch.save(Bomb(), path)
    elif kind == "text":
        path.write_text("version https://git-lfs.github.com/spec/v1\n")
    elif kind == "truncated":
        load(One())
        path.write_bytes((tmp_path / "net.pt").read_bytes()[:-200])
    elif kind == "other zip":
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("net/constants.pkl", "nothing")
    else:
        path.mkdir()
    with pytest.raises(ModelError, match=r"^other\.pt: |other\.pt: the model") as error:
        Extractor.load(path)
    assert "\n" not in str(error.value)


def test_a_damaged_torchscript_file_is_told(load, tmp_path):
    load(One())
    content = bytearray((tmp_path / "net.pt").read_bytes())
    middle = len(content) // 2
    content[middle - 300 : middle + 300] = bytes(600)
    (tmp_path / "damaged.pt").write_bytes(content)
    with pytest.raises(ModelError, match=r"damaged\.pt") as error:
        Extractor.load(tmp_path / "damaged.pt")
    assert "\n" not in str(error.value)


def test_an_unknown_device_is_told(load, tmp_path):
    load(One())
    if torch.cuda.is_available():
        pytest.skip("this machine has a CUDA device")
    with pytest.raises(ModelError, match=r"net\.pt: the model cannot be moved to cuda:0: "):
        Extractor.load(tmp_path / "net.pt", "cuda:0")


def test_a_file_is_loaded_once_and_again_when_it_changes(load, tmp_path):
    first = load(One())
    assert Extractor.load(tmp_path / "net.pt") is first
    assert load(Two()).arguments == 2


def test_the_given_name_stands_in_messages(load, tmp_path):
    load(NoList())
    with pytest.raises(ModelError, match=r"^TS/M730: the model returns"):
        Extractor.load(tmp_path / "net.pt", name="TS/M730").layers(X, 1, STATISTICS, EYE)


def test_an_extractor_travels_to_another_process(load):
    extractor = load(One())
    copy = pickle.loads(pickle.dumps(extractor))
    assert copy is extractor


def _sum(extractor: Extractor) -> float:
    return float(extractor.layers(X, 1, STATISTICS, EYE)[0].sum())


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_an_extractor_works_in_a_forked_process(load):
    extractor = load(One())
    _sum(extractor)
    with multiprocessing.get_context("fork").Pool(1) as pool:
        assert pool.apply_async(_sum, (extractor,)).get(60) == pytest.approx(float(X.sum()), abs=1e-4)
