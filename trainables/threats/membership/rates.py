"""How well membership scores separate members from non-members, and the strongest of many attacks.

Axes: M members, N non-members.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

from trainables.metrics import intervals
from trainables.records.value import Measured, MetricValue, Missing
from trainables.threats.membership.scores import Floats

_BINS = 30
_SHOWN = (0.005, 0.995)
"""Quantiles that a histogram lies between; what is beyond is counted in its outer bins."""


@dataclass(frozen=True, slots=True, eq=False)
class Scored:
    """Scores that an attack assigned to both sides, larger = member."""

    members: Floats
    """(M,)"""
    others: Floats
    """(N,)"""

    def __post_init__(self) -> None:
        if not (np.isfinite(self.members).all() and np.isfinite(self.others).all()):
            raise ValueError("a membership score is not finite, so it orders no points")


def as_many_as_members(scored: Scored) -> float:
    """Return the threshold at which as many points are accused as there are members.

    The attacker knows how many of the points are members, not which.
    """
    pooled = np.sort(np.concatenate([scored.members, scored.others]))
    return float(pooled[len(scored.others)])


def mean_of_members(scored: Scored) -> float:
    """Return the members' mean score, which the attacker is taken to know (Yeom, adversary 1)."""
    return float(scored.members.mean())


def balanced_accuracy(
    scored: Scored, threshold: float, level: float = intervals.LEVEL
) -> MetricValue:
    """Return the mean of true positive and true negative rate, accusing what reaches a
    threshold.
    """
    found, spared = scored.members >= threshold, scored.others < threshold
    return intervals.balanced(
        intervals.proportion(int(found.sum()), len(found), level),
        intervals.proportion(int(spared.sum()), len(spared), level),
    )


def tpr_at_fpr(
    members: Floats, others: Floats, fpr: float, level: float = intervals.LEVEL
) -> MetricValue:
    """Return the share of member scores (M,) above the threshold that accuses `fpr` of others (N,).

    The threshold is an order statistic of few non-members, so it is uncertain too: to Wilson's
    interval of the share is added, by squares, how far the share moves between the ends of the
    threshold's own binomial interval. Missing where 1 / fpr exceeds N: such a rate cannot be
    estimated from so few.
    """
    n = len(others)
    accused = int(np.floor(fpr * n + 1e-9))
    if accused < 1:
        return Missing(
            f"{n} non-members cannot resolve a false positive rate of {fpr:g}; "
            f"at least {round(1 / fpr)} are needed"
        )
    # The threshold of rank r is the score that r others are above; a rank of -1 is above all.
    thresholds = np.r_[np.sort(others)[::-1], -np.inf, np.inf]

    def found(rank: int) -> int:
        return int((members > thresholds[rank]).sum())

    share = intervals.proportion(found(accused), len(members), level)
    # If `fewest` to `most` others are above the true threshold, it is between these ranks.
    fewest, most = (int(stats.binom.ppf(0.5 + side * level / 2, n, fpr)) for side in (-1, 1))
    below = share.value - found(min(fewest - 1, accused)) / len(members)
    above = found(max(most, accused)) / len(members) - share.value
    low = share.value - np.hypot(share.value - share.low, below)
    high = share.value + np.hypot(share.high - share.value, above)
    return Measured(share.value, max(0.0, float(low)), min(1.0, float(high)), share.n)


def strongest(values: Sequence[MetricValue]) -> MetricValue:
    """Return the largest value of several attacks, each measured at a Bonferroni level.

    The intervals hold together, so the truth about the strongest attack lies between the largest
    of their lower ends and the largest of their upper ends, whichever seemed the strongest.
    Missing, with the first reason, where no attack has a value.
    """
    measured = [value for value in values if isinstance(value, Measured)]
    if not measured:
        return values[0]
    top = max(measured, key=lambda value: value.value)
    low, high = max(value.low for value in measured), max(value.high for value in measured)
    return Measured(top.value, low, high, top.n)


def histogram(scored: Scored) -> dict[str, list[float]]:
    """Count the scores of members and non-members in 30 bins."""
    pooled = np.concatenate([scored.members, scored.others])
    low, high = np.quantile(pooled, _SHOWN)
    edges = np.linspace(low, high, _BINS + 1) if high > low else np.linspace(-1, 1, _BINS + 1) + low
    return {
        "edges": edges.tolist(),
        **{
            side: np.histogram(np.clip(scores, edges[0], edges[-1]), edges)[0].tolist()
            for side, scores in (("members", scored.members), ("non_members", scored.others))
        },
    }
