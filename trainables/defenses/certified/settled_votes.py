"""How many draws a vote needs so that it hardly ever wavers inside a certified radius.

A certificate is about the smoothed classifier, whose answer is the likeliest class. What is
deployed is a vote of a number of draws: near the edge of the ball the likeliest class has a
probability of little more than 1/2, and a vote of few draws abstains there or goes astray.
"""

from scipy import stats

from trainables.errors import InputError

MOST = 10**7
"""Draws of a vote, at most."""


def probability_inside(radius: float, distance: float, sigma: float) -> float:
    """Return the least probability of the certified class at an L2 distance from its image.

    Phi((R - d) / sigma) of a class certified at R under Gaussian noise. Source: Cohen et al., 2019,
    theorem 1.
    """
    return float(stats.norm.cdf((radius - distance) / sigma))


def votes_that_settle(draws: int, alpha: float | None) -> int:
    """Return the fewest votes of a class that settle it, whatever the other draws vote for.

    By PREDICT of Cohen et al. at level alpha, which else abstains; with None, more than half.
    """
    if alpha is None:
        return draws // 2 + 1
    return int(stats.binom.isf(alpha / 2, draws, 0.5)) + 1


def wavering_probability(draws: int, p: float, alpha: float | None = None) -> float:
    """Bound the probability that a vote gives no answer or another one than a class.

    The class has a probability of p at least in each draw. Exact where all other draws vote for
    one class: P(Binomial(draws, p) < votes that settle).
    """
    return float(stats.binom.cdf(votes_that_settle(draws, alpha) - 1, draws, p))


def settling_draws(p: float, flip: float, alpha: float | None = None) -> int:
    """Return draws of a vote that wavers with probability `flip` at most, near the fewest.

    Without abstention Hoeffding's inequality bounds them by ln(1 / flip) / (2 (p - 1/2)^2). Raises
    InputError where p is too close to 1/2 for 10 million draws.
    """
    most = 1
    while wavering_probability(most, p, alpha) > flip:
        if most == MOST:
            raise InputError(
                f"a class of probability {p:g} wins no vote of {MOST:,} draws but with probability "
                f"{1 - flip:g}; ask for a smaller share of the radius"
            )
        most = min(2 * most, MOST)
    least = most // 2
    while most - least > 1:
        middle = (most + least) // 2
        if wavering_probability(middle, p, alpha) > flip:
            least = middle
        else:
            most = middle
    return most
