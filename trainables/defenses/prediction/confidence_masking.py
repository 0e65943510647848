"""Answers that say less of how sure the model is.

Axes: B batch, C channels, H, W, K classes.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from trainables.defenses.defense import Defense, DefenseContext
from trainables.deployed.predictor import Prediction, Predictor, WrappedPredictor
from trainables.parameters import parameter

SMALLEST = 1e-6
"""What a probability that rounds to 0 is given, so that its logarithm is finite; and what the
first class has more, so that rounding never makes another its equal."""


@dataclass(frozen=True, kw_only=True)
class ConfidenceMasking(Defense):
    """Answer with the `top_k` largest probabilities, rounded; the others share the rest equally.

    It takes away what an attacker on membership reads from the confidence, not what he reads from
    the label. It is not a defense against evasion: whoever knows it attacks the scores before it.
    Source: Shokri et al., Membership inference attacks against machine learning models, 2017,
    section VIII-A (restrict the prediction vector, coarsen its precision).
    """

    name = "confidence_masking"
    slot = "deployment"
    guarantee = "empirical"
    meaning = "Answer with the largest probabilities alone, rounded; the label stays."
    source = "Shokri et al., 2017"
    limits = ("It hides numbers, not labels, and is not a defense against changed images.",)
    broken_by = (
        "Choquette-Choo et al., 2021 (Label-only membership inference): masking the confidence "
        "is got round by asking for labels alone.",
    )

    top_k: int = parameter(
        3, kind="int", low=1, high=1_000_000,
        meaning="classes whose probability is returned; more than there are returns all",
    )  # fmt: skip
    digits: int = parameter(
        1, kind="int", low=0, high=6, meaning="decimals that probabilities are rounded to"
    )

    def deploy(self, predictor: Predictor, ctx: DefenseContext) -> Predictor:
        """Mask what the predictor answers."""
        del ctx
        return MaskedPredictor(predictor, self.top_k, self.digits)


class MaskedPredictor(WrappedPredictor):
    """Another predictor whose probabilities are masked.

    Label, rejection, certificates, scores and surfaces are the inner ones: the masked
    probabilities have no gradient, and nobody who knows of them attacks them.
    """

    def __init__(self, inner: Predictor, top_k: int, digits: int) -> None:
        super().__init__(inner)
        self.top_k = top_k
        self.digits = digits

    def predict(self, x: Tensor, generator: torch.Generator) -> Prediction:
        """Return the inner answer with its probabilities masked."""
        inner = self.inner.predict(x, generator)
        masked = mask_probabilities(inner.log_probabilities.exp(), self.top_k, self.digits)
        return replace(inner, log_probabilities=masked.log())


def mask_probabilities(probabilities: Tensor, top_k: int, digits: int) -> Tensor:
    """Mask probabilities (B, K): keep the `top_k` largest, share the rest equally, round.

    Rounding is to `digits` decimals, after which rows are brought back to a sum of 1. Nothing is
    below 1e-6 before that, and the first class stays the first, by 1e-6 where rounding made it
    the equal of another.
    """
    classes = probabilities.shape[1]
    values, order = probabilities.topk(min(top_k, classes), dim=1)
    rest = (1 - values.sum(1, keepdim=True)).clamp_min(0)
    others = (rest / max(1, classes - top_k)).expand_as(probabilities)
    rounded = others.scatter(1, order, values).round(decimals=digits).clamp_min(SMALLEST)
    first = torch.zeros_like(rounded).scatter(1, order[:, :1], SMALLEST)
    masked: Tensor = (rounded + first) / (rounded + first).sum(1, keepdim=True)
    return masked
