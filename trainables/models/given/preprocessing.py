"""What the published weights of an architecture expect of an image, done inside the network.

Axes: B batch, C channels, H, W.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

RGB = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Preprocessing:
    """A model's own preprocessing: scale the short side, keep the centre, normalise."""

    resize: int
    """Side in pixels that the short side is scaled to."""
    crop: int
    """Side of the centre that the network sees."""
    mean: tuple[float, ...]
    """Per channel, in pixel values of [0, 1]."""
    std: tuple[float, ...]
    interpolation: str = "bilinear"

    def words(self) -> str:
        """Return it in words."""
        mean, std = (", ".join(f"{v:.3f}" for v in row) for row in (self.mean, self.std))
        return (
            f"resize to {self.resize} ({self.interpolation}), centre crop of {self.crop}, mean "
            f"({mean}), std ({std})"
        )

    def how(self, side: int) -> str:
        """Return in words what the network does to images of a side."""
        if side == self.crop:
            return f"images of {side}x{side} are seen as they are"
        scaled = "" if side == self.resize else f"scaled to {self.resize}x{self.resize} and "
        return f"images of {side}x{side} are {scaled}cropped to {self.crop}x{self.crop}"


class Preprocess(nn.Module):
    """Brings images of [0, 1] to what a network was published for, with gradients.

    Images of the network's own side are taken as they are: they were cropped before. Grey images
    become three equal channels where the network takes colours.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, settings: Preprocessing) -> None:
        super().__init__()
        self.settings = settings
        # The architecture's own figures: no checkpoint holds them.
        for name in ("mean", "std"):
            values = torch.tensor(getattr(settings, name)).view(1, -1, 1, 1)
            self.register_buffer(name, values, persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """Scale, crop and normalise (B, C, H, W)."""
        if x.shape[1] == 1 and self.mean.shape[1] == RGB:
            x = x.expand(-1, RGB, -1, -1)
        side, settings = x.shape[-1], self.settings
        if side != settings.crop:
            if side != settings.resize:
                x = self._scaled(x)
            start = round((settings.resize - settings.crop) / 2)  # as torchvision's center_crop
            end = start + settings.crop
            x = x[:, :, start:end, start:end]
        return (x - self.mean) / self.std

    def _scaled(self, x: Tensor) -> Tensor:
        size = (self.settings.resize, self.settings.resize)
        scaled = F.interpolate(
            x, size, mode=self.settings.interpolation, antialias=True, align_corners=False
        )
        return scaled.clamp(0, 1)  # bicubic overshoots
