"""Refusal of images on which the classifier's scores are low altogether.

Axes: B batch, C channels, H, W, K classes.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from trainables.defenses.defense import Defense, DefenseContext
from trainables.defenses.detectors.detector import (
    DetectingPredictor,
    Score,
    threshold_on_calibration,
)
from trainables.deployed.predictor import Predictor
from trainables.parameters import parameter


@dataclass(frozen=True, kw_only=True)
class EnergyDetector(Defense):
    """Reject an image whose energy, -T logsumexp(scores / T), is above that of clean images.

    The scores are the network's own, before any softmax: averaged probabilities have no energy.
    Made for images of other data sets: an adversarial image that is confidently misclassified
    has a low energy. Source: Liu et al., 2020, equation 4.
    """

    name = "energy_detector"
    slot = "deployment"
    guarantee = "empirical"
    meaning = "Reject images on which all of the classifier's scores are low (high energy)."
    source = "Liu et al., 2020"
    limits = (
        "It was made for images of other data sets: an adversarial image that is surely "
        "misclassified has a low energy.",
    )
    broken_by = (
        "Sehwag et al., 2019 (Robustness of open-world machine learning): small changes of "
        "unusual images get them past detectors of unusual images.",
        "Carlini & Wagner, 2017 (Bypassing ten detection methods): detectors fall to attacks "
        "that aim at being accepted.",
    )

    T: float = parameter(
        1.0, kind="float", meaning="temperature of the energy", low=0.001, high=1000.0
    )
    false_positive_rate: float = parameter(
        0.05, kind="float", meaning="share of clean images that may be rejected", low=0.01, high=0.5
    )

    @property
    def needs_calibration(self) -> bool:
        """Whether something is fitted on the calibration pool: the threshold is."""
        return True

    def deploy(self, predictor: Predictor, ctx: DefenseContext) -> Predictor:
        """Fit the threshold on the calibration pool and watch the predictor."""
        score = energy(predictor.model, self.T)
        threshold = threshold_on_calibration(score, self.false_positive_rate, ctx)
        return DetectingPredictor(predictor, score, threshold, passes=1)


def energy(network: nn.Module, T: float) -> Score:
    """Make the score: the energy (B,) of images (B, C, H, W), by the network in the mode it is in.

    A deployed network is in eval mode, where a randomised one, given no generator, is not random.
    """

    def score(x: Tensor, generator: torch.Generator) -> Tensor:
        del generator
        scores: Tensor = network(x).float()
        return -T * (scores / T).logsumexp(1)

    return score
