"""A small U-Net that maps images to images, with or without a time as a second input.

Axes: B batch, C channels, H, W, E time embedding.
"""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from trainables.models.norms import norm_layer

SMALLEST_SIDE = 4
"""Maps are halved while their shorter side stays at least this."""
PIXELS_AT_ONCE = 2**16
"""Pixels (B x H x W) that one pass keeps the activations of; a larger batch goes in parts."""
_EMBEDDING = 32


class UNet(nn.Module):
    """Residual blocks on halved and restored maps; at first it returns zeros.

    x (B, C, H, W), sides of at least 1; time (B,) in [0, 1] where it was built with one.
    Source: Ronneberger et al., 2015; with time: Ho et al., 2020, appendix B, without attention.
    """

    def __init__(
        self,
        *,
        channels: int,
        height: int,
        width: int,
        filters: int,
        most_halvings: int,
        time: bool,
    ) -> None:
        super().__init__()
        possible = int(math.log2(max(1.0, min(height, width) / SMALLEST_SIDE)))
        sizes = [filters * min(2**level, 2) for level in range(min(possible, most_halvings) + 1)]
        embedding = _EMBEDDING if time else 0
        self.time = nn.Linear(_EMBEDDING, _EMBEDDING) if time else None
        self.enter = nn.Conv2d(channels, filters, 3, padding=1)
        self.down = nn.ModuleList(
            _Block(before, after, embedding)
            for before, after in zip([filters, *sizes], sizes, strict=False)
        )
        self.up = nn.ModuleList(
            _Block(sizes[level + 1] + sizes[level], sizes[level], embedding)
            for level in reversed(range(len(sizes) - 1))
        )
        self.leave = nn.Sequential(
            norm_layer("group", filters), nn.SiLU(), nn.Conv2d(filters, channels, 3, padding=1)
        )
        _zero(self.leave[-1])

    def forward(self, x: Tensor, time: Tensor | None = None) -> Tensor:
        """Return an image (B, C, H, W)."""
        embedded = None
        if self.time is not None:
            assert time is not None, "this network was built with a time"
            embedded = F.silu(self.time(embed_time(time)))
        hidden, kept = self.enter(x), []
        for level, block in enumerate(self.down):
            hidden = F.avg_pool2d(hidden, 2, ceil_mode=True) if level else hidden
            hidden = block(hidden, embedded)
            kept.append(hidden)
        kept.pop()
        for block in self.up:
            beside = kept.pop()
            # Nearest, to the size beside: it was rounded up where a side is odd.
            hidden = F.interpolate(hidden, size=beside.shape[-2:])
            hidden = block(torch.cat([hidden, beside], dim=1), embedded)
        restored: Tensor = self.leave(hidden)
        return restored


def in_parts(network: nn.Module, x: Tensor, time: Tensor | None = None) -> Tensor:
    """Apply the network to a batch of any size with flat memory, whether or not it has gradients.

    A batch of more than PIXELS_AT_ONCE goes in parts, whose activations are computed again on the
    way back instead of kept. x (B, C, H, W), time (B,).
    """
    rows = max(1, PIXELS_AT_ONCE // (x.shape[-2] * x.shape[-1]))
    if len(x) <= rows:
        whole: Tensor = network(x, time)
        return whole
    times = [None] * len(x) if time is None else torch.split(time, rows)
    parts = []
    for part, part_time in zip(torch.split(x, rows), times, strict=False):
        if torch.is_grad_enabled() and x.requires_grad:
            again = checkpoint(
                network, part, part_time, use_reentrant=False, preserve_rng_state=False
            )
            assert isinstance(again, Tensor)
            parts.append(again)
        else:
            parts.append(network(part, part_time))
    return torch.cat(parts)


def embed_time(time: Tensor) -> Tensor:
    """Return sines and cosines (B, E) of a time (B,) in [0, 1] (Vaswani et al., 2017)."""
    half = _EMBEDDING // 2
    powers = torch.arange(half, device=time.device, dtype=time.dtype) / (half - 1)
    angles = time[:, None] * 1000 * (1e-4**powers)
    return torch.cat([angles.sin(), angles.cos()], dim=1)


class _Block(nn.Module):
    """Two convolutions with a shortcut, shifted by the time."""

    def __init__(self, before: int, after: int, embedding: int) -> None:
        super().__init__()
        self.first = nn.Sequential(
            norm_layer("group", before), nn.SiLU(), nn.Conv2d(before, after, 3, padding=1)
        )
        self.second = nn.Sequential(
            norm_layer("group", after), nn.SiLU(), nn.Conv2d(after, after, 3, padding=1)
        )
        self.shift = nn.Linear(embedding, after) if embedding else None
        self.shortcut = nn.Identity() if before == after else nn.Conv2d(before, after, 1)
        _zero(self.second[-1])

    def forward(self, x: Tensor, embedded: Tensor | None) -> Tensor:
        hidden = self.first(x)
        if self.shift is not None:
            hidden = hidden + self.shift(embedded)[:, :, None, None]
        result: Tensor = self.second(hidden) + self.shortcut(x)
        return result


def _zero(layer: nn.Module) -> None:
    for weights in layer.parameters():
        nn.init.zeros_(weights)
