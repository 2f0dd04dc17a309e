"""write_report(): the folder of a finished registration as one HTML page that needs nothing but itself."""

import logging
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from importlib.resources import files
from pathlib import Path
from typing import Any

import torch

import impactreg
from impactreg.components.resampling import Output
from impactreg.components.transforms.files import read_transform
from impactreg.components.transforms.transform import Combination
from impactreg.errors import ImageError
from impactreg.images import Grid, as_image
from impactreg.images.image import Image
from impactreg.images.whole import whole_file
from impactreg.report import feature_maps, figures, scores, sprites, verdict
from impactreg.report.charts import charts_of
from impactreg.report.deformation import Deformation, likeness
from impactreg.report.planes import planes_of
from impactreg.report.run_folder import RunFolder, Stage
from impactreg.report.windows import shown

logger = logging.getLogger(__name__)
NAME = "report.html"
MODES = {
    "checkerboard": "Checkerboard",
    "edges": "Edges",
    "flicker": "Flicker",
    "difference": "Difference",
    "images": "Images",
}


def write_report(
    directory: str | Path,
    *,
    fixed: Any = None,
    moving: Any = None,
    fixed_points: Any = None,
    moving_points: Any = None,
    fixed_labels: Any = None,
    moving_labels: Any = None,
    numbers: Mapping[str, verdict.Number] | None = None,
    models: Sequence[str | Path] = (),
) -> Path:
    """Writes `report.html` into the folder of a finished registration and returns its path.

    `fixed` and `moving` are the images that were registered, in any form that `as_image` takes, or lists of which the
    first ones are shown; without them they are sought where the log says they were, and if they are gone the page shows
    what it can without. `fixed_points` and `moving_points` are files of corresponding landmarks, `fixed_labels` and
    `moving_labels` label images: their mean distance (mm) and mean Dice come first on the page, before and after, as
    does what `impactreg evaluate` has left in the folder. Further `numbers` by name follow them, pairs being before and
    after. `models` are folders with feature extractors.

    Raises `MissingExtra` without jinja2 and pillow, `OutputError` where there is no finished registration or nothing
    can be written, and `ImageError`, `PointsError` or `TransformError` for what cannot be read.
    """
    sprites.check_extra()
    truth = scores.Truth(fixed_points, moving_points, fixed_labels, moving_labels)
    run = RunFolder.read(Path(directory))
    view = _View(run, fixed, moving, tuple(map(Path, models)) + run.model_folders())
    given = {**scores.evaluated(run.directory), **truth.scores(view.transform, view.output, view.moving_grid)}
    path = run.directory / NAME
    page = _rendered(view.told({**given, **(numbers or {})}))
    with whole_file(path) as draft:
        # names of files may hold what is no text
        draft.write_bytes(page.encode("utf-8", errors="replace"))
    logger.info("The report is saved in %s (%.1f MB)", path, len(page) / 1e6)
    return path


