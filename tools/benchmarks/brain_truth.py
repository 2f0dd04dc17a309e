#!/usr/bin/env python
"""How the head of the pair t1-pd-rigid lies in both images, by what itk-elastix finds inside the brain alone.

The pair comes with a rigid transform by mutual information of the whole images. Scalp and skull take part in that, and
they do not lie as the brain does (a scanner may shift fat along the directions in which it reads and selects slices,
which differ between the two scans). Here real elastix registers the pair with mutual information and with
normalised mutual information, each inside three masks that end 10, 13 and 18 mm below the skin; MIND takes no part.
Prints how far each result is from that transform and from the mean of all, in mm over the points of the pair, and the
mean as elastix parameters: `BRAIN_RIGID` of `pairs.py`.
Usage: python tools/benchmarks/brain_truth.py [--data ../shared/data]
"""

from __future__ import annotations

import argparse
import logging
from pathlib import Path

import numpy as np
import torch
from pairs import CENTRE, DATA, Pair, pairs
from scipy import ndimage
from scipy.spatial.transform import Rotation
from torch import Tensor

import impactreg
from impactreg.components.transforms.files import read_transform
from impactreg.images import Image
from impactreg.parameters import ParameterMap, presets

METRICS = "AdvancedMattesMutualInformation", "NormalizedMutualInformation"
DEPTHS = 10, 13, 18
LOWEST = 52.5
"""mm above the lowest slice, where the brain begins."""
SKIN = 16
"""Intensity between air and skin."""


def main() -> None:
    parser = argparse.ArgumentParser(description="Estimate how the brain of t1-pd-rigid lies in both images.")
    parser.add_argument("--data", type=Path, default=DATA, help="folder of the image pairs")
    data = parser.parse_args().data
    if not data.is_dir():
        print(f"skipped: there is no folder {data} with image pairs; name one with --data")
        return
    logging.disable(logging.WARNING)
    pair = pairs(data)["t1-pd-rigid-silver"]
    where, silver = points_of(pair)
    found = {(metric, depth): moved(pair, metric, depth) for metric in METRICS for depth in DEPTHS}
    middle = torch.stack(list(found.values())).mean(dim=0)
    print("| measure of real elastix | mm below the skin | mm from the silver standard | mm from the mean |")
    print("|---|---|---|---|")
    for (metric, depth), points in found.items():
        print(f"| {metric} | {depth} | {distance(points, silver):.2f} | {distance(points, middle):.2f} |")
    print(f"| mean of these | | {distance(middle, silver):.2f} | |\n")
    print("BRAIN_RIGID =", ", ".join(f"{value:.8f}" for value in rigid(where, middle)))


def points_of(pair: Pair) -> tuple[Tensor, Tensor]:
    """The points [n, 3] (mm) of a pair in both images."""
    if pair.points is None:
        raise ValueError(f"{pair.name} has no points")
    return pair.points(pair.folder)


def moved(pair: Pair, metric: str, depth: float) -> Tensor:
    """The moving points [n, 3] (mm) by a rigid registration of itk-elastix `depth` mm or more below the skin."""
    rigid_map = ParameterMap.read(presets.find("rigid")).replace(
        {
            "Metric": metric,
            "NumberOfResolutions": 2,
            "NumberOfSpatialSamples": 5000,
            "MaximumNumberOfIterations": 400,
            "AutomaticTransformInitialization": "false",
            "WriteResultImage": "false",
        }
    )
    result = impactreg.register(
        pair.fixed,
        pair.moving,
        rigid_map,
        fixed_mask=inside(pair.fixed, depth),
        initial_transform=read_transform(pair.folder / "silver_rigid.txt"),
        seed=1,
        engine="elastix",
    )
    return result.transform(points_of(pair)[0])


def inside(head: Image, depth: float) -> Image:
    """The mask of what lies `depth` mm or more below the skin and above the neck."""
    opened = ndimage.binary_opening(head.scalar.numpy() > SKIN, iterations=2)
    below = ndimage.distance_transform_edt(ndimage.binary_fill_holes(opened), sampling=head.grid.spacing[::-1])
    mask = below > depth
    mask[: round(LOWEST / head.grid.spacing[2])] = False
    return Image(torch.from_numpy(mask.astype(np.uint8))[None], head.grid)


def distance(first: Tensor, second: Tensor) -> float:
    """The mean distance (mm) of points."""
    return float(torch.linalg.vector_norm(first - second, dim=1).mean())


def rigid(where: Tensor, there: Tensor) -> list[float]:
    """The parameters of an `EulerTransform` about `CENTRE` that takes some points nearest to others."""
    turned, _ = Rotation.align_vectors((there - there.mean(0)).numpy(), (where - where.mean(0)).numpy())
    z, x, y = turned.as_euler("ZXY")
    centre = np.array(CENTRE)
    shift = there.mean(0).numpy() - turned.apply(where.mean(0).numpy() - centre) - centre
    return [x, y, z, *shift]


if __name__ == "__main__":
    main()
