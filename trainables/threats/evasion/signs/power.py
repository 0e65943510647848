"""How large a mask a sign of masking would see: the power of its one-sided test.

A sign counts the points that a weaker attacker breaks and all stronger ones do not, and shows where
the Clopper-Pearson lower bound of that share exceeds a limit. Of n points of which a share m is
held by a mask alone, the count is Binomial(n, m) if the weaker attacker gets past the mask.
"""

from bisect import bisect_left
from functools import cache

from scipy import stats

from trainables.defenses.certified import clopper_pearson

LEVEL = 0.05
"""Probability, at most, at which a lower bound lies above the true share."""
MASK = 0.1
"""Share of the points that a mask holds: 10 points of accuracy."""
ENOUGH = 0.8
"""Power from which the absence of a sign says something."""


@cache
def count_needed(n: int, limit: float) -> int:
    """Return the fewest of n points whose lower bound exceeds the limit; n + 1: not even all do."""
    # The bound rises with the count, so that the counts which show lie at the end.
    return 1 + bisect_left(
        range(1, n + 1),
        True,
        key=lambda count: float(clopper_pearson.lower(count, n, LEVEL)) > limit,
    )


def power(n: int, limit: float, mask: float = MASK) -> float:
    """Return the probability that a mask of a share of n points shows."""
    return float(stats.binom.sf(count_needed(n, limit) - 1, n, mask)) if n else 0.0


@cache
def points_needed(limit: float, mask: float = MASK, enough: float = ENOUGH) -> int:
    """Return the fewest points from which on the power never falls below `enough` again.

    It is no monotone function of n: it falls where one more point needs to be counted. From the
    normal approximation on, a few hundred points, it only comes closer to 1.
    """
    largest = 1
    while power(largest, limit, mask) < 1 - (1 - enough) / 100:
        largest *= 2
    short = (n for n in range(largest, 0, -1) if power(n, limit, mask) < enough)
    return next(short, 0) + 1
