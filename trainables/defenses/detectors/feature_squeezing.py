"""Detection of attacks by how much the answer changes when the image is squeezed.

Axes: B batch, C channels, H, W, K classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from trainables.defenses.defense import Defense, DefenseContext
from trainables.defenses.detectors.detector import DetectingPredictor, threshold_on_calibration
from trainables.defenses.prediction.squeezers import Squeezer, bit_depth_squeezer, median_squeezer
from trainables.deployed.predictor import REFUSED, Prediction, Predictor
from trainables.parameters import parameter

SMALL = 16
"""Side, in pixels, below which the published squeezers do not fit."""


@dataclass(frozen=True, kw_only=True)
class FeatureSqueezing(Defense):
    """Reject an image whose probabilities move far when its bits or its details are squeezed.

    The score is the largest L1 distance between the probabilities of the image and those of its
    squeezed versions: fewer bits, and a median filter (the joint detector without the non-local
    means that Xu et al. add on CIFAR-10). Adaptive attacks that include the score break it
    (He et al., 2017).
    Source: Xu et al., 2018, section V.
    """

    name = "feature_squeezing"
    slot = "deployment"
    guarantee = "empirical"
    meaning = "Reject images whose predicted probabilities change when the image is squeezed."
    source = "Xu et al., 2018"
    limits = (
        "It rejects a share of clean images by design, and is blind to attacks whose images "
        "look the same when squeezed.",
    )
    broken_by = (
        "He et al., 2017: an attack that minimises the distance to the squeezed image's answer "
        "gets past unseen.",
    )

    bits: int | None = parameter(
        None, kind="int", low=1, high=8,
        meaning="bits that are kept; by default 1 of grey, 5 of colour, 2 below 16 pixels a side",
    )  # fmt: skip
    window: int | None = parameter(
        None, kind="int", low=1, high=3,
        meaning="side of the median, in pixels, 1: none; by default 2, 1 below 16 pixels a side",
    )  # fmt: skip
    false_positive_rate: float = parameter(
        0.05, kind="float", meaning="share of clean images that may be rejected", low=0.01, high=0.5
    )

    @property
    def needs_calibration(self) -> bool:
        """Whether something is fitted on the calibration pool: the threshold is."""
        return True

    def deploy(self, predictor: Predictor, ctx: DefenseContext) -> Predictor:
        """Fit the threshold on the calibration pool and watch the predictor."""
        squeezing = SqueezingScore(predictor, self._squeezers(ctx.dataset.shape))
        threshold = threshold_on_calibration(squeezing, self.false_positive_rate, ctx)
        return SqueezingPredictor(predictor, squeezing, threshold)

    def _squeezers(self, shape: tuple[int, int, int]) -> tuple[Squeezer, ...]:
        """Return the squeezers for images (C, H, W): the published ones where nothing else is
        asked.

        On the digits (8x8) a median of 2x2 moves clean images as far as attacked ones, and as the
        larger distance counts it hides what the bits detect.
        """
        channels, *sides = shape
        small = min(sides) < SMALL
        bits = self.bits or (2 if small else 1 if channels == 1 else 5)
        window = self.window or (1 if small else 2)
        return (bit_depth_squeezer(bits), *([median_squeezer(window)] if window > 1 else []))


class SqueezingScore:
    """How far the probabilities move when the image is squeezed."""

    def __init__(self, predictor: Predictor, squeezers: Sequence[Squeezer]) -> None:
        self.predictor = predictor
        self.squeezers = tuple(squeezers)

    def __call__(self, x: Tensor, generator: torch.Generator) -> Tensor:
        """Return the score (B,) in [0, 2], differentiable in x as the squeezers are."""
        return self.beside(self._probabilities(x, generator), x, generator)

    def beside(self, probabilities: Tensor, x: Tensor, generator: torch.Generator) -> Tensor:
        """Return the score (B,) of images (B, C, H, W) whose probabilities (B, K) are known."""
        distances = [
            (probabilities - self._probabilities(squeezer.ways()[0](x), generator)).abs().sum(1)
            for squeezer in self.squeezers
        ]
        return torch.stack(distances).amax(0)

    def _probabilities(self, x: Tensor, generator: torch.Generator) -> Tensor:
        return self.predictor.scores(x, generator).log_softmax(1).exp()


class SqueezingPredictor(DetectingPredictor):
    """A detecting predictor that asks for the probabilities of the image itself once."""

    def __init__(self, inner: Predictor, squeezing: SqueezingScore, threshold: float) -> None:
        passes = len(squeezing.squeezers) * inner.forward_passes_per_prediction
        super().__init__(inner, squeezing, threshold, passes=passes)
        self.squeezing = squeezing

    def predict(self, x: Tensor, generator: torch.Generator) -> Prediction:
        """Return the inner answer, refused where the score is above the threshold."""
        answer = self.inner.predict(x, generator)
        with torch.no_grad():
            score = self.squeezing.beside(answer.log_probabilities.exp(), x, generator)
        label = answer.label.masked_fill(score > self.threshold, REFUSED)
        return replace(answer, label=label, reject_score=score)
