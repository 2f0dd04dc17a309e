"""The folder of a finished registration, read back: transforms, iterations, result, log, and where its images lie."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import count
from pathlib import Path

from impactreg.errors import OutputError
from impactreg.images.files import FORMATS, ITK_FORMATS
from impactreg.parameters import ParameterMap
from impactreg.report.run_log import RunLog

Table = Mapping[str, tuple[float, ...]]
"""A table of iterations: the numbers of each column; a cell without one is not-a-number."""


@dataclass(frozen=True)
class Stage:
    """What one parameter file has left: the file of its transform, a table and a reason to stop for each resolution.

    `parameter_map` is None where no log tells it.
    """

    number: int
    transform_file: Path
    levels: tuple[Table, ...]
    stop_reasons: tuple[str, ...]
    parameter_map: ParameterMap | None

    @property
    def caption(self) -> str:
        """Such as `stage 1: RecursiveBSplineTransform by Impact`."""
        names = [] if self.parameter_map is None else [", ".join(self.parameter_map.get("Metric", ()))]
        transform = ParameterMap.read(self.transform_file).first("Transform")
        return f"stage {self.number}: {' by '.join([transform, *filter(None, names)])}"


@dataclass(frozen=True)
class RunFolder:
    """A folder with the results of a registration, by impactreg or by elastix."""

    directory: Path
    log: RunLog
    stages: tuple[Stage, ...]

    @classmethod
    def read(cls, directory: Path) -> "RunFolder":
        """Reads what is there; raises `OutputError` where there is no transform of a finished registration."""
        log = RunLog.read(directory / "elastix.log")
        stages = tuple(_stages(directory, log))
        if not stages:
            why = "there is no TransformParameters.0.txt in it" if directory.is_dir() else "there is no such folder"
            raise OutputError(f"{directory}: {why}; give the output folder (-out) of a finished registration")
        return cls(directory, log, stages)

    @property
    def transform_file(self) -> Path:
        """The file of the last transform, which refers to those before it."""
        return self.stages[-1].transform_file

    @cached_property
    def transform_parameters(self) -> ParameterMap:
        """The content of that file."""
        return ParameterMap.read(self.transform_file)

    @property
    def result_file(self) -> Path | None:
        """The result image of the last stage; None where it was not written."""
        last = self.stages[-1]
        name = "result" if last.parameter_map is None else last.parameter_map.first("ResultImageName", "result")
        files = (self.directory / f"{name}.{last.number}.{ending}" for ending in (*FORMATS, *ITK_FORMATS))
        return next((file for file in files if file.exists()), None)

    @property
    def seconds(self) -> float | None:
        """How long the registration took; without a log that tells it, how long its iterations took."""
        times = [ms for stage in self.stages for table in stage.levels for ms in table.get("Time[ms]", ())]
        return self.log.seconds or (sum(times) / 1000 if times else None)

    def located(self, flag: str) -> Path | None:
        """The file that the command line gave after a flag; None where it was not given or is not there any more.

        A relative path is tried from the folder where the command was called, as far as that is known, from the
        working folder, and from the result folder and those above it.
        """
        written = next(iter(self.log.given(flag)), None)
        if written is None:
            return None
        return next((base / written for base in self._bases() if _holds(base / written, Path.exists)), None)

    def model_folders(self) -> tuple[Path, ...]:
        """The folders that the command line named for models, as far as they are there."""
        given = self.log.given("--models")
        bases = list(self._bases())
        return tuple(base / each for each in given for base in bases if _holds(base / each, Path.is_dir))

    def _bases(self) -> Iterator[Path]:
        here = self.directory.absolute()
        if "folder" in self.log.facts:
            yield Path(self.log.facts["folder"])
        written = next(iter(self.log.given("-out")), None)
        if written is not None and not Path(written).is_absolute():
            parts = Path(written).parts
            if here.parts[-len(parts) :] == parts:
                yield Path(*here.parts[: -len(parts)])
        yield Path.cwd()
        yield here
        yield from here.parents


def _holds(place: Path, wanted: Callable[[Path], bool]) -> bool:
    """Whether a place holds what is wanted; one that must not be looked into, or with a damaged name, does not."""
    try:
        return wanted(place)
    except (OSError, ValueError):
        return False


def _stages(directory: Path, log: RunLog) -> Iterator[Stage]:
    for number in count():
        files = [directory / f"TransformParameters.{number}.{ending}" for ending in ("txt", "toml")]
        file = next((each for each in files if each.exists()), None)
        if file is None:
            return
        levels = tuple(_levels(directory, number))
        stops = log.stop_reasons[number] if number < len(log.stop_reasons) else ()
        told = log.parameter_maps[number] if number < len(log.parameter_maps) else None
        yield Stage(number, file, levels, stops[-len(levels) :] if levels else stops, told)


def _levels(directory: Path, number: int) -> Iterator[Table]:
    for level in count():
        file = directory / f"IterationInfo.{number}.R{level}.txt"
        if not file.exists():
            return
        yield table_of(file.read_text(encoding="utf-8", errors="replace").splitlines())


def table_of(lines: Sequence[str]) -> Table:
    """The columns of an IterationInfo file."""
    rows = [line.split("\t") for line in lines if line.strip()]
    if not rows:
        return {}
    names = [name.strip() for name in rows[0]]
    return {
        name: tuple(_number(row[place]) if place < len(row) else float("nan") for row in rows[1:])
        for place, name in enumerate(names)
        if name
    }


def _number(cell: str) -> float:
    try:
        return float(cell)
    except ValueError:
        return float("nan")
