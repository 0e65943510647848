"""Gaussian noise as a layer, and the predictor that lets a classifier vote under noise.

Axes: B batch, C channels, H, W, K classes.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from trainables.deployed.averaging import averaged_surface, log_mean_softmax_of_draws
from trainables.deployed.predictor import Prediction, Predictor, Surface, WrappedPredictor
from trainables.deployed.votes import count_votes

_ATTACK_DRAWS = 10
"""Draws that an attack's gradient is averaged over; 20 broke no more (PGD-L2 on MNIST under noise
of 0.25: 4, 7, 14, 23, 23, 23 of 23 at sizes 0.5 to 3 with 10, and 4, 6, 16, 22, 23, 23 with 20)."""


class GaussianNoise(nn.Module):
    """Adds noise of N(0, sigma^2) to each element of (B, ..).

    In training mode it draws from torch's global generator, once an image. In eval mode it needs a
    generator, and returns `copies` noisy copies of the batch, (copies B, ..), so that what lies
    before it is computed once for all of them; without a generator it passes x on.
    """

    def __init__(self, sigma: float) -> None:
        super().__init__()
        self.sigma = sigma
        self.generator: torch.Generator | None = None
        self.copies = 1

    def forward(self, x: Tensor) -> Tensor:
        """Add the noise."""
        if self.training:
            return x + self.sigma * torch.randn_like(x)
        if self.generator is None:
            return x
        return noisy_copies(x, self.copies, self.sigma, self.generator)


def noisy_copies(x: Tensor, count: int, sigma: float, generator: torch.Generator) -> Tensor:
    """Return x (B, ..) with independent noise, `count` times over (count B, ..); nothing is cut."""
    noise = torch.randn((count, *x.shape), generator=generator, device=x.device, dtype=x.dtype)
    return noise.mul_(sigma).add_(x).flatten(0, 1)


class VotingPredictor(WrappedPredictor):
    """Another predictor asked under noise: the class with the most votes wins.

    Probabilities are the mean softmax over the same draws.
    """

    def __init__(self, inner: Predictor, draws: int) -> None:
        super().__init__(inner)
        self.draws = draws
        self.stochastic = True
        self.forward_passes_per_prediction *= draws

    def draw(self, x: Tensor, count: int, generator: torch.Generator) -> Tensor:
        """Return the scores (count, B, K) of draws that are independent from image to image."""
        raise NotImplementedError

    def predict(self, x: Tensor, generator: torch.Generator) -> Prediction:
        """Return the winner of the votes; PREDICT of a subclass may abstain."""
        votes = count_votes(self.draw, x, generator, draws=self.draws)
        return Prediction(self.elect(votes.counts), votes.log_probabilities)

    def elect(self, counts: Tensor) -> Tensor:
        """Return the label (B,) of votes (B, K), or REFUSED where it abstains."""
        return counts.argmax(1)

    def settling_draws(self, radius: float, distance: float, flip: float) -> int | None:
        """Return draws with which the vote wavers with probability `flip` at most, at an L2
        distance from an image that is certified at a radius; None where that is not known.
        """
        del radius, distance, flip
        return None

    def scores(self, x: Tensor, generator: torch.Generator) -> Tensor:
        """Return the log of the mean softmax (B, K) over fresh draws."""
        return log_mean_softmax_of_draws(self.draw, x, generator, draws=self.draws)

    def surfaces(self) -> list[Surface]:
        """Return the log of the mean softmax over 10 fresh draws, and the noiseless network.

        The latter is not what is deployed, but its exact gradient costs one pass, and what fools
        it often fools the vote. Source: Salman et al., 2019 (the mean softmax is what to attack).
        """
        return [averaged_surface(self.draw, _ATTACK_DRAWS), Surface(self.inner.scores, "exact")]
