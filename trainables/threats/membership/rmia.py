"""The robust membership attack: is the model surer of the point than of others, by comparison.

Source: Zarifzadeh et al., Low-cost high-power membership inference attacks, 2024. Axes: S shadow
models, N points, Z points of the population.
"""

import numpy as np

from trainables.metrics import intervals
from trainables.threats.membership.lira import Inside
from trainables.threats.membership.scores import TINY, Floats

GAMMA = 1.0
"""How much surer it must be. The score counts how many of one population a point beats, so gamma
changes no order of points: it only makes ties, the more the larger it is."""
OFFLINE_A = 0.33
"""How the mean probability of models that saw a point follows from that of models that did not:
p_in = a p_out + 1 - a. It serves where there are too few shadow models to fit it."""
_CANDIDATES = (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)
_ATTACKED = 4
"""Shadow models that are attacked to fit it."""


def relative_probability(own_N: Floats, shadows_SN: Floats, inside_SN: Inside, a: float) -> Floats:
    """Return p(x | model) / p(x) (N,) of true-class probabilities, of the model and of its shadows.

    Offline: p(x) is ((1 + a) p_out + 1 - a) / 2, with p_out the mean over the shadow models that
    did not see x; few are enough.
    """
    outside = ~inside_SN
    if not outside.any(axis=0).all():
        raise ValueError("some points are in every shadow model; none says how they look unseen")
    p_out = np.where(outside, shadows_SN, 0.0).sum(axis=0) / outside.sum(axis=0)
    found: Floats = (own_N + TINY) / (((1 + a) * p_out + 1 - a) / 2 + TINY)
    return found


def fitted_a(shadows_SN: Floats, inside_SN: Inside) -> float:
    """Return the `a` by which shadow models are best attacked with the others as references.

    Nothing is known of the attacked model's members, so nothing is fitted to them.
    """
    fewest = int((~inside_SN).sum(axis=0).min())
    if len(shadows_SN) < _ATTACKED or fewest < 2:  # the one without a point may be the attacked
        return OFFLINE_A

    def area(a: float) -> float:
        areas = []
        for number in range(_ATTACKED):
            others = np.arange(len(shadows_SN)) != number
            ratios = relative_probability(
                shadows_SN[number], shadows_SN[others], inside_SN[others], a
            )
            seen = inside_SN[number]
            areas.append(intervals.auc(ratios[seen], ratios[~seen]).value)
        return float(np.mean(areas))

    return max(_CANDIDATES, key=area)


def rmia(ratios_N: Floats, population_Z: Floats, gamma: float = GAMMA) -> Floats:
    """Return the share of the population that each point dominates (N,).

    x dominates z where ratio(x) >= gamma ratio(z).
    """
    below = np.searchsorted(np.sort(gamma * population_Z), ratios_N, side="right")
    share: Floats = below / len(population_Z)
    return share
