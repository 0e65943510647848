"""What an attacker who knows the stack does against its filters and repairs."""

from __future__ import annotations

from dataclasses import dataclass

from trainables.defenses import Defense, Stack
from trainables.defenses.stack import REPAIR
from trainables.trial.context import TrialContext

_AGAINST_POISON = ("data_filter", REPAIR)


@dataclass(frozen=True, slots=True)
class Adaptive:
    """Attacks that were made against the defenses of a stack."""

    run: tuple[str, ...]
    lacking: tuple[str, ...]
    """For each defense against poison without one, in words, that none is run."""


def adaptive_attacks(stack: Stack[Defense]) -> Adaptive:
    """Return the attacks that the stack's defenses name as those that know them.

    Training and deployment defenses were not made against poison, and nothing adapts to them.
    """
    against = [defense for defense in stack if defense.slot in _AGAINST_POISON]
    run = (defense.adaptive_backdoor for defense in against)
    return Adaptive(
        run=tuple(dict.fromkeys(name for name in run if name is not None)),
        lacking=tuple(
            f"no poison that is made against {defense.name} is run"
            for defense in against
            if defense.adaptive_backdoor is None
        ),
    )


def clean_rows(ctx: TrialContext) -> dict[str, int]:
    """Return as a note how many clean rows a repair of the stack was given; empty without one."""
    calibration = ctx.pools.calibration
    repairing = any(defense.slot == REPAIR for defense in ctx.spec.stack)
    return {"repair_rows": len(calibration)} if repairing and calibration else {}
