"""The membership attack that sees labels alone: how near a point is to the decision, under noise.

Axes: N points, C channels, H, W.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from trainables.datasets import LabelledImages
from trainables.evaluation import batches
from trainables.predictor import Faults, Predictor, ask
from trainables.threats.membership_scores import Floats, label_kept

if TYPE_CHECKING:
    from trainables.context import TrialContext

SIZES = (2.0, 1.0, 4.0, 0.5)
"""Standard deviations of the noise in multiples of the data set's radius, used in turn."""
_COPIES = {"screen": 4, "audit": 32}
_PASSES = {"screen": 60_000, "audit": 600_000}
"""Forward passes of the network that the attack may take."""
_FEWEST = 100
"""Points of each side that are asked whatever they cost."""


@dataclass(frozen=True, slots=True)
class Work:
    """How much is asked."""

    copies: int
    """Noisy copies of each point."""
    points: int
    """Most points of each side."""


def affordable(effort: str, passes: int, points: int) -> Work:
    """Spread the effort's forward passes over `points` points at `passes` passes an answer.

    A voting predictor takes hundreds: it is asked fewer copies first, then fewer points.
    """
    budget = _PASSES[effort] // passes
    copies = max(1, min(_COPIES[effort], budget // points))
    return Work(copies, max(_FEWEST, budget // (2 * copies)))


def label_only(
    predictor: Predictor,
    images: LabelledImages,
    copies: int,
    ctx: TrialContext,
    generator: torch.Generator,
) -> Floats:
    """Score images (N,) by the share of answers under Gaussian noise that name the true class.

    A rejection names no class. Source: Choquette-Choo et al., 2021, the attack by random noise.
    """
    faults = Faults()
    kept = torch.zeros(len(images), dtype=torch.float64, device=images.labels.device)
    for number in range(copies):
        spread = SIZES[number % len(SIZES)] * ctx.dataset.radius
        labels = []
        for x in batches(images):
            noise = torch.randn(x.shape, generator=generator, device=x.device)
            noisy = (x + spread * noise).clamp(0, 1)
            labels.append(ask(predictor, noisy, generator, ctx.dataset.num_classes, faults).label)
        kept += torch.cat(labels).eq(images.labels)
    faults.check()
    right = ctx.answers(predictor, images).label.eq(images.labels)
    return label_kept(right.cpu().numpy(), (kept / copies).cpu().numpy(), copies)
