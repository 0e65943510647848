"""How well membership scores separate members from non-members, and the strongest of many attacks.

Axes: M members, N non-members.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy import special

from trainables.metrics import intervals
from trainables.records.value import Measured, MetricValue, Missing
from trainables.threats.membership.scores import Floats, Integers

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
    member_rows: Integers | None = None
    """(M,) which rows those are; None: 0 to M - 1."""
    other_rows: Integers | None = None
    """(N,) which rows those are; None: 0 to N - 1."""

    def __post_init__(self) -> None:
        if not (np.isfinite(self.members).all() and np.isfinite(self.others).all()):
            raise ValueError("a membership score is not finite, so it orders no points")

    @property
    def rows(self) -> tuple[Integers, Integers]:
        """The rows of both sides, (M,) and (N,)."""
        m, n = np.arange(len(self.members)), np.arange(len(self.others))
        return (
            m if self.member_rows is None else self.member_rows,
            n if self.other_rows is None else self.other_rows,
        )

    def select(self, of_members: NDArray[np.bool_], of_others: NDArray[np.bool_]) -> Scored:
        """Return the marked rows alone; marks are by row."""
        (mine, theirs), marks = self.rows, (of_members, of_others)
        m, n = marks[0][mine], marks[1][theirs]
        return Scored(self.members[m], self.others[n], mine[m], theirs[n])

    def turned(self) -> Scored:
        """Return the scores the other way round: smaller = member."""
        return replace(self, members=-self.members, others=-self.others)


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

    The threshold is an order statistic of few others, so it is uncertain too: to the
    Clopper-Pearson interval of the share is added, by squares, how far the share moves between two
    order statistics that have the true threshold between them at the same level. Where the others
    are too few for one above it, the largest of them accuses g of all others at most; whoever
    accuses what exceeds it with probability fpr / g accuses fpr of them, and finds as many of the
    members as are above it, times fpr / g. Missing where 1 / fpr exceeds N: such a rate cannot be
    estimated from so few.
    """
    n, m = len(others), len(members)
    accused = int(np.floor(fpr * n + 1e-9))
    if accused < 1:
        return Missing(
            f"{n} non-members cannot resolve a false positive rate of {fpr:g}; "
            f"at least {round(1 / fpr)} are needed"
        )
    downwards, risk = np.sort(others)[::-1], (1 - level) / 2

    def found(rank: int) -> float:
        return float((members > downwards[rank - 1]).mean()) if rank <= n else 1.0

    share = found(accused + 1)
    own = intervals.exact_proportion(round(share * m), m, level)
    # Of all others, those above the one of rank r are a share of Beta(r, n - r + 1).
    ranks = np.arange(1, n + 1)
    at_most, at_least = (special.betaincinv(ranks, n - ranks + 1, q) for q in (1 - risk, risk))
    stricter = max(1, int((at_most <= fpr).sum()))
    fewest = found(stricter) * min(1.0, fpr / float(at_most[stricter - 1]))
    most = found(int((at_least < fpr).sum()) + 1)
    low = share - math.hypot(share - own.low, share - fewest)
    high = share + math.hypot(own.high - share, most - share)
    return Measured(share, max(0.0, low), min(1.0, high), m)


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
