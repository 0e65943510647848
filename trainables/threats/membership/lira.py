"""The likelihood-ratio attack: is the answer likelier of a model that saw the point, or not.

Source: Carlini et al., Membership inference attacks from first principles, 2022, and the formulas
of its code (mi_lira_2021). Scores in float64, larger = member. Axes: S shadow models, N points,
K classes.
"""

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from trainables.threats.membership.scores import TINY, Floats, Integers, of_true_class, softmax

Inside = NDArray[np.bool_]
FEWEST_FOR_OWN_SPREAD = 64
"""With fewer shadow models one standard deviation serves all points."""
_SMALLEST_SPREAD = 1e-30


def phi(log_probabilities: Floats, labels: Integers) -> Floats:
    """Return the logit-scaled confidence log p_y - log sum_{j != y} p_j (.., N).

    Of log-probabilities (.., N, K). The sum runs over the other classes, since 1 - p_y would
    round to 0.
    """
    found = softmax(log_probabilities)
    own = of_true_class(found, labels)
    others = found.copy()
    index = np.broadcast_to(labels[:, None], (*found.shape[:-1], 1))
    np.put_along_axis(others, index, 0.0, axis=-1)
    score: Floats = np.log(own + TINY) - np.log(others.sum(axis=-1) + TINY)
    return score


def online(phi_N: Floats, shadows_SN: Floats, inside_SN: Inside) -> Floats:
    """Return log N(phi; in) - log N(phi; out) (N,): Gaussians of the shadows with and without it.

    Their means are medians over the models. The standard deviation is each point's own, or, with
    fewer than 64 shadows, one of all points. The reference code takes that one of the IN answers
    for both; here the OUT answers have their own.
    """
    within, without = _split(shadows_SN, inside_SN)
    whole = len(shadows_SN) < FEWEST_FOR_OWN_SPREAD
    score: Floats = _log_density(phi_N, within, whole) - _log_density(phi_N, without, whole)
    return score


def offline(phi_N: Floats, shadows_SN: Floats, inside_SN: Inside) -> Floats:
    """Return by how many standard deviations phi is above the shadows without the point (N,).

    It orders the points as the paper's one-sided test does, 1 - P(Z > phi), which
    would round to 1 for the surest members. The reference code takes minus the log-density
    instead, which also accuses a point that is far *less* sure than its shadows.
    """
    _, without = _split(shadows_SN, inside_SN)
    whole = len(shadows_SN) < FEWEST_FOR_OWN_SPREAD
    spread = _spread(without, whole) + _SMALLEST_SPREAD
    score: Floats = (phi_N - np.nanmedian(without, axis=1)) / spread
    return score


def _log_density(phi_N: Floats, answers: Floats, whole: bool) -> Floats:
    spread = _spread(answers, whole) + _SMALLEST_SPREAD
    found: Floats = stats.norm.logpdf(phi_N, np.nanmedian(answers, axis=1), spread)
    return found


def _spread(answers: Floats, whole: bool) -> Floats:
    found: Floats = np.asarray(np.nanstd(answers) if whole else np.nanstd(answers, axis=1))
    return found


def _split(shadows_SN: Floats, inside_SN: Inside) -> tuple[Floats, Floats]:
    """Return the answers of each point's IN models and of its OUT models, NaN elsewhere (N, S)."""
    counts = inside_SN.sum(axis=0)
    if counts.max() > counts.min() + 1 or not 0 < counts.min() <= counts.max() < len(inside_SN):
        raise ValueError(
            "every point must be in as many shadow models, within one, and in and out of some"
        )
    answers, inside = shadows_SN.T, inside_SN.T
    return np.where(inside, answers, np.nan), np.where(inside, np.nan, answers)
