"""Transform files in and out: elastix's TransformParameters files with their chains, and ITK's transform files."""

import logging
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import numpy as np

# Importing their modules makes the transforms known by their names.
from impactreg.components.resampling import Output
from impactreg.components.transforms import bspline, itk_text, linear, rotating
from impactreg.components.transforms.cyclic import CyclicBSplineTransform
from impactreg.components.transforms.displacement import DeformationFieldTransform
from impactreg.components.transforms.displacement_files import is_field_file, read_field
from impactreg.components.transforms.itk_text import ItkTransform
from impactreg.components.transforms.reading import dimension_of, existing_file
from impactreg.components.transforms.transform import Combination, Transform
from impactreg.errors import ImageError, TransformError
from impactreg.images.files import read_itk_transform, write_itk_transform
from impactreg.images.whole import whole_file
from impactreg.parameters import ParameterMap, grammar

KNOWN = (bspline.BSplineTransform, linear.AffineTransform, rotating.EulerTransform, DeformationFieldTransform)
"""The rooms whose transforms can be read; naming one of each keeps them imported."""

NO_INITIAL = "NoInitialTransform"
ITK_EXTENSIONS = ("h5", "tfm", "itk.txt", "hdf5", "mat")
"""What `ITKTransformOutputFileNameExtension` may be."""
_INITIAL = "InitialTransformParameterFileName"
_ORDER = "BSplineTransformSplineOrder"
_OLD_INITIAL = "InitialTransformParametersFileName"
UNREADABLE = {
    "ExternalTransform": "it lives in the memory of the program that wrote it; write the transform itself",
    "MultiBSplineTransformWithNormal": "splines with sliding labels are not read here; use elastix's transformix",
}
"""Transforms of elastix that no file can be read to here, with what to do instead."""
FIELD_NAMES = {
    "TransformParameters": "DeformationFieldImage",
    "InitialTransformParameters": "InitialDeformationFieldImage",
    "InverseTransformParameters": "InverseDeformationFieldImage",
}
_BLOCKS = {
    "ResampleInterpolator": ("FinalBSplineInterpolationOrder",),
    "Resampler": ("CompressResultImage", "DefaultPixelValue", "ResultImageFormat", "ResultImagePixelType"),
}

logger = logging.getLogger(__name__)
PathLike = str | os.PathLike[str]


def read_transform(source: "PathLike | Combination | ParameterMap | Sequence[ParameterMap]") -> Combination:
    """The transform in a TransformParameters file or map with all those before it, or in an ITK transform file.

    A file refers to the one applied before it by `InitialTransformParameterFileName`: absolute, else in the working
    folder, else beside the file. Several maps are a chain in their order, in which such references are ignored.
    Raises `TransformError` or `ParameterError` in one line for what is missing, incomplete or refers to itself.
    """
    if isinstance(source, Combination):
        return source
    if isinstance(source, str | os.PathLike):
        return _chain_from_file(Path(source))
    if isinstance(source, ParameterMap):
        return _chain_from_map(source)
    if len(source) == 1:
        return _chain_from_map(source[0])
    combination: Combination | None = None
    for each in source:
        combination = on_top(each, combination)
    if combination is None:
        raise TransformError("a list of transform parameter maps needs at least one map")
    return combination


def on_top(parameter_map: ParameterMap, before: Combination | None) -> Combination:
    """The transform in a transform parameter map, applied after `before`; raises `TransformError`."""
    try:
        transforms = _transforms(parameter_map)
    except (ImageError, ValueError) as error:
        raise TransformError(f"{parameter_map.name}: {error}") from error
    compose = parameter_map.first("HowToCombineTransforms", "Compose") == "Compose"
    return _stacked(transforms, before, compose=compose, where=parameter_map.name)


def transform_map(
    combination: Combination, output: Output, parameter_map: ParameterMap, initial: str = NO_INITIAL
) -> ParameterMap:
    """The whole content of a TransformParameters file for the last transform of a chain, in elastix's order of keys.

    `output` gives the fixed image's grid and the keys of the resampler, `parameter_map` what else elastix copies from
    the parameter file, and `initial` is the name of the file with the transforms before.
    """
    current, grid = combination.current, output.grid
    named = parameter_map.first("Transform")
    name = named if named in current.names else next(iter(current.names), "")
    common = {
        "Transform": name,
        _INITIAL: initial,
        "HowToCombineTransforms": "Compose" if combination.compose else "Add",
        "FixedImageDimension": grid.dimension,
        "MovingImageDimension": grid.dimension,
        "FixedInternalImagePixelType": parameter_map.first("FixedInternalImagePixelType", "float"),
        "MovingInternalImagePixelType": parameter_map.first("MovingInternalImagePixelType", "float"),
        "Size": list(grid.size),
        "Index": [0] * grid.dimension,
        "Spacing": list(grid.spacing),
        "Origin": list(grid.origin),
        "Direction": np.array(grid.direction).T.reshape(-1),
        "UseDirectionCosines": output.use_direction_cosines,
    }
    blocks = ({**common, **current.written()}, *output.written())
    return ParameterMap.from_dict(
        {key: block[key] for block in blocks for key in sorted(block)}, "transform parameter map"
    )


