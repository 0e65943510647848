"""SIG's trigger: a sinusoid over the columns of an image.

Axes: W columns.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

_LEAST = 1e-3
"""Height of a sinusoid below which it is none."""


def sinusoid(width: int, *, amplitude: float, frequency: int, phase: float = 0.0) -> Tensor:
    """Return amplitude x sin(2 pi j frequency / W + phase) of the columns j = 1 .. W (W,).

    The paper has no phase; it keeps the triggers of several pairs apart. Source:
    Barni et al., 2019, section 3.1.
    """
    columns = torch.arange(1, width + 1, dtype=torch.float64)
    return (amplitude * torch.sin(2 * math.pi * columns * frequency / width + phase)).float()


def vanishes(width: int, frequency: int, phase: float = 0.0) -> bool:
    """Return whether the sinusoid is zero in all columns: it has no trace on such images."""
    wave = sinusoid(width, amplitude=1.0, frequency=frequency, phase=phase)
    return bool(wave.abs().max() < _LEAST)
