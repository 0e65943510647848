"""Small deployed models that the tests of the threats share."""

from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor, nn

from trainables.deployed.predictor import REFUSED, Prediction, Predictor, Surface


class Noisy(Predictor):
    """Adds noise at every answer; whether it says so is up to it."""

    def __init__(self, model: nn.Module, *, declared: bool) -> None:
        super().__init__(model)
        self.stochastic = declared

    def scores(self, x: Tensor, generator: torch.Generator) -> Tensor:
        """Classify noisy images."""
        noise = torch.randn(x.shape, generator=generator, device=x.device)
        scores: Tensor = self.model(x + 0.1 * noise)
        return scores


class OneRow(Predictor):
    """Gives one row of scores for every image."""

    def __init__(self, row: Tensor) -> None:
        super().__init__(nn.Identity())
        self.row = row

    def scores(self, x: Tensor, generator: torch.Generator) -> Tensor:
        """Return scores (B, K)."""
        return self.row.expand(len(x), -1)


def brightness(x: Tensor) -> Tensor:
    """Return the mean pixel of each image (B,)."""
    return x.flatten(1).mean(1)


class Rejecting(Predictor):
    """Rejects images whose score is above a limit, and says how far they are from it."""

    rejects = True

    def __init__(self, model: nn.Module, score: Callable[[Tensor], Tensor], limit: float) -> None:
        super().__init__(model)
        self.score, self.limit = score, limit

    def predict(self, x: Tensor, generator: torch.Generator) -> Prediction:
        """Classify, and reject by the score."""
        found, score = super().predict(x, generator), self.score(x)
        label = found.label.masked_fill(score > self.limit, REFUSED)
        return replace(found, label=label, reject_score=score)

    def surfaces(self) -> list[Surface]:
        """Return the scores with the distance from the limit."""
        return [
            Surface(self.scores, "exact", reject_margin=lambda x, g: self.score(x) - self.limit)
        ]
