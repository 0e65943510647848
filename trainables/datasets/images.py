"""Labelled images as one uint8 tensor on the device: a batch is an index, no copy from the host.

Legend: N images, C channels, H height, W width.
"""

import hashlib
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class LabelledImages:
    """Images with their labels, all on one device."""

    pixels: Tensor
    """(N, C, H, W) uint8."""
    labels: Tensor
    """(N,) int64."""
    scale: float
    """The largest value that a pixel can take; pixel / scale is in [0, 1]."""

    def __post_init__(self) -> None:
        assert self.pixels.dtype == torch.uint8 and self.pixels.ndim == 4
        assert self.labels.dtype == torch.int64 and self.labels.shape == self.pixels.shape[:1]

    def __len__(self) -> int:
        return len(self.labels)

    def images(self, index: Tensor | slice | None = None) -> Tensor:
        """Return the indexed images (all of them by default) as (B, C, H, W) float32 in [0, 1]."""
        pixels = self.pixels if index is None else self.pixels[index]
        return pixels.float() / self.scale

    def select(self, index: Tensor) -> "LabelledImages":
        """Return the indexed rows as images of their own, on the same device."""
        index = index.to(self.pixels.device)
        return LabelledImages(
            pixels=self.pixels[index], labels=self.labels[index], scale=self.scale
        )

    def to(self, device: torch.device | str) -> "LabelledImages":
        """Move pixels and labels to a device."""
        return LabelledImages(
            pixels=self.pixels.to(device), labels=self.labels.to(device), scale=self.scale
        )


@lru_cache(maxsize=64)
def content_hash(data: LabelledImages) -> str:
    """Hash the pixels and labels of a pool; pools are never changed in place."""
    digest = hashlib.sha256(str(data.scale).encode())
    for tensor in (data.pixels, data.labels):
        digest.update(str(tuple(tensor.shape)).encode())
        digest.update(np.ascontiguousarray(tensor.cpu().numpy()).data)
    return digest.hexdigest()[:16]
