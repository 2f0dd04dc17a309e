"""What lands in the output folder, and what register() returns."""

import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from impactreg.components.optimizers.optimizer import Cell, Row
from impactreg.components.resampling import Output
from impactreg.components.transforms.files import NO_INITIAL, TransformWriter
from impactreg.components.transforms.inverse_field import write_inverse
from impactreg.components.transforms.transform import Combination, Transform
from impactreg.errors import OutputError
from impactreg.images.files import write_image
from impactreg.images.image import Image
from impactreg.images.whole import whole_file
from impactreg.parameters import ParameterMap, RunSettings
from impactreg.registration.case import Case, StageResult
from impactreg.registration.checkpoint import Checkpoint, State

logger = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class Result:
    """What a registration found, all in memory and picklable; `image, transform = result` takes it apart.

    `image` is the moving image on the fixed image's grid, None with `(WriteResultImage "false")`; values are not cast
    to `ResultImagePixelType`, which the files are. `transform` is the whole chain from fixed to moving points. Then,
    for each parameter file: its transform parameter map, its table of iterations (for each resolution the rows by
    column name) and its stop reasons. `inverse` is the transform from moving to fixed points where the last
    stage brings it along, as flows do.
    """

    image: Image | None
    transform: Combination
    transform_parameter_maps: tuple[ParameterMap, ...]
    iterations: tuple[tuple[tuple[Row, ...], ...], ...]
    stop_reasons: tuple[tuple[str, ...], ...]
    output_directory: Path | None = None
    inverse: Combination | None = None

    def __iter__(self) -> Iterator[Image | Combination | None]:
        return iter((self.image, self.transform))

    @classmethod
    def of(cls, recorders: Sequence["Recorder"], outcomes: Sequence[StageResult]) -> "Result":
        """The result of all stages, each with the recorder that saw it."""
        last = recorders[-1]
        image = last.image(outcomes[-1].transform)
        return cls(
            image if image is None else image.to(device="cpu"),
            outcomes[-1].transform.to("cpu"),
            tuple(r.transform_parameter_map(o.transform) for r, o in zip(recorders, outcomes, strict=True)),
            tuple(outcome.iterations for outcome in outcomes),
            tuple(outcome.stop_reasons for outcome in outcomes),
            last.directory,
            outcomes[-1].inverse,
        )


