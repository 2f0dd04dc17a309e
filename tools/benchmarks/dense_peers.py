"""One registration by a peer of the dense stages, run by the Python of the peer's own virtual environment.

Usage: python dense_peers.py PEER fixed.nii.gz moving.nii.gz model.pt out.npy '{"iterations": 80}'
PEER is convexadam, itk-impact or itk-elastix.
Writes the displacement [z, y, x, 3] in mm along the world axes (LPS) and prints one line of JSON: CPU seconds of the
registration (without imports and reading), peak memory of the process in MB, and the losses, if they are known.
Settings: grid_spacing, half_width, inverse_consistency, normalize_losses, normalize_fine_losses,
iterations (0: coarse alone), grid_shrink_factor, smoothing, weight, learning_rate.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np


def main() -> None:
    peer, fixed, moving, model, out, settings = sys.argv[1:]
    asked = json.loads(settings)
    method = {"convexadam": convexadam, "itk-impact": itk_impact, "itk-elastix": itk_elastix}[peer]
    field, told = method(fixed, moving, model, asked)
    np.save(out, field.astype(np.float32))
    told["peak"] = peak_memory()
    print(json.dumps(told))


def convexadam(fixed: str, moving: str, model: str, asked: dict[str, Any]) -> tuple[np.ndarray, dict[str, Any]]:
    """ConvexAdam with its own MIND features; both images have one grid."""
    import nibabel
    import torch

    del model
    from convexAdam.convex_adam_MIND import convex_adam_pt

    torch.set_num_threads(1)
    images = [nibabel.Nifti1Image.from_filename(each) for each in (fixed, moving)]
    arrays = [np.ascontiguousarray(np.asarray(each.dataobj, dtype=np.float32).T) for each in images]
    started = cpu_seconds()
    with contextlib.redirect_stdout(sys.stderr):
        voxels = convex_adam_pt(
            *map(torch.from_numpy, arrays),
            grid_sp=asked.get("grid_spacing", 6),
            disp_hw=asked.get("half_width", 4),
            ic=asked.get("inverse_consistency", True),
            selected_niter=asked.get("iterations", 80),
            lambda_weight=asked.get("weight", 1.25) if asked.get("iterations", 80) else 0,
            grid_sp_adam=asked.get("grid_shrink_factor", 2),
            device=torch.device("cpu"),
            dtype=torch.float32,
        )
    seconds = cpu_seconds() - started
    # Steps along x, y, z in RAS; LPS turns the first two round.
    steps = np.diag([-1.0, -1.0, 1.0]) @ images[0].affine[:3, :3]
    return voxels[..., ::-1] @ steps.T, {"seconds": seconds}


def itk_impact(fixed: str, moving: str, model: str, asked: dict[str, Any]) -> tuple[np.ndarray, dict[str, Any]]:
    """ITKIMPACT's coarse stage, and its fine stage where iterations are asked for."""
    import torch

    torch.set_num_threads(1)
    import itk

    itk.MultiThreaderBase.SetGlobalDefaultNumberOfThreads(1)
    kind = itk.Image[itk.F, 3]
    images = [itk.imread(each, itk.F) for each in (fixed, moving)]
    configuration = None
    if model != "none":
        # No voxel size: the model sees the image as it is.
        configuration = itk.ImpactModelConfiguration(model, 3, 1, [0, 0, 0], [0.0, 0.0, 0.0], [0, 0, 0], [True], False)
    started = cpu_seconds()
    coarse = itk.ImpactCoarseRegistration[kind, kind].New()
    coarse.SetFixedImage(images[0])
    coarse.SetMovingImage(images[1])
    if configuration is not None:
        coarse.AddModelConfiguration(configuration)
    coarse.SetGridSpacing(asked.get("grid_spacing", 4))
    coarse.SetDisplacementHalfWidth(asked.get("half_width", 3))
    coarse.SetInverseConsistency(asked.get("inverse_consistency", True))
    coarse.SetNormalizeLosses(asked.get("normalize_losses", True))
    coarse.SetDevice("cpu")
    coarse.Update()
    field, losses = coarse.GetOutput(), []
    coarse_seconds = cpu_seconds() - started
    if asked.get("iterations", 80):
        fine = itk.ImpactFineRegistration[kind, kind].New()
        fine.SetFixedImage(images[0])
        fine.SetMovingImage(images[1])
        if configuration is not None:
            fine.AddModelConfiguration(configuration)
        fine.SetInitialDisplacementField(field)
        fine.SetNumberOfIterations(asked.get("iterations", 80))
        fine.SetGridShrinkFactor(asked.get("grid_shrink_factor", 1))
        fine.SetControlGridSmoothingIterations(asked.get("smoothing", 0))
        fine.SetRegularizationWeight(asked.get("weight", 1.25))
        fine.SetLearningRate(asked.get("learning_rate", 1.0))
        fine.SetNormalizeLosses(asked.get("normalize_fine_losses", True))
        fine.SetDevice("cpu")
        fine.Update()
        field = fine.GetDisplacementField()
        losses = list(fine.GetMetricValuesPerIteration())
    seconds = cpu_seconds() - started
    told = {"seconds": seconds, "coarse_seconds": coarse_seconds, "losses": losses}
    return itk.array_from_image(field), told


def itk_elastix(fixed: str, moving: str, model: str, asked: dict[str, Any]) -> tuple[np.ndarray, dict[str, Any]]:
    """elastix's own default map of B-splines; its field is made by transformix, which is not timed."""
    import itk

    del model, asked
    itk.MultiThreaderBase.SetGlobalDefaultNumberOfThreads(1)
    images = [itk.imread(each, itk.F) for each in (fixed, moving)]
    parameters = itk.ParameterObject.New()
    parameters.AddParameterMap(parameters.GetDefaultParameterMap("bspline"))
    started = cpu_seconds()
    _, found = itk.elastix_registration_method(*images, parameter_object=parameters, number_of_threads=1)
    seconds = cpu_seconds() - started
    with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):  # it leaves a file where it is
        field = itk.array_from_image(itk.transformix_deformation_field(images[1], found))
    return field, {"seconds": seconds}


def peak_memory() -> float:
    """The most memory (MB) that this program has had; `getrusage` counts that of the program that started it, too."""
    lines = Path("/proc/self/status").read_text().splitlines()
    (line,) = [each for each in lines if each.startswith("VmHWM")]
    return int(line.split()[1]) / 1024


def cpu_seconds() -> float:
    """CPU seconds of this process so far."""
    spent = os.times()
    return spent.user + spent.system


if __name__ == "__main__":
    main()
