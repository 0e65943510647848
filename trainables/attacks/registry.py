"""The attacks by name."""

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from trainables.attacks.autoattack import autoattack
from trainables.attacks.bim import bim
from trainables.attacks.carlini_wagner import carlini_wagner
from trainables.attacks.deepfool import deepfool
from trainables.attacks.detector_aware_pgd import detector_aware_pgd
from trainables.attacks.few_pixel import few_pixel
from trainables.attacks.fgsm import fgsm
from trainables.attacks.lbfgs import lbfgs
from trainables.attacks.pgd import pgd
from trainables.attacks.random_noise import random_noise
from trainables.attacks.square import square
from trainables.attacks.targeted_margin_pgd import targeted_margin_pgd
from trainables.attacks.transfer import transfer
from trainables.errors import InputError

Attack = Callable[..., Tensor]
"""(model, x, y, *, eps, ..., generator) -> x_adv"""


ATTACKS: Mapping[str, Attack] = {
    "fgsm": fgsm,
    "pgd": pgd,
    "targeted_margin_pgd": targeted_margin_pgd,
    "detector_aware_pgd": detector_aware_pgd,
    "bim": bim,
    "autoattack": autoattack,
    "square": square,
    "few_pixel": few_pixel,
    "transfer": transfer,
    "random_noise": random_noise,
    "deepfool": deepfool,
    "carlini_wagner": carlini_wagner,
    "lbfgs": lbfgs,
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
    "steps": Keyword("steps of the gradient or of the random search", ">= 1"),
    "step_size": Keyword("length of the (first) step in pixel units", "> 0; null: by the attack"),
    "random_start": Keyword("start at a random point of the ball", "true or false"),
    "restarts": Keyword("times that images which resist are started again", ">= 1"),
    "reject_margin": Keyword("what a detector rejects by, positive where it does", "a function"),
    "targets": Keyword("likely wrong classes that are tried", ">= 1"),
    "early_stop": Keyword(
        "freeze images once they are wrong or no longer improve", "true or false"
    ),
    "pixels": Keyword("pixels that may change, each with all its channels", ">= 1"),
    "draws": Keyword("draws of noise", ">= 1"),
    "surrogate": Keyword("the model that the images are crafted on", "images -> scores"),
    "eot_draws": Keyword("draws that a stochastic model's gradient is averaged over", ">= 1"),
    "stochastic": Keyword("whether the model draws at random at each call", "true or false"),
    "queries": Keyword("counts, image by image, how often scores were asked", "(N,) int64"),
    "candidates": Keyword("likely classes whose boundaries are tried, one is the true one", ">= 2"),
    "overshoot": Keyword("share by which the whole perturbation is lengthened", ">= 0"),
    "search_steps": Keyword("values of the constant c that are tried on each image", ">= 1"),
    "confidence": Keyword("margin of scores by which an image is to be misclassified", ">= 0"),
    "initial_const": Keyword("first value of the constant c", "> 0"),
}
