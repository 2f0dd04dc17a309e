"""`impactreg models info|check|export`: what a model file is, whether it can be used, and making one."""

import re
import sys
from argparse import ArgumentTypeError, Namespace
from collections.abc import Iterator, Sequence
from math import isfinite
from pathlib import Path
from typing import TYPE_CHECKING

from impactreg.cli.arguments import Parser, add_models_flag
from impactreg.cli.components import BOLD, painted, wrapped
from impactreg.cli.models import subparser
from impactreg.cli.packages import check_package, is_package
from impactreg.errors import ModelError

if TYPE_CHECKING:
    from impactreg.models.cards import CardFile, ModelCard
    from impactreg.models.geometry import Layer
    from impactreg.models.inspection import Description

SIGNS = {"good": "ok", "note": "note", "wrong": "WRONG"}


def run_info(arguments: Sequence[str]) -> None:
    """Prints a model's card, and what its file does where it is on this machine."""
    parser = _with_inputs(
        subparser(
            "info",
            "Tells all about a model: its card, and what its file does on a small input.",
            "  impactreg models info MIND/R1D2_3D\n  impactreg models info TS/M730\n"
            "  impactreg models info my_model.pt --side 64",
        )
    )
    parser.add_argument("model", metavar="NAME|FILE", help="a known model such as TS/M730, or a model file")
    options = parser.read(arguments)
    found, path = _found(options.model, options.models, needed=False)
    _print(_told_card(*found) if found else ())
    if path is None:
        name = found[1].path if found else options.model
        _print(["", f"The file is not on this machine: impactreg models fetch {name} gets it."])
        return
    described = _described(path, found[1] if found else None, options)
    _print([""] if found else [])
    _print(_told_file(described, path))
    _print(_told_layers(described))


def run_check(arguments: Sequence[str]) -> None:
    """Tries a model file and prints what was found; raises `ModelError` where something is wrong."""
    parser = _with_inputs(
        subparser(
            "check",
            "Tries whether a model file keeps the contract, in Static and in Jacobian mode, and prints the lines of a "
            "parameter file that use it.",
            "  impactreg models check my_model.pt\n  impactreg models check TS/M730 --layers 01 --mode Jacobian",
        )
    )
    add = parser.add_argument
    add("model", metavar="FILE|NAME", help="a model file, a known model that is here, or a package (zip, folder)")
    add("--layers", metavar="MASK", help="the layers to be used in the lines, such as 01; default the first one")
    add("--voxel", metavar="MM", type=float, help="voxel size for the lines, where the card does not know it")
    add("--mode", choices=["Static", "Jacobian"], help="the mode of the lines; default Jacobian where that can be")
    options = parser.read(arguments)
    if is_package(Path(options.model)):
        check_package(Path(options.model))
        return
    found, path = _found(options.model, options.models, needed=True)
    card = found[1] if found else None
    described = _described(path or Path(options.model), card, options)
    _print(_told_layers(described))
    wrong = _print_findings(described, card)
    _print(["", *_lines(described, options, card)])
    if wrong:
        raise ModelError(f"{options.model}: {wrong} of the checks failed: the model cannot be relied on")


def run_export(arguments: Sequence[str]) -> None:
    """Writes a PyTorch module as a model file."""
    parser = subparser(
        "export",
        "Makes a model file from a PyTorch module, and checks it against the module. Importing the module runs its "
        "code: export only what you trust.",
        "  impactreg models export my_package.nets:Encoder --example 1,1,32,32,32 -out encoder.pt\n"
        "  impactreg models export nets:Encoder --weights encoder.pth --example 1,3,64,64 -out encoder.pt\n"
        "  impactreg models export MIND/R1D2_3D -out mind.pt",
    )
    add = parser.add_argument
    add("source", metavar="MODULE:NAME", help="a module, or what makes one without arguments; or a built-in model")
    add("-out", dest="output", metavar="FILE", type=Path, required=True, help="the model file to write")
    add("--example", metavar="SHAPE", type=_shape, help="shape of an input: batch,channels,z,y,x or batch,channels,y,x")
    add("--weights", metavar="FILE", type=Path, help="state_dict to load first; nothing but tensors is unpickled")
    add("--method", choices=["script", "trace"], default="script", help="trace is for what cannot be scripted")
    add("--name", metavar="NAME", help="the model's name in messages; default that of the file")
    options = parser.read(arguments)
    _export(options)


def _with_inputs(parser: Parser) -> Parser:
    add = parser.add_argument
    add_models_flag(add)
    add("--dimension", type=int, choices=[2, 3], help="dimension of the model's input, where it is not found out")
    add("--channels", metavar="N", type=int, help="channels of the model's input, where they are not found out")
    add(
        "--side",
        metavar="N",
        type=int,
        help="length of the input that is tried along each axis",
    )
    return parser


def _found(
    written: str, folders: Sequence[Path], needed: bool
) -> tuple["tuple[ModelCard, CardFile] | None", Path | None]:
    """The card that knows a model, and its file; no file where a card knows it and none is needed."""
    from impactreg.models.cards import known
    from impactreg.models.catalogue import locate, store

    found = known(written)
    if found and not Path(written).is_file():
        written = found[1].path
        missing = found[0].source == "hub" and not store().path(found[1]).is_file()
        if missing and not needed:
            try:
                return found, locate(written, search=folders)
            except ModelError:
                return found, None
    return found, locate(written, search=folders)


def _described(path: Path, card: "CardFile | None", options: Namespace) -> "Description":
    from impactreg.models.inspection import describe

    return describe(path, card=card, dimension=options.dimension, channels=options.channels, side=options.side)


