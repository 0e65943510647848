"""One file an attack: plain functions (model, x, y, *, eps, ..., generator) -> x_adv."""

from trainables.attacks.registry import ATTACKS, Attack, attack

__all__ = ["ATTACKS", "Attack", "attack"]
