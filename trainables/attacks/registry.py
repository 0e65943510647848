"""The attacks by name."""

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

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


@dataclass(frozen=True, slots=True)
class AttackFacts:
    """What an attack's function says of itself."""

    meaning: str
    source: str
    parameters: dict[str, dict[str, Any]]


def attack_facts(function: Attack) -> AttackFacts:
    """Read meaning and source from an attack's docstring, its parameters from its signature."""
    text = " ".join((inspect.getdoc(function) or "").split())
    meaning, _, rest = text.partition(". ")
    _, _, source = rest.partition("Source: ")
    keyword = inspect.Parameter.KEYWORD_ONLY
    parameters = {
        parameter.name: {
            "meaning": KEYWORDS[parameter.name].meaning,
            "range": KEYWORDS[parameter.name].range,
            "default": None if parameter.default is parameter.empty else parameter.default,
        }
        for parameter in inspect.signature(function).parameters.values()
        if parameter.kind is keyword and parameter.name != "generator"
    }
    return AttackFacts(meaning, source.removesuffix("."), parameters)


@dataclass(frozen=True, slots=True)
class Keyword:
    """One of the fixed keyword names of attacks."""

    meaning: str
    range: str


KEYWORDS: Mapping[str, Keyword] = {
    "eps": Keyword("radius of the ball in pixel units, one or one per image", "[0, 1] for linf"),
    "norm": Keyword("norm of the ball", "linf or l2"),
    "loss": Keyword("what is climbed", "ce or dlr"),
    "steps": Keyword("gradient steps", ">= 1"),
    "step_size": Keyword("length of the (first) step in pixel units", "> 0; null: by the attack"),
    "random_start": Keyword("start at a random point of the ball", "true or false"),
    "restarts": Keyword("times that images which resist are started again", ">= 1"),
    "targets": Keyword("likely wrong classes that are tried", ">= 1"),
    "early_stop": Keyword("freeze images once they are misclassified", "true or false"),
}
