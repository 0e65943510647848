"""Stacks: defenses that are used together, in the order of their slots."""

from collections.abc import Iterable

from trainables.defenses.defense import SLOTS, Defense
from trainables.errors import InputError

Stack = tuple[Defense, ...]


def build_stack(defenses: Iterable[Defense]) -> Stack:
    """Put defenses into the order of their slots, without `none`.

    Raises InputError, with the reason, where two of them cannot be stacked.
    """
    stack = [defense for defense in defenses if defense.slot is not None]
    stack.sort(key=lambda defense: SLOTS.index(defense.slot) if defense.slot else -1)
    for index, first in enumerate(stack):
        for second in stack[index + 1 :]:
            reason = conflict(first, second)
            if reason:
                raise InputError(f"{first.name} and {second.name} cannot be stacked: {reason}")
    return tuple(stack)


def conflict(first: Defense, second: Defense) -> str | None:
    """Return why two defenses cannot be stacked, or None."""
    named = first.refuses.get(second.name) or second.refuses.get(first.name)
    if named:
        return named
    if first.slot == second.slot:
        return f"both fill the slot {first.slot}"
    shared = set(first.owns) & set(second.owns)
    if shared:
        return f"both own the {sorted(shared)[0].replace('_', ' ')} of a training"
    return None
