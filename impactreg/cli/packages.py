"""`impactreg models pack|install|convert ...`: packages of nnU-Net models, and extractors made of them."""

import sys
from collections.abc import Sequence
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING

from impactreg.cli.arguments import Parser, UsageError
from impactreg.cli.console import console
from impactreg.cli.models import progress_bar, subparser
from impactreg.errors import ModelError

if TYPE_CHECKING:
    from impactreg.models.names import ReleaseTag


def run_pack(arguments: Sequence[str]) -> None:
    """Makes a package of a training's folder, and tells what is wrong with it."""
    options = _pack_parser().read(arguments)
    from impactreg.models.packages import pack

    release, orientation = _tag(options.tag), options.orientation
    with console(options.loglevel):
        made = pack(options.folder, options.output, name=options.name, release=release, orientation=orientation)
    _print(str(made.path))
    _print_findings(made.findings)


def is_package(path: Path) -> bool:
    """Whether a path is taken for a package and not for a model file."""
    return path.is_dir() or path.suffix.lower() == ".zip"


def check_package(path: Path) -> None:
    """Prints what is wrong with a package, one line for each finding; raises `ModelError` where there is any."""
    from impactreg.models.package_checks import check

    findings = check(path)
    for finding in findings:
        _print(finding)
    if findings:
        number = "1 finding" if len(findings) == 1 else f"{len(findings)} findings"
        raise ModelError(f"{path}: {number}; mend them and pack the model again with impactreg models pack")
    _print(f"{path}: nothing is wrong with the package")


def run_install(arguments: Sequence[str]) -> None:
    """Installs packages from files or addresses."""
    options = _install_parser().read(arguments)
    if len(options.sources) > 1 and (options.name or options.sha256):
        raise UsageError("--name and --sha256 are for one package; install them one after the other")
    from impactreg.models.packages import install

    with console(options.loglevel):
        for source in options.sources:
            with progress_bar(source) as progress:
                found = install(
                    source, folder=options.folder, name=options.name, sha256=options.sha256, progress=progress
                )
            _print(f"{found.path}: {'installed' if found.new else 'is here already'}")
            _print(f"  sha256 {found.provenance.sha256}, {found.provenance.size} bytes, from {found.provenance.source}")
            for left in found.provenance.left_out:
                _print(f"  left out: {left}")


def run_convert(arguments: Sequence[str]) -> None:
    """Makes an extractor of a package and prints the lines of a parameter file that use it."""
    options = _convert_parser().read(arguments)
    from impactreg.models.nnunet import convert

    with console(options.loglevel):
        made = convert(
            options.path,
            options.output,
            configuration=options.configuration,
            fold=options.fold,
            orientation=options.orientation,
        )
    _print("\n".join(made.lines()))
    _print(f"// sha256 {made.report.sha256}")


def _pack_parser() -> Parser:
    result = subparser(
        "pack",
        "Makes a package of the folder of an nnU-Net training, <Trainer>__<Plans>__<configuration>.",
        "  impactreg models pack nnUNetTrainer__nnUNetPlans__3d_fullres --name model_seg_t2_unet3d --orientation RPI",
    )
    add = result.add_argument
    add("folder", metavar="FOLDER", type=Path, help="folder of the training, or one in which it is alone")
    add(
        "--name",
        metavar="NAME",
        required=True,
        help="model_task_anatomy_animal_pathology_condition_contrast_architecture",
    )
    add("--tag", metavar="rYYYYMMDD", help="release; default today")
    add("-out", dest="output", metavar="DIR", type=Path, default=Path(), help="where the zip file goes; default here")
    _add_orientation(result, "written to dataset.json as image_orientation")
    return result


def _install_parser() -> Parser:
    result = subparser(
        "install",
        "Unpacks packages into the cache, with a record of where they came from. Nothing of them is run.",
        "  impactreg models install model_seg_sc_t2_unet3d-r20240915.zip\n"
        "  impactreg models install https://files.example.org/model_seg_sc_t2_unet3d-r20240915.zip",
    )
    add = result.add_argument
    add("sources", nargs="+", metavar="FILE|URL", help="zip files, or their addresses by http or https")
    add(
        "-out",
        dest="folder",
        metavar="DIR",
        type=Path,
        help="where packages go; default the folder packages of the cache",
    )
    add("--name", metavar="NAME", help="name and release of the package; default those of the file")
    add("--sha256", metavar="SUM", help="what the zip file must have; it is not installed otherwise")
    return result


def _convert_parser() -> Parser:
    result = subparser(
        "convert",
        "Makes a TorchScript extractor of an nnU-Net model, and prints the parameter-file lines that use it.",
        "  impactreg models convert model_seg_sc_t2_unet3d-r20240915.zip -out sc.pt\n"
        "  impactreg models convert nnUNetTrainer__nnUNetPlans__2d --fold 1 -out slices.pt",
    )
    add = result.add_argument
    add("path", metavar="FOLDER|ZIP", type=Path, help="folder of a training, installed package, or zip file")
    add("-out", dest="output", metavar="FILE.pt", type=Path, required=True, help="the extractor")
    add("--configuration", metavar="NAME", help="which of several configurations, such as 3d_fullres")
    add("--fold", metavar="N|all", help="which of several folds; default the first")
    _add_orientation(result, "default what dataset.json says")
    return result


def _add_orientation(parser: Parser, what: str) -> None:
    text = f"where the axes x, y, z of the training images come from, such as RPI; {what}"
    parser.add_argument("--orientation", metavar="LETTERS", help=text)


def _tag(written: str | None) -> "ReleaseTag":
    from impactreg.models.names import ReleaseTag

    return ReleaseTag(date.today()) if written is None else ReleaseTag.parse(written)


def _print_findings(findings: Sequence[str]) -> None:
    for finding in findings:
        sys.stderr.write(f"impactreg: {finding}\n")


def _print(text: str) -> None:
    sys.stdout.write(text + "\n")
