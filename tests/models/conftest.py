"""Small scripted networks that keep or break the TorchScript contract, and a server that plays a mirror and the hub."""

import re
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import torch
from torch import nn

from impactreg.models.extractor import Extractor, torchscript

COMMIT = "a" * 40


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


@pytest.fixture
def load(tmp_path: Path) -> Callable[[nn.Module], Extractor]:
    """Scripts a module, saves it as net.pt and loads it as an extractor."""

    def scripted(module: nn.Module) -> Extractor:
        with torchscript():
            torch.jit.script(module.eval()).save(str(tmp_path / "net.pt"))
        return Extractor.load(tmp_path / "net.pt")

    return scripted


class Blur(nn.Module):
    """One convolution of 3 x 3."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 2, 3, padding=1)

    def forward(self, x: torch.Tensor) -> list[torch.Tensor]:
        return [self.conv(x)]


@pytest.fixture
def blur() -> nn.Module:
    """A network of one layer for images of two dimensions."""
    return Blur()


@pytest.fixture
def fresh_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing was measured before."""
    monkeypatch.setenv("IMPACTREG_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def model(load: Callable[[nn.Module], Extractor], blur: nn.Module, fresh_cache: None) -> Extractor:
    """That network from a file, of which nothing is known."""
    return load(blur)


class Server(ThreadingHTTPServer):
    """Serves `files` below / and, as the hub does, below /OWNER/NAME/resolve/REVISION/.

    A path in `cut` breaks off after so many bytes, once. `resumes` is whether it honours ranges, `label` its ETags.
    """

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.files: dict[str, bytes] = {}
        self.cut: dict[str, int] = {}
        self.asked: list[tuple[str, str, str | None]] = []
        self.resumes = True
        self.label = '"one"'
        self.length: int | None = None
        self.url = f"http://127.0.0.1:{self.server_port}"

    def handle_error(self, request, client_address) -> None:
        """A client that goes away is no news."""


class Handler(BaseHTTPRequestHandler):
    server: Server
    protocol_version = "HTTP/1.1"

    def do_HEAD(self) -> None:
        self.answer(body=False)

    def do_GET(self) -> None:
        self.answer(body=True)

    def answer(self, body: bool) -> None:
        name = re.sub(r"^/[^/]+/[^/]+/resolve/[^/]+/", "/", self.path.partition("?")[0]).removeprefix("/")
        given = self.headers.get("Range")
        self.server.asked.append((self.command, name, given))
        content = self.server.files.get(name)
        if content is None:
            self.send_response(404)
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        same = self.headers.get("If-Range", self.server.label) == self.server.label
        start = int(given[6:].split("-")[0]) if given and self.server.resumes and same else 0
        if given and start >= len(content):
            self.send_response(416)
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        self.send_response(206 if start else 200)
        self.send_header("Content-Length", str(self.server.length or len(content) - start))
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        if self.server.label:
            self.send_header("ETag", self.server.label)
        self.send_header("X-Repo-Commit", COMMIT)
        self.end_headers()
        if body:
            end = self.server.cut.pop(name, len(content)) if not start else len(content)
            self.wfile.write(content[start:end])
            if end < len(content):
                self.close_connection = True
                self.connection.close()

    def log_message(self, *_: object) -> None:
        """Says nothing."""


@pytest.fixture
def server() -> Iterator[Server]:
    """A server of files on this machine."""
    found = Server()
    thread = threading.Thread(target=found.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    yield found
    found.shutdown()
    found.server_close()
    thread.join()


class Small(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv3d(1, 4, 3, padding=1)

    def forward(self, x: torch.Tensor) -> list[torch.Tensor]:
        return [self.first(x)]


@pytest.fixture(scope="session")
def model_bytes(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """A small TorchScript file."""
    path = tmp_path_factory.mktemp("model") / "net.pt"
    with torchscript():
        torch.jit.script(Small().eval()).save(str(path))
    return path.read_bytes()