class Recorder:
    """Writes what one parameter file asks for while and after it runs; every file appears whole or not at all.

    `directory` is the output folder, None to touch no disk; `number` is that of the parameter file; `case` has the
    images as they were read. Without `initial_file`, the name of the file that holds the transforms before, these are
    the file of the parameter file before, or are written as `InitialTransformParameters.<i>.txt` where it has written
    none in this run (`follows` is False). Raises `OutputError`.
    """

    def __init__(
        self,
        directory: Path | None,
        number: int,
        parameter_map: ParameterMap,
        case: Case,
        *,
        initial_file: str = "",
        follows: bool = True,
        checkpoint: Checkpoint | None = None,
    ) -> None:
        self.directory = directory
        self._checkpoint = checkpoint or Checkpoint(None)
        self.number = number
        self._parameter_map = parameter_map
        self._case = case
        self._output = Output.of(parameter_map, case.fixed.grid)
        self._run = RunSettings.read(parameter_map)
        self._plain_writer = TransformWriter(
            self._output,
            parameter_map,
            toml=self._run.output_transform_parameter_file_format == "TOML",
            extension=self._run.itk_transform_output_file_name_extension,
            composite=self._run.write_itk_composite_transform,
        )
        self._initial_file = initial_file
        self._follows = follows
        self._rows: list[tuple[int, Mapping[str, Cell]]] = []
        self._complete: tuple[int, Combination] | None = None
        self._tables: set[int] = set()
        self._maps: tuple[Combination, ParameterMap] | None = None
        self._image: tuple[Combination, Image] | None = None

    @property
    def kept(self) -> State:
        """What the stage kept before it was interrupted; empty where it begins anew."""
        return self._checkpoint.kept(self.number)

    def keep(self, state: State) -> None:
        """Writes down what the stage needs to go on from here, should it be interrupted."""
        self._checkpoint.keep(self.number, state)

    def go_on_after(self, rows: Sequence[Row]) -> None:
        """The iterations of a resolution in which a stage goes on, as they were before it was interrupted."""
        self._rows = list(enumerate(rows))

    def iteration(self, level: int, number: int, columns: Mapping[str, Cell], transform: Combination) -> None:
        """One iteration has ended: its columns (without the number), and the transform that it led to."""
        self._rows.append((number, dict(columns)))
        lines = iteration_table(self._rows[-1:]).splitlines()
        for line in lines if len(self._rows) == 1 else lines[1:]:
            logger.info("%s", line)
        if self.directory is None:
            return
        name = f"{self.number}.R{level}.It{number:07d}"
        if self._run.write_transform_parameters_each_iteration:
            self._writer(transform).write(transform, self.directory, name)
        if RunSettings.read(self._parameter_map, level=level).write_result_image_after_each_iteration:
            self._write_image(self._resample(transform), name)

    def pyramid_images(self, level: int, pairs: Sequence[tuple[Image, Image]]) -> None:
        """The fixed and moving images of a resolution, a pair for each pyramid; written where the map asks for it
        (`WritePyramidImagesAfterEachResolution`).
        """
        asked = RunSettings.read(self._parameter_map, level=level)
        if self.directory is None or not asked.write_pyramid_images_after_each_resolution:
            return
        for i, pair in enumerate(pairs):
            for side, image in zip(("Fixed", "Moving"), pair, strict=True):
                path = self.directory / f"{side}ImagePyramid{i}.{self.number}.R{level}.{asked.result_image_format}"
                write_image(image.to(device="cpu"), path, pixel_type="float", compress=asked.compress_result_image)

    def level_done(self, level: int, transform: Combination) -> None:
        """A resolution has ended."""
        rows, self._rows = self._rows, []
        self.complete(level, transform)
        if self.directory is None:
            return
        name = f"{self.number}.R{level}"
        self._write_table(level, rows)
        if self._run.write_transform_parameters_each_resolution:
            self._writer(transform).write(transform, self.directory, name)
        if RunSettings.read(self._parameter_map, level=level).write_result_image_after_each_resolution:
            self._write_image(self._resample(transform), name)

    def complete(self, level: int, transform: Combination) -> None:
        """The transform at the end of a resolution, to be written if the run is interrupted."""
        self._complete = (level, transform)

    def stage_done(self, outcome: StageResult) -> None:
        """The parameter file is done: writes the final transform, the result image, and tables not yet written."""
        if self.directory is None:
            return
        for level, rows in enumerate(outcome.iterations):
            if level not in self._tables:
                self._write_table(level, list(enumerate(rows)))
        transform = outcome.transform
        if self._run.write_final_transform_parameters:
            path, content = self._writer(transform).write(transform, self.directory, str(self.number))
            self._maps = (transform, content)
            logger.info("The transform is saved in %s", path)
        self._write_inverse(outcome)
        image = self.image(transform)
        if image is not None:
            self._write_image(image, str(self.number))
        content = self.transform_parameter_map(transform)
        # A field that no file holds is found again.
        if content.first("DeformationFieldFileName", "none"):
            self._checkpoint.stage_done(self.number, outcome, content)

    def interrupted(self) -> Path | None:
        """Writes the transform of the last complete resolution, if there is one; gives the file."""
        if self.directory is None or self._complete is None:
            return None
        level, transform = self._complete
        return self._writer(transform).write(transform, self.directory, f"{self.number}.R{level}")[0]

    def transform_parameter_map(self, transform: Combination) -> ParameterMap:
        """The transform parameter map of the final transform, as it was written if it was."""
        if self._maps is not None and self._maps[0] is transform:
            return self._maps[1]
        return self._writer(transform).map(transform)

    def image(self, transform: Combination) -> Image | None:
        """The result image of the final transform; None with `(WriteResultImage "false")`."""
        if not self._run.write_result_image:
            return None
        if self._image is None or self._image[0] is not transform:
            logger.info("Applying final transform ...")
            self._image = (transform, self._resample(transform))
        return self._image[1]

    def _write_inverse(self, outcome: StageResult) -> None:
        """The inverse that came with the transform, or else, where it is asked for, one that is found."""
        if self.directory is None:
            return
        moving, name = self._case.moving.grid, str(self.number)
        writer = replace(self._plain_writer, extension="", composite=False)
        if outcome.inverse is not None:
            there = replace(writer, output=replace(writer.output, grid=moving))
            path, _ = there.write(outcome.inverse, self.directory, name, stem="InverseTransformParameters")
            logger.info("The inverse transform is saved in %s", path)
        elif self._run.write_inverse_transform:
            write_inverse(outcome.transform, moving, writer, self.directory, name)

    def _resample(self, transform: Combination) -> Image:
        return self._output.resample(self._case.moving, transform)

    def _write_image(self, image: Image, name: str) -> None:
        if self.directory is None:
            return
        asked = self._output.resampler.settings
        path = self.directory / f"{self._run.result_image_name}.{name}.{asked.result_image_format}"
        write_image(image, path, pixel_type=asked.result_image_pixel_type, compress=asked.compress_result_image)

    def _write_table(self, level: int, rows: Sequence[tuple[int, Mapping[str, Cell]]]) -> None:
        self._tables.add(level)
        if self.directory is not None and self._run.write_iteration_info:
            with whole_file(self.directory / f"IterationInfo.{self.number}.R{level}.txt") as draft:
                draft.write_text(iteration_table(rows), encoding="utf-8", newline="\n")

    def _writer(self, transform: Combination) -> TransformWriter:
        return replace(self._plain_writer, initial=self._initial(transform.initial))

    def _initial(self, before: "Transform | Combination | None") -> str:
        """The name of the file that holds the transforms before, which is written where no parameter file has."""
        if before is None:
            return NO_INITIAL
        if not self._initial_file and self.directory is not None:
            previous = self._previous_file(self.directory.absolute())
            plain = replace(self._plain_writer, extension="", composite=False)
            self._initial_file = str(previous or _write_initial(before, plain, self.directory))
        return self._initial_file or NO_INITIAL

    def _previous_file(self, folder: Path) -> Path | None:
        """What the parameter file before has written, if there was one."""
        files = [folder / f"TransformParameters.{self.number - 1}.{ending}" for ending in ("txt", "toml")]
        newest = sorted((f for f in files if f.exists()), key=lambda f: f.stat().st_mtime)
        return newest[-1] if self.number and self._follows and newest else None


