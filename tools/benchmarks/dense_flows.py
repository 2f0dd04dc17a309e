"""Velocity fields on the pairs of the benchmark and on real ones: folded voxels and how exact the inverse is."""

from __future__ import annotations

from typing import Any

import torch
from dense_peers import cpu_seconds

import impactreg
from impactreg.components.dense.folding import folding
from impactreg.images import Image, read_image

REAL = ("t1-pd", "ct-cbct", "mr-ct", "lung", "t1-t1", "head", "hands")
POINTS = 200_000
"""Points at which the inverse is looked at, at most."""

FLOW = {
    "Registration": "ImpactFineRegistration",
    "NumberOfResolutions": 3,
    "MaximumNumberOfIterations": [40, 30, 20],
    "ImpactControlGridSpacing": [24, 16, 12],
    "ImpactEvaluationSpacing": [8, 6, 4],
    "ImpactControlInterpolation": "BSpline",
    "ImpactRegularization": "Diffusion",
    "ImpactRegularizationWeight": 1.0,
    "ImpactLearningRate": 1.0,
    "ImpactFinalLearningRate": 0.1,
    "WriteResultImage": False,
}
"""Steps of Adam on MIND features, from coarse to fine."""


def flows(given: Any) -> None:
    """Prints a row for each pair and kind of flow."""
    import dense_pairs
    import pairs

    torch.set_num_threads(1)
    print("| pair | transform | CPU s | before | after | folded voxels | inverse, voxels, mean | most |")
    print("|---|---|---|---|---|---|---|---|", flush=True)
    for name in given.pairs:
        pair = dense_pairs.make(name, given.data, given.work)
        images = read_image(pair.fixed), read_image(pair.moving)
        truth = torch.from_numpy(pair.truth)[torch.from_numpy(pair.mask)].double()
        where = images[0].grid.points()[torch.from_numpy(pair.mask).reshape(-1)]

        def score(transform: Any, where: Any = where, truth: Any = truth) -> str:
            return f"{float((transform(where) - where - truth).norm(dim=1).mean()):.2f} mm"

        _rows(name, images, {}, score)
    known = pairs.pairs(given.data)
    for name in REAL:
        real = known[name]
        options: dict[str, Any] = {"initial_transform": real.initial} if real.start else {}
        options |= {key: mask for key, mask in zip(("fixed_mask", "moving_mask"), real.masks, strict=True) if mask}

        def real_score(transform: Any, real: Any = real) -> str:
            found = real.score(transform)
            return f"Dice {found.dice:.3f}" if found.mean is None else f"{found.mean:.2f} mm"

        _rows(name, (real.fixed, real.moving), options, real_score)


def _rows(name: str, images: tuple[Image, Image], options: dict[str, Any], score: Any) -> None:
    before = options.get("initial_transform") or (lambda points: points)
    model = f"MIND/R1D2_{images[0].dimension}D.pt"
    for kind in ("SVF", "SymmetricSVF"):
        asked = {**FLOW, "ImpactFineTransform": kind, "ImpactModelsPath0": model}
        started = cpu_seconds()
        result = impactreg.register(*images, [asked], **options)
        seconds = cpu_seconds() - started
        current: Any = result.transform.current
        folded = round(folding(current.field).fraction * images[0].grid.number_of_voxels)
        mean, most = _inverse_error(result, *images)
        print(
            f"| {name} | {kind} | {seconds:.1f} | {score(before):.3f} | {score(result.transform):.3f} | {folded} ",
            end="",
        )
        print(f"| {mean:.4f} | {most:.3f} |", flush=True)


def _inverse_error(result: Any, fixed: Image, moving: Image) -> tuple[float, float]:
    """How far fixed points that go to the moving image and back are from where they were, in fixed voxels."""
    points = fixed.grid.points()
    points = points[:: max(1, len(points) // POINTS)]
    there = result.transform(points)
    index, last = moving.grid.world_to_index(there), torch.tensor(moving.grid.size) - 1
    held = ((index >= 0) & (index <= last)).all(dim=1)
    back = result.inverse(there[held])
    apart = (fixed.grid.world_to_index(back) - fixed.grid.world_to_index(points[held])).norm(dim=1)
    return float(apart.mean()), float(apart.max())