def _told_card(card: "ModelCard", file: "CardFile") -> Iterator[str]:
    yield painted(f"{file.path}: {card.title}{f': {file.title}' if file.title else ''}", BOLD)
    yield from wrapped(card.description, 2)
    patch = file.patch_size or "not known"
    facts = {
        "older names": ", ".join(file.names[1:]),
        "input": ", ".join(filter(None, (f"{file.dimension}D", _channels(file.input_channels), file.modality))),
        "layers": ", ".join(str(layer.channels) for layer in file.layers) + " channels",
        "stride": ", ".join(_per_axis(layer.stride) for layer in file.layers),
        "field of view": ", ".join(_per_axis(layer.field_of_view) for layer in file.layers),
        "patch size": "" if file.field_of_view else f"{patch}",
        "voxel size": _voxel_size(card, file),
        "normalisation": file.normalisation or "not known",
        "orientation": file.orientation or "",
        "weights": file.weights or "",
        "repository": card.repository or "",
        "licence": card.licence or "not known",
        "paper": card.citation,
    }
    for name, fact in facts.items():
        if fact:
            first, *rest = wrapped(fact, 18)
            yield from (f"  {name:<16}{first[18:]}", *rest)


def _told_file(described: "Description", path: Path) -> Iterator[str]:
    from impactreg.models.extractor import ARGUMENTS

    number = described.extractor.arguments
    modes = "Static and Jacobian" if any(layer.differentiable for layer in described.layers) else "Static"
    yield painted(str(path), BOLD)
    yield f"  sha256          {described.sha256}"
    yield f"  size            {path.stat().st_size} bytes, {described.parameters} parameters"
    yield f"  arguments       {number}: {', '.join(ARGUMENTS[:number])}"
    yield f"  modes           {modes}"


def _told_layers(described: "Description") -> Iterator[str]:
    shape = " x ".join(map(str, reversed(described.shape)))
    yield f"Layers for an input of {shape} with {_channels(described.input_channels)}; numbers along x, y, z:"
    yield "  layer  channels  shape          stride         field of view   differentiable"
    for number, (layer, size) in enumerate(zip(described.layers, described.shapes, strict=True), 1):
        seen = _field(described.field_of_view[number - 1])
        flows = "yes" if layer.differentiable else "no"
        columns = f"{' x '.join(map(str, reversed(size))):<14} {_stride(layer):<14} {seen:<15} {flows}"
        yield f"  {number:<6} {layer.channels:<9} {columns}"
    if not all(isfinite(size) for sizes in described.field_of_view for size in sizes):
        yield "  ? is more than a small input shows, or all of the input"


def _print_findings(described: "Description", card: "CardFile | None") -> int:
    """Prints the checks as they are made, and tells how many failed."""
    from impactreg.models.checking import check

    _print([""])
    wrong = 0
    for finding in check(described, card):
        wrong += finding.verdict == "wrong"
        first, *rest = wrapped(finding.said, 22)
        _print([f"  {SIGNS[finding.verdict]:<6}{finding.about:<14}{first[22:]}", *rest])
        sys.stdout.flush()
    return wrong


def _lines(described: "Description", options: Namespace, card: "CardFile | None") -> Iterator[str]:
    from impactreg.models.inspection import parameter_lines

    mask = options.layers or "1"
    used = [layer for layer, digit in zip(described.layers, mask, strict=False) if digit == "1"]
    possible = bool(used) and all(layer.differentiable for layer in used)
    jacobian = options.mode == "Jacobian" if options.mode else possible
    yield "Lines for a parameter file, for the first resolution:"
    model = card.path if card else options.model
    yield from parameter_lines(described, model, mask=mask, card=card, voxel_size=options.voxel, jacobian=jacobian)


def _export(options: Namespace) -> None:
    from impactreg.models.export import export
    from impactreg.models.importing import example_of, module_named, with_weights

    module = module_named(options.source)
    if options.weights:
        module = with_weights(module, options.weights)
    example = example_of(options.source, options.example)
    name = options.name or options.output.name
    made = export(module, options.output, example=example, name=name, method=options.method)
    layers = ", ".join(f"{_channels(layer.channels)} at stride {_stride(layer)}" for layer in made.layers)
    modes = "Static and Jacobian" if made.differentiable else "Static"
    _print([f"{made.path}: {layers}", f"  sha256 {made.sha256}", f"  modes  {modes}"])
    _print([f"  next   impactreg models check {made.path}"])


def _stride(layer: "Layer") -> str:
    return " ".join(f"{step:g}" for step in reversed(layer.stride))


def _field(sizes: Sequence[float]) -> str:
    return " ".join(f"{size:g}" for size in sizes) if all(map(isfinite, sizes)) else "?"


def _voxel_size(card: "ModelCard", file: "CardFile") -> str:
    if card.source == "built-in":
        return "any"
    return f"{file.voxel_size:g} mm" if file.voxel_size else "not known"


def _channels(number: int) -> str:
    return f"{number} channel{'s' if number > 1 else ''}"


def _per_axis(value: object) -> str:
    return "?" if value is None else " x ".join(map(str, value)) if isinstance(value, tuple) else str(value)


def _shape(text: str) -> tuple[int, ...]:
    if not re.fullmatch(r"\d+(,\d+)*", text):
        raise ArgumentTypeError(f"whole numbers with commas between are needed, not {text!r}")
    return tuple(map(int, text.split(",")))


def _print(lines: "Iterator[str] | Sequence[str]") -> None:
    sys.stdout.writelines(f"{line}\n" for line in lines)
