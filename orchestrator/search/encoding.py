"""Draws as numbers: which defenses a stack has, and each one's settings between 0 and 1."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)

from orchestrator.search.distributions import space_distributions
from orchestrator.search.surrogate import Points
from search_spaces import Space
from search_spaces.schema import NONE


class Encoding:
    """How a space's draws become points of the surrogate.

    Its parts are what all trials have (scenario, seed, training) and the defenses. A number is a
    coordinate; an option is a coordinate of its own, so that any two are as far apart.
    """

    def __init__(self, space: Space) -> None:
        self.space = space
        defenses = list(space.domains)
        owned = {name: d for d, names in space.names_by_defense.items() for name in names}
        self._part = {defense: place for place, defense in enumerate(defenses, start=1)}
        self._first: dict[str, int] = {}
        self._distributions = {
            name: distribution
            for name, distribution in space_distributions(space).items()
            if not name.startswith("slot.")
        }
        settings: list[list[int]] = [[] for _ in range(len(defenses) + 1)]
        self.width = 0
        for name, distribution in self._distributions.items():
            self._first[name] = self.width
            size = _width(distribution)
            part = self._part.get(owned.get(name, ""), 0)
            settings[part] += range(self.width, self.width + size)
            self.width += size
        self.parts: list[NDArray[np.intp]] = [np.array(each, dtype=np.intp) for each in settings]

    def points(self, flats: Sequence[Mapping[str, Any]]) -> Points:
        """Return draws as points; nothing of what is cut from a stack may be in them."""
        present = np.zeros((len(flats), len(self.parts)))
        settings = np.zeros((len(flats), self.width))
        present[:, 0] = 1.0
        for row, flat in enumerate(flats):
            for slot in self.space.slots:
                name = flat.get(f"slot.{slot}", NONE)
                if name != NONE:
                    present[row, self._part[name]] = 1.0
            for name, first in self._first.items():
                if name in flat:
                    place = _coordinates(self._distributions[name], flat[name])
                    settings[row, first : first + len(place)] = place
        return Points(present, settings)


def _width(distribution: BaseDistribution) -> int:
    return len(distribution.choices) if isinstance(distribution, CategoricalDistribution) else 1


def _coordinates(distribution: BaseDistribution, value: Any) -> list[float]:
    if isinstance(distribution, CategoricalDistribution):
        # Two options are 1 apart, as are the two ends of a range.
        index = distribution.to_internal_repr(value)
        return [math.sqrt(0.5) * (place == index) for place in range(len(distribution.choices))]
    assert isinstance(distribution, FloatDistribution | IntDistribution)
    low, high = float(distribution.low), float(distribution.high)
    if distribution.log:
        return [math.log(float(value) / low) / math.log(high / low)]
    return [(float(value) - low) / (high - low)]
