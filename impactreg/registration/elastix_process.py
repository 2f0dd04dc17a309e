"""itk-elastix in a process of its own: its job is written, its tables are followed, its failures are explained."""

import json
import logging
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch

from impactreg.components.optimizers.optimizer import Cell, Row
from impactreg.components.resampling import Output
from impactreg.components.transforms.files import NO_INITIAL, TransformWriter
from impactreg.components.transforms.transform import Combination
from impactreg.errors import MissingExtra, OutputError, RegistrationError
from impactreg.images.grid import Grid
from impactreg.images.points import write_points
from impactreg.parameters import ParameterMap
from impactreg.registration import elastix_worker
from impactreg.registration.case import Case, Iteration, Watch

logger = logging.getLogger(__name__)

POLL = 0.05
"""Seconds between two looks at elastix's tables."""

_ELSEWHERE = "make room, or set TMPDIR to another folder"
_SAYS_LITTLE = "One or more components|error occurred while creating|Error occurred during"


@contextmanager
def folder() -> Iterator[Path]:
    """A temporary folder for one run."""
    try:
        temporary = TemporaryDirectory(prefix="impactreg-", ignore_cleanup_errors=True)
    except OSError as error:
        raise OutputError(
            f"no temporary folder can be made for itk-elastix: {error.strerror or error}; {_ELSEWHERE}"
        ) from error
    with temporary as name:
        yield Path(name)


def write_job(folder: Path, case: Case, parameter_map: ParameterMap, initial: Combination | None) -> None:
    """Writes what the worker reads: images, masks, the map, the transforms before; raises `OutputError`."""
    try:
        job = {
            "dimension": case.fixed.dimension,
            "images": _write_images(folder, case),
            "points": _write_points(folder, case),
            "initial": _write_initial(folder, initial, case.fixed.grid),
        }
        (folder / "job.json").write_text(json.dumps(job), encoding="utf-8")
        parameter_map.write(folder / "parameters.txt")
    except OSError as error:
        raise OutputError(
            f"{folder}: the images for itk-elastix cannot be written: {error.strerror or error}; {_ELSEWHERE}"
        ) from error


@dataclass
class Tables:
    """elastix's tables of iterations in a folder, while they grow: a list of rows for each resolution begun."""

    folder: Path
    parameter_map: ParameterMap
    stage: int
    levels: int
    rows: list[list[Row]] = field(default_factory=list)
    _read: list[int] = field(default_factory=list)
    _columns: list[list[str]] = field(default_factory=list)

    def new(self) -> Iterator[Iteration]:
        """What has been added since the last look, in order."""
        for level in range(self.levels):
            file = self.folder / f"IterationInfo.0.R{level}.txt"
            if not file.exists():
                return
            if level == len(self.rows):
                logger.info("Resolution: %d", level)
                self.rows.append([])
                self._read.append(0)
                self._columns.append([])
            for line in self._new_lines(file, level):
                if self._columns[level]:
                    yield self._iteration(level, line.split("\t"))
                else:
                    self._columns[level] = line.split("\t")

    def _new_lines(self, file: Path, level: int) -> list[str]:
        with file.open("rb") as stream:
            stream.seek(self._read[level])
            whole = stream.read().rpartition(b"\n")[0]
        self._read[level] += len(whole) + 1 if whole else 0
        return whole.decode().splitlines()

    def _iteration(self, level: int, values: list[str]) -> Iteration:
        row = dict(zip(self._columns[level][1:], map(_cell, values[1:]), strict=False))
        self.rows[level].append(row)
        most = _cell(self.parameter_map.lookup("MaximumNumberOfIterations", level, "Optimizer0") or "500")
        of = 0 if isinstance(most, str) else int(most)
        return Iteration(self.stage, level, self.levels, len(self.rows[level]) - 1, of, row)


def follow(folder: Path, tables: Tables, watch: Watch | None) -> bool:
    """Runs elastix to its end, or to that of the resolution in which `watch` asks to stop; tells whether it has asked.

    Raises `RegistrationError` where elastix fails, and `MissingExtra` where it is not installed.
    """
    with (folder / "worker.log").open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-P", elastix_worker.__file__, str(folder)],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            env=_environment(),
        )
    asked: int | None = None
    try:
        running = True
        while running:
            running = process.poll() is None
            for iteration in tables.new():
                if asked is None and watch is not None and watch(iteration) is True:
                    asked = iteration.level
            if asked is not None and len(tables.rows) > asked + 1:
                return True
            time.sleep(POLL if running else 0)
    finally:
        process.kill()
        process.wait()
    if process.returncode:
        raise _failure(folder, process.returncode, tables.parameter_map)
    return asked is not None


