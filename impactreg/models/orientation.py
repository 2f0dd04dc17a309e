"""Which way an image's axes run: letters of the Spinal Cord Toolbox, and a scriptable turn to a network's axes."""

from itertools import permutations

import torch
from torch import Tensor, nn

from impactreg.errors import ModelError

FROM = {"R": (1, 0, 0), "L": (-1, 0, 0), "A": (0, 1, 0), "P": (0, -1, 0), "I": (0, 0, 1), "S": (0, 0, -1)}
"""The direction (LPS) of an axis that comes from a side: one from the right runs to the left."""

Axes = tuple[tuple[int, int, int], ...]


def checked_letters(letters: str, where: str) -> str:
    """Three letters in capitals, each of another axis of the body; raises `ModelError` where they are not."""
    upper = letters.strip().upper()
    if len(upper) != 3 or any(letter not in FROM for letter in upper) or len(_bodily(upper)) != 3:
        raise ModelError(
            f"{where} ({letters!r:.40}): three letters are needed, one of R and L, one of A and P, one of I and S, "
            "such as RPI: where the axes x, y and z come from"
        )
    return upper


def network_axes(letters: str | None, image_axes: tuple[int, ...]) -> Axes:
    """The directions (LPS) of a network's axes, which are these axes of an image [z, y, x] of that orientation.

    Without letters the image's own axes x, y, z stand for those of the body.
    """
    by_image = [FROM[letter] for letter in letters] if letters else [(1, 0, 0), (0, 1, 0), (0, 0, 1)]
    return tuple(by_image[2 - axis] for axis in image_axes)


class Orientation(nn.Module):
    """Turns images to the axes that a network was trained with, and its maps back, by permuting and flipping axes.

    `image_axes` are the network's axes as axes of an image [z, y, x] of the orientation `letters`. Where an image's
    direction is not given, or nobody knows how the training images lay (`letters` None), its axes are taken as those
    of the training images. A slice whose plane is not that of a network of two dimensions is left as it is.
    """

    orders: list[list[int]]
    wanted: list[list[float]]
    own: list[list[float]]

    def __init__(self, letters: str | None, image_axes: tuple[int, ...]) -> None:
        super().__init__()
        self.dimension = len(image_axes)
        self.oriented = letters is not None
        self.orders = [list(order) for order in permutations(range(self.dimension))]
        self.wanted = _floats(network_axes(letters, image_axes))
        self.own = _floats(network_axes(letters, tuple(sorted(image_axes))))

    def turn(self, direction: Tensor) -> tuple[list[int], list[int]]:
        """The image's axis (0 is the slowest) for each axis of the network, and the network's axes to be flipped."""
        fit = self.fit(direction)
        best = 0.0
        chosen = self.orders[0]
        flips: list[int] = []
        for order in self.orders:
            score = 0.0
            turned: list[int] = []
            for k in range(self.dimension):
                along = float(fit[order[k], k])
                score += abs(along)
                if along < 0:
                    turned.append(k)
            if score >= self.dimension and score > best:
                best = score
                chosen = order
                flips = turned
        return chosen, flips

    def fit(self, direction: Tensor) -> Tensor:
        """How much each axis of the image runs along each axis of the network [image axis, network axis]."""
        wanted = torch.tensor(self.wanted, dtype=torch.float64, device="cpu")
        size = direction.size(0) if direction.dim() == 2 else 0
        if not self.oriented or size < self.dimension or size > 3 or direction.size(1) != size:
            return torch.tensor(self.own, dtype=torch.float64, device="cpu") @ wanted.t()
        columns = direction.detach().to("cpu", torch.float64).t()
        return columns[: self.dimension].flip([0]) @ wanted.t()[:size]

    def forward(self, x: Tensor, turn: tuple[list[int], list[int]]) -> Tensor:
        """An image [batch, channel, *space] along the network's axes."""
        order, flips = turn
        x = x.permute([0, 1] + [axis + 2 for axis in order])
        return x.flip([axis + 2 for axis in flips]) if len(flips) > 0 else x.contiguous()

    def back(self, x: Tensor, turn: tuple[list[int], list[int]]) -> Tensor:
        """A map [batch, channel, *space] of the network along the image's axes."""
        order, flips = turn
        if len(flips) > 0:
            x = x.flip([axis + 2 for axis in flips])
        return x.permute([0, 1] + [order.index(axis) + 2 for axis in range(self.dimension)]).contiguous()


def _floats(axes: Axes) -> list[list[float]]:
    return [[float(value) for value in axis] for axis in axes]


def _bodily(letters: str) -> set[int]:
    return {max(range(3), key=lambda axis: abs(FROM[letter][axis])) for letter in letters}
