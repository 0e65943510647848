"""Bundles: a deployed stack in a folder, with its card, that loads where there is no data.

from results.bundle import load
model = load("DIR")
model.probabilities(x)  # x float32 (B, C, H, W) in [0, 1] -> (B, K)
"""

from results.bundle.errors import BundleError
from results.bundle.loading import Bundle, load

__all__ = ["Bundle", "BundleError", "load"]
