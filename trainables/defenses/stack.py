"""Stacks: defenses that are used together, in the order of their slots."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import combinations
from typing import Any, Generic, Literal, Protocol, TypeVar

from trainables.errors import InputError
from trainables.imports import code_fingerprint

Slot = Literal[
    "data_filter", "training_batch", "labels", "penalty", "stopping", "repair", "architecture",
    "deployment",
]  # fmt: skip
SLOTS: tuple[Slot, ...] = (
    "data_filter", "training_batch", "labels", "penalty", "stopping", "repair", "architecture",
    "deployment",
)  # fmt: skip
"""A stack holds at most one defense a slot, in this order. Stopping has one of its own, since a
training that stops early goes with every other defense. A repair comes before what an architecture
does in its deployment: it changes the network alone."""
REPAIR: Slot = "repair"


class Stackable(Protocol):
    """What a stack asks of its members; `Defense` answers it, whose context holds a stack."""

    @property
    def name(self) -> str:
        """Name in the registry, or import path."""

    @property
    def slot(self) -> Slot | None:
        """The slot that it fills; None: it does nothing."""

    @property
    def owns(self) -> tuple[str, ...]:
        """What only one of a stack may do."""

    @property
    def refuses(self) -> Mapping[str, str]:
        """Name of another -> why the two cannot be stacked."""

    @property
    def deployment_only(self) -> tuple[str, ...]:
        """Parameters that no training depends on."""

    @property
    def shapes_training(self) -> bool:
        """Whether it has a part in the training."""

    def canonical(self) -> dict[str, Any]:
        """Return name and parameters as plain JSON values."""


Member = TypeVar("Member", bound=Stackable, covariant=True)


@dataclass(frozen=True, slots=True)
class Stack(Generic[Member]):
    """Defenses that may be stacked, put in the order of their slots, without `none`.

    Raises InputError, with the reason, where two of them cannot be stacked: there is no stack that
    was not checked.
    """

    defenses: tuple[Member, ...] = ()

    def __post_init__(self) -> None:
        placed = [(SLOTS.index(d.slot), d) for d in self.defenses if d.slot is not None]
        placed.sort(key=lambda place: place[0])
        ordered = tuple(defense for _, defense in placed)
        for first, second in combinations(ordered, 2):
            reason = conflict(first, second)
            if reason:
                raise InputError(f"{first.name} and {second.name} cannot be stacked: {reason}")
        object.__setattr__(self, "defenses", ordered)

    def __iter__(self) -> Iterator[Member]:
        return iter(self.defenses)

    def __len__(self) -> int:
        return len(self.defenses)

    @property
    def training(self) -> tuple[Member, ...]:
        """Those that have a part in the training, and so in the trained model's identity."""
        return tuple(defense for defense in self.defenses if defense.shapes_training)

    def identity(self) -> list[dict[str, Any]]:
        """Return the stack's part in the identity of a deployed model, as plain JSON values."""
        return [_identity(defense) for defense in self.defenses]

    def training_identity(self) -> list[dict[str, Any]]:
        """Return the stack's part in the identity of a trained model, as plain JSON values.

        What only changes the deployment is none of it, so that a new temperature trains nothing.
        """
        return [
            {k: v for k, v in _identity(defense).items() if k not in defense.deployment_only}
            for defense in self.training
        ]


def build_stack(defenses: Iterable[Member]) -> Stack[Member]:
    """Build the stack of some defenses, in whatever order they come."""
    return Stack(tuple(defenses))


def conflict(first: Stackable, second: Stackable) -> str | None:
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


def _identity(defense: Stackable) -> dict[str, Any]:
    plain = defense.canonical()
    if ":" in defense.name:  # a user's own: changed code is another defense
        plain["code"] = code_fingerprint(defense.name, "defense")
    return plain
