"""Attacks under settings that are measured and named on their own: another norm, another loss."""

import inspect
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Literal

from trainables.attacks.registry import ATTACKS, Attack, AttackEntry
from trainables.errors import InputError

_NONE: Mapping[str, Any] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class Variant:
    """An attack with some of its keywords fixed."""

    attack: str
    fixed: Mapping[str, Any] = field(default_factory=lambda: _NONE)
    surrogate: Literal["same_stack", "undefended", "hardened"] = "same_stack"
    """Which model images are made on, where the attack takes one: one trained as the attacked one
    but from another seed, the undefended one that a static fine-tuning starts from, or one that
    plain adversarial training hardened, which inherits nothing of the stack either."""

    @property
    def suffix(self) -> str:
        """What sets it apart from its attack, in words to follow the attack's meaning."""
        if self.surrogate == "undefended":
            return ": the surrogate is the undefended model"
        if self.surrogate == "hardened":
            return ": the surrogate is an adversarially trained model"
        fixed = ", ".join(f"{name} {value}" for name, value in self.fixed.items())
        return f": {fixed}" if fixed else ""

    @property
    def entry(self) -> AttackEntry:
        """What the registry declares of the attack."""
        return ATTACKS[self.attack]

    @property
    def function(self) -> Attack:
        """The attack's function."""
        return self.entry.function

    @property
    def meaning(self) -> str:
        """What the attack does, and under which settings."""
        return f"{self.entry.meaning}{self.suffix}"

    def takes(self, keyword: str) -> bool:
        """Return whether the attack takes a keyword."""
        return keyword in inspect.signature(self.function).parameters

    @property
    def norm(self) -> str:
        """The norm that it is measured in: linf, l2 or l0."""
        return str(self.fixed.get("norm", self.entry.norm))

    @property
    def in_ball(self) -> bool:
        """Whether it looks for the worst image within a radius, `eps`."""
        return self.entry.goal == "ball"

    @property
    def minimum_norm(self) -> bool:
        """Whether it looks for the smallest change instead of the worst one in a ball."""
        return self.entry.goal == "minimum_norm"

    @property
    def score_only(self) -> bool:
        """Whether it asks for scores or labels and never for a gradient."""
        return self.entry.sees in ("scores", "labels")


VARIANTS: Mapping[str, Variant] = {
    **{name: Variant(name) for name in ATTACKS},
    "transfer_undefended": Variant("transfer", surrogate="undefended"),
    "transfer_hardened": Variant("transfer", surrogate="hardened"),
    "pgd_dlr": Variant("pgd", {"loss": "dlr"}),
    "pgd_l2": Variant("pgd", {"norm": "l2"}),
    "targeted_margin_pgd_l2": Variant("targeted_margin_pgd", {"norm": "l2"}),
    "square_l2": Variant("square", {"norm": "l2"}),
    "hop_skip_jump_l2": Variant("hop_skip_jump", {"norm": "l2"}),
    "autoattack_l2": Variant("autoattack", {"norm": "l2"}),
}


def variant(name: str) -> Variant:
    """Look a variant up; InputError names the known ones."""
    if name not in VARIANTS:
        raise InputError(f"unknown attack {name!r}; known: {', '.join(VARIANTS)}")
    return VARIANTS[name]
