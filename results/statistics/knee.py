"""The knee of a front: the point with the largest loss if removed, over all weightings.

Axes: N points, D goals, W weightings.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from results.statistics.fronts import front

Floats = NDArray[np.float64]
_WEIGHTINGS, _SEED = 20_000, 0


def marginal_utilities(losses_ND: Floats) -> Floats:
    """Return the expected marginal utility (N,) of points with losses (N, D): less is better.

    Losses are scaled so that the front spans [0, 1] in each goal. Over weightings of the goals,
    drawn evenly from all that sum to 1, a point is worth by how much the best of the others is
    worse wherever it is the best itself, and else nothing. Source: Branke, Deb, Dierolf and
    Osswald, Finding knees in multi-objective optimization, 2004, section 3.2.
    """
    N, D = losses_ND.shape
    utilities = np.zeros(N)
    rows = np.flatnonzero(front(losses_ND))
    if len(rows) < 2:
        utilities[rows] = 1.0
        return utilities
    members_MD = losses_ND[rows]
    span_D = np.ptp(members_MD, axis=0)
    scaled_MD = (members_MD - members_MD.min(0)) / np.where(span_D > 0, span_D, 1.0)
    weights_WD = np.random.default_rng(_SEED).dirichlet(np.ones(D), _WEIGHTINGS)
    sums_WM = weights_WD @ scaled_MD.T
    best_W = sums_WM.argmin(1)
    first_two = np.partition(sums_WM, 1, axis=1)[:, :2]
    gains = np.bincount(best_W, weights=first_two[:, 1] - first_two[:, 0], minlength=len(rows))
    utilities[rows] = gains / _WEIGHTINGS
    return utilities
