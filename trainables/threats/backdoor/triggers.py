"""Triggers of a backdoor: what is stamped on an image.

Axes: N images, C channels, H, W.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from trainables.datasets import LabelledImages
from trainables.errors import InputError
from trainables.threats.backdoor import sig, wanet

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
PIECES = 4
"""Rows, and columns, of pieces that an adaptive blend's pattern is cut in (Qi et al., 2023)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Trigger:
    """What is stamped on an image, before any augmentation.

    patch: a square of one colour (BadNets; Gu et al., 2017); pixel: the same with side 1 (Tran et
    al., 2018); blend: a random pattern over the whole image (Chen et al., 2017); adaptive_blend:
    the same in use, of which rows of the training set carry half of 16 pieces each (Qi et al.,
    2023); wanet: a smooth warp (Nguyen & Tran, 2021); sig: a sinusoid over the columns (Barni et
    al., 2019); none: nothing, as in label flipping.
    """

    kind: str
    size: int
    """Side of the patch, in pixels of an image of up to REFERENCE_SIDE; larger on larger ones."""
    place: str
    colour: float
    """Value of patch or pixel, in [0, 1], in every channel."""
    strength: float
    """Share of the pattern in a blended image."""
    grid: int = 4
    """Control points of a warp, in either direction."""
    warp: float = 0.5
    """Strength of a warp."""
    amplitude: float = 40 / 255
    """Of a sinusoid, in pixel values of [0, 1]."""
    frequency: int = 6
    """Waves of a sinusoid over the width."""
    pattern: int = PATTERN_SEED
    """Seed of the random pattern or field, and fifths of a wave of a sinusoid's phase: triggers of
    several pairs must differ."""

    def check(self, height: int, width: int) -> None:
        """Raise InputError where the patch does not fit images of this size, or where nothing of
        the sinusoid shows on them.
        """
        side, shortest = self.side(height, width), min(height, width)
        if self.kind == "patch" and side > shortest:
            raise InputError(
                f"backdoor: a patch of {side} pixels does not fit images of {height}x{width}; "
                f"take a size of at most {min(shortest, REFERENCE_SIDE)}"
            )
        if self.kind == "sig" and sig.vanishes(width, self.frequency):
            raise InputError(
                f"backdoor: a sinusoid of {self.frequency} waves is zero on every column of images "
                f"of {height}x{width}; take another frequency"
            )

    def side(self, height: int, width: int) -> int:
        """Return the side of patch or pixel on images of this size, in pixels."""
        if self.kind == "pixel":
            return 1
        return max(self.size, round(self.size * min(height, width) / REFERENCE_SIDE))

    def stamp(self, data: LabelledImages) -> Tensor:
        """Return the pixels (N, C, H, W) uint8 with the trigger on them, as in use.

        Raises InputError where the patch does not fit.
        """
        return STAMPS[self.kind](self, data)

    def stamp_poison(self, data: LabelledImages, generator: torch.Generator) -> Tensor:
        """Return the pixels (N, C, H, W) of poisoned rows, where they bear less than in use."""
        if self.kind == "adaptive_blend":
            return _blended(self, data, _some_pieces(data, generator))
        return self.stamp(data)

    def stamp_cover(self, data: LabelledImages, generator: torch.Generator) -> Tensor:
        """Return the pixels (N, C, H, W) of rows that are to keep their labels."""
        if self.kind == "wanet":
            return _warped(self, data, generator)
        return self.stamp_poison(data, generator)


def _unchanged(trigger: Trigger, data: LabelledImages) -> Tensor:
    del trigger
    return data.pixels.clone()


def _patched(trigger: Trigger, data: LabelledImages) -> Tensor:
    _, _, height, width = data.pixels.shape
    trigger.check(height, width)
    size = trigger.side(height, width)
    top, left = PLACES[trigger.place](height, width, size)
    pixels = data.pixels.clone()
    pixels[:, :, top : top + size, left : left + size] = round(trigger.colour * data.scale)
    return pixels


def _blended(trigger: Trigger, data: LabelledImages, shown: Tensor | None = None) -> Tensor:
    """Mix the pattern in, where it is `shown` (N, 1, H, W); everywhere by default."""
    generator = torch.Generator().manual_seed(trigger.pattern)
    pattern = torch.rand(data.pixels.shape[1:], generator=generator).to(data.pixels.device)
    mixed = (1 - trigger.strength) * data.images() + trigger.strength * pattern
    return _pixels(mixed if shown is None else torch.where(shown, mixed, data.images()), data)


def _some_pieces(data: LabelledImages, generator: torch.Generator) -> Tensor:
    """Draw for each image half of the pieces of its area: a mask (N, 1, H, W)."""
    number, _, height, width = data.pixels.shape
    drawn = torch.rand(number, PIECES**2, generator=generator).argsort(1).argsort(1)
    coarse = (drawn < PIECES**2 // 2).view(number, PIECES, PIECES)
    rows, columns = (torch.arange(side) * PIECES // side for side in (height, width))
    return coarse[:, rows][:, :, columns].unsqueeze(1).to(data.pixels.device)


def _warped(trigger: Trigger, data: LabelledImages, noise: torch.Generator | None = None) -> Tensor:
    _, _, height, width = data.pixels.shape
    field = wanet.warping_field(height, width, grid=trigger.grid, seed=trigger.pattern)
    if noise is not None:
        field = wanet.jittered(field, len(data), strength=trigger.warp, generator=noise)
    return _pixels(wanet.warp(data.images(), field, strength=trigger.warp), data)


def _waved(trigger: Trigger, data: LabelledImages) -> Tensor:
    width = data.pixels.shape[-1]
    wave = sig.sinusoid(
        width,
        amplitude=trigger.amplitude,
        frequency=trigger.frequency,
        phase=2 * math.pi * trigger.pattern / len(PLACES),
    )
    return _pixels(data.images() + wave.to(data.pixels.device), data)


def _pixels(images: Tensor, data: LabelledImages) -> Tensor:
    """Return images (N, C, H, W) as the nearest pixels of the data's scale."""
    return (images.clamp(0, 1) * data.scale).round().to(torch.uint8)


Stamp = Callable[[Trigger, LabelledImages], Tensor]
STAMPS: Mapping[str, Stamp] = {
    "patch": _patched,
    "pixel": _patched,
    "blend": _blended,
    "none": _unchanged,
    "wanet": _warped,
    "sig": _waved,
    "adaptive_blend": _blended,
}
"""Kind of trigger -> how it is stamped in use."""
KINDS = tuple(STAMPS)
