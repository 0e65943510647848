"""Draws of whole trials at random: how many defenses first, then which of them.

Slot by slot, each filled with some defense more often than left empty, nearly every stack of a
large space is as high as it may be or higher. Nothing that is drawn here is cut.
"""

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from search_spaces import Space
from search_spaces.choosers import RandomChooser
from search_spaces.domains import Flat
from search_spaces.schema import NONE
from trainables.defenses import Slot


def sizes(space: Space) -> range:
    """Return the numbers of defenses that are drawn, each as often as the others.

    None is one of them where the undefended model is not tried before the search begins.
    """
    highest = min(space.file.max_stack, len(space.slots))
    return range(min(1, highest) if {} in space.file.first else 0, highest + 1)


def draw_size(space: Space, generator: np.random.Generator) -> int:
    """Draw a number of defenses."""
    return int(generator.choice(list(sizes(space))))


def draw_stack(space: Space, generator: np.random.Generator) -> Flat:
    """Draw a trial: a number of defenses, then so many that may be stacked, where there are."""
    chooser = RandomChooser(generator)
    empty = {f"slot.{slot}": NONE for slot in space.slots}
    return filled(space, space.draw_shared(chooser) | empty, draw_size(space, generator), generator)


def filled(space: Space, flat: Flat, size: int, generator: np.random.Generator) -> Flat:
    """Add random defenses in random empty slots until the stack has its size, if that can be."""
    slots = [slot for slot in space.slots if flat[f"slot.{slot}"] == NONE]
    height = len(space.slots) - len(slots)
    order = [slots[int(place)] for place in generator.permutation(len(slots))]
    at_once = flat
    for slot in order[: max(0, size - height)]:
        at_once = _with_one(space, at_once, slot, generator)
    if space.ran(at_once) == at_once:  # mostly; one after the other takes several times as long
        return at_once
    for slot in order:
        if height >= size:
            break
        higher = _with_one(space, flat, slot, generator)
        if space.ran(higher) == higher:
            flat, height = higher, height + 1
    return flat


def _with_one(space: Space, flat: Flat, slot: Slot, generator: np.random.Generator) -> Flat:
    chooser = RandomChooser(generator)
    name = str(chooser.choose(slot, space.slots[slot]))
    return flat | {f"slot.{slot}": name, **space.draw_defense(chooser, name)}


def without(space: Space, flat: Mapping[str, Any], slots: Iterable[str]) -> Flat:
    """Return a draw with some slots empty."""
    found = dict(flat)
    for slot in slots:
        for drawn in space.names_by_defense.get(str(found[f"slot.{slot}"]), ()):
            found.pop(drawn, None)
        found[f"slot.{slot}"] = NONE
    return found


def filled_slots(space: Space, flat: Mapping[str, Any]) -> list[str]:
    """Return the slots that a draw fills."""
    return [slot for slot in space.slots if flat.get(f"slot.{slot}", NONE) != NONE]
