"""Variations of stacks that did well: one defense more, fewer or other, or the parts of two."""

from collections.abc import Callable, Sequence

import numpy as np

from orchestrator.search.stacks import filled, filled_slots, sizes, without
from search_spaces import Space
from search_spaces.choosers import RandomChooser
from search_spaces.domains import Flat
from search_spaces.schema import NONE

_Change = Callable[[Space, Flat, Sequence[Flat], np.random.Generator], Flat]


def variation(space: Space, parents: Sequence[Flat], generator: np.random.Generator) -> Flat:
    """Return one of the parents with one change; it can be stacked, and none of it is cut."""
    parent = parents[int(generator.integers(len(parents)))]
    change = _CHANGES[int(generator.integers(len(_CHANGES)))]
    changed = space.ran(change(space, parent, parents, generator))
    if len(filled_slots(space, changed)) < sizes(space).start:
        return filled(space, changed, sizes(space).start, generator)
    return changed


def _more(
    space: Space, parent: Flat, parents: Sequence[Flat], generator: np.random.Generator
) -> Flat:
    del parents
    size = min(len(filled_slots(space, parent)) + 1, sizes(space).stop - 1)
    return filled(space, parent, size, generator)


def _fewer(
    space: Space, parent: Flat, parents: Sequence[Flat], generator: np.random.Generator
) -> Flat:
    del parents
    return without(space, parent, _one_of(filled_slots(space, parent), generator))


def _other(
    space: Space, parent: Flat, parents: Sequence[Flat], generator: np.random.Generator
) -> Flat:
    fewer = _fewer(space, parent, parents, generator)
    return filled(space, fewer, max(1, len(filled_slots(space, parent))), generator)


def _settings(
    space: Space, parent: Flat, parents: Sequence[Flat], generator: np.random.Generator
) -> Flat:
    """Draw the settings of one defense anew, or what is drawn besides the stack."""
    del parents
    chooser = RandomChooser(generator)
    slots = filled_slots(space, parent)
    place = int(generator.integers(len(slots) + 1))
    if place == len(slots):
        stack = {k: parent[k] for k in parent if k.startswith("slot.")}
        for slot in slots:
            names = space.names_by_defense[parent[f"slot.{slot}"]]
            stack |= {name: parent[name] for name in names if name in parent}
        return space.draw_shared(chooser) | stack
    key = f"slot.{slots[place]}"
    bare = without(space, parent, [slots[place]])
    return bare | {key: parent[key], **space.draw_defense(chooser, parent[key])}


def _both(
    space: Space, parent: Flat, parents: Sequence[Flat], generator: np.random.Generator
) -> Flat:
    """Put what another parent has into the empty slots, up to the highest stack."""
    other = parents[int(generator.integers(len(parents)))]
    room = sizes(space).stop - 1 - len(filled_slots(space, parent))
    empty = [slot for slot in filled_slots(space, other) if parent[f"slot.{slot}"] == NONE]
    flat = dict(parent)
    for place in generator.permutation(len(empty))[: max(0, room)]:
        key = f"slot.{empty[int(place)]}"
        names = space.names_by_defense[other[key]]
        flat |= {key: other[key], **{name: other[name] for name in names if name in other}}
    return flat


def _one_of(slots: Sequence[str], generator: np.random.Generator) -> list[str]:
    return [slots[int(generator.integers(len(slots)))]] if slots else []


_CHANGES: tuple[_Change, ...] = (_more, _fewer, _other, _settings, _both)