def iteration_table(rows: Sequence[tuple[int, Mapping[str, Cell]]]) -> str:
    """Iterations (number, columns) as the text of an IterationInfo file, columns by name, six decimals, times one."""
    if not rows:
        return ""
    names = sorted({"1:ItNr", *(name for _, columns in rows for name in columns)})
    lines = ["\t".join(names)]
    for number, columns in rows:
        cells: Row = {**columns, "1:ItNr": number}
        lines.append("\t".join(_cell(name, cells[name]) if name in cells else "" for name in names))
    return "\n".join(lines) + "\n"


def prepare_directory(directory: "str | Path | None") -> Path | None:
    """The output folder, made if it is missing; raises `OutputError` where nothing can be written into it."""
    if directory is None:
        return None
    folder = Path(directory)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe = folder / ".impactreg-probe"
        probe.touch()
        probe.unlink(missing_ok=True)
    except OSError as error:
        reason = "it is a file" if folder.is_file() else error.strerror or str(error)
        raise OutputError(f"{folder}: the output folder cannot be written: {reason}; choose another folder") from error
    return folder


def _cell(name: str, value: Cell) -> str:
    if isinstance(value, (int, str)):
        return str(value)
    return f"{value:.1f}" if name.startswith("Time") else f"{value:.6f}"


def _write_initial(before: "Transform | Combination", writer: TransformWriter, folder: Path) -> str:
    """Writes the transforms that a registration began with, one file each, and gives the name of the last."""
    chain = before.chain() if isinstance(before, Combination) else [Combination(before)]
    name = NO_INITIAL
    for number, each in enumerate(chain):
        path, _ = replace(writer, initial=name).write(each, folder, str(number), stem="InitialTransformParameters")
        name = str(path.absolute())
    return name
