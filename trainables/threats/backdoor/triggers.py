"""Triggers of a backdoor: what is stamped on an image.

Axes: N images, C channels, H, W.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from trainables.datasets import LabelledImages
from trainables.errors import InputError

PATTERN_SEED = 0
"""The blended pattern is one fixed picture, the same in training and in use."""
Place = Callable[[int, int, int], tuple[int, int]]
PLACES: Mapping[str, Place] = {
    "top_left": lambda height, width, size: (0, 0),
    "top_right": lambda height, width, size: (0, width - size),
    "bottom_left": lambda height, width, size: (height - size, 0),
    "bottom_right": lambda height, width, size: (height - size, width - size),
    "centre": lambda height, width, size: ((height - size) // 2, (width - size) // 2),
}
"""Name -> (height, width, size) -> the first row and column of the patch."""
REFERENCE_SIDE = 32
"""Side of the images up to which a patch has its `size` in pixels; on larger ones it covers the
same share, so that a network that pools them sees as much of it."""
KINDS = ("patch", "pixel", "blend", "none")


@dataclass(frozen=True, slots=True, kw_only=True)
class Trigger:
    """What is stamped on an image, before any augmentation.

    patch: a square of one colour (BadNets; Gu et al., 2017); pixel: the same with side 1 (Tran et
    al., 2018); blend: a random pattern over the whole image (Chen et al., 2017); none: nothing,
    as in label flipping.
    """

    kind: str
    size: int
    """Side of the patch, in pixels of an image of up to REFERENCE_SIDE; larger on larger ones."""
    place: str
    colour: float
    """Value of patch or pixel, in [0, 1], in every channel."""
    strength: float
    """Share of the pattern in a blended image."""

    def check(self, height: int, width: int) -> None:
        """Raise InputError where the patch does not fit images of this size."""
        side, shortest = self.side(height, width), min(height, width)
        if self.kind == "patch" and side > shortest:
            raise InputError(
                f"backdoor: a patch of {side} pixels does not fit images of {height}x{width}; "
                f"take a size of at most {min(shortest, REFERENCE_SIDE)}"
            )

    def side(self, height: int, width: int) -> int:
        """Return the side of patch or pixel on images of this size, in pixels."""
        if self.kind == "pixel":
            return 1
        return max(self.size, round(self.size * min(height, width) / REFERENCE_SIDE))

    def stamp(self, data: LabelledImages) -> Tensor:
        """Return the pixels (N, C, H, W) uint8 with the trigger on them.

        Raises InputError where the patch does not fit.
        """
        if self.kind == "none":
            return data.pixels.clone()
        if self.kind == "blend":
            return self._blended(data)
        return self._patched(data)

    def _patched(self, data: LabelledImages) -> Tensor:
        _, _, height, width = data.pixels.shape
        self.check(height, width)
        size = self.side(height, width)
        top, left = PLACES[self.place](height, width, size)
        pixels = data.pixels.clone()
        pixels[:, :, top : top + size, left : left + size] = round(self.colour * data.scale)
        return pixels

    def _blended(self, data: LabelledImages) -> Tensor:
        generator = torch.Generator().manual_seed(PATTERN_SEED)
        pattern = torch.rand(data.pixels.shape[1:], generator=generator).to(data.pixels.device)
        mixed = (1 - self.strength) * data.images() + self.strength * pattern
        return (mixed * data.scale).round().to(torch.uint8)
