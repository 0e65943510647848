"""One-sided Clopper-Pearson bounds on a probability, from counts.

Source: Clopper and Pearson, "The use of confidence or fiducial limits illustrated in the case of
the binomial" (1934). The bounds are exact in the sense that they fail with probability at most
``level``, whatever the true probability is; a two-sided interval of the same coverage needs
``level / 2`` on each side.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy.stats import beta
from torch import Tensor

from trainables.errors import InputError

Numbers = float | npt.NDArray[np.generic] | Tensor
"""A number, a numpy array or a tensor (on any device): shapes broadcast."""


def lower(successes: Numbers, trials: Numbers, level: Numbers) -> npt.NDArray[np.float64]:
    """A bound that the true probability is below with probability at most ``level``.

    Args:
        successes: counts k, ``0 <= k <= n``.
        trials: draws n, at least 1.
        level: the probability of failing, in (0, 1).

    Returns:
        float64 of the broadcast shape: ``beta.ppf(level, k, n - k + 1)``, 0 at k = 0.

    Raises:
        InputError: counts outside 0..n, no draws, or a level outside (0, 1).
    """
    k, n, a = _checked(successes, trials, level)
    # At k = 0 the beta distribution has no density: its first parameter must stay positive.
    bound = beta.ppf(a, np.where(k == 0, 1.0, k), n - k + 1.0)
    return np.asarray(np.where(k == 0, 0.0, bound), dtype=np.float64)


def upper(successes: Numbers, trials: Numbers, level: Numbers) -> npt.NDArray[np.float64]:
    """A bound that the true probability is above with probability at most ``level``.

    Args:
        successes: counts k, ``0 <= k <= n``.
        trials: draws n, at least 1.
        level: the probability of failing, in (0, 1).

    Returns:
        float64 of the broadcast shape: ``beta.ppf(1 - level, k + 1, n - k)``, 1 at k = n.

    Raises:
        InputError: counts outside 0..n, no draws, or a level outside (0, 1).
    """
    k, n, a = _checked(successes, trials, level)
    # isf keeps a tiny level that 1 - level would round away.
    bound = beta.isf(a, k + 1.0, np.where(k == n, 1.0, n - k))
    return np.asarray(np.where(k == n, 1.0, bound), dtype=np.float64)


def _checked(
    successes: Numbers, trials: Numbers, level: Numbers
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """The three as float64 arrays of one shape; what has no bound is refused."""
    k, n, a = np.broadcast_arrays(*(as_float64(value) for value in (successes, trials, level)))
    if not bool(np.all((n >= 1) & (k >= 0) & (k <= n))):
        raise InputError("a Clopper-Pearson bound needs counts of 0..n of at least one draw")
    if not bool(np.all((a > 0) & (a < 1))):
        raise InputError("a Clopper-Pearson bound needs a level above 0 and below 1")
    return k, n, a


def as_float64(value: Numbers) -> npt.NDArray[np.float64]:
    """Return a number, an array or a tensor as a float64 array."""
    plain = value.detach().cpu().numpy() if isinstance(value, Tensor) else value
    return np.asarray(plain, dtype=np.float64)
