"""The deployed model as the attacker who knows it sees it.

Axes: B batch, C channels, H, W, K classes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from trainables.datasets import LabelledImages
from trainables.deployed.averaging import log_sum_softmax
from trainables.deployed.predictor import Predictor, Surface, ask
from trainables.trial.context import TrialContext

EOT_DRAWS = 10
"""Draws that a gradient is averaged over where a random predictor's surface declares none."""
_LOOKED_AT = 256
"""Images that are looked at, at most, to find out whether the answers are random."""


@dataclass(frozen=True, slots=True, eq=False)
class Target:
    """A deployed model as the attacker who knows it sees it."""

    predictor: Predictor
    surfaces: tuple[Surface, ...]
    stochastic: bool
    """Whether it answers one image differently, declared or found out."""
    undeclared: bool
    """Whether that had to be found out."""
    changed: bool = False
    """Whether the surfaces are not the predictor's own, so that nothing found before holds."""


def target_of(predictor: Predictor, points: LabelledImages, ctx: TrialContext) -> Target:
    """Look at the predictor: its surfaces, and whether it is random, whatever it says.

    A random surface that averages nothing is averaged over fresh draws (EOT; Athalye et al., 2018).
    """
    x = points.images(slice(0, min(len(points), _LOOKED_AT)))
    classes = ctx.dataset.num_classes

    def differs(answer: Callable[[Tensor, torch.Generator], Tensor]) -> bool:
        with torch.no_grad():
            first, second = (answer(x, ctx.generator("look", draw)) for draw in ("one", "two"))
        # As AutoAttack's own check has it: rounding on a GPU is not randomness.
        return not torch.allclose(first, second, rtol=0, atol=1e-4)

    random = differs(lambda x, g: ask(predictor, x, g, classes).log_probabilities)
    surfaces = tuple(
        _averaged(surface) if surface.draws == 1 and differs(surface.scores) else surface
        for surface in predictor.surfaces()
    )
    stochastic = predictor.stochastic or random
    return Target(predictor, surfaces, stochastic, random and not predictor.stochastic)


def _averaged(surface: Surface) -> Surface:
    def scores(x: Tensor, generator: torch.Generator) -> Tensor:
        return log_sum_softmax([surface.scores(x, generator) for _ in range(EOT_DRAWS)])

    kind = "eot" if surface.kind == "exact" else surface.kind
    return replace(surface, scores=scores, kind=kind, draws=EOT_DRAWS)
