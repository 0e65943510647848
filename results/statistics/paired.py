"""Two defenses on the same test points: what they differ by, and whether that is significant.

Axes: K seeds of one, J of the other, N points, R draws, C candidates.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import bdtr, expit, logit

from results.audit.audit import Audited
from results.statistics.intervals import components, difference
from results.statistics.outcomes import outcome_matrix
from trainables.records.value import Measured

Floats = NDArray[np.float64]
DRAWS = 2000
_SEED = 0
_ENDS = (0.025, 0.975)
_JEFFREYS = 0.5
"""Weight of an outcome of either kind that was not seen: Jeffreys' prior of a share."""
SEED_SD = 0.5
"""Standard deviation, in logits, of a share from one training to another that is assumed where each
candidate has one: a robust accuracy of 0.5 then varies by 0.12, a clean one of 0.98 by 0.01."""


@dataclass(frozen=True, slots=True, kw_only=True)
class McNemar:
    """Two trained models point by point."""

    only_first: int
    """Points that only the first has right."""
    only_second: int
    n: int
    p_value: float
    """Probability of a split at least as lopsided if a fair coin decided each such point."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """One metric of two audited candidates, the first minus the second."""

    metric: str
    difference: Measured
    paired: bool
    """Whether it is from the outcomes of the same points; else from the two intervals."""
    mcnemar: McNemar | None
    """McNemar's test on the first seed of each; None where it is not paired."""
    one_training: bool
    """Whether both are of one training: how much trainings vary is then assumed (`SEED_SD`), and of
    what is not paired it is in no interval."""

    @property
    def told_apart(self) -> bool:
        """Whether the interval of the difference excludes zero."""
        return self.difference.low > 0 or self.difference.high < 0

    @property
    def verdict(self) -> str:
        """What a reader is told of the difference."""
        significance = "significant" if self.told_apart else "not significant"
        return f"{significance}, one training each" if self.one_training else significance


def mcnemar(first_N: Floats, second_N: Floats) -> McNemar:
    """Compare two models by the points on which they differ, two-sided and exact.

    Outcomes are 0 or 1. It compares two trained models; two defenses also vary from seed to seed,
    which `paired_bootstrap` has in it. Source: McNemar, 1947; the binomial tail in place of
    chi-square: Cochran, 1950.
    """
    only_first = int(((first_N > 0) & (second_N == 0)).sum())
    only_second = int(((first_N == 0) & (second_N > 0)).sum())
    tail = float(bdtr(min(only_first, only_second), only_first + only_second, 0.5))
    return McNemar(
        only_first=only_first,
        only_second=only_second,
        n=len(first_N),
        p_value=min(1.0, 2 * tail),
    )


def paired_bootstrap(first_KN: Floats, second_JN: Floats, *, draws: int = DRAWS) -> Measured:
    """Return the difference of two means of outcomes on the same points, with its interval.

    Points are weighted for both at once; the seeds, trained apart, vary by what the points do not
    explain: see `resampled_means`. n is N.
    """
    means_RC = resampled_means([first_KN, second_JN], draws=draws)
    low, high = np.quantile(means_RC[:, 0] - means_RC[:, 1], _ENDS)
    value = float(first_KN.mean() - second_JN.mean())
    return Measured(value, min(value, float(low)), max(value, float(high)), first_KN.shape[1])


def resampled_means(
    outcomes: Sequence[Floats], *, draws: int, seed: int = _SEED, metric: str = ""
) -> Floats:
    """Return resampled means (R, C) of the outcomes (K, N) of candidates on the same N points.

    The Bayesian bootstrap: each draw weights the points at random, the same for all candidates, and
    for each candidate adds half an unseen outcome of either kind, so that what was never wrong may
    be so (Rubin, 1981; where seeds agree on every point, the draws of one candidate are Jeffreys'
    posterior of a share). Metrics with the same N and `seed` share the weights, and nothing else.

    Of K seeds, too few to be resampled, each candidate's own variance (`components`) is drawn from
    Student's t with K - 1 degrees of freedom. A single seed is drawn with the variance of one seed
    of the others, on average over them; where no candidate has two, with `SEED_SD`. What such a
    draw puts beyond 0 or 1 counts as that end.
    """
    N, C = outcomes[0].shape[1], len(outcomes)
    weights_RN = np.random.default_rng([seed, N]).standard_exponential((draws, N))
    own = np.random.default_rng([seed, N, 1, *metric.encode()])
    unseen_2RC = own.standard_gamma(_JEFFREYS, (2, draws, C))
    points_NC = np.stack([each.mean(0) for each in outcomes], axis=1)
    total_RC = weights_RN.sum(1, keepdims=True) + unseen_2RC.sum(0)
    means_RC = (weights_RN @ points_NC + unseen_2RC[0]) / total_RC
    if all(len(each) == 1 for each in outcomes):
        moved_RC = logit(means_RC) + SEED_SD * own.standard_normal((draws, C))
        widened_RC: Floats = expit(moved_RC)
        return widened_RC
    for place, (variance, df) in enumerate(_between_seeds(outcomes)):
        means_RC[:, place] += math.sqrt(variance) * own.standard_t(df, draws)
    # A drawn seed may be worse than all points wrong, but a share cannot.
    shares_RC: Floats = np.clip(means_RC, 0.0, 1.0)
    return shares_RC


def _between_seeds(outcomes: Sequence[Floats]) -> list[tuple[float, int]]:
    """Return each candidate's variance of its mean over seeds, with its degrees of freedom.

    A candidate of one seed has that of the others, one of which at least has two.
    """
    known = [components(each).seeds if len(each) > 1 else None for each in outcomes]
    df = sum(len(each) - 1 for each in outcomes)
    # A mean over K seeds has a Kth of the variance of one.
    pooled = math.fsum(
        (len(each) - 1) * len(each) * own
        for each, own in zip(outcomes, known, strict=True)
        if own is not None
    )
    return [
        (pooled / df, df) if own is None else (own, len(each) - 1)
        for each, own in zip(outcomes, known, strict=True)
    ]


def compare(first: Audited, second: Audited, metric: str) -> Comparison | None:
    """Compare a metric of two audited candidates; None where one of them has no value."""
    a, b = first.values.get(metric), second.values.get(metric)
    if a is None or b is None:
        return None
    single = max(each.seeds.get(metric, len(each.records)) for each in (first, second)) < 2
    rows = [outcome_matrix(each.records, metric) for each in (first, second)]
    both = outcome_matrix([*first.records, *second.records], metric)
    if both is None or rows[0] is None or rows[1] is None:
        return Comparison(
            metric=metric,
            difference=difference(a, b),
            paired=False,
            mcnemar=None,
            one_training=single,
        )
    return Comparison(
        metric=metric,
        difference=paired_bootstrap(rows[0], rows[1]),
        paired=True,
        mcnemar=mcnemar(rows[0][0], rows[1][0]),
        one_training=single,
    )
