"""`impactreg -f FIXED -m MOVING -p MAP -out DIR`: registers, or tells with --check what it would do."""

import logging
import sys
import time
from argparse import Namespace
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from impactreg.cli.arguments import Parser, numbered, registration_parser, version
from impactreg.cli.console import Show, console
from impactreg.cli.names import Names

if TYPE_CHECKING:
    import torch

    from impactreg.cli.log import LogFile
    from impactreg.parameters import ParameterMap
    from impactreg.registration.case import Iteration
    from impactreg.registration.pipeline import StagePlan

logger = logging.getLogger(__name__)
Inputs = dict[str, Any]


def run(arguments: Sequence[str]) -> None:
    """Registers as the flags say; raises `UsageError` or an `ImpactregError`."""
    options = parser().read(arguments)
    if options.output is None and not options.check:
        parser().error("the following arguments are required: -out")
    inputs = _inputs(options)
    with console(options.loglevel, len(options.parameters or _first_maps())) as show:
        logger.info("impactreg %s", version())
        sys.stdout.flush()
        if options.priority:
            logger.info("-priority %s has no effect", options.priority)
        set_threads(options.threads)
        if options.check:
            _check(options, inputs)
        else:
            _register(options, inputs, arguments, show)


def _first_maps() -> Sequence[str]:
    """What is run where no parameter map is named; in 2D there are as many."""
    from impactreg.parameters.presets import FIRST_MAPS

    return FIRST_MAPS[3]


def parser() -> Parser:
    """The flags, with a word about the other verbs."""
    from impactreg.cli import VERBS

    verbs = "\n".join(f"  {name:<18}{what}" for name, (_, what) in VERBS.items())
    return registration_parser(
        "Registers a moving image to a fixed one as elastix parameter files say.",
        f"verbs (impactreg VERB --help tells more):\n{verbs}\n\n"
        "examples:\n  impactreg -f fixed.nii.gz -m moving.nii.gz -out result\n"
        "  impactreg -f ct.mha -m mr.mha -p rigid -p my_impact.txt -fMask mask.mha -out result --device cuda",
    )


def set_threads(number: int | None) -> None:
    """Sets the number of threads of this process, which itk-elastix is given too."""
    if number is not None:
        import torch

        torch.set_num_threads(number)


def _register(options: Namespace, inputs: Inputs, arguments: Sequence[str], show: Show) -> None:
    from impactreg.cli import log
    from impactreg.registration import pipeline
    from impactreg.registration.preparation import choose_device

    started = time.perf_counter()
    images = {name: numbered(options, name)[0] for name in ("fixed", "moving")}
    if options.report:
        _check_report()
    maps = pipeline.as_maps(options.parameters, inputs["fixed"])
    names = Names.asked(options, maps[-1])
    device = choose_device(options.device, maps, warn=False)
    header = log.header(arguments, _facts(maps, device, options.seed)) + "\n" + log.told_maps(maps) + "\n"
    with log.log_file(options.output / "elastix.log", header, options.loglevel, more=options.resume) as file:
        result = pipeline.register(
            parameters=maps,
            **inputs,
            output_directory=options.output,
            device=options.device,
            seed=options.seed,
            models=options.models,
            engine=options.engine,
            callback=_begin_log(file, show),
            log=None,
            resume=options.resume,
        )
        file.begin()
        names.write(result, maps[-1])
        logger.info("Results are in %s; the registration took %.1f s", options.output, time.perf_counter() - started)
    if options.report:
        _report(options, images)


def _check_report() -> None:
    """Raises `MissingExtra` before a run whose page could not be made."""
    from impactreg.report import sprites

    sprites.check_extra()


def _report(options: Namespace, images: Mapping[str, str]) -> None:
    from impactreg.report import write_report

    write_report(options.output, fixed=images["fixed"], moving=images["moving"], models=options.models)


def _inputs(options: Namespace) -> Inputs:
    """Images, masks, points and the transform to start from, each as `register` names it."""
    several = ("fixed", "moving", "fixed_mask", "moving_mask")
    given = {name: numbered(options, name) for name in several}
    return {
        **{name: files[0] if len(files) == 1 else files or None for name, files in given.items()},
        "fixed_points": options.fixed_points,
        "moving_points": options.moving_points,
        "initial_transform": options.initial,
    }


def _begin_log(file: "LogFile", show: Show) -> Show:
    def callback(iteration: "Iteration") -> None:
        file.begin()
        show(iteration)

    return callback


def _facts(maps: "Sequence[ParameterMap]", device: "torch.device", seed: int | None) -> dict[str, object]:
    import torch

    from impactreg.parameters import RunSettings

    cuda = device.type == "cuda"
    count = torch.get_num_threads()
    threads = f"{count} thread{'s' * (count > 1)}"
    name = f" ({torch.cuda.get_device_name(device) if cuda else threads})"
    seeds = [str(RunSettings.read(each).random_seed if seed is None else seed) for each in maps]
    return {"device": f"{device}{name}", "random seeds": ", ".join(seeds)}


def _check(options: Namespace, inputs: Inputs) -> None:
    from impactreg.registration import pipeline

    stages = pipeline.plan(
        parameters=options.parameters,
        **inputs,
        device=options.device,
        models=options.models,
        engine=options.engine,
    )
    Names.asked(options, stages[-1].parameter_map)
    sys.stdout.write("".join(f"{told_plan(stage)}\n" for stage in stages))
    sys.stdout.write("Everything could be read. Nothing was registered, because of --check.\n")


def told_plan(stage: "StagePlan") -> str:
    """What a stage will do, as some lines of text."""
    engine = {"torch": "PyTorch", "elastix": "itk-elastix"}.get(stage.engine, stage.engine)
    levels = f"{stage.levels} resolution{'s' * (stage.levels != 1)}"
    lines = [f"stage {stage.number}: {stage.parameter_map.name}, by {engine}, {levels}"]
    lines += [f"  {kind:<20}{', '.join(names)}" for kind, names in stage.components.items()]
    lines += [f"  {'model':<20}{written} -> {found}" for written, found in dict.fromkeys(stage.models)]
    lines += [f"  {'not read':<20}{_told_unknown(*each)}" for each in stage.unknown]
    lines += [f"  {'needs':<20}{stage.estimate}"] if stage.estimate else []
    return "\n".join(lines)


def _told_unknown(key: str, where: str, suggestion: str | None) -> str:
    return f"{where}: {key}{f'; did you mean {suggestion}?' if suggestion else ''}"
