"""Fingerprint: what tells one run from every other, so that an interrupted run goes on as itself alone.

Images and transforms count by their content, wherever they came from: a file may have changed under its name, and what
is in memory has none.
"""

import hashlib
from collections.abc import Iterable

import torch
from torch import Tensor

from impactreg.components.transforms.transform import Combination, Transform
from impactreg.images.image import Image
from impactreg.images.masks import Mask
from impactreg.parameters import ParameterMap
from impactreg.registration.case import Case


def fingerprint(case: Case, maps: Iterable[ParameterMap], initial: Combination | None = None, *others: object) -> str:
    """A digest of images, masks, landmarks, parameter maps, the transform before, and whatever else tells runs apart by
    its `repr`.
    """
    digest = _Digest()
    digest.add("fixed", *case.fixed_images, "moving", *case.moving_images)
    digest.add("fixed masks", *case.fixed_masks, "moving masks", *case.moving_masks)
    digest.add("fixed points", case.further.fixed_points, "moving points", case.further.moving_points)
    digest.add("maps", *(parameter_map.text() for parameter_map in maps))
    digest.add("before", initial)
    digest.add("how", torch.__version__, case.seed, case.device.type, *others)
    return digest.text


class _Digest:
    """A digest that grows; each part is told apart from the next by its type and size."""

    def __init__(self) -> None:
        self._sum = hashlib.sha256()

    @property
    def text(self) -> str:
        """The digest of all that has been added."""
        return self._sum.hexdigest()

    def add(self, *parts: object) -> None:
        """Adds values one after the other; what is no image, mask, transform or tensor counts by its `repr`."""
        for part in parts:
            match part:
                case Tensor():
                    self._add_tensor(part)
                case Image():
                    self.add("image", part.grid, part.data)
                case Mask():
                    self.add("mask", part.grid, part.inside)
                case Combination():
                    self.add("combination", part.compose, part.current, part.initial)
                case Transform():
                    self._add_transform(part)
                case _:
                    self._add_text(repr(part))

    def _add_text(self, text: str) -> None:
        content = text.encode()
        self._sum.update(b"%d:" % len(content))
        self._sum.update(content)

    def _add_tensor(self, values: Tensor) -> None:
        """The numbers as they lie in memory, which are not copied on the CPU."""
        held = values.detach().cpu().contiguous()
        self._add_text(f"{held.dtype} {tuple(held.shape)}")
        self._sum.update(held.reshape(-1).view(torch.uint8).numpy().data)

    def _add_transform(self, transform: Transform) -> None:
        """What a file would say of it, and what that leaves out: fields and transforms that it holds."""
        written = {key: values for key, values in transform.written().items() if key != "TransformParameters"}
        self.add(type(transform).__name__, transform.parameters, written)
        public = {name: held for name, held in sorted(vars(transform).items()) if not name.startswith("_")}
        for name, held in public.items():
            several = held if isinstance(held, tuple) else (held,)
            self.add(name, *(each for each in several if isinstance(each, Image | Transform | Combination)))
