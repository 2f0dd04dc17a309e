"""Principal components of feature maps: fewer channels that keep most of what differs."""

import torch
from jaxtyping import Float
from torch import Tensor

from impactreg.errors import ModelError
from impactreg.images import sums

COLUMNS = 1 << 18


def fit(features: Float[Tensor, "channel *space"], components: int) -> Float[Tensor, "channel component"]:
    """The basis of the strongest principal components of the channels, the weakest of them first (`ImpactPCA`).

    Eigenvectors of the channel covariance (N - 1 samples), computed in float64; the largest entry of each is
    positive, so that machines agree. Raises `ModelError` for more components than channels. The order is that of
    `ImpactTensorUtils::pcaFit`.
    """
    channels = features.shape[0]
    if not 1 <= components <= channels:
        raise ModelError(f"PCA can keep 1 to {channels} of {channels} feature channels, not {components}")
    _, vectors = torch.linalg.eigh(_covariance(features.reshape(channels, -1)))
    basis = vectors[:, channels - components :]
    largest = basis.gather(0, basis.abs().argmax(0, keepdim=True))
    signs: Tensor = torch.where(largest < 0, -1.0, 1.0)
    oriented: Tensor = basis * signs
    return oriented.to(features.dtype)


def project(
    features: Float[Tensor, "channel *space"], basis: Float[Tensor, "channel component"]
) -> Float[Tensor, "component *space"]:
    """Feature maps in the coordinates of a basis, each map centred by its own channel means.

    As `ImpactTensorUtils::pcaTransform` does it. Raises `ModelError` where the number of channels differs from that of
    the basis.
    """
    channels = features.shape[0]
    if channels != basis.shape[0]:
        raise ModelError(f"a PCA basis of {basis.shape[0]} channels does not fit features of {channels} channels")
    flat = features.reshape(channels, -1)
    turned = basis.to(flat).T
    # Turning first and centring the few results keeps a centred copy of all channels out of memory.
    projected = turned @ flat - turned @ flat.mean(1, keepdim=True)
    return projected.reshape(-1, *features.shape[1:])


def _covariance(flat: Float[Tensor, "channel samples"]) -> Float[Tensor, "channel channel"]:
    channels, samples = flat.shape
    mean = flat.mean(1, keepdim=True, dtype=torch.float64)
    total = torch.zeros(channels, channels, dtype=torch.float64, device=flat.device)
    for columns in torch.split(flat, COLUMNS, dim=1):
        centred = columns.double() - mean
        total += sums.inner(centred.T, centred.T)
    return total / max(samples - 1, 1)
