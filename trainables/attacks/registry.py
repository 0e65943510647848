"""The attacks by name."""

from collections.abc import Callable, Mapping

from torch import Tensor

from trainables.attacks.fgsm import fgsm
from trainables.attacks.pgd import pgd
from trainables.attacks.targeted_margin_pgd import targeted_margin_pgd
from trainables.errors import InputError

Attack = Callable[..., Tensor]
"""(model, x, y, *, eps, ..., generator) -> x_adv"""


ATTACKS: Mapping[str, Attack] = {
    "fgsm": fgsm,
    "pgd": pgd,
    "targeted_margin_pgd": targeted_margin_pgd,
}


def attack(name: str) -> Attack:
    """Look an attack up; InputError names the known ones."""
    if name not in ATTACKS:
        raise InputError(f"unknown attack {name!r}; known: {', '.join(ATTACKS)}")
    return ATTACKS[name]
