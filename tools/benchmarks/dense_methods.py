"""The ways to register that the benchmark of the dense stages compares, each run in a process of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

REPOSITORY = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(REPOSITORY))

MIND = "MIND/R1D2_3D.pt"
COARSE = {"grid_spacing": 4, "half_width": 3, "normalize_losses": True, "inverse_consistency": True}
FINE = {**COARSE, "iterations": 80, "grid_shrink_factor": 2, "smoothing": 3, "weight": 1.25, "learning_rate": 1.0}


class Method(NamedTuple):
    """A way to register: who does it, and its settings or (ours) the maps of its stages."""

    who: str
    settings: Mapping[str, Any] = MappingProxyType({})
    maps: tuple[dict[str, Any] | str, ...] = ()


def stage(name: str, **keys: object) -> dict[str, Any]:
    """A map of ours on MIND features, which writes no image."""
    return {"Registration": name, "ImpactModelsPath0": MIND, "WriteResultImage": False, "NumberOfResolutions": 1} | keys


OURS_COARSE = stage("ImpactCoarseRegistration")
LIKE_PEERS = stage(
    "ImpactFineRegistration",
    ImpactLossScale="Sum",
    ImpactControlInterpolation="Corners",
    ImpactRegularizeLinearPart=True,
    ImpactGridShrinkFactor=2,
    ImpactControlGridSmoothingIterations=3,
    ImpactUnits="Voxels",
    ImpactOutside="Zero",
    MaximumNumberOfIterations=80,
)
METHODS = {
    "coarse: impactreg": Method("impactreg", maps=(OURS_COARSE,)),
    "coarse: itk-impact": Method("itk-impact", {**COARSE, "iterations": 0}),
    "coarse: convexAdam": Method("convexadam", {**COARSE, "iterations": 0}),
    "coarse and fine: impactreg": Method("impactreg", maps=(OURS_COARSE, LIKE_PEERS)),
    "coarse and fine: itk-impact": Method("itk-impact", {**FINE, "normalize_fine_losses": False}),
    "coarse and fine: convexAdam": Method("convexadam", FINE),
    "preset: dense-fast": Method("impactreg", maps=("dense-fast",)),
    "preset: dense-accurate": Method("impactreg", maps=("dense-accurate",)),
    "defaults: convexAdam": Method("convexadam"),
    "defaults: itk-elastix B-spline": Method("itk-elastix"),
}
PARITY = {
    "Sum": ({}, {"normalize_fine_losses": False}),
    "Start": ({"ImpactLossScale": "Start"}, {"normalize_fine_losses": True}),
}
"""What the loss of the fine stage is divided by: our keys and the settings of itk-impact."""


def can_run(method: Method, given: Any) -> bool:
    """Whether the peer is installed."""
    return python_of(method, given).exists()


def python_of(method: Method, given: Any) -> Path:
    return Path({"itk-impact": given.itk_impact, "convexadam": given.convexadam}.get(method.who, sys.executable))


def run(method: Method, pair: Any, given: Any) -> dict[str, Any]:
    """One registration with one thread, which leaves its field as `found.npy` in the pair's folder."""
    out = pair.folder / "found.npy"
    out.unlink(missing_ok=True)
    python = str(python_of(method, given))
    if method.who == "impactreg":
        asked = {"maps": method.maps, "fixed": str(pair.fixed), "moving": str(pair.moving), "out": str(out)}
        command = [python, __file__, json.dumps(asked)]
    else:
        from impactreg.models.catalogue import locate

        model = "none" if method.who == "itk-elastix" else locate(MIND)
        files = [str(each) for each in (pair.fixed, pair.moving, model, out)]
        script = str(Path(__file__).with_name("dense_peers.py"))
        command = [python, script, method.who, *files, json.dumps(dict(method.settings))]
    threads = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS": "1"}
    done = subprocess.run(command, env={**os.environ, **threads}, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"{method.who} failed: {done.stderr[-2000:]}")
    told: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return told


def run_ours(asked: str) -> None:
    """Registers by our maps and tells what it took, as dense_peers.py does for the peers."""
    import numpy as np
    import torch
    from dense_peers import cpu_seconds, peak_memory

    import impactreg
    from impactreg.components.warping import deformation_field
    from impactreg.images import read_image

    torch.set_num_threads(1)
    given = json.loads(asked)
    fixed, moving = (read_image(given[side]) for side in ("fixed", "moving"))
    quiet = [{**each} if isinstance(each, dict) else without_image(each) for each in given["maps"]]
    started = cpu_seconds()
    result = impactreg.register(fixed, moving, quiet)
    seconds = cpu_seconds() - started
    peak = peak_memory()
    current: Any = result.transform.current
    field = getattr(current, "field", None) if result.transform.initial is None else None
    field = field if field is not None else deformation_field(result.transform, fixed.grid)
    np.save(given["out"], field.data.movedim(0, -1).numpy())
    losses = [row["2:Metric"] for table in result.iterations[-1] for row in table]
    print(json.dumps({"seconds": seconds, "peak": peak, "losses": losses}))


def without_image(name: str) -> Any:
    """A map of a name or path that writes no result image, which the peers do not make either."""
    from impactreg.parameters import ParameterMap, presets

    return ParameterMap.read(presets.find(name)).replace({"WriteResultImage": False})


if __name__ == "__main__":
    run_ours(sys.argv[1])
