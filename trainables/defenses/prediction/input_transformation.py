"""An image transformation in front of the model.

Axes: B batch, C channels, H, W, K classes.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from trainables.defenses.defense import Defense, DefenseContext
from trainables.defenses.prediction.squeezers import JPEG_CHANNELS, SQUEEZERS, Squeezer, Transform
from trainables.deployed.predictor import Prediction, Predictor, Surface, WrappedPredictor
from trainables.errors import InputError
from trainables.parameters import parameter

_SETTING = {"bit_depth": "bits", "median": "window", "jpeg": "quality"}
"""Kind -> the parameter that belongs to it."""


@dataclass(frozen=True, kw_only=True)
class InputTransformation(Defense):
    """Reduce the bit depth, median-filter or JPEG-compress each image before it is classified.

    Nothing is trained differently. Of bits, window and quality the one of the chosen kind counts.
    Source: Xu et al., 2018; Guo et al., 2018; broken by BPDA in Athalye et al., 2018.
    """

    name = "input_transformation"
    slot = "deployment"
    guarantee = "empirical"
    meaning = "Transform each image (bit depth, median filter or JPEG) before it is classified."
    source = "Xu et al., 2018; Guo et al., 2018"
    limits = ("What it removes of an attack, an attacker who knows it leaves out.",)
    broken_by = (
        "Athalye et al., 2018: the transformations of Guo et al., 2018, fall to a backward pass "
        "through the identity (BPDA).",
        "He et al., 2017: bit depth and median filters fall to attacks that know them.",
    )

    kind: str = parameter(
        "jpeg", kind="word", meaning="transformation", words=("bit_depth", "median", "jpeg")
    )
    bits: int = parameter(3, kind="int", meaning="bit_depth: bits that are kept", low=1, high=8)
    window: int = parameter(2, kind="int", meaning="median: side, in pixels", low=2, high=3)
    quality: int = parameter(75, kind="int", meaning="jpeg: libjpeg's quality", low=1, high=100)

    def deploy(self, predictor: Predictor, ctx: DefenseContext) -> Predictor:
        """Put the transformation before the predictor; InputError where JPEG has no such images."""
        channels = ctx.dataset.shape[0]
        if self.kind == "jpeg" and channels not in JPEG_CHANNELS:
            raise InputError(
                f"{self.name}: jpeg takes images of 1 or 3 channels, but those of "
                f"{ctx.dataset.name} have {channels}; take kind=median or kind=bit_depth"
            )
        squeezer = SQUEEZERS[self.kind](getattr(self, _SETTING[self.kind]))
        return TransformingPredictor(predictor, squeezer)


class TransformingPredictor(WrappedPredictor):
    """Another predictor that sees transformed images."""

    def __init__(self, inner: Predictor, squeezer: Squeezer) -> None:
        super().__init__(inner)
        self.squeezer = squeezer

    def predict(self, x: Tensor, generator: torch.Generator) -> Prediction:
        """Return the inner answer on the transformed images."""
        return self.inner.predict(self.squeezer.transform(x), generator)

    def scores(self, x: Tensor, generator: torch.Generator) -> Tensor:
        """Return the inner scores on the transformed images, differentiable in the first way."""
        return self.inner.scores(self.squeezer.ways()[0](x), generator)

    def certificates(self, x: Tensor, generator: torch.Generator) -> None:
        """Return no certificate: an inner radius holds round the transformed image."""
        del x, generator

    def surfaces(self) -> list[Surface]:
        """Return each inner surface behind each way to differentiate the transformation."""
        return [
            _behind(way, surface, true=self.squeezer.exact and number == 0)
            for surface in self.inner.surfaces()
            for number, way in enumerate(self.squeezer.ways())
        ]


def _behind(way: Transform, surface: Surface, *, true: bool) -> Surface:
    reject_margin = surface.reject_margin
    return replace(
        surface,
        scores=lambda x, generator: surface.scores(way(x), generator),
        kind=surface.kind if true else "bpda",
        reject_margin=reject_margin and (lambda x, g: reject_margin(way(x), g)),
    )
