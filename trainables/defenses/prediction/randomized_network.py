"""Dropout that stays random when the model is deployed.

Axes: B batch, C channels, H, W, K classes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from trainables.defenses.defense import Defense, DefenseContext
from trainables.deployed.averaging import averaged_surface, log_mean_softmax_of_draws, of_copies
from trainables.deployed.predictor import Prediction, Predictor, Surface, WrappedPredictor
from trainables.errors import InputError
from trainables.parameters import parameter

ALL_PLACES = "all"


class RandomDropout(nn.Module):
    """Dropout whose masks come from a generator in eval mode; without one it passes x on.

    In training mode it is nn.Dropout, on torch's global generator.
    """

    def __init__(self, p: float) -> None:
        super().__init__()
        self.p = p
        self.generator: torch.Generator | None = None

    def forward(self, x: Tensor) -> Tensor:
        """Set each element to zero with probability p and scale the others by 1 / (1 - p)."""
        if self.training:
            return F.dropout(x, self.p)
        if self.generator is None:
            return x
        return x * _kept(x, self.p, self.generator) / (1 - self.p)


def _kept(x: Tensor, p: float, generator: torch.Generator) -> Tensor:
    """Draw the mask of x's shape, true with probability 1 - p to within 2^-17.

    Four elements share one draw of 64 bits: of a small network, drawing the masks one float an
    element takes longer than all else.
    """
    wide = torch.empty(-(-x.numel() // 4), dtype=torch.int64, device=x.device)
    narrow = wide.random_(-(2**63), None, generator=generator).view(torch.int16)
    return narrow[: x.numel()].view(x.shape) >= round(p * 2**16) - 2**15


@dataclass(frozen=True, kw_only=True)
class RandomizedNetwork(Defense):
    """Keep dropout random at inference; predict by the mean softmax of independent draws.

    Batch norm stays in eval mode; dropout alone is random. Attacks inside a training, which craft
    in eval mode, and the learning curves see the mean network: the one without noise.
    With p = 0 nothing is inserted and the plain predictor is deployed.
    Source: Srivastava et al., 2014; random at inference: Gal and Ghahramani, 2016; as a defense:
    Feinman et al., 2017; Dhillon et al., 2018.
    """

    name = "randomized_network"
    slot = "architecture"
    guarantee = "empirical"
    meaning = "Dropout stays random at inference; the mean softmax of several draws predicts."
    source = "Gal & Ghahramani, 2016; as a defense: Dhillon et al., 2018"
    limits = (
        "Attackers who average their gradients over draws meet little of the randomness; two "
        "answers to one image may differ.",
    )
    broken_by = (
        "Athalye et al., 2018: stochastic activation pruning (Dhillon et al., 2018) falls to "
        "gradients averaged over draws (EOT).",
        "Carlini & Wagner, 2017 (Bypassing ten detection methods): dropout at inference, the "
        "best of the ten, is broken by an attack that knows it.",
    )
    needs = ("points",)
    trains = ""  # dropout can be put into a network that was trained without

    p: float = parameter(
        0.3, kind="float", meaning="probability that an activation is dropped", low=0.0, high=0.95
    )
    draws: int = parameter(
        10, kind="int", meaning="draws that a prediction averages", low=1, high=1000
    )
    places: tuple[str, ...] = parameter(
        (ALL_PLACES,), kind="word", many=True,
        meaning="where: layer1, layer2, .., features, or all of them",
    )  # fmt: skip

    def modify_model(self, model: nn.Module, ctx: DefenseContext) -> nn.Module:
        """Insert dropout at the places; the weights and their names stay as they are."""
        del ctx
        if self.p > 0:
            insert: Callable[[str, nn.Module], None] = model.insert  # type: ignore[assignment]
            for place in self._places(model):
                insert(place, RandomDropout(self.p))
        return model

    def deploy(self, predictor: Predictor, ctx: DefenseContext) -> Predictor:
        """Deploy with dropout that draws from the generator of each prediction."""
        del ctx
        if self.p == 0:
            return predictor
        return RandomizedPredictor(predictor, self.draws)

    def _places(self, model: nn.Module) -> tuple[str, ...]:
        points: nn.ModuleDict = model.points  # type: ignore[assignment]
        known = tuple(name for name in points if name != "image")
        if self.places == (ALL_PLACES,):
            return known
        for name in self.places:
            if name not in known:
                raise InputError(
                    f"{self.name}: places has the unknown {name!r}; known: "
                    f"{', '.join((ALL_PLACES, *known))}"
                )
        return tuple(dict.fromkeys(self.places))


class RandomizedPredictor(WrappedPredictor):
    """Another predictor averaged over draws of the dropout in its model."""

    def __init__(self, inner: Predictor, draws: int) -> None:
        super().__init__(inner)
        self.draws = draws
        self.dropouts = [m for m in self.model.modules() if isinstance(m, RandomDropout)]
        self.stochastic = inner.stochastic or bool(self.dropouts)
        self.forward_passes_per_prediction *= draws

    def predict(self, x: Tensor, generator: torch.Generator) -> Prediction:
        """Return the class with the largest mean probability over the draws."""
        return Predictor.predict(self, x, generator)

    def scores(self, x: Tensor, generator: torch.Generator) -> Tensor:
        """Return the log of the mean softmax (B, K) over fresh draws."""
        return log_mean_softmax_of_draws(of_copies(self.draw), x, generator, draws=self.draws)

    def draw(self, x: Tensor, generator: torch.Generator) -> Tensor:
        """Return the scores (B, K) of one draw, independent from image to image."""
        for dropout in self.dropouts:
            dropout.generator = generator
        try:
            return self.inner.scores(x, generator).float()
        finally:
            for dropout in self.dropouts:
                dropout.generator = None

    def certificates(self, x: Tensor, generator: torch.Generator) -> None:
        """Return no certificate: an inner one speaks of the network without noise."""
        del x, generator

    def surfaces(self) -> list[Surface]:
        """Return the log of the mean softmax over 10 to 20 fresh draws, and the mean network.

        The mean network, which is the one without noise, is not what is deployed, but its exact
        gradient costs one pass and breaks about as many images as that of the draws.
        """
        averaged = averaged_surface(of_copies(self.draw), self.draws)
        return [averaged, Surface(self.inner.scores, "exact")]
