"""A model of Impact's Jacobian mode, with the patches that it sees around samples and the cheapest way to show them."""

import logging
import math
from typing import TYPE_CHECKING, NoReturn

import torch
from jaxtyping import Float
from torch import Tensor

from impactreg.components.boxes import Boxes
from impactreg.components.metrics.tiles import Lattice, Tiles, candidates, shared
from impactreg.errors import ModelError, ParameterError
from impactreg.models import patches
from impactreg.models.extractor import rounded_direction
from impactreg.models.features import statistics
from impactreg.models.precision import reduced
from impactreg.parameters import ModelSettings

if TYPE_CHECKING:
    from impactreg.components.metrics.impact_mode import Mode

logger = logging.getLogger(__name__)

Index = tuple[int, ...]


class PatchModel:
    """One model for the patches of one image, `side` being Fixed or Moving.

    Raises `ModelError` or `ParameterError`, with the line of the parameter file, where model, patch and image do not
    fit together, and warns of patches that are smaller than the field of view.
    """

    def __init__(self, mode: "Mode", side: str, settings: ModelSettings) -> None:
        self._mode = mode
        self._side = side
        self._settings = settings
        image = mode.scene.fixed if side == "Fixed" else mode.scene.moving
        self._grid = mode.scene.fixed.grid
        self._check_channels(image.channels)
        direction = tuple(map(tuple, rounded_direction(self._grid.direction).double().tolist()))
        self._patch = patches.Patch(
            mode.extractor(settings, image.data.device),
            settings.patch_size[::-1],
            settings.channels,
            settings.layers_mask,
            direction,
        )
        self._statistics = torch.tensor(statistics(image), dtype=torch.float32)
        self._seen_before = False
        self._best: dict[int, int] = {}
        self._whole, self.channels = self._answer()
        self._warn()

    @property
    def is_plane(self) -> bool:
        """Whether the model sees planes of a 3D image."""
        return self._settings.dimension < self._grid.dimension

    @property
    def reach(self) -> float:
        """How far (mm) the points of a patch may be from its sample along any axis."""
        ends = [max(n // 2, n - 1 - n // 2) * v for n, v in self._sizes]
        return math.hypot(*ends) if self.is_plane else max(ends)

    @property
    def shares(self) -> bool:
        """Whether patches may be shown in tiles that they share."""
        return self._mode.settings.evaluation != "Patches" and not self.is_plane

    def layers(self, images: Float[Tensor, "batch some_channels *space"]) -> list[Tensor]:
        """The selected layers [batch, channel, *space] of what `tiles` show; one channel is repeated for a model
        of several.
        """
        check, self._seen_before = not self._seen_before, True
        mixed, channels = self._mode.settings.use_mixed_precision, self._settings.channels
        shown = images.expand(-1, channels, *images.shape[2:])
        number = len(self._settings.layers_mask)
        with reduced(self._patch.extractor, mixed, self._settings.dimension, channels, number):
            return self._patch.layers(shown, self._statistics, mixed_precision=mixed, check_values=check)

    def tiles(
        self, points: Float[Tensor, "points dim"], turns: Float[Tensor, "points 3 3"] | None
    ) -> tuple[Tiles, Tiles | None]:
        """What shows the model the patches around some points, turned for planes; and whole patches, where that is not
        all of them.
        """
        boxes = self._around(points, turns)
        every = Tiles(boxes, self._whole)
        part = patches.smallest(self._patch)
        cut = every if part.shape == self._whole.shape else Tiles(boxes.within(part.start, part.shape), part)
        if self._mode.settings.evaluation == "Dense":
            self._check_dense(boxes, part)
        tiles = None if self._mode.settings.evaluation == "Patches" else self._shared(boxes, part, cut)
        return tiles or (cut, None if cut is every else every)

    def _shared(self, boxes: Boxes, part: patches.View, cut: Tiles) -> tuple[Tiles, Tiles | None] | None:
        """The tiles that cost least, if they cost less than patches or are asked for."""
        lattice = None if self.is_plane else Lattice.of(cut.boxes, self._grid)
        if lattice is None or not lattice.shared:
            return None
        period = patches.period_of(self._patch, part)
        if period is None:
            return None
        side, tiles = self._cheapest(cut, lattice, part, period)
        if tiles is None or (tiles.voxels >= cut.voxels and self._mode.settings.evaluation != "Dense"):
            return None
        whole = Lattice.of(boxes, self._grid)
        if part.shape == self._whole.shape or whole is None:
            return tiles, None
        return tiles, shared(boxes, whole, self._whole, 1, side * period)

    def _cheapest(self, cut: Tiles, lattice: Lattice, part: patches.View, period: int) -> tuple[int, Tiles | None]:
        """The tiles that show a model the fewest voxels, and how many patches start along their sides.

        What was best for some samples is taken for all others of that number: an iteration draws like the one before.
        """
        best = self._best.get(cut.samples)
        if best is not None:
            return best, shared(cut.boxes, lattice, part, period, best)
        tried = sorted(candidates(cut.boxes, lattice, part, period), key=lambda pair: pair[1].voxels)
        for side, tiles in tried:
            if patches.shares_tiles(self._patch, part, period, tiles.boxes.shape):
                self._best[cut.samples] = side
                return side, tiles
        return 1, None

    def _around(self, points: Float[Tensor, "points dim"], turns: Float[Tensor, "points 3 3"] | None) -> Boxes:
        axes = torch.tensor(self._grid.direction, dtype=points.dtype, device=points.device)[None]
        if self.is_plane and turns is not None:
            axes = turns[:, :, : self._settings.dimension]
        steps, before = (
            torch.tensor(values, dtype=points.dtype, device=points.device)
            for values in zip(*((v, float(n // 2)) for n, v in self._sizes), strict=True)
        )
        axes = axes * steps
        return Boxes(points - axes @ before, axes, self._patch.shape)

    @property
    def _sizes(self) -> list[tuple[int, float]]:
        """The number and the distance of the points of a patch along each of its axes."""
        return list(zip(self._settings.patch_size, self._settings.voxel_size, strict=True))

    def _answer(self) -> tuple[patches.View, tuple[int, ...]]:
        """The view of whole patches and the widths of the layers, or what is wrong with model and patch."""
        mask = self._settings.layers_mask
        try:
            view, channels = patches.whole(self._patch)
            if self._side == "Moving":
                patches.smallest(self._patch)
        except ModelError as error:
            size = " ".join(map(str, self._settings.patch_size))
            raise ModelError(
                f"{self._mode.where('ModelsPath', self._side)}: {error}; check ImpactPatchSize ({size}), "
                f"ImpactNumberOfChannels ({self._settings.channels}), ImpactDimension ({self._settings.dimension}) "
                f'and ImpactLayersMask ("{"".join("01"[wanted] for wanted in mask)}")'
            ) from None
        if patches.has_more_layers(self._patch):
            written = "".join("01"[wanted] for wanted in mask)
            self._refuse(
                "LayersMask",
                f'(Impact{{}}LayersMask "{written}"): {self._patch.extractor.name} returns more than {len(mask)} '
                "layers; a 1 or 0 is needed for each",
            )
        return view, channels

    def _check_channels(self, there: int) -> None:
        asked = self._settings.channels
        if there not in (1, asked):
            self._refuse(
                "NumberOfChannels",
                f"{self._settings.path} takes {asked} channels, but the {self._side.lower()} image has {there}",
            )

    def _check_dense(self, boxes: Boxes, part: patches.View) -> None:
        name = self._patch.extractor.name
        if self.is_plane:
            self._refuse("Evaluation", f'(ImpactEvaluation "Dense"): {name} sees planes that are turned at random')
        lattice = Lattice.of(boxes, self._grid)
        if lattice is None or not lattice.shared:
            self._refuse(
                "Evaluation",
                '(ImpactEvaluation "Dense"): the patches lie on as many lattices as there are samples, since these lie '
                'anywhere between the voxels; take an ImageSampler on voxels ("Random", "Grid" or "Full") and an '
                'ImpactVoxelSize that is a multiple of their distance, or "Auto"',
            )
        if patches.period_of(self._patch, part) is None:
            size = " ".join(map(str, self._settings.patch_size))
            self._refuse(
                "Evaluation",
                f'(ImpactEvaluation "Dense"): the features of {name} in patches of {size} depend on where the patch '
                f'ends: {self._cause()}; take "Patches" or larger patches',
            )

    def _cause(self) -> str:
        seen = patches.field_of_view(self._patch)
        if all(n <= m for n, m in zip(seen, self._patch.shape, strict=True)):
            return "it normalises by all that it sees, or does not look from the middle of the patch"
        return f"they depend on {_voxels(seen)} voxels"

    def _warn(self) -> None:
        seen, name = patches.field_of_view(self._patch), self._patch.extractor.name
        if any(n > m for n, m in zip(seen, self._patch.shape, strict=True)):
            logger.warning(
                "%s: ImpactPatchSize %s is below the field of view of %s, %s voxels: its features are cut off",
                self._mode.where("PatchSize", self._side),
                " ".join(map(str, self._settings.patch_size)),
                name,
                _voxels(seen),
            )
        if not patches.independent(self._patch):
            logger.warning(
                "%s: what %s makes of a patch depends on the others of its batch, and so on ImpactBatchSize",
                self._mode.where("ModelsPath", self._side),
                name,
            )

    def _refuse(self, key: str, reason: str) -> NoReturn:
        raise ParameterError(f"{self._mode.where(key, self._side)}: {reason}".replace("{}", ""))


def _voxels(seen: tuple[float, ...]) -> str:
    return " x ".join("many" if math.isinf(n) else f"{n:g}" for n in reversed(seen))
