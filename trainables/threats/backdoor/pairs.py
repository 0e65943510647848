"""Which pairs of classes are attacked, and which of them share a twin.

Axes: N rows, K classes.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from itertools import permutations

from torch import Tensor

from trainables.errors import InputError
from trainables.threats.backdoor.poison import Recipe
from trainables.threats.backdoor.triggers import PLACES

Pair = tuple[int, int]
"""Source and target."""
MOST_IN_A_TWIN = len(PLACES)
"""Each pair of a twin has its patch in a place of its own."""


def draw_pairs(
    num_classes: int, number: int, *, seed: int, allowed: Callable[[Pair], bool]
) -> list[list[Pair]]:
    """Draw so many of the allowed pairs, fewer where there are no more, in groups for a twin each.

    The pairs of a group have no class in common: each has the poison in a target of its own, at
    the rate that it would have alone.
    """
    left = [pair for pair in permutations(range(num_classes), 2) if allowed(pair)]
    random.Random(seed).shuffle(left)
    groups: list[list[Pair]] = []
    while left and number > 0:
        group: list[Pair] = []
        for pair in left:
            taken = {each for other in group for each in other}
            if taken.isdisjoint(pair) and len(group) < min(number, MOST_IN_A_TWIN):
                group.append(pair)
        left = [pair for pair in left if pair not in group]
        number -= len(group)
        groups.append(group)
    return groups


def attackable(pair: Pair, recipes: Iterable[Recipe], labels: Tensor) -> bool:
    """Return whether every recipe finds rows to poison for a pair among rows of labels (N,)."""
    try:
        for recipe in recipes:
            _of(pair, recipe).portion(labels)
    except InputError:
        return False
    return True


def rates_not_met(
    pairs: Iterable[Pair], recipes: Sequence[Recipe], labels: Tensor
) -> tuple[str, ...]:
    """Return in words for each pair whose rate is not met why; recipes of one rate say it once."""
    found = (
        f"{pair[0]} to {pair[1]}: {words}"
        for pair in pairs
        for recipe in recipes
        if (words := _of(pair, recipe).portion(labels).capped)
    )
    return tuple(dict.fromkeys(found))


def _of(pair: Pair, recipe: Recipe) -> Recipe:
    return replace(recipe, source=pair[0], target=pair[1])
