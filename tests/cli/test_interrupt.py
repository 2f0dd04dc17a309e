"""Runs that are interrupted or killed: what they leave is right, and they can be resumed."""

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from impactreg.images import Image, write_image
from impactreg.parameters import ParameterMap

KILLS = int(os.environ.get("IMPACTREG_TEST_KILLS", "6"))
LOOP = {
    "Transform": "BSplineTransform",
    "Metric": "AdvancedMeanSquares",
    "Optimizer": "AdaptiveStochasticGradientDescent",
    "ImageSampler": "RandomCoordinate",
    "NumberOfSpatialSamples": 500,
    "NumberOfResolutions": 3,
    "FinalGridSpacingInVoxels": 8,
    "WriteTransformParametersEachResolution": "true",
    "WriteResultImageAfterEachResolution": "true",
}
# Torch may be forked as long as it has not computed anything; so each run begins at once.
MANY = """
import os, random, signal, sys, time
import torch, nibabel, impactreg.registration.pipeline, impactreg.cli.register, impactreg.components
from impactreg.cli import main
kills, arguments = int(sys.argv[1]), sys.argv[2:]
random.seed(5)
for number in range(-1, kills):
    child = os.fork()
    if child == 0:
        sys.stdout = open(os.devnull, "w")
        torch.set_num_threads(1)
        os._exit(main([*arguments, "-out", f"{arguments[1]}-{number}"]))
    if number >= 0:
        time.sleep(random.uniform(0.0, 1.1) * whole)
        os.kill(child, signal.SIGKILL)
    started = time.perf_counter()
    os.waitpid(child, 0)
    whole = time.perf_counter() - started if number < 0 else whole
"""


@pytest.fixture
def command(tmp_path: Path, blob: Callable[..., Image]) -> Callable[..., list[str]]:
    fixed, moving = tmp_path / "fixed.nii", tmp_path / "moving.nii"
    write_image(blob(3), fixed)
    write_image(blob(3, 2.0), moving)

    def words(iterations: int) -> list[str]:
        path = tmp_path / "map.txt"
        ParameterMap.from_dict({**LOOP, "MaximumNumberOfIterations": iterations}).write(path)
        return ["-f", str(fixed), "-m", str(moving), "-p", str(path), "--engine", "torch"]

    return words


@pytest.fixture
def heard() -> Iterator[None]:
    """Lets children hear Ctrl-C even where a shell has started the tests in the background, which turns it off."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def contents(folder: Path) -> dict[str, bytes | list[list[str]]]:
    """The files of a folder that are there to be used: not the log, the checkpoint and drafts; tables without times."""
    found: dict[str, bytes | list[list[str]]] = {}
    for path in sorted(folder.iterdir()):
        if path.name.startswith("IterationInfo"):
            found[path.name] = [line.split("\t")[:-1] for line in path.read_text().splitlines()]
        elif path.name.startswith("TransformParameters"):
            found[path.name] = path.read_bytes().replace(bytes(folder), b"")
        elif not path.name.startswith(".") and path.name not in ("elastix.log", "checkpoint.pt"):
            found[path.name] = path.read_bytes()
    return found


def test_a_killed_run_leaves_no_file_that_is_wrong(tmp_path: Path, command: Callable[..., list[str]]) -> None:
    words = command(15)
    subprocess.run([sys.executable, "-c", MANY, str(KILLS), *words], check=True, timeout=300)
    whole = contents(Path(f"{words[1]}-{-1}"))
    assert "result.0.nii" in whole or "result.0.mhd" in whole
    left = [contents(folder) for i in range(KILLS) if (folder := Path(f"{words[1]}-{i}")).is_dir()]
    assert any(0 < len(files) < len(whole) for files in left)
    for files in left:
        assert files == {name: whole[name] for name in files}


@pytest.mark.usefixtures("heard")
def test_ctrl_c_ends_at_once_and_the_run_can_be_resumed(tmp_path: Path, command: Callable[..., list[str]]) -> None:
    words, out = command(250), tmp_path / "out"
    call = [sys.executable, "-m", "impactreg", *words, "-out", str(out)]
    running = subprocess.Popen(call, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    while not (out / "TransformParameters.0.R0.txt").exists() and running.poll() is None:
        time.sleep(0.02)
    time.sleep(random.Random(3).uniform(0.05, 0.2))
    running.send_signal(signal.SIGINT)
    asked = time.perf_counter()
    _, told = running.communicate(timeout=60)
    assert time.perf_counter() - asked < 30  # a second where nobody else computes
    assert running.returncode == 130
    assert "TransformParameters.0.R" in told
    assert "interrupted; add --resume to go on" in told
    done = subprocess.run([*call, "--resume", "-loglevel", "off"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert ParameterMap.read(out / "TransformParameters.0.txt").first("Transform") == "BSplineTransform"
    assert not (out / "checkpoint.pt").exists()
