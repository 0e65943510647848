"""A Gaussian process over stacks whose kernel adds up defenses: their effects, and those of pairs.

What a stack does is mostly the sum of what its defenses do alone, each by its own settings, and so
the first trials, a defense each, say much about stacks that nobody has tried. Source: the additive
kernel of orders one and two: Duvenaud, Nickisch and Rasmussen, Additive Gaussian processes, 2011.

Axes: N trials, M candidates, P parts (defenses, and what all trials have), S settings.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import cho_solve, cholesky, solve_triangular

Floats = NDArray[np.float64]

_EFFECTS = (0.3, 1.0, 3.0)
_PAIRS = (0.0, 0.1, 0.5)
_LENGTHS = (0.5, 2.0)
_NOISES = (0.02, 0.1, 0.4)
_MOST_TO_CHOOSE_BY = 80
"""Trials by which the kernel's numbers are chosen; more would cost time and change little."""
_SHIFT = 1.0
"""Variance of what all trials have in common, in standard deviations of the values squared."""


@dataclass(frozen=True, slots=True)
class Points:
    """Trials or candidates as numbers."""

    present: Floats
    """(N, P), 1 where the part is in the stack."""
    settings: Floats
    """(N, S), each in [0, 1]; 0 where its part is absent."""

    def __len__(self) -> int:
        return len(self.present)

    def rows(self, chosen: NDArray[np.intp]) -> "Points":
        """Return some of them."""
        return Points(self.present[chosen], self.settings[chosen])


@dataclass(frozen=True, slots=True)
class Kernel:
    """How alike the values of two stacks are, in standard deviations of the values squared."""

    effect: float
    """Variance of what a defense changes."""
    pair: float
    """Variance of what two of them change together beyond that, as a share of the former."""
    length: float
    """Distance between settings, of which each has a range of 1, at which effects differ."""
    noise: float
    """Variance of what no stack explains, such as the luck of a training."""

    def __call__(self, a: Points, b: Points, parts: Sequence[NDArray[np.intp]]) -> Floats:
        """Return the covariance (N, M); `parts` lists the settings of each part."""
        total = np.zeros((len(a), len(b)))
        squares = np.zeros_like(total)
        for part, settings in enumerate(parts):
            both = np.outer(a.present[:, part], b.present[:, part])
            if len(settings):
                gaps = a.settings[:, None, settings] - b.settings[None, :, settings]
                both = both * np.exp(-(gaps**2).sum(-1) / (2 * self.length**2))
            total += both
            squares += both**2
        pairs = (total**2 - squares) / 2
        return _SHIFT + self.effect * (total + self.pair * pairs)


class Surrogate:
    """The posterior of one value, fitted to trials; its kernel's numbers maximise the likelihood.

    Values are brought to mean 0 and standard deviation 1 inside.
    """

    def __init__(self, points: Points, values: Floats, parts: Sequence[NDArray[np.intp]]) -> None:
        self.points, self.parts = points, parts
        self._mean = float(values.mean())
        self._spread = float(values.std()) or 1.0
        scaled = (values - self._mean) / self._spread
        self.kernel = _likeliest(points, scaled, parts)
        self._factor = _factor(points, self.kernel, parts)
        self._weights = cho_solve((self._factor, True), scaled)

    def predict(self, points: Points) -> tuple[Floats, Floats]:
        """Return means (M,) and standard deviations (M,) of what stacks do, without the noise."""
        cross = self.kernel(self.points, points, self.parts)
        known = solve_triangular(self._factor, cross, lower=True)
        height = points.present.sum(1)
        prior = _SHIFT + self.kernel.effect * (
            height + self.kernel.pair * height * (height - 1) / 2
        )
        variance = np.maximum(prior - (known**2).sum(0), 0.0)
        return self._mean + self._spread * (cross.T @ self._weights), self._spread * np.sqrt(
            variance
        )


def _likeliest(points: Points, scaled: Floats, parts: Sequence[NDArray[np.intp]]) -> Kernel:
    if len(points) > _MOST_TO_CHOOSE_BY:
        chosen = np.linspace(0, len(points) - 1, _MOST_TO_CHOOSE_BY).astype(np.intp)
        points, scaled = points.rows(chosen), scaled[chosen]
    best, highest = Kernel(1.0, 0.1, 1.0, 0.1), -np.inf
    for length in _LENGTHS:
        # What a covariance is made of depends on the length alone, and is added up otherwise.
        ones = Kernel(1.0, 0.0, length, 0.0)(points, points, parts) - _SHIFT
        pairs = Kernel(1.0, 1.0, length, 0.0)(points, points, parts) - _SHIFT - ones
        for effect, pair, noise in product(_EFFECTS, _PAIRS, _NOISES):
            covariance = _SHIFT + effect * (ones + pair * pairs) + noise * np.eye(len(points))
            likelihood = _log_likelihood(covariance, scaled)
            if likelihood > highest:
                best, highest = Kernel(effect, pair, length, noise), likelihood
    return best


def _log_likelihood(covariance: Floats, scaled: Floats) -> float:
    factor = cholesky(covariance, lower=True)
    whitened = solve_triangular(factor, scaled, lower=True)
    return float(-(whitened**2).sum() / 2 - np.log(np.diag(factor)).sum())


def _factor(points: Points, kernel: Kernel, parts: Sequence[NDArray[np.intp]]) -> Floats:
    covariance = kernel(points, points, parts) + kernel.noise * np.eye(len(points))
    factor: Floats = cholesky(covariance, lower=True)
    return factor