def text_of(transform_parameters: ParameterMap, *, toml: bool = False) -> str:
    """A transform parameter map as the text of a file, in elastix's three blocks with their comments."""
    text, comment = "", "#" if toml else "//"
    for title, keys in _blocks(transform_parameters).items():
        block = transform_parameters.without(*(key for key in transform_parameters if key not in keys))
        text += f"\n{comment} {title} specific\n" if title else ""
        text += grammar.write_toml(dict(block)) if toml else block.text()
    return text


@dataclass(frozen=True)
class TransformWriter:
    """Writes transforms as files, in the way that a parameter file asks for.

    `extension` is that of an ITK transform file to be written as well (`ITKTransformOutputFileNameExtension`), "" for
    none, and `composite` tells whether the whole chain is written so too (`WriteITKCompositeTransform`). Raises
    `ParameterError` for an extension that cannot be written, and `OutputError` or `TransformError` when it writes.
    """

    output: Output
    parameter_map: ParameterMap
    initial: str = NO_INITIAL
    toml: bool = False
    extension: str = ""
    composite: bool = False

    def __post_init__(self) -> None:
        key, given = "ITKTransformOutputFileNameExtension", self.parameter_map
        if self.extension not in ("", *ITK_EXTENSIONS):
            raise given.error(key, f"one of {', '.join(ITK_EXTENSIONS)} is needed")
        is_text = self.extension in ("", "tfm", "itk.txt")
        if not is_text and "BSpline" in given.first("Transform") and given.first(_ORDER, "3") != "3":
            raise given.error(key, f"ITK writes B-splines of order 3 alone: use tfm or itk.txt, or ({_ORDER} 3)")

    def map(self, combination: Combination) -> ParameterMap:
        """The transform parameter map."""
        return transform_map(combination, self.output, self.parameter_map, self.initial)

    def write(
        self, combination: Combination, folder: Path, name: str, stem: str = "TransformParameters"
    ) -> tuple[Path, ParameterMap]:
        """Writes `TransformParameters.<name>.txt` and what belongs to it; gives the file and its content."""
        start = folder / f"{stem}.{name}"
        current = combination.current
        if isinstance(current, DeformationFieldTransform) and not current.file:
            stored = current.saved(folder.absolute() / f"{FIELD_NAMES[stem]}.{name}.mha")
            combination = Combination(stored, combination.initial, combination.compose)
        content = self.map(combination)
        if self.extension:
            content = self._with_itk_file(content, combination, start)
        path = start.with_name(f"{start.name}.{'toml' if self.toml else 'txt'}")
        with whole_file(path) as draft:
            draft.write_text(text_of(content, toml=self.toml), encoding="utf-8", newline="\n")
        return path, content

    def _with_itk_file(self, content: ParameterMap, combination: Combination, start: Path) -> ParameterMap:
        single = start.absolute().with_name(f"{start.name}.{self.extension}")
        write_itk(single, [itk_text.to_itk(combination.current)])
        if self.composite:
            self._write_composite(start.with_name(f"{start.name}-Composite.{self.extension}"), combination)
        own = set(combination.current.written()) - {"NumberOfParameters"}
        changed = content.without(*own).replace({"Transform": "File", "TransformFileName": str(single)})
        first, *others = _blocks(changed).values()
        order = [*sorted([*first]), *(key for block in others for key in block)]
        return ParameterMap.from_dict({key: changed[key] for key in order}, content.name)

    @staticmethod
    def _write_composite(path: Path, combination: Combination) -> None:
        # as in elastix, a chain that ITK cannot hold costs no results
        try:
            members = itk_text.composite_to_itk(combination)
        except TransformError as error:
            logger.error("%s is not written: %s", path, error)
        else:
            write_itk(path, members)


def write_itk(path: Path, transforms: Sequence[ItkTransform]) -> None:
    """Writes an ITK transform file: text for .tfm and .txt, by ITK itself for all else; whole or not at all."""
    text = itk_text.itk_text(transforms)
    with whole_file(path) as draft:
        if path.suffix in (".tfm", ".txt"):
            draft.write_text(text, encoding="utf-8", newline="\n")
        else:
            write_itk_transform(text, draft)


