"""Images diffused with noise and taken back by a diffusion model before they are classified.

Axes: B batch, D draws, C channels, H, W, K classes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from trainables.defenses.defense import Defense, DefenseContext
from trainables.defenses.prediction.diffusion_process import noise_prediction_loss, purify
from trainables.defenses.prediction.image_network import (
    NetworkSettings,
    filters_for,
    shared_network,
)
from trainables.deployed.averaging import Answer, log_mean_softmax_of_draws, of_copies
from trainables.deployed.predictor import Prediction, Predictor, Surface, WrappedPredictor
from trainables.models.unet import UNet
from trainables.parameters import parameter

SCREEN_POINTS = 64
"""Points that a screen attacks: each of its gradients costs draws x steps passes of the network."""
_UPDATES = 1200
"""Optimiser steps that a training takes where no epochs are given."""


@dataclass(frozen=True, kw_only=True)
class DiffusionPurification(Defense):
    """Add noise as a diffusion model does up to time t, undo it with that model, then classify.

    The diffusion model is trained on the training set, before any filter, without labels; all
    trials of one data set, seed and setting share it. Source: Nie et al., 2022 (DiffPure).
    """

    name = "diffusion_purification"
    slot = "deployment"
    guarantee = "empirical"
    meaning = "Noise each image and denoise it with a diffusion model, then classify the result."
    source = "Nie et al., 2022; the diffusion model: Ho et al., 2020"
    limits = (
        "Its robustness depends on how the gradient is taken through its steps, and every "
        "answer costs many passes.",
    )
    broken_by = (
        "Lee & Kim, 2023 (Robust evaluation of diffusion-based adversarial purification): "
        "stronger gradients bring its reported robustness down considerably.",
    )

    t: float = parameter(
        0.1, kind="float", low=0.001, high=0.999,
        meaning="time up to which images are noised, of a process that ends in noise at 1",
    )  # fmt: skip
    steps: int = parameter(5, kind="int", low=1, high=1000, meaning="reverse steps, equal in time")
    draws: int = parameter(
        4, kind="int", low=1, high=1000, meaning="purified copies whose softmax is averaged"
    )
    epochs: int | None = parameter(
        None, kind="int", low=1, high=100_000,
        meaning="of the diffusion model's training; not given: some 1,200 steps",
    )  # fmt: skip

    def deploy(self, predictor: Predictor, ctx: DefenseContext) -> Predictor:
        """Wrap the predictor behind the shared diffusion model."""
        network = shared_network(
            ctx,
            "diffusion_model",
            NetworkSettings(
                filters=filters_for(ctx),
                most_halvings=3,
                time=True,
                epochs=self.epochs,
            ),
            noise_prediction_loss,
            trained_for={},
            updates=_UPDATES,
        )
        return PurifyingPredictor(predictor, network, t=self.t, steps=self.steps, draws=self.draws)


class PurifyingPredictor(WrappedPredictor):
    """Another predictor, asked about several purified copies of each image."""

    def __init__(
        self, inner: Predictor, network: UNet, *, t: float, steps: int, draws: int
    ) -> None:
        """Average the softmax of `inner` over `draws` purifications to time t and back."""
        super().__init__(inner)
        assert not inner.rejects, "what rejects stands in the same slot of a stack"
        self.network, self.t, self.steps, self.draws = network, t, steps, draws
        self.stochastic = True
        self.max_screen_points = SCREEN_POINTS
        self.forward_passes_per_prediction = draws * (steps + inner.forward_passes_per_prediction)

    def purify(self, x: Tensor, generator: torch.Generator) -> Tensor:
        """Return one purified copy of each image (B, C, H, W)."""
        return purify(self.network, x, t=self.t, steps=self.steps, generator=generator)

    def predict(self, x: Tensor, generator: torch.Generator) -> Prediction:
        """Classify by the mean softmax over fresh draws."""
        with torch.no_grad():
            log_probabilities = self.scores(x, generator).log_softmax(1)
        return Prediction(log_probabilities.argmax(1), log_probabilities)

    def scores(self, x: Tensor, generator: torch.Generator) -> Tensor:
        """Return the log of the mean softmax over fresh draws (B, K)."""
        return self._averaged(self.inner.scores, self.purify, x, generator)

    def certificates(self, x: Tensor, generator: torch.Generator) -> None:
        """Return none: a certificate of the purified image says nothing of the image."""
        del x, generator
        return None

    def surfaces(self) -> list[Surface]:
        """Return each inner surface behind the purification: its full gradient, and the identity.

        Both draw afresh at every call (Athalye et al., 2018: EOT, and BPDA with EOT).
        """
        return [
            self._surface(inner, kind)
            for inner in self.inner.surfaces()
            for kind in ("eot", "bpda")
        ]

    def _surface(self, inner: Surface, kind: Literal["eot", "bpda"]) -> Surface:
        purified = self.purify if kind == "eot" else self._purify_straight_through
        return Surface(
            lambda x, generator: self._averaged(inner.scores, purified, x, generator),
            "bpda" if inner.kind == "bpda" else kind,
            draws=self.draws * inner.draws,
        )

    def _purify_straight_through(self, x: Tensor, generator: torch.Generator) -> Tensor:
        with torch.no_grad():
            purified = self.purify(x, generator)
        return purified + (x - x.detach())

    def _averaged(
        self, scores: Answer, purified: Answer, x: Tensor, generator: torch.Generator
    ) -> Tensor:
        def answer(copies: Tensor, draw: torch.Generator) -> Tensor:
            return scores(purified(copies, draw), draw)

        return log_mean_softmax_of_draws(of_copies(answer), x, generator, draws=self.draws)
