"""The masking check: does a model only look robust because the attack is kept from working?

Each indicator is a share of points, and fails where chance does not explain that it is so large.
Source: Athalye et al., 2018; Carlini et al., 2019; Pintor et al., 2022.

Axes: N points.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch
from scipy import stats
from torch import Tensor

from trainables.attacks.shared.losses import LOSSES
from trainables.datasets import LabelledImages
from trainables.defenses.certified import clopper_pearson
from trainables.deployed.predictor import surface_scores
from trainables.threats.evasion.attacking import BATCH
from trainables.threats.evasion.signs.power import ENOUGH, LEVEL, MASK, points_needed, power
from trainables.threats.evasion.target import Target
from trainables.trial.context import TrialContext

MARGIN = 0.02
"""A share counts from here on: of an honest model a weaker attack breaks a point or two alone."""
ZERO_GRADIENTS = 0.05
"""Share of points without any gradient that is borne: single saturated ones are honest."""
_Z = float(stats.norm.ppf(0.95))


@dataclass(frozen=True, slots=True, kw_only=True)
class Indicator:
    """One sign of masking and whether it shows."""

    name: str
    words: str
    """What it means where it fails."""
    figure: float
    """The share of points (a difference of two shares)."""
    low: float
    """Its one-sided 95 % lower bound."""
    limit: float
    n: int
    strikes: bool = True
    """Whether the robust accuracy is not to be believed where it fails."""
    one_sided: bool = False
    """Whether it is the share that a weaker attacker breaks and all stronger ones do not: what
    such a sign misses of a mask follows from its points alone."""

    @property
    def failed(self) -> bool:
        """Whether the lower bound exceeds the limit."""
        return self.low > self.limit

    @property
    def sentence(self) -> str:
        """What was found, in words."""
        return (
            f"{self.words} ({100 * self.figure:.1f} % of {self.n} points, at least "
            f"{100 * self.low:.1f} % with 95 % confidence)"
        )

    def plain(self) -> dict[str, Any]:
        """Return it as plain JSON values."""
        return {**asdict(self), "failed": self.failed}


def broken_alone(name: str, words: str, stronger: Tensor, weaker: Tensor) -> Indicator:
    """Judge the points that an attacker who should be the weaker breaks, and no stronger one does.

    `weaker` and `stronger` (N,) mark what that attacker breaks, and what at least one of the
    stronger ones does. What the stronger break in turn weighs nothing against it: they should.
    """
    return replace(share(name, words, weaker & ~stronger), one_sided=True)


def paired(
    name: str, words: str, first: Tensor, second: Tensor, *, strikes: bool = True
) -> Indicator:
    """Judge two attacks, neither of which is the weaker one, by how much more the second breaks.

    `first` and `second` (N,) say which points each breaks. The bound is Agresti and Min's
    (2005): half a point is added to each of the four kinds of pairs.
    """
    n = len(first)
    more, less = int((second & ~first).sum()), int((first & ~second).sum())
    centre = (more - less) / (n + 2)
    variance = (more + less + 1) / (n + 2) - centre**2
    low = centre - _Z * math.sqrt(variance / (n + 2))
    return Indicator(
        name=name,
        words=words,
        figure=(more - less) / n,
        low=low,
        limit=MARGIN,
        n=n,
        strikes=strikes,
    )


def share(name: str, words: str, found: Tensor, *, limit: float = MARGIN) -> Indicator:
    """Judge a share of points (N,) by its exact one-sided lower bound (Clopper and Pearson)."""
    n, count = len(found), int(found.sum())
    low = float(clopper_pearson.lower(count, n, LEVEL)) if count else 0.0
    return Indicator(
        name=name, words=words, figure=count / n if n else 0.0, low=low, limit=limit, n=n
    )


def without_gradient(
    target: Target, points: LabelledImages, ctx: TrialContext
) -> tuple[Tensor, Tensor]:
    """Return for which points (N,) every loss on every surface has a gradient of zero, and for
    which of the others (N,) none has one that is finite and not zero.
    """
    without = torch.ones(len(points), dtype=torch.bool, device=points.labels.device)
    unusable = without.clone()
    for number, surface in enumerate(target.surfaces):
        generator = ctx.generator("masking", "gradient", str(number))
        for start in range(0, len(points), BATCH):
            rows = slice(start, start + BATCH)
            y = points.labels[rows]
            every_row = torch.arange(len(y), device=y.device)
            for loss in LOSSES.values():
                x = points.images(rows).requires_grad_(True)
                with torch.enable_grad():
                    scores = surface_scores(surface, x, generator, ctx.dataset.num_classes)
                    value = loss(y)(scores, every_row).sum()
                if value.requires_grad:
                    (gradient,) = torch.autograd.grad(value, x)
                    largest = gradient.flatten(1).abs().amax(1)  # NaN where an entry is
                    without[rows] &= largest == 0
                    unusable[rows] &= (largest == 0) | ~largest.isfinite()
    return without, unusable & ~without


def sight(indicators: Sequence[Indicator]) -> dict[str, Any] | None:
    """Return how surely the check sees a mask of MASK of the points, as plain JSON values.

    The sign with the fewest points says it, where the attacker of that sign gets past the mask;
    None where no sign is of that kind.
    """
    signs = [indicator for indicator in indicators if indicator.one_sided]
    if not signs:
        return None
    fewest = min(signs, key=lambda indicator: indicator.n)
    return {
        "mask": MASK,
        "probability": power(fewest.n, fewest.limit),
        "n": fewest.n,
        "enough": ENOUGH,
        "points_needed": points_needed(fewest.limit),
    }


def verdict(indicators: Sequence[Indicator]) -> dict[str, Any]:
    """Return the check's outcome as plain JSON values, with the words that say what failed."""
    failed = [indicator for indicator in indicators if indicator.failed]
    return {
        "suspected": bool(failed),
        "strikes": any(indicator.strikes for indicator in failed),
        "words": "; ".join(indicator.sentence for indicator in failed),
        "sight": sight(indicators),
        "indicators": [indicator.plain() for indicator in indicators],
    }
