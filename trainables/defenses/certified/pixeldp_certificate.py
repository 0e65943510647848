"""From votes under Gaussian noise to certified L2 sizes, by differential privacy.

Axes: B batch, K classes, G points of the grid over delta.
Source: Lecuyer et al., Certified robustness to adversarial examples with differential privacy,
2019, proposition 1 and section III-D; the Gaussian mechanism is that of Dwork and Roth, 2014,
theorem A.1, which holds for 0 < epsilon <= 1.
"""

from __future__ import annotations

import math
from functools import cache
from itertools import count

import numpy as np
import numpy.typing as npt

from trainables.defenses.certified import clopper_pearson
from trainables.defenses.certified.clopper_pearson import Numbers

Floats = npt.NDArray[np.float64]
DELTAS: Floats = np.arange(1, 301) / 1000
"""The grid that a certificate takes the best delta of."""
LARGEST_EPSILON = 1.0


def noise_sigma(attack_bound: float, dp_epsilon: float, dp_delta: float) -> float:
    """Return the noise that makes a layer of sensitivity 1 private towards L2 moves of
    attack_bound.

    Both sizes are L2 in pixel units of [0, 1]. Source: Dwork and Roth, 2014, theorem A.1.
    """
    return float(attack_bound * _noise_per_size(dp_delta) / dp_epsilon)


def certified_sizes(
    counts: Numbers,
    draws: Numbers,
    *,
    sigma: float,
    eta: float,
    sensitivity: float = 1.0,
) -> Floats:
    """Return the L2 size (B,) within which the label with the most votes is proven to stay.

    counts (B, K) are the votes of `draws` (one number, or (B,)) passes under noise of `sigma`
    before which nothing moves further than `sensitivity` times what the image moves. Sizes are
    in pixel units, 0 where nothing is proven.

    With K labels each Clopper-Pearson bound has level a = eta / K. The labels need not be drawn
    apart from the counts, since the bounds are simultaneous. Let t be the label with the most
    votes and s the truly likeliest of the others. p_ub is the largest upper bound of the others,
    so at least that of s: where the lower bound of t and the upper bound of s both hold, the
    certificate is right. So it is wrong only where (1) t is the truly likeliest label, c, and its
    lower bound fails, (2) t is c and the upper bound of the second likeliest fails, (3) t is
    another and the upper bound of c fails, or (4) t is another and its lower bound lies above
    p_c. (1) to (3) have at most a each. In (4) label k has at most a p_k / p_c, as a binomial
    tail is convex up to there, and over all k that sums to a (1 - p_c) / p_c. Together this is
    (2 + 1 / p_c) a: at most eta from p_c = 1 / (K - 2) on, and nowhere above (1 + 2 / K) eta. Of
    two labels both bounds are one event, which yields eta; of three, enumeration of the counts of
    10 to 150 draws, on a grid of probabilities, yielded at most 0.58 eta.
    """
    assert sensitivity > 0, "where nothing moves, no noise is needed and no size is the largest"
    best, second = label_bounds(counts, draws, eta)
    epsilons = _largest_epsilons(best[:, None], second[:, None])
    sizes = sigma * epsilons / _noise_per_size(DELTAS) / sensitivity
    return np.asarray(sizes.max(1), dtype=np.float64)


@cache
def fewest_draws(num_classes: int, eta: float) -> int:
    """Return the fewest draws that certify any size, where all of them vote for one label."""
    for draws in count(1):
        votes = np.zeros((1, num_classes))
        votes[0, 0] = draws
        if certified_sizes(votes, draws, sigma=1.0, eta=eta)[0] > 0:
            return draws
    raise AssertionError("more draws prove more")


def label_bounds(counts: Numbers, draws: Numbers, eta: float) -> tuple[Floats, Floats]:
    """Return the lower bound of the top label (B,) and the largest upper bound of the others
    (B,).
    """
    votes = clopper_pearson.as_float64(counts)
    level = eta / votes.shape[1]
    # Of equal draws the largest upper bound is that of the most votes.
    ordered = np.sort(votes, axis=1)
    best = clopper_pearson.lower(ordered[:, -1], draws, level)
    return best, clopper_pearson.upper(ordered[:, -2], draws, level)


def _largest_epsilons(best: Floats, second: Floats) -> Floats:
    """Return the largest epsilon of each delta, (B, G) or (G,), 0 where none is proven.

    Robust at (epsilon, delta): best >= e^(2 epsilon) second + (1 + e^epsilon) delta. With
    t = e^epsilon that is second t^2 + delta t - (best - delta) <= 0, whose larger root, written
    so that second = 0 and rounding do no harm, is t = 2 c / (delta + sqrt(delta^2 + 4 second c))
    with c = best - delta.
    """
    c = np.maximum(best - DELTAS, 0.0)
    root = 2 * c / (DELTAS + np.sqrt(DELTAS**2 + 4 * second * c))
    epsilons = np.log(np.clip(root, 1.0, math.exp(LARGEST_EPSILON)))
    return np.asarray(np.minimum(epsilons, LARGEST_EPSILON), dtype=np.float64)


def _noise_per_size(delta: float | Floats) -> Floats:
    """Return sqrt(2 ln(1.25 / delta)): the noise per L2 move that is private at epsilon 1."""
    return np.asarray(np.sqrt(2 * np.log(1.25 / np.asarray(delta))), dtype=np.float64)
