"""Checkpoint: how far a run has come, in one file of its output folder, so that an interrupted run can go on.

The file is there while a run is under way, and left behind by one that was interrupted or killed. It appears whole or
not at all, and holds tensors, numbers and texts alone (it is read with `weights_only`).
"""

import io
import pickle
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from impactreg.components.optimizers.optimizer import Row
from impactreg.components.transforms.files import on_top
from impactreg.components.transforms.transform import Combination
from impactreg.errors import OutputError
from impactreg.images.whole import whole_file
from impactreg.parameters import ParameterMap
from impactreg.registration.case import StageResult

FILE = "checkpoint.pt"
State = Mapping[str, Any]
"""What a stage needs to go on: tensors, numbers and texts, and lists and dicts of these."""


@dataclass
class Checkpoint:
    """The progress of a run in `directory` (None: nothing is kept).

    `run` tells what is run, so that no other run goes on with it. `stages` are those that are done, by number: the map
    of each one's transform, whether it includes the transforms before it, its tables and its stop reasons. `states`
    holds, by the number of the stage that was interrupted, what that has kept.
    """

    directory: Path | None
    run: str = ""
    stages: dict[int, State] = field(default_factory=dict)
    states: dict[int, State] = field(default_factory=dict)

    @classmethod
    def begin(cls, directory: Path | None, run: str) -> "Checkpoint":
        """The checkpoint of a run that has done nothing yet; raises `OutputError`."""
        made = cls(directory, run)
        made._write()
        return made

    @classmethod
    def read(cls, directory: Path | None, run: str) -> "Checkpoint":
        """The checkpoint that an interrupted run has left behind; raises `OutputError` where there is none, or where it
        is of another run.
        """
        if directory is None:
            raise OutputError("to resume a run its output folder is needed: give it as output_directory (-out)")
        path = directory / FILE
        if not path.is_file():
            raise OutputError(f"{path}: there is none, so no run was interrupted in this folder; run without resuming")
        try:
            content = torch.load(path, weights_only=True, map_location="cpu")
            made = cls(directory, content["run"], content["stages"], content["states"])
        except (OSError, RuntimeError, EOFError, KeyError, TypeError, pickle.UnpicklingError):
            raise OutputError(f"{path}: cannot be read; run without resuming") from None
        if made.run != run:
            raise OutputError(
                f"{path}: the run that was interrupted here had another initial transform, or other images, "
                "parameters, seed or version; give what it was given, or run without resuming"
            )
        return made

    def keep(self, stage: int, state: State) -> None:
        """Writes down what a running stage needs to go on."""
        self.states = {stage: state}
        self._write()

    def kept(self, stage: int) -> State:
        """What a stage kept before it was interrupted; empty where it begins anew."""
        return self.states.get(stage, {}) if self.directory else {}

    def stage_done(self, stage: int, outcome: StageResult, transform_map: ParameterMap) -> None:
        """Writes down what a stage has found."""
        alone = outcome.transform.initial is None
        tables, reasons = plain_tables(outcome.iterations), [*outcome.stop_reasons]
        found = {"map": transform_map.to_dict(), "alone": alone, "tables": tables, "reasons": reasons}
        self.stages, self.states = {**self.stages, stage: found}, {}
        self._write()

    def outcome(self, stage: int, initial: Combination | None) -> StageResult | None:
        """What a stage had found before the run was interrupted, None if it was not done."""
        found = self.stages.get(stage)
        if found is None:
            return None
        content = ParameterMap.from_dict(found["map"], FILE)
        tables = tuple(tuple(rows) for rows in found["tables"])
        return StageResult(on_top(content, None if found["alone"] else initial), tables, tuple(found["reasons"]))

    def kept_after(self, error: OutputError) -> OutputError:
        """The error of a result that could not be written, which says so where the work until then is kept."""
        if self.directory is None or not (self.stages or self.states):
            self.remove()
            return error
        return OutputError(f"{error}; what was done until then is kept: once there is room, resume (--resume) to go on")

    def remove(self) -> None:
        """The run has ended."""
        if self.directory is not None:
            with suppress(OSError):
                (self.directory / FILE).unlink()

    def _write(self) -> None:
        if self.directory is None:
            return
        content = {"run": self.run, "stages": self.stages, "states": self.states}
        # Into memory first: PyTorch does not say that a disk is full.
        buffer = io.BytesIO()
        torch.save(content, buffer)
        with whole_file(self.directory / FILE) as draft:
            draft.write_bytes(buffer.getbuffer())


def plain_tables(tables: Iterable[Iterable[Row]]) -> list[list[dict[str, float | str]]]:
    """Tables of iterations in Python's own types, which a `State` can hold."""
    return [[{k: v if isinstance(v, (int, str)) else float(v) for k, v in row.items()} for row in t] for t in tables]
