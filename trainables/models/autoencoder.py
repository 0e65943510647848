"""A small variational autoencoder: an encoder that is thrown away, and a decoder that draws.

Axes: B batch, C channels, H, W, L latent dimensions.
"""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

_HIDDEN = 256
_FILTERS = 16
_COARSE = 8
"""Side, about, of the maps that a decoder of larger images begins with."""
_MOST_SEEN = 32
"""Side that the encoder sees larger images at."""


class Decoder(nn.Module):
    """Latents (B, L) -> images (B, C, H, W) in [0, 1].

    Two dense layers; the maps of images above some 8 pixels are then doubled, with a convolution
    each time.
    """

    def __init__(self, latent: int, shape: tuple[int, int, int]) -> None:
        super().__init__()
        channels, height, width = shape
        doublings = max(0, round(math.log2(min(height, width) / _COARSE)))
        self.sizes = [
            (math.ceil(height / 2**level), math.ceil(width / 2**level))
            for level in range(doublings, -1, -1)
        ]
        maps = _FILTERS if doublings else channels
        first = self.sizes[0]
        self.dense = nn.Sequential(
            nn.Linear(latent, _HIDDEN), nn.ReLU(), nn.Linear(_HIDDEN, maps * first[0] * first[1])
        )
        self.convolutions = nn.ModuleList(
            nn.Conv2d(_FILTERS, channels if level == doublings - 1 else _FILTERS, 3, padding=1)
            for level in range(doublings)
        )

    def forward(self, latent: Tensor) -> Tensor:
        """Draw images."""
        drawn: Tensor = self.dense(latent)
        drawn = drawn.view(len(latent), -1, *self.sizes[0])
        for convolution, size in zip(self.convolutions, self.sizes[1:], strict=True):
            drawn = convolution(F.interpolate(drawn.relu(), size=size))
        return drawn.sigmoid()


class Autoencoder(nn.Module):
    """Encoder and decoder, trained together (Kingma and Welling, 2014)."""

    def __init__(self, latent: int, shape: tuple[int, int, int]) -> None:
        super().__init__()
        channels, height, width = shape
        self.seen = (min(height, _MOST_SEEN), min(width, _MOST_SEEN))
        self.encoder = nn.Sequential(
            nn.Flatten(),
            nn.Linear(channels * self.seen[0] * self.seen[1], _HIDDEN),
            nn.ReLU(),
            nn.Linear(_HIDDEN, 2 * latent),
        )
        self.decoder = Decoder(latent, shape)

    def loss(self, x: Tensor, noise: float, generator: torch.Generator) -> Tensor:
        """Return the mean negative evidence bound () of images (B, C, H, W), constants left out.

        The pixels are normal about the decoder's image with standard deviation `noise`.
        """
        mean, log_variance = self.encoder(F.adaptive_avg_pool2d(x, self.seen)).chunk(2, dim=1)
        drawn = torch.randn(mean.shape, generator=generator, device=x.device)
        restored = self.decoder(mean + (log_variance / 2).exp() * drawn)
        error = (restored - x).square().flatten(1).sum(1) / (2 * noise**2)
        divergence = (mean.square() + log_variance.exp() - 1 - log_variance).sum(1) / 2
        found: Tensor = (error + divergence).mean()
        return found
