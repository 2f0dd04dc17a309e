"""`impactreg models`: what it lists, tells, fetches, checks and exports, and its exit codes."""

import functools
import threading
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import torch

from impactreg.cli import main
from impactreg.cli.models import SUBVERBS
from impactreg.models.export import export
from impactreg.models.extractor import Extractor
from impactreg.models.mind import MIND, example

NETS = """
import torch

class Encoder(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.only = torch.nn.Conv3d(1, 2, 3, padding=1)

    def forward(self, x: torch.Tensor) -> list[torch.Tensor]:
        return [self.only(x)]

class Restless(torch.nn.Module):
    def forward(self, x: torch.Tensor) -> list[torch.Tensor]:
        return [x + torch.rand_like(x)]
"""


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    for name in ("IMPACTREG_MODELS", "IMPACTREG_MIRROR", "IMPACTREG_OFFLINE", "HF_HUB_OFFLINE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("IMPACTREG_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("no_proxy", "*")
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def mirror(tmp_path):
    """The address of a folder with TS/M730.pt, which is a small model."""
    folder = tmp_path / "served"
    export(MIND(3), folder / "TS" / "M730.pt", example=example(3), name="M730")

    class Handler(SimpleHTTPRequestHandler):
        def log_message(self, *_):
            """Says nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Handler, directory=str(folder)))
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


@pytest.fixture
def models(capsys):
    """Runs `impactreg models ...` and gives exit code, output and complaints."""

    def run(*words):
        code = main(["models", *map(str, words)])
        told = capsys.readouterr()
        return code, told.out, told.err

    return run


def test_help_tells_the_words(models):
    for words in ((), ("--help",)):
        code, out, _ = models(*words)
        assert code == 0
        assert all(f"  {name} " in out for name, _, _ in SUBVERBS)
        assert "impactreg models fetch TS/M730" in out


@pytest.mark.parametrize("word", [name for name, _, _ in SUBVERBS])
def test_every_word_has_help_with_examples(models, word):
    code, out, _ = models(word, "--help")
    assert code == 0
    assert "examples:\n" in out


def test_all_known_models_are_listed(models):
    code, out, err = models("list")
    assert (code, err) == (0, "")
    assert "TS/M730.pt             -         3D  1 ch  8 layers  1.5 mm  MR" in out
    assert "MIND/R1D2_3D.pt        built-in" in out
    assert f"{Path('cache').resolve() / 'models.lock.toml'}." in out
    assert "MIND" not in models("list", "TS")[1]


def test_a_model_is_fetched_listed_described_and_checked(models, mirror):
    code, out, err = models("fetch", "TS/M730_2_Layers.pt", "--mirror", mirror)
    assert (code, err) == (0, "")
    assert "TS/M730.pt: fetched: " in out
    assert "licence Apache-2.0; J. Wasserthal" in out
    assert "is here already" in models("fetch", "ts/m730", "--mirror", mirror)[1]
    assert "TS/M730.pt             fetched" in models("list", "TS", "--verify")[1]
    code, out, _ = models("info", "TS/M730")
    assert code == 0
    assert "voxel size      1.5 mm" in out
    assert "1      12        32 x 32 x 32   1 1 1          7 7 7           yes" in out
    code, out, err = models("check", "TS/M730")
    assert code == 1
    assert "the layers have [12] channels, but those of TS/M730.pt [32, 64," in " ".join(out.split())
    assert err == "impactreg: error: TS/M730: 1 of the checks failed: the model cannot be relied on\n"


def test_a_family_is_fetched_at_once(models):
    code, out, _ = models("fetch", "MIND")
    assert code == 0
    assert out.count("built-in") == 8


def test_a_changed_file_on_the_mirror_is_refused(models, mirror, tmp_path):
    models("fetch", "TS/M730", "--mirror", mirror)
    Path("cache/fetched/TS/M730.pt").unlink()
    export(MIND(3, 2, 1), tmp_path / "served/TS/M730.pt", example=example(3), name="M730")
    code, _, err = models("fetch", "TS/M730", "--mirror", mirror)
    assert code == 1
    assert "the file is refused" in err
    assert err.count("\n") == 1
    assert models("fetch", "TS/M730", "--mirror", mirror, "--renew")[0] == 0


def test_a_known_model_that_is_not_here_is_described_by_its_card(models):
    code, out, err = models("info", "TS/M258")
    assert (code, err) == (0, "")
    assert "field of view   5, 11, 23, 47, 95, 191 x 159 x 191, ?, ?" in out
    assert "voxel size      not known" in out
    assert "impactreg models fetch TS/M258.pt gets it" in out


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["lst"], 2, "there is no models lst; did you mean list?"),
        (["list", "TZ"], 2, "there is no family TZ; did you mean TS?"),
        (["fetch"], 2, "required: NAME; see impactreg models fetch --help"),
        (["fetch", "TS/M999"], 1, "there is no model TS/M999; did you mean TS/M"),
        (["fetch", "TS/M730", "--offline"], 1, "the network is not to be used"),
        (["info", "none.pt"], 1, "none.pt: there is no such model file"),
        (["check", "TS/M730"], 1, "impactreg models fetch TS/M730.pt"),
        (["export", "nets:Encoder"], 2, "required: -out"),
        (["export", "nets:Encoder", "-out", "a.pt"], 1, "tell the shape of its input with --example"),
        (["export", "nets:None", "-out", "a.pt"], 1, "nets has no None"),
        (["export", "nets:Encoder", "-out", "a.pt", "--example", "1x1"], 2, "whole numbers with commas"),
    ],
)
def test_mistakes_are_one_line(models, words, code, message):
    Path("nets.py").write_text(NETS)
    found, out, err = models(*words)
    assert (found, out) == (code, "")
    assert message in err
    assert err.count("\n") == 1


def test_a_module_is_exported_and_checked(models):
    Path("nets.py").write_text(NETS)
    code, out, err = models("export", "nets:Encoder", "--example", "1,1,16,16,16", "-out", "made/encoder.pt")
    assert (code, err) == (0, "")
    assert out.startswith("made/encoder.pt: 2 channels at stride 1 1 1\n")
    code, out, err = models("check", "made/encoder.pt", "--voxel", "2")
    assert (code, err) == (0, "")
    assert '(ImpactPatchSize0 3 3 3)\n(ImpactVoxelSize0 2 2 2)\n(ImpactLayersMask0 "1")' in out
    assert '(ImpactMode "Jacobian")' in out
    assert '(ImpactMode "Static")' in models("check", "made/encoder.pt", "--mode", "Static")[1]


def test_weights_are_put_in_before(models):
    Path("nets.py").write_text(NETS)
    layer = torch.nn.Conv3d(1, 2, 3)
    torch.save({f"only.{name}": torch.ones_like(value) for name, value in layer.state_dict().items()}, "weights.pth")
    code, _, _ = models(
        "export", "nets:Encoder", "--weights", "weights.pth", "--example", "1,1,8,8,8", "-out", "encoder.pt"
    )
    assert code == 0
    (found,) = Extractor.load(Path("encoder.pt")).layers(
        torch.ones(1, 1, 3, 3, 3), 1, [0.0, 1.0, 0.5, 0.1], torch.eye(3)
    )
    assert float(found[0, 0, 1, 1, 1]) == 28.0


def test_a_built_in_model_is_exported(models):
    code, out, _ = models("export", "MIND/R1D2_2D", "-out", "mind.pt")
    assert code == 0
    assert "4 channels at stride 1 1" in out
    code, out, _ = models("info", "mind.pt")
    assert code == 0
    assert "modes           Static and Jacobian" in out


def test_what_is_not_the_same_twice_is_not_exported(models):
    Path("nets.py").write_text(NETS)
    code, _, err = models("export", "nets:Restless", "--example", "1,1,16,16,16", "-out", "a.pt")
    assert code == 1
    assert "differs from the module's" in err
    assert not Path("a.pt").exists()


def test_a_hostile_file_is_one_line(models, tmp_path):
    Path("bad.pt").write_bytes(b"PK\x03\x04")
    code, out, err = models("check", "bad.pt")
    assert (code, out) == (1, "")
    assert "bad.pt is no TorchScript file" in err
    assert err.count("\n") == 1
