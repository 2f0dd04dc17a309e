"""Which grey values are shown from black to white, for images of any modality and any contents."""

import math
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from impactreg.images.image import Image

VALUES = 1 << 20
"""From how many voxels a window is found."""
LUNG, SOFT_TISSUE = (-1000.0, 300.0), (-160.0, 300.0)
"""Windows of computed tomography (Hounsfield units)."""


@dataclass(frozen=True)
class Window:
    """The value shown black, the one shown white, and what the window is called."""

    low: float
    high: float
    name: str = ""

    @classmethod
    def of(cls, image: Image) -> "Window":
        """A window for a scalar image without not-a-number values: of CT a customary one, else by percentiles."""
        values = image.data.flatten()[:: max(1, image.data.numel() // VALUES)].double()
        low, high = float(values.min()), float(values.max())
        if low == high:
            half = max(0.5, 1e-6 * abs(low))
            return cls(low - half, low + half)
        if -4096 <= low <= -900 and 150 <= high <= 32767:
            return _of_ct(values)
        shown = values[values > low] if float((values == low).double().mean()) > 0.05 else values
        low, high = (float(v) for v in torch.quantile(shown[:: 1 + len(shown) // VALUES], _PERCENTILES))
        if low > 0 and float(values.min()) >= 0:
            low = 0.0
        return cls(low, high) if high > low else cls(float(values.min()), float(values.max()))

    def bytes(self, values: Float[Tensor, "*pixels"]) -> UInt8[Tensor, "*pixels"]:
        """Values as grey levels 0 to 255."""
        return ((values - self.low) * (255 / (self.high - self.low))).clamp(0, 255).round().to(torch.uint8)

    def __str__(self) -> str:
        return f"{self.low:.4g} to {self.high:.4g}{f' ({self.name})' if self.name else ''}"


_PERCENTILES = torch.tensor([0.005, 0.998], dtype=torch.float64)


def _of_ct(values: Float[Tensor, " voxels"]) -> Window:
    body = values[values > -950]
    lung = len(body) and float((body < -500).double().mean()) > 0.2
    return Window(*LUNG, "CT, lung") if lung else Window(*SOFT_TISSUE, "CT, soft tissue")


def shown(image: Image) -> Image:
    """An image as one channel of finite single-precision numbers: lengths of vectors, the least for what is none."""
    data = image.data.float()
    if image.channels > 1:
        data = torch.linalg.vector_norm(data, dim=0, keepdim=True)
    # A sum is not finite where one of its terms is not, and is found many times faster than all that are not.
    if not math.isfinite(float(data.sum(dtype=torch.float64))):
        finite = torch.isfinite(data)
        least = float(data[finite].min()) if bool(finite.any()) else 0.0
        data = torch.where(finite, data, least)
    return replace(image, data=data)
