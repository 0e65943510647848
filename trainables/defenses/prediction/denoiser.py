"""Images cleaned by a small denoising network before they are classified.

Axes: B batch, C channels, H, W, K classes.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn import functional as F

from trainables.defenses.defense import Defense, DefenseContext
from trainables.defenses.prediction.image_network import (
    Loss,
    NetworkSettings,
    filters_for,
    shared_network,
)
from trainables.deployed.predictor import Prediction, Predictor, Surface, WrappedPredictor
from trainables.models.unet import UNet, in_parts
from trainables.parameters import PIXELS, parameter

_UPDATES = 800
"""Optimiser steps that a training takes where no epochs are given."""


@dataclass(frozen=True, kw_only=True)
class Denoiser(Defense):
    """Train a network to take noise off training images and put it before the classifier.

    It is trained on the training set, before any filter, with noise of standard deviation sigma:
    Gaussian on one half of each batch, uniform on the other; no classifier plays a part, so that
    trials share it. Source: Meng and Chen, 2017 (the reformer); a U-Net that predicts the noise:
    Liao et al., 2018. Their loss on the classifier's scores made no attack harder on the digits.
    """

    name = "denoiser"
    slot = "deployment"
    guarantee = "empirical"
    meaning = "A network trained to take noise off images cleans each one before it is classified."
    source = "Meng & Chen, 2017; Liao et al., 2018"
    limits = ("It was trained on random noise, which is not what an attacker adds.",)
    broken_by = (
        "Carlini & Wagner, 2017 (MagNet and Efficient defenses are not robust): a denoising "
        "autoencoder in front falls to attacks through it.",
        "Athalye & Carlini, 2018: the high-level guided denoiser of Liao et al., 2018, falls to "
        "a white-box attack through it.",
    )

    sigma: float | None = parameter(
        None, kind="float", low=0.0, high=1.0, unit=PIXELS,
        meaning="standard deviation of the noise in training; not given: the standard radius",
    )  # fmt: skip
    epochs: int | None = parameter(
        None, kind="int", low=1, high=100_000,
        meaning="of the network's training; not given: some 800 steps",
    )  # fmt: skip

    def deploy(self, predictor: Predictor, ctx: DefenseContext) -> Predictor:
        """Wrap the predictor behind the trained network."""
        sigma = ctx.dataset.radius if self.sigma is None else self.sigma
        network = shared_network(
            ctx,
            "denoiser",
            NetworkSettings(
                filters=filters_for(ctx),
                most_halvings=3,
                time=False,
                epochs=self.epochs,
            ),
            denoising_loss(sigma),
            trained_for={"sigma": sigma},
            updates=_UPDATES,
        )
        return DenoisingPredictor(predictor, network)


def denoising_loss(sigma: float) -> Loss:
    """Make the loss: the squared error per pixel, of noise with standard deviation sigma.

    It is uniform, within sqrt(3) sigma, on the first half of a batch and Gaussian on the others.
    """

    def loss(network: UNet, x: Tensor, generator: torch.Generator) -> Tensor:
        noise = sigma * torch.randn(x.shape, generator=generator, device=x.device)
        half = len(x) // 2
        uniform = torch.rand(x[:half].shape, generator=generator, device=x.device)
        noise[:half] = sigma * math.sqrt(3) * (2 * uniform - 1)
        return F.mse_loss(denoise(network, x + noise), x)

    return loss


def denoise(network: UNet, x: Tensor) -> Tensor:
    """Add the network's correction to images (B, C, H, W) in [0, 1].

    The result may leave that range a little: clamping it would only hide gradients.
    """
    return x + in_parts(network, x)


class DenoisingPredictor(WrappedPredictor):
    """Another predictor that sees denoised images."""

    def __init__(self, inner: Predictor, network: UNet) -> None:
        super().__init__(inner)
        self.network = network
        self.forward_passes_per_prediction += 1

    def predict(self, x: Tensor, generator: torch.Generator) -> Prediction:
        """Return the inner answer on the denoised images."""
        with torch.no_grad():
            return self.inner.predict(denoise(self.network, x), generator)

    def scores(self, x: Tensor, generator: torch.Generator) -> Tensor:
        """Return the inner scores of the denoised images, differentiable through the network."""
        return self.inner.scores(denoise(self.network, x), generator)

    def certificates(self, x: Tensor, generator: torch.Generator) -> None:
        """Return none: a certificate of the denoised image says nothing of the image."""
        del x, generator
        return None

    def surfaces(self) -> list[Surface]:
        """Return each inner surface behind the network: its full gradient, and the identity's."""
        inner = self.inner.surfaces()
        full = [_behind(lambda x: denoise(self.network, x), surface) for surface in inner]
        bpda = [_behind(self._denoise_straight_through, surface) for surface in inner]
        return [*full, *(replace(surface, kind="bpda") for surface in bpda)]

    def _denoise_straight_through(self, x: Tensor) -> Tensor:
        with torch.no_grad():
            restored = denoise(self.network, x)
        return restored + (x - x.detach())


def _behind(step: Callable[[Tensor], Tensor], surface: Surface) -> Surface:
    """Return a surface of the images that a step has changed."""
    margin = surface.reject_margin
    return replace(
        surface,
        scores=lambda x, generator: surface.scores(step(x), generator),
        reject_margin=margin and (lambda x, generator: margin(step(x), generator)),
    )