def is_itk_file(path: Path) -> bool:
    """Whether a file is one of ITK's transform files or displacement fields; raises `TransformError` for no file."""
    if not path.is_file():
        raise TransformError(f"{path}: there is no such transform file")
    return is_field_file(path) or itk_text.is_itk_text(path) or path.suffix in (".h5", ".hdf5", ".mat", ".tfm")


def _blocks(content: ParameterMap) -> dict[str, list[str]]:
    """The keys of the three blocks of a transform parameter file by their titles; the first has none."""
    behind = {key: title for title, keys in _BLOCKS.items() for key in (title, *keys)}
    blocks: dict[str, list[str]] = {"": [], **{title: [] for title in _BLOCKS}}
    for key in content:
        blocks[behind.get(key, "")].append(key)
    return {title: keys for title, keys in blocks.items() if keys}


def _chain_from_file(path: Path) -> Combination:
    if is_itk_file(path):
        return _stacked(_transforms_in_itk_file(path), None, compose=True, where=str(path))
    return _chain_from_map(ParameterMap.read(path))


def _chain_from_map(last: ParameterMap) -> Combination:
    maps, seen = [last], [last.source.resolve()] if last.source else []
    combination: Combination | None = None
    while (path := _initial_file(maps[-1])) is not None:
        if path.resolve() in seen:
            where = maps[-1].where(_INITIAL)
            raise TransformError(f'{where}: ({_INITIAL} "{path}"): the chain of initial transforms never ends')
        if is_itk_file(path):
            combination = _chain_from_file(path)
            break
        maps.append(ParameterMap.read(path))
        seen.append(path.resolve())
    for each in reversed(maps):
        combination = on_top(each, combination)
    return cast(Combination, combination)


def _initial_file(parameter_map: ParameterMap) -> Path | None:
    key = _INITIAL
    if not parameter_map.first(_INITIAL) and parameter_map.first(_OLD_INITIAL):
        key = _OLD_INITIAL
        logger.warning("%s: %s is an old spelling: write %s", parameter_map.where(key), _OLD_INITIAL, _INITIAL)
    name = parameter_map.first(key)
    return None if name in ("", NO_INITIAL) else existing_file(parameter_map, key)


def _stacked(transforms: Iterable[Transform], before: Combination | None, *, compose: bool, where: str) -> Combination:
    transforms = list(transforms)
    if len(transforms) > 1 and before and not compose:
        raise TransformError(
            f'{where}: a composite transform cannot be added to others: write (HowToCombineTransforms "Compose")'
        )
    for each in transforms:
        if before and before.dimension != each.dimension:
            raise TransformError(f"{where}: a {each.dimension}D transform cannot follow a {before.dimension}D one")
        before = Combination(each, before, compose)
    return cast(Combination, before)


def _transforms(parameter_map: ParameterMap) -> list[Transform]:
    name = parameter_map.first("Transform")
    if not name:
        raise TransformError(
            f"{parameter_map.name}: (Transform ...) is missing, so this is no transform parameter file"
        )
    if parameter_map.get("Size") or parameter_map.get("FixedImageDimension"):
        dimension_of(parameter_map)
    if name == "File":
        return _transforms_in_itk_file(existing_file(parameter_map, "TransformFileName", beside_first=True))
    if parameter_map.get("ITKTransformParameters"):
        return [_from_itk_keys(name, parameter_map)]
    if name in UNREADABLE:
        raise TransformError(f'{parameter_map.where("Transform")}: (Transform "{name}"): {UNREADABLE[name]}')
    if parameter_map.first("UseCyclicTransform") == "true" and name in bspline.BSplineTransform.names:
        return [CyclicBSplineTransform.read(parameter_map)]
    return [Transform.named(name, parameter_map.where("Transform")).read(parameter_map)]


def _from_itk_keys(name: str, parameter_map: ParameterMap) -> Transform:
    parameters, fixed = (parameter_map.numbers(f"ITKTransform{key}") for key in ("Parameters", "FixedParameters"))
    order = parameter_map.first("BSplineTransformSplineOrder", "3")
    dimension = int(parameter_map.first("FixedImageDimension") or len(parameter_map.get("Size", ())) or 3)
    transform = ItkTransform(f"{name}_double_{dimension}_{dimension}_{order}", parameters, fixed)
    return itk_text.from_itk_parameters(name, transform, dimension, parameter_map.where("ITKTransformParameters"))


def _transforms_in_itk_file(path: Path) -> list[Transform]:
    if is_field_file(path):
        return [read_field(path)]
    if itk_text.is_itk_text(path) or path.suffix in (".tfm", ".txt"):
        return itk_text.from_itk(itk_text.read_itk_text(path), str(path))
    found = [ItkTransform(*each) for each in read_itk_transform(path)]
    return itk_text.from_itk(found, str(path))
