"""`impactreg convert-transform -tp FILE -out FILE`: a transform as another kind of file."""

import logging
from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from impactreg.cli.arguments import Parser, add_common_flags
from impactreg.cli.console import console

if TYPE_CHECKING:
    from impactreg.components.transforms.transform import Combination
    from impactreg.evaluation.frame import Frame
    from impactreg.images import Grid

logger = logging.getLogger(__name__)

EXAMPLES = """The ending of -out says what is written:
  .txt                        elastix's TransformParameters file
  .tfm .itk.txt .h5 .mat      ITK's transform files, which 3D Slicer and ANTs read
  .nii.gz .nii .mha .nrrd     displacement field in millimetres, as ITK, ANTs and 3D Slicer have it
  .npz, or --learn2reg        displacement field in voxels, as Learn2Reg has it

examples:
  impactreg convert-transform -tp out/TransformParameters.1.txt -out transform.h5
  impactreg convert-transform -tp transform.h5 -out field.nii.gz --reference fixed.nii.gz
  impactreg convert-transform -tp disp_0001_0002.npz --reference fixed.nii.gz --moving moving.nii.gz -out field.mha"""


def run(arguments: Sequence[str]) -> None:
    """Converts what the flags name; raises `UsageError` or an `ImpactregError`."""
    options = parser().read(arguments)
    with console(options.loglevel):
        _convert(options)
        logger.info("%s is saved in %s", options.transform, options.output)


def parser() -> Parser:
    """The flags."""
    result = Parser("impactreg convert-transform", "Writes a transform as another kind of file.", EXAMPLES)
    add = result.add_argument
    add("-tp", dest="transform", metavar="FILE", type=Path, required=True, help="transform file or displacement field")
    add("-out", dest="output", metavar="FILE", type=Path, required=True, help="file to be written")
    add("--reference", metavar="FIXED", help="fixed image, whose grid fields and TransformParameters files have")
    add("--moving", metavar="MOVING", help="moving image; needed for Learn2Reg's fields, in and out")
    add("--learn2reg", action="store_true", help="write a .nii.gz in Learn2Reg's convention")
    add_common_flags(result, threads=False)
    return result


def _convert(options: Namespace) -> None:
    from impactreg.components.transforms.writing import write_transform
    from impactreg.evaluation.frame import Frame
    from impactreg.images import read_image

    fixed = None if options.reference is None else read_image(options.reference, name="fixed image").grid
    moving = None if options.moving is None else read_image(options.moving, name="moving image").grid
    transform, frame = _read(options.transform, fixed, moving), Frame.of(options.transform)
    fixed = fixed or frame.fixed or _own_grid(transform)
    if frame.has_directions:
        write_transform(transform, options.output, fixed=fixed, moving=moving, learn2reg=options.learn2reg)
    else:
        _convert_straight(options, transform, frame, fixed, moving)


def _convert_straight(
    options: Namespace, transform: "Combination", frame: "Frame", fixed: "Grid | None", moving: "Grid | None"
) -> None:
    """Writes a transform made with `(UseDirectionCosines "false")` as one between images as they lie in the world."""
    from impactreg.components.transforms.displacement_files import FIELD_ENDINGS, write_field
    from impactreg.components.transforms.writing import write_transform
    from impactreg.errors import TransformError

    why = f'{options.transform}: it was made with (UseDirectionCosines "false")'
    name = options.output.name.lower()
    if fixed is None or moving is None:
        raise TransformError(f"{why}: give the images that it belongs to by --reference and --moving")
    if options.learn2reg or name.endswith(".npz") or not frame.turns(fixed, moving):
        here, there = frame.grid(fixed), frame.grid(moving)
        write_transform(transform, options.output, fixed=here, moving=there, learn2reg=options.learn2reg)
    elif name.endswith(FIELD_ENDINGS):
        write_field(frame.in_world(transform, fixed, moving), options.output, fixed)
    else:
        raise TransformError(
            f"{why} between images that are turned, which such a file cannot tell: write a displacement field (.nii.gz)"
        )


def _read(path: Path, fixed: "Grid | None", moving: "Grid | None") -> "Combination":
    from impactreg.components.transforms import displacement_files
    from impactreg.components.transforms.exchange import as_transform
    from impactreg.errors import TransformError

    if not displacement_files.is_learn2reg_file(path):
        return as_transform(path)
    if fixed is None or moving is None:
        raise TransformError(
            f"{path}: this is a field in voxels as Learn2Reg has it: give its images by --reference and --moving"
        )
    values = displacement_files.read_voxel_field(path)
    return as_transform(displacement_files.from_voxel_field(values, fixed, moving, str(path)))


def _own_grid(transform: "Combination") -> "Grid | None":
    """The grid that a displacement field brings along."""
    from impactreg.components.transforms.displacement import DeformationFieldTransform

    current = transform.current
    if transform.initial is None and isinstance(current, DeformationFieldTransform):
        return current.field.grid
    return None
