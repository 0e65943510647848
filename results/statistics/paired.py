"""Two defenses on the same test points: what they differ by, and whether that is significant.

Axes: K seeds of one, J of the other, N points, R draws, C candidates.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import bdtr

from results.audit.audit import Audited
from results.statistics.intervals import components, difference
from results.statistics.outcomes import outcome_matrix
from trainables.records.value import Measured

Floats = NDArray[np.float64]
DRAWS = 2000
_SEED = 0
_ENDS = (0.025, 0.975)


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

    @property
    def told_apart(self) -> bool:
        """Whether the interval of the difference excludes zero."""
        return self.difference.low > 0 or self.difference.high < 0


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

    Points are resampled for both at once; the seeds, trained apart, vary by what the points do not
    explain: see `resampled_means`. n is N.
    """
    means_RC = resampled_means([first_KN, second_JN], draws=draws)
    low, high = np.quantile(means_RC[:, 0] - means_RC[:, 1], _ENDS)
    value = float(first_KN.mean() - second_JN.mean())
    return Measured(value, min(value, float(low)), max(value, float(high)), first_KN.shape[1])


def resampled_means(outcomes: Sequence[Floats], *, draws: int, seed: int = _SEED) -> Floats:
    """Return resampled means (R, C) of the outcomes (K, N) of candidates on the same N points.

    The points are drawn with replacement, the same ones for all candidates (Efron, 1979). Of K
    seeds, too few to be resampled, each candidate's own variance (`components`) is drawn from
    Student's t with K - 1 degrees of freedom; of a single seed nothing is known, and none is drawn.
    What such a draw puts beyond 0 or 1 counts as that end.
    """
    generator = np.random.default_rng(seed)
    N = outcomes[0].shape[1]
    points_NC = np.stack([each.mean(0) for each in outcomes], axis=1)
    counts_RN = generator.multinomial(N, np.full(N, 1 / N), size=draws)
    means_RC = counts_RN @ points_NC / N
    for place, each in enumerate(outcomes):
        if len(each) > 1:
            noise_R = generator.standard_t(len(each) - 1, draws)
            means_RC[:, place] += math.sqrt(components(each).seeds) * noise_R
    # A drawn seed may be worse than all points wrong, but a share cannot.
    shares_RC: NDArray[np.float64] = np.clip(means_RC, 0.0, 1.0)
    return shares_RC


def compare(first: Audited, second: Audited, metric: str) -> Comparison | None:
    """Compare a metric of two audited candidates; None where one of them has no value."""
    a, b = first.values.get(metric), second.values.get(metric)
    if a is None or b is None:
        return None
    rows = [outcome_matrix(each.records, metric) for each in (first, second)]
    both = outcome_matrix([*first.records, *second.records], metric)
    if both is None or rows[0] is None or rows[1] is None:
        return Comparison(metric=metric, difference=difference(a, b), paired=False, mcnemar=None)
    return Comparison(
        metric=metric,
        difference=paired_bootstrap(rows[0], rows[1]),
        paired=True,
        mcnemar=mcnemar(rows[0][0], rows[1][0]),
    )
