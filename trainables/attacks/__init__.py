"""One file an attack: plain functions (model, x, y, *, eps, ..., generator) -> x_adv."""

from trainables.attacks.registry import ATTACKS, Attack, AttackEntry, attack
from trainables.attacks.variants import VARIANTS, Variant, variant

__all__ = ["ATTACKS", "VARIANTS", "Attack", "AttackEntry", "Variant", "attack", "variant"]
