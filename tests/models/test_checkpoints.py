"""Checkpoints: what nnU-Net writes is read, what could run code or fill the memory is refused."""

import os
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from impactreg.errors import ModelError
from impactreg.models.checkpoints import fill, network_weights
from impactreg.models.topology import Topology
from impactreg.models.unet import UNet

TOPOLOGY = Topology(1, 2, (2, 3, 4), ((3, 3),) * 3, ((1, 1), (2, 2), (2, 2)), (1, 1, 1), (1, 1))


class Bomb:
    """Unpickled, it makes a folder: a harmless stand-in for anything."""

    def __init__(self, path: Path) -> None:
        self.path = str(path)

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[str]]:
        return os.mkdir, (self.path,)


def test_the_weights_are_found_beside_numbers_of_numpy(training, tmp_path: Path) -> None:
    network = UNet(TOPOLOGY)
    torch.save(training.checkpoint(network), tmp_path / "c.pth")
    weights = network_weights(tmp_path / "c.pth")
    assert weights.keys() == network.state_dict().keys()
    assert all(torch.equal(weights[name], value) for name, value in network.state_dict().items())


def test_a_checkpoint_of_an_older_numpy_is_read(training, tmp_path: Path) -> None:
    torch.save(training.checkpoint(UNet(TOPOLOGY)), tmp_path / "new.pth")
    with zipfile.ZipFile(tmp_path / "new.pth") as new, zipfile.ZipFile(tmp_path / "old.pth", "w") as old:
        for one in new.infolist():
            content = new.read(one)
            assert one.filename != "new/data.pkl" or b"numpy._core" in content
            old.writestr(one.filename, content.replace(b"numpy._core.multiarray", b"numpy.core.multiarray"))
    assert network_weights(tmp_path / "old.pth")


@pytest.mark.parametrize("prefix", ["module.", "_orig_mod.", "_orig_mod.module."])
def test_names_of_compiled_and_distributed_training_are_understood(tmp_path: Path, prefix: str) -> None:
    state = UNet(TOPOLOGY).state_dict()
    torch.save({"network_weights": {prefix + name: value for name, value in state.items()}}, tmp_path / "c.pth")
    assert network_weights(tmp_path / "c.pth").keys() == state.keys()


def test_a_pickle_that_runs_code_is_refused_and_not_run(training, tmp_path: Path) -> None:
    for key in ("network_weights", "logging", "other"):
        torch.save(training.checkpoint(UNet(TOPOLOGY)) | {key: Bomb(tmp_path / "bang")}, tmp_path / "c.pth")
        with pytest.raises(
            ModelError, match=r"c.pth: the checkpoint holds posix.mkdir, which .* it is refused"
        ) as error:
            network_weights(tmp_path / "c.pth")
        assert "\n" not in str(error.value)
    assert not (tmp_path / "bang").exists()


def test_plain_pickles_and_other_files_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "c.pth"
    for content in (pickle.dumps(Bomb(tmp_path / "bang")), b"", b"PK\x03\x04 and no more"):
        path.write_bytes(content)
        with pytest.raises(ModelError, match="no checkpoint of nnU-Net 2, or a truncated one"):
            network_weights(path)
    with pytest.raises(ModelError, match="there is no such file"):
        network_weights(tmp_path / "nowhere.pth")
    assert not (tmp_path / "bang").exists()


def test_damaged_and_compressed_checkpoints_are_refused(tmp_path: Path) -> None:
    torch.save({"network_weights": {"a": torch.zeros(1000)}}, tmp_path / "c.pth")
    with (
        zipfile.ZipFile(tmp_path / "c.pth") as old,
        zipfile.ZipFile(tmp_path / "d.pth", "w", zipfile.ZIP_DEFLATED) as new,
    ):
        for one in old.infolist():
            new.writestr(one.filename, old.read(one))
    with pytest.raises(ModelError, match="is compressed"):
        network_weights(tmp_path / "d.pth")
    with zipfile.ZipFile(tmp_path / "e.pth", "w") as empty:
        empty.writestr("e/data.pkl", pickle.dumps(1)[:-1])
        empty.writestr("e/version", "3\n")
    with pytest.raises(ModelError, match="is damaged"):
        network_weights(tmp_path / "e.pth")


@pytest.mark.parametrize(
    "content",
    [[1], {"state_dict": {}}, {"network_weights": 3}, {"network_weights": {"a": 1.0}}],
    ids=["list", "other", "number", "no tensor"],
)
def test_files_without_weights_are_refused(tmp_path: Path, content: object) -> None:
    torch.save(content, tmp_path / "c.pth")
    with pytest.raises(ModelError, match=r"no network_weights|no whole tensor"):
        network_weights(tmp_path / "c.pth")


def test_a_few_numbers_that_claim_to_be_a_large_tensor_are_refused(tmp_path: Path) -> None:
    torch.save({"network_weights": {"a": torch.zeros(1).expand(10**9)}}, tmp_path / "c.pth")
    with pytest.raises(ModelError, match="a is no whole tensor"):
        network_weights(tmp_path / "c.pth")


def test_arrays_are_refused_since_only_numbers_are_needed(tmp_path: Path) -> None:
    torch.save({"network_weights": {}, "logging": np.zeros(3)}, tmp_path / "c.pth")
    with pytest.raises(ModelError, match="it is refused"):
        network_weights(tmp_path / "c.pth")


def test_weights_fill_a_network_that_holds_no_memory_yet() -> None:
    weights = UNet(TOPOLOGY).state_dict()
    spare = {name: value for name, value in weights.items() if ".seg_layers.0." not in name}
    for given in (weights, spare):
        with torch.device("meta"):
            network = UNet(TOPOLOGY)
        fill(network, given, "c.pth")
        assert torch.equal(network.decoder.seg_layers[1].weight, weights["decoder.seg_layers.1.weight"])
        assert not any(parameter.is_meta for parameter in network.parameters())


def test_weights_of_another_network_are_refused() -> None:
    weights = UNet(TOPOLOGY).state_dict()
    some = {name: value for name, value in weights.items() if ".seg_layers.1." not in name}
    for given, said in (
        (some, "decoder.seg_layers.1.weight is missing"),
        (weights | {"other": torch.zeros(1)}, "other is not among its parameters"),
        (
            weights | {"decoder.seg_layers.1.bias": torch.zeros(5)},
            r"shape \[5\], but plans.json and dataset.json say \[2\]",
        ),
    ):
        with pytest.raises(ModelError, match=said):
            fill(UNet(TOPOLOGY), given, "c.pth")