@dataclass(frozen=True)
class _View:
    """What there is to be seen of a run: read and computed when the page first needs it."""

    run: RunFolder
    fixed_given: Any
    moving_given: Any
    model_folders: tuple[Path, ...]
    names: dict[str, str] = field(default_factory=dict)
    places: dict[str, str] = field(default_factory=dict)

    @cached_property
    def output(self) -> Output:
        """The fixed image's grid, and whether the transform knows of its direction."""
        return Output.of(self.run.transform_parameters)

    @cached_property
    def transform(self) -> Combination:
        """The whole chain of transforms."""
        return read_transform(self.run.transform_file)

    @cached_property
    def images(self) -> figures.Images | None:
        """Fixed, moving and result; None where one of the first two is not there."""
        fixed, moving = self._image(self.fixed_given, "fixed", "-f"), self._image(self.moving_given, "moving", "-m")
        if fixed is None or moving is None:
            return None
        for name, image in (("fixed", fixed), ("moving", moving)):
            if image.dimension != self.transform.dimension:
                raise ImageError(
                    f"{name} image: it is {image.dimension}D, but the transform is {self.transform.dimension}D"
                )
        result = self.run.result_file
        return figures.Images(
            fixed, moving, None if result is None else self._seen(as_image(result, name="result image"))
        )

    @property
    def moving_grid(self) -> Grid | None:
        """The moving image's grid as the transform sees it; None where the image is not there."""
        return None if self.images is None else self.images.moving.grid

    @cached_property
    def deformation(self) -> Deformation:
        """The transform in the slices that are shown."""
        fixed = None if self.images is None else self.images.fixed
        grid = self.output.working_grid
        same = fixed is not None and fixed.grid.size == grid.size
        return Deformation.of(self.transform, planes_of(grid, fixed if same else None, self.output.grid))

    def told(self, numbers: Mapping[str, verdict.Number]) -> dict[str, Any]:
        """All that the template names."""
        run, deformation, images = self.run, self.deformation, self.images
        alike = likeness(deformation, images.fixed, images.moving) if images else None
        colours = feature_maps.colours(run, images.fixed, images.moving, self.model_folders) if images else []
        planes, size = figures.pictures(deformation, images, colours)
        logger.debug("the pictures take %.1f MB", size / 1e6)
        geometry = zip(planes, deformation.fields, strict=True)
        return {
            **self._head(),
            **self._notice(),
            "cards": verdict.cards(run, deformation, alike, numbers),
            "checks": [*scores.checks(numbers), *verdict.checks(run, deformation, alike)],
            "has_images": images is not None,
            "modes": list(MODES.items()),
            "windows": images.windows if images else (),
            "result_note": "" if run.result_file else "There is no result image: it was made from the transform.",
            "planes": [{**told, "edges": field.plane.edges} for told, field in geometry],
            "longest": f"{float(deformation.displacement.max()):.3g}",
            "points": f"{len(deformation.determinant):,}",
            "step": f"{figures.grid_step(deformation):g}",
            "grid_note": _grid_note(deformation),
            "features": [each.name for each in colours],
            "features_note": _features_note(run, images is not None),
            "stages": [_stage(each) for each in run.stages],
            "ends": verdict.ENDS,
            "maps": [(s.parameter_map.name, s.parameter_map.text()) for s in run.stages if s.parameter_map],
            "models": feature_maps.used_models(run, self.model_folders, self.transform.dimension),
            "data": {
                "planes": planes,
                "features": [each.name for each in colours],
                "step": figures.grid_step(deformation),
            },
        }

    def _head(self) -> dict[str, Any]:
        log = self.run.log
        called = {"command line", "started", "folder"}
        stages = len(self.run.stages)
        parts = [log.facts.get("started", ""), f"{stages} stage{'s' * (stages > 1)}", str(self.run.directory)]
        return {
            "version": impactreg.__version__,
            "fixed_name": self.names.get("fixed", "fixed image"),
            "moving_name": self.names.get("moving", "moving image"),
            "subtitle": ", ".join(filter(None, parts)),
            "command": log.facts.get("command line", ""),
            "facts": [(k, v) for k, v in log.facts.items() if k not in called]
            + [("report", f"impactreg {impactreg.__version__}, torch {torch.__version__}")],
        }

    def _notice(self) -> dict[str, str]:
        if self.images is not None:
            return {"notice": "", "advice": ""}
        lost = [name for name in ("fixed", "moving") if name not in self.names]
        were = [next(iter(self.run.log.given(f"-{name[0]}")), None) for name in lost]
        told = " and ".join(
            f"the {name} image ({where})" if where else f"the {name} image"
            for name, where in zip(lost, were, strict=True)
        )
        given = {name: self.places.get(name, name.upper()) for name in ("fixed", "moving")}
        words = ["impactreg", "report", str(self.run.directory), "-f", given["fixed"], "-m", given["moving"]]
        return {
            "notice": f"Not found: {told}. To see the images on this page, say where they are:",
            "advice": shlex.join(words),
        }

    def _image(self, given: Any, name: str, flag: str) -> Image | None:
        several = isinstance(given, list)
        found = self.run.located(flag) if given is None else given[0] if several else given
        if found is None:
            return None
        self.names[name] = f"{name} image"
        if isinstance(found, str | Path):
            self.names[name], self.places[name] = Path(found).name, str(found)
        return self._seen(as_image(found, name=f"{name} image"))

    def _seen(self, image: Image) -> Image:
        """An image as the transform sees it, ready to be shown."""
        return shown(self.output.seen(image))


def _grid_note(deformation: Deformation) -> str:
    if deformation.is_affine:
        return "The grid is one of the moving image as the transform, which is affine, brings it here."
    return "The grid is one of the moving image as the transform brings it here, without the affine part of that."


def _features_note(run: RunFolder, has_images: bool) -> str:
    if not any(feature_maps.uses_models(stage.parameter_map) for stage in run.stages):
        return "No feature extractor was used, so there are no feature maps."
    if not has_images:
        return "Feature maps are shown where the images are found."
    return "The feature extractors could not be used: give their folder with --models."


def _stage(stage: Stage) -> dict[str, Any]:
    """A stage's charts, and for each resolution the cells of its row."""
    rows = []
    for level, table in enumerate(stage.levels):
        found = verdict.ends(table)
        times = table.get("Time[ms]", ())
        rows.append(
            (
                len(next(iter(table.values()), ())),
                *([f"{v:.5g}" for v in found] if found else ("–", "–")),
                verdict.told_seconds(sum(times) / 1000) if times else "–",
                stage.stop_reasons[level] if level < len(stage.stop_reasons) else "–",
            )
        )
    return {"caption": stage.caption, "charts": charts_of(stage), "rows": rows}


def _rendered(told: Mapping[str, Any]) -> str:
    jinja2 = sprites.package("jinja2", "jinja2")
    folder = files(__package__ or "impactreg.report")
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    style, script, page = (folder.joinpath(f"page.{e}").read_text("utf-8") for e in ("css", "js", "html.jinja"))
    return str(environment.from_string(page).render(**told, style=style, script=script))
