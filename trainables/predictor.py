"""The deployed model: what it answers, and what an attacker who knows it may differentiate.

Axes: B batch, C channels, H, W, K classes.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

REFUSED = -1
"""Label of an image that the deployed model rejects or abstains on."""
PREDICTION_SEED = 0
"""The declared seed of `probabilities`."""


@dataclass(frozen=True, slots=True, eq=False)
class Prediction:
    """What the deployed model says of a batch."""

    label: Tensor
    """(B,) class, or REFUSED."""
    log_probabilities: Tensor
    """(B, K)"""
    reject_score: Tensor | None = None
    """(B,) larger is more suspicious; None where the predictor never rejects."""


@dataclass(frozen=True, slots=True, eq=False)
class Surface:
    """One way to differentiate the deployed model."""

    scores: Callable[[Tensor, torch.Generator], Tensor]
    """(x (B, C, H, W), generator) -> scores (B, K), softmax not yet applied."""
    kind: Literal["exact", "eot", "bpda"]
    draws: int = 1
    """Draws that a gradient is averaged over."""


class Predictor:
    """A trained model deployed as it is; a defense that deploys otherwise wraps it in its own."""

    forward_passes_per_prediction = 1
    stochastic = False

    def __init__(self, model: nn.Module) -> None:
        self.model = model.eval().requires_grad_(False)

    def predict(self, x: Tensor, generator: torch.Generator) -> Prediction:
        """Classify x (B, C, H, W) in [0, 1]."""
        with torch.no_grad():
            log_probabilities = self.scores(x, generator).log_softmax(1)
        return Prediction(log_probabilities.argmax(1), log_probabilities)

    def scores(self, x: Tensor, generator: torch.Generator) -> Tensor:
        """Give scores (B, K) before the softmax, differentiable with respect to x."""
        del generator  # a deterministic predictor draws nothing
        scores: Tensor = self.model(x)
        return scores

    def probabilities(self, x: Tensor) -> Tensor:
        """Give class probabilities (B, K), with a fixed declared seed where there is randomness."""
        generator = torch.Generator(x.device).manual_seed(PREDICTION_SEED)
        return self.predict(x, generator).log_probabilities.exp()

    def certify(self, x: Tensor, generator: torch.Generator) -> Tensor | None:
        """Give a certified radius an image (B,), or None where there is no certificate."""
        del x, generator
        return None

    def surfaces(self) -> list[Surface]:
        """List what an attacker who knows the defense may differentiate; the worst counts."""
        return [Surface(self.scores, "exact")]
