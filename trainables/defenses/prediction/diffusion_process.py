"""The noising of images in continuous time and its reversal by a network that predicts the noise.

Images are x in [0, 1]; the process runs on 2 x - 1. Time 0 is the image, time 1 is noise.

Axes: B batch, C channels, H, W.
"""

import itertools
import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from trainables.models.unet import in_parts

_BETA_FIRST, _BETA_LAST = 0.1, 20.0
"""Rates of the noise at times 0 and 1: a thousand times Ho et al.'s 1e-4 and 0.02."""
_EARLIEST = 1e-3
"""The earliest time that is trained, as of the first of a thousand steps: at 0 there is no noise
to predict."""


def signal_share(time: Tensor) -> Tensor:
    """Return the variance share of the image at a time in [0, 1]: the papers' alpha-bar.

    exp(-integral of beta), beta linear in time (Song et al., 2021, equation 33), which is the
    limit of the product of Ho et al.'s (2020) 1 - beta_t over a thousand steps.
    """
    return torch.exp(-_BETA_FIRST * time - 0.5 * (_BETA_LAST - _BETA_FIRST) * time**2)


def diffuse(image: Tensor, time: Tensor, noise: Tensor) -> Tensor:
    """Return sqrt(a) image + sqrt(1 - a) noise (Ho et al., 2020, equation 4).

    image, noise (B, C, H, W), the image within [-1, 1]; time (B,).
    """
    share = signal_share(time)[:, None, None, None]
    return share.sqrt() * image + (1 - share).sqrt() * noise


def noise_prediction_loss(network: nn.Module, x: Tensor, generator: torch.Generator) -> Tensor:
    """Return the mean squared error of the predicted noise () (Ho et al., 2020, equation 14).

    Half of the times are below 0.25 (their density falls as 1 / sqrt(t)): purification uses the
    early ones alone. x (B, C, H, W) in [0, 1].
    """
    uniform = torch.rand(len(x), generator=generator, device=x.device)
    time = _EARLIEST + (1 - _EARLIEST) * uniform**2
    noise = torch.randn(x.shape, generator=generator, device=x.device)
    predicted: Tensor = network(diffuse(2 * x - 1, time, noise), time)
    return F.mse_loss(predicted, noise)


def purify(
    network: nn.Module, x: Tensor, *, t: float, steps: int, generator: torch.Generator
) -> Tensor:
    """Diffuse images to time t and take them back to 0 in equal steps of time.

    Each step draws from the posterior of the earlier time given the image that the predicted
    noise implies (Ho et al., 2020, equations 6 and 7, between any two times); the last yields that
    image itself. x (B, C, H, W) in [0, 1]; the result may leave that range a little: clamping it
    would only hide gradients. Differentiable through every step. Source: Nie et al., 2022.
    """
    times = torch.linspace(t, 0.0, steps + 1, dtype=torch.float64)
    instants = list(zip(times.tolist(), signal_share(times).tolist(), strict=True))
    image = diffuse(2 * x - 1, x.new_full((len(x),), t), _noise_like(x, generator))
    for (time, share), (_, share_before) in itertools.pairwise(instants):
        noise = in_parts(network, image, x.new_full((len(x),), time))
        clean = (image - math.sqrt(1 - share) * noise) / math.sqrt(share)
        variance = (1 - share_before) / (1 - share) * (1 - share / share_before)
        # Never below 0 but by rounding; at time 0 both are 0 and the clean image is left.
        kept = math.sqrt(max(0.0, 1 - share_before - variance))
        image = math.sqrt(share_before) * clean + kept * noise
        if variance > 0:
            image = image + math.sqrt(variance) * _noise_like(x, generator)
    return (image + 1) / 2


def _noise_like(x: Tensor, generator: torch.Generator) -> Tensor:
    return torch.randn(x.shape, generator=generator, device=x.device, dtype=x.dtype)