def _write_images(folder: Path, case: Case) -> dict[str, list[dict[str, object]]]:
    """Writes images and masks as arrays; gives the grids of each role."""
    roles: dict[str, list[tuple[np.ndarray, Grid]]] = {
        "fixed": [(i.numpy(), i.grid) for i in case.fixed_images],
        "moving": [(i.numpy(), i.grid) for i in case.moving_images],
        "fixed_mask": [(m.inside.cpu().numpy().astype(np.uint8), m.grid) for m in case.fixed_masks],
        "moving_mask": [(m.inside.cpu().numpy().astype(np.uint8), m.grid) for m in case.moving_masks],
    }
    for role, arrays in roles.items():
        for number, (values, _) in enumerate(arrays):
            np.save(folder / f"{role}{number}.npy", np.ascontiguousarray(values))
    return {
        role: [{"spacing": grid.spacing, "origin": grid.origin, "direction": grid.direction} for _, grid in arrays]
        for role, arrays in roles.items()
    }


def _write_points(folder: Path, case: Case) -> dict[str, str]:
    """Writes the landmarks as elastix point files; gives their names by side."""
    sides = {"fixed": case.further.fixed_points, "moving": case.further.moving_points}
    given = {side: points for side, points in sides.items() if points is not None}
    for side, points in given.items():
        write_points(points, folder / f"{side}_points.txt")
    return {side: f"{side}_points.txt" for side in given}


def _write_initial(folder: Path, initial: Combination | None, grid: Grid) -> str:
    """Writes the transforms before as files that refer to each other; gives the last one's name, "" for none."""
    plain, last = ParameterMap.from_dict({}), ""
    for number, each in enumerate([] if initial is None else initial.chain()):
        writer = TransformWriter(Output.of(plain, grid), plain, last or NO_INITIAL)
        last = str(writer.write(each, folder, f"before{number}")[0].absolute())
    return last


def _cell(text: str) -> Cell:
    """A whole number, a number, or else the word as it is."""
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text


def _environment() -> dict[str, str]:
    """As many threads as torch has. (The filter's own setting of that number crashes with several metrics.)"""
    return {**os.environ, "ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS": str(torch.get_num_threads())}


def _failure(folder: Path, code: int, parameter_map: ParameterMap) -> Exception:
    """What went wrong, out of the logs of elastix and of the worker."""
    output, log = (_text(folder / file) for file in ("worker.log", "elastix.log"))
    if re.search("^(ModuleNotFound|Import)Error", output, re.MULTILINE):
        advice = "pip install itk-elastix, or use the torch engine"
        return MissingExtra(f"itk-elastix cannot be imported ({_last_line(output)}): {advice}")
    if code < 0 or code > 128:
        signal = -code if code < 0 else code - 128
        when = _last_resolution(log)
        return RegistrationError(
            f"{parameter_map.name}: itk-elastix crashed (signal {signal}) {when}; use the torch engine"
        )
    reason = _reason(log) or _reason(output) or _last_line(output)
    named = re.search(r'parameter "(\w+)"', reason)
    where = parameter_map.where(named[1]) if named else parameter_map.name
    return RegistrationError(f"{where}: itk-elastix stopped: {reason}")


def _text(file: Path) -> str:
    return file.read_text(encoding="utf-8", errors="replace") if file.exists() else ""


def _reason(log: str) -> str:
    """The last exception in a log, else its last line of an error that says more than that there was one."""
    exceptions = re.findall(r"ITK ERROR: (.*?)(?:\n\s*\n|\Z)", log, re.DOTALL)
    errors = re.findall(r"^ERROR: (.*)$", log, re.MULTILINE)
    said = [error for error in errors if not re.match(_SAYS_LITTLE, error)]
    found = (exceptions or said or [""])[-1]
    return " ".join(re.sub(r"^(\w+\(0x[0-9a-f]+\): )?(ERROR: )?", "", found).split())


def _last_line(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1] if lines else "without a message"


def _last_resolution(log: str) -> str:
    levels = re.findall(r"^Resolution: (\d+)", log, re.MULTILINE)
    return f"in resolution {levels[-1]}" if levels else "before its first resolution"
