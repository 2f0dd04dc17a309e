"""Modules by name, examples for them, and their weights."""

import pickle
import sys

import pytest
import torch
from torch import nn

from impactreg.errors import ModelError
from impactreg.models.importing import example_of, module_named, with_weights
from impactreg.models.mind import MIND

SOURCE = """
import torch

class Net(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.only = torch.nn.Conv2d(1, 2, 3)

class Needy(torch.nn.Module):
    def __init__(self, size):
        super().__init__()

def make():
    return Net()

class Group:
    made = Net()

number = 3
"""


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    (tmp_path / "some_nets.py").write_text(SOURCE)
    (tmp_path / "broken_nets.py").write_text("import nothing_of_this_name")
    monkeypatch.chdir(tmp_path)
    yield
    sys.modules.pop("some_nets", None)


@pytest.mark.parametrize("written", ["some_nets:Net", "some_nets:make", "some_nets:Group.made"])
def test_modules_of_the_current_folder_are_found(written):
    before = list(sys.path)
    assert type(module_named(written)).__name__ == "Net"
    assert sys.path == before


@pytest.mark.parametrize(
    ("written", "message"),
    [
        ("no_nets:Net", "no_nets cannot be imported: ModuleNotFoundError"),
        ("broken_nets:Net", "broken_nets cannot be imported: .*nothing_of_this_name"),
        ("some_nets:Nut", "some_nets has no Nut"),
        ("some_nets:Needy", "it cannot be made: TypeError: .*size"),
        ("some_nets:number", r"it is a int; a torch\.nn\.Module is needed"),
        ("Net", r"name a module as package\.module:Name, or one of MIND/R1D1"),
        (":", "cannot be imported"),
    ],
)
def test_what_is_no_module_is_told_in_one_line(written, message):
    with pytest.raises(ModelError, match=message) as error:
        module_named(written)
    assert "\n" not in str(error.value)


def test_built_in_modules_have_names_and_examples():
    assert isinstance(module_named("MIND/R2D1_3D"), MIND)
    assert example_of("MIND/R2D1_3D.pt", None).ndim == 5
    assert example_of("some_nets:Net", (1, 1, 8, 9)).shape == (1, 1, 8, 9)


@pytest.mark.parametrize("shape", [None, (1, 1, 8), (1, 0, 8, 8)])
def test_an_example_needs_a_shape(shape):
    with pytest.raises(ModelError, match=r"--example, such as|has the shape batch,channels"):
        example_of("some_nets:Net", shape)


def test_weights_are_loaded(tmp_path):
    net, other = nn.Conv2d(1, 2, 3), nn.Conv2d(1, 2, 3)
    torch.save(other.state_dict(), tmp_path / "weights.pth")
    torch.testing.assert_close(with_weights(net, tmp_path / "weights.pth").weight, other.weight)


class Bomb:
    def __reduce__(self):
        return pytest.fail, ("weights were unpickled",)


@pytest.mark.parametrize("kind", ["bomb", "pickle", "other", "text"])
def test_hostile_weights_are_refused_in_one_line(tmp_path, kind):
    path = tmp_path / "weights.pth"
    if kind == "bomb":
        torch.save({"weight": Bomb()}, path)
    elif kind == "pickle":
        path.write_bytes(pickle.dumps(Bomb()))
    elif kind == "other":
        torch.save({"other": torch.ones(2)}, path)
    else:
        path.write_text("text")
    with pytest.raises(ModelError, match="these weights cannot be used") as error:
        with_weights(nn.Conv2d(1, 2, 3), path)
    assert "\n" not in str(error.value)
