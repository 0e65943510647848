"""One file a defense: frozen parameters and the hooks that it uses."""

from trainables.defenses.defense import (
    Defense,
    DefenseContext,
    EpochData,
    EpochVerdict,
    Preparation,
    View,
)
from trainables.defenses.registry import DEFENSES, build_defense, defense_type
from trainables.defenses.stack import SLOTS, Slot, Stack, build_stack

__all__ = [
    "DEFENSES",
    "SLOTS",
    "Defense",
    "DefenseContext",
    "EpochData",
    "EpochVerdict",
    "Preparation",
    "Slot",
    "Stack",
    "View",
    "build_defense",
    "build_stack",
    "defense_type",
]
