"""Scores divided by a temperature before the softmax."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
from scipy import optimize
from torch import Tensor
from torch.nn import functional as F

from trainables.defenses.defense import Defense, DefenseContext
from trainables.deployed.predictor import Prediction, Predictor, Surface, WrappedPredictor
from trainables.parameters import parameter
from trainables.storage.artefacts import Artefact

FIT = "fit"
_LOG_T_BOUNDS = (math.log(0.01), math.log(100.0))


@dataclass(frozen=True, kw_only=True)
class Temperature(Defense):
    """Divide the scores by T; the predicted class never changes.

    Source: Guo et al., 2017, section 4.2; as a membership defense: Shokri et al., 2017.
    """

    name = "temperature"
    slot = "deployment"
    guarantee = "empirical"
    meaning = "Divide the scores by T before the softmax, fixed or fitted on calibration."
    source = "Guo et al., 2017; against membership inference: Shokri et al., 2017"
    limits = (
        "It changes no predicted class, so that it stops no adversarial image and no attack "
        "that reads labels alone.",
    )
    broken_by = (
        "Carlini & Wagner, 2017 (Towards evaluating): robustness from a softmax temperature is "
        "gone for an attack on the scores before it.",
        "Choquette-Choo et al., 2021: membership is inferred from labels alone, which a "
        "temperature leaves as they are.",
    )

    T: float | str = parameter(
        1.5, kind="float", meaning="temperature, or fit: minimises the calibration pool's NLL",
        low=0.001, high=1000.0, words=(FIT,),
    )  # fmt: skip

    @property
    def needs_calibration(self) -> bool:
        """Whether T is fitted."""
        return self.T == FIT

    def deploy(self, predictor: Predictor, ctx: DefenseContext) -> Predictor:
        """Wrap the predictor, with T fitted on the calibration pool where it is to be."""
        if self.T != FIT:
            return TemperedPredictor(predictor, float(self.T))
        fitted = ctx.fitted(
            self.name, lambda: Artefact(values={"T": fit_temperature(predictor, ctx)})
        )
        return TemperedPredictor(predictor, float(fitted.values["T"]))


def fit_temperature(predictor: Predictor, ctx: DefenseContext) -> float:
    """Find the T that minimises the calibration pool's NLL, over log T in a bounded search."""
    assert ctx.pools.calibration is not None
    scores, labels = ctx.scores(predictor, ctx.pools.calibration), ctx.pools.calibration.labels
    scores = scores.double()

    def nll(log_t: float) -> float:
        return float(F.cross_entropy(scores / math.exp(log_t), labels))

    found = optimize.minimize_scalar(nll, bounds=_LOG_T_BOUNDS, method="bounded")
    # T = 1 stands where the search ends no better, so that fitting never raises the NLL.
    return math.exp(found.x) if found.fun < nll(0.0) else 1.0


class TemperedPredictor(WrappedPredictor):
    """Another predictor with its scores divided by T."""

    def __init__(self, inner: Predictor, T: float) -> None:
        super().__init__(inner)
        self.T = T

    def predict(self, x: Tensor, generator: torch.Generator) -> Prediction:
        """Return the inner answer with its probabilities tempered.

        Label and rejection are the inner ones: of scores over a large T, float32 makes ties.
        """
        inner = self.inner.predict(x, generator)
        return replace(inner, log_probabilities=(inner.log_probabilities / self.T).log_softmax(1))

    def scores(self, x: Tensor, generator: torch.Generator) -> Tensor:
        """Return the inner scores over T."""
        return self.inner.scores(x, generator) / self.T

    def surfaces(self) -> list[Surface]:
        """Return the inner surfaces, each over T."""
        return [self._tempered(surface) for surface in self.inner.surfaces()]

    def _tempered(self, surface: Surface) -> Surface:
        return replace(surface, scores=lambda x, g: surface.scores(x, g) / self.T)
