"""A decoder that draws images like those of a data set, trained on some that the target never saw.

Axes: B batch, C channels, H, W, L latent dimensions.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch

from trainables.datasets import LabelledImages
from trainables.datasets.images import content_hash
from trainables.errors import TrainingDivergedError
from trainables.models.autoencoder import Autoencoder, Decoder
from trainables.storage.artefacts import Artefact
from trainables.storage.identity import identity_hash, seed_from
from trainables.training.adam import adam_along_cosine
from trainables.training.modes import seeded
from trainables.trial.context import TrialContext

VERSION = 1
"""Raised when the results of the training change, so that old decoders are not mistaken for new."""
_SETTINGS: Mapping[str, Any] = {
    "latent": 16, "noise": 0.1, "steps": 1500, "batch_size": 64, "learning_rate": 2e-3,
}  # fmt: skip


@dataclass(frozen=True, slots=True, eq=False)
class GenerativePrior:
    """A trained decoder."""

    decoder: Decoder
    latent: int
    """L"""
    rows: int
    """Images that it learnt from."""
    loss: float
    """Loss of the last batch: the negative evidence bound in nats, constants left out."""


def generative_prior(ctx: TrialContext, data: LabelledImages) -> GenerativePrior:
    """Train the decoder of a variational autoencoder on images, or take that of an earlier trial.

    Labels play no part, and no defense: trials of one seed share it. Raises TrainingDivergedError
    where the loss is not finite. Source: Zhang et al., The secret revealer, 2020 (a generative
    adversarial network there); Kingma and Welling, 2014.
    """
    identity = {
        "version": VERSION,
        "data": content_hash(data),
        "settings": dict(_SETTINGS),
        "seed": ctx.spec.seed,
    }
    artefact = ctx.cached(
        "decoder", identity, lambda: _fit(ctx, data, seed_from(identity_hash(identity)))
    )
    with seeded(0, ctx.device):  # the initial weights are overwritten
        decoder = Decoder(_SETTINGS["latent"], ctx.dataset.shape).to(ctx.device)
    decoder.load_state_dict(dict(artefact.tensors))
    decoder.eval().requires_grad_(False)
    return GenerativePrior(decoder, _SETTINGS["latent"], len(data), float(artefact.values["loss"]))


def _fit(ctx: TrialContext, data: LabelledImages, seed: int) -> Artefact:
    steps, size = _SETTINGS["steps"], min(_SETTINGS["batch_size"], len(data))
    with seeded(seed, ctx.device) as generator:
        network = Autoencoder(_SETTINGS["latent"], ctx.dataset.shape).to(ctx.device)
        rate = _SETTINGS["learning_rate"]
        moving = adam_along_cosine(network, learning_rate=rate, steps=steps, generator=generator)
        for _ in range(steps):
            rows = torch.randint(len(data), (size,), generator=generator, device=ctx.device)
            loss = network.loss(data.images(rows), _SETTINGS["noise"], generator)
            moving.step(loss)
    last = float(loss.detach())
    if not math.isfinite(last):
        raise TrainingDivergedError(f"the loss of the decoder is {last} after {steps} steps")
    return Artefact(network.decoder.state_dict(), {"loss": last})
