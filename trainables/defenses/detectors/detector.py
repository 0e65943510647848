"""What every detector of attacks shares: a suspicion score, its threshold, and the refusal.

Axes: B batch, N calibration images.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor

from trainables.defenses.defense import DefenseContext
from trainables.deployed.predictor import REFUSED, Prediction, Predictor, Surface, WrappedPredictor
from trainables.errors import InputError, PredictorError
from trainables.storage.artefacts import Artefact
from trainables.training.evaluation import in_batches

Score = Callable[[Tensor, torch.Generator], Tensor]
"""(x (B, C, H, W), generator) -> (B,), larger is more suspicious, differentiable in x."""
_ROUNDING = 1e-9
"""Added before rounding down, so that 0.05 of 20 is 1."""


def fit_threshold(scores: Tensor, rate: float) -> float:
    """Return the threshold above which a clean image's score lies with probability <= rate.

    scores (N,) are those of clean calibration images. The threshold is their k-th smallest,
    k = N + 1 - floor(rate (N + 1)): the split-conformal quantile, whose bound holds for a new
    image drawn like the others, whatever the distribution; so fewer than rate N of the
    calibration images themselves lie above it. Source: Vovk et al., 2005; Lei et al., 2018.

    Raises InputError where N < 1 / rate - 1: so few images bound no such rate. PredictorError for
    a score that is not finite.
    """
    if not bool(scores.isfinite().all()):
        raise PredictorError("a detector returns scores that are not finite on calibration images")
    rejected = math.floor(rate * (len(scores) + 1) + _ROUNDING)
    if rejected < 1:
        least = math.ceil(1e4 / (len(scores) + 1)) / 1e4
        raise InputError(
            f"a false-positive rate of {rate:g} cannot be set on {len(scores)} calibration images; "
            f"raise it to {least:g} or more"
        )
    return float(scores.sort().values[len(scores) - rejected])


def threshold_on_calibration(score: Score, rate: float, ctx: DefenseContext) -> float:
    """Fit the threshold of a score to the calibration pool, with the purpose's own generator."""

    def fit() -> Artefact:
        assert ctx.pools.calibration is not None
        generator = ctx.generator("detector")
        with torch.no_grad():
            scores = in_batches(lambda x: score(x, generator), ctx.pools.calibration)
        return Artefact(values={"threshold": fit_threshold(scores, rate)})

    return float(ctx.fitted("threshold", fit).values["threshold"])


class DetectingPredictor(WrappedPredictor):
    """Another predictor that refuses the images whose score lies above a threshold."""

    def __init__(self, inner: Predictor, score: Score, threshold: float, *, passes: int) -> None:
        """Watch `inner`; `passes` are the forward passes that a score takes besides its answer."""
        super().__init__(inner)
        if inner.rejects:
            raise PredictorError(
                f"{type(inner).__name__} rejects images already; two detectors have no one score"
            )
        self.score = score
        self.threshold = threshold
        self.forward_passes_per_prediction += passes
        self.rejects = True

    def predict(self, x: Tensor, generator: torch.Generator) -> Prediction:
        """Return the inner answer, refused where the score is above the threshold."""
        answer = self.inner.predict(x, generator)
        with torch.no_grad():
            score = self.score(x, generator)
        label = answer.label.masked_fill(score > self.threshold, REFUSED)
        return replace(answer, label=label, reject_score=score)

    def certificates(self, x: Tensor, generator: torch.Generator) -> None:
        """Return none: what an inner certificate proves right may still be rejected."""
        del x, generator

    def reject_margin(self, x: Tensor, generator: torch.Generator) -> Tensor:
        """Return the score minus the threshold (B,): positive where the image is refused."""
        return self.score(x, generator) - self.threshold

    def surfaces(self) -> list[Surface]:
        """Return the inner surfaces, each with the margin by which an image is refused."""
        return [replace(s, reject_margin=self.reject_margin) for s in self.inner.surfaces()]
