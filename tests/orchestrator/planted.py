"""A defense that only looks robust: its scores are right, and its gradient points elsewhere.

What a screen compares are attacks by gradients, and all of them are led astray alike. The network
behind it is the undefended one, so that every difference to that one is the lie's.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from trainables.defenses.defense import Defense, DefenseContext
from trainables.deployed.predictor import Predictor, Surface, WrappedPredictor

if TYPE_CHECKING:
    pass

NAME = "tests.orchestrator.planted:Distracting"
STRENGTH = 1.5
"""Of the lie beside the true gradient. Much stronger, attacks by gradients break less than random
noise does, and the screen sees it already."""


class DistractingPredictor(WrappedPredictor):
    """Adds a term to each score that is always zero, but has a gradient."""

    def surfaces(self) -> list[Surface]:
        """Return the scores as deployed, with the gradient of something else in theirs."""
        return [Surface(self.scores, "exact")]

    def scores(self, x: Tensor, generator: torch.Generator) -> Tensor:
        """Return the inner scores."""
        honest = self.inner.scores(x, generator)
        fixed = torch.Generator().manual_seed(0)
        weights = torch.randn(x[0].numel(), honest.shape[1], generator=fixed).to(x)
        distraction = STRENGTH * x.flatten(1) @ weights
        return honest + distraction - distraction.detach()


@dataclass(frozen=True, kw_only=True)
class Distracting(Defense):
    """Lead attacks by gradients astray."""

    name = NAME
    slot = "deployment"
    guarantee = "empirical"
    meaning = "Nothing is defended; the gradient lies."
    source = "this test"

    def deploy(self, predictor: Predictor, ctx: DefenseContext) -> Predictor:
        """Wrap the predictor."""
        del ctx
        return DistractingPredictor(predictor)
