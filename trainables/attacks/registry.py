"""The attacks by name: what each is, and what its settings mean."""

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from torch import Tensor

from trainables.attacks.autoattack import autoattack
from trainables.attacks.bim import bim
from trainables.attacks.carlini_wagner import carlini_wagner
from trainables.attacks.deepfool import deepfool
from trainables.attacks.detector_aware_pgd import detector_aware_pgd
from trainables.attacks.fgsm import fgsm
from trainables.attacks.lbfgs import lbfgs
from trainables.attacks.pgd import pgd
from trainables.attacks.queries.few_pixel import few_pixel
from trainables.attacks.queries.hop_skip_jump import hop_skip_jump
from trainables.attacks.queries.random_noise import random_noise
from trainables.attacks.queries.square import square
from trainables.attacks.targeted_margin_pgd import targeted_margin_pgd
from trainables.attacks.transfer import transfer
from trainables.errors import InputError

Attack = Callable[..., Tensor]
"""(model, x, y, *, eps, ..., generator) -> x_adv"""


@dataclass(frozen=True, slots=True)
class AttackEntry:
    """An attack's function, and what it is to those who run it and list it."""

    function: Attack
    meaning: str
    source: str
    goal: Literal["ball", "minimum_norm", "pixels"] = "ball"
    """ball: the worst image within `eps`; minimum_norm: the smallest change that succeeds; pixels:
    the worst image that differs in at most `pixels` pixels."""
    sees: Literal["gradients", "detector", "scores", "labels", "surrogate"] = "gradients"
    """What it works on: gradients of the model; those of a detector as well, as `reject_margin`;
    the deployed scores alone; the deployed labels alone, as scores of which one is 1 and the others
    are 0; the gradients of another model, its `surrogate`."""
    norm: Literal["linf", "l2", "l0"] = "linf"
    """The norm that it is measured in, unless a `norm` is set."""


ATTACKS: Mapping[str, AttackEntry] = {
    "fgsm": AttackEntry(
        fgsm,
        "Take one signed gradient step of the cross-entropy to the border of the Linf ball",
        "Goodfellow et al., 2015, eq. in section 4",
    ),
    "pgd": AttackEntry(
        pgd,
        "Climb a loss inside the ball, with restarts for the images that resist",
        "Madry et al., 2018",
    ),
    "targeted_margin_pgd": AttackEntry(
        targeted_margin_pgd,
        "Climb score(target) - score(true class) for the wrong classes with the highest clean "
        "scores",
        "the targeted margin of Gowal et al., 2019 (MultiTargeted)",
    ),
    "detector_aware_pgd": AttackEntry(
        detector_aware_pgd,
        "Climb the margin of the classifier where it holds, else descend the detector's score",
        "Bryniarski et al., 2022 (selective PGD); Carlini and Wagner, 2017",
        sees="detector",
    ),
    "bim": AttackEntry(
        bim,
        "Take signed gradient steps of the cross-entropy in the Linf ball, from the image itself",
        "Kurakin et al., 2017",
    ),
    "autoattack": AttackEntry(
        autoattack,
        "Run the standard AutoAttack on the images that are classified correctly",
        "Croce and Hein, 2020",
    ),
    "square": AttackEntry(
        square,
        "Search the ball by changing one random square window at a time; asks for scores only",
        "Andriushchenko et al., 2020, Algorithms 1 to 3",
        sees="scores",
    ),
    "few_pixel": AttackEntry(
        few_pixel,
        "Overwrite at most `pixels` pixels, found by local search; asks for scores only",
        "Croce et al., 2022 (Sparse-RS, Algorithm 2), after Narodytska and Kasiviswanathan, 2017",
        sees="scores",
        goal="pixels",
        norm="l0",
    ),
    "hop_skip_jump": AttackEntry(
        hop_skip_jump,
        "Walk along the border of the true class towards the image; asks for labels only",
        "Chen et al., 2020 (HopSkipJump), Algorithms 1 and 2",
        sees="labels",
    ),
    "transfer": AttackEntry(
        transfer,
        "Attack a surrogate with all steps of pgd and return the result; the model is not queried",
        "Papernot et al., 2016 (Transferability)",
        sees="surrogate",
    ),
    "random_noise": AttackEntry(
        random_noise,
        "Draw noise from the ball until one fools the model; asks for scores only",
        "Carlini et al., 2019, section 5.2 (a check on evaluations)",
        sees="scores",
    ),
    "deepfool": AttackEntry(
        deepfool,
        "Step over the nearest linearised boundary of the true class until the image is wrong",
        "Moosavi-Dezfooli et al., 2016, algorithm 2",
        goal="minimum_norm",
        norm="l2",
    ),
    "carlini_wagner": AttackEntry(
        carlini_wagner,
        "Minimise ||x' - x||^2 + c max(score(y) - best other score + confidence, 0) by Adam",
        "Carlini and Wagner, 2017, section V and the authors' code",
        goal="minimum_norm",
        norm="l2",
    ),
    "lbfgs": AttackEntry(
        lbfgs,
        "Minimise c ||r||^2 + cross-entropy(x + r, target) over the box of images by L-BFGS",
        "Szegedy et al., 2014, section 4.1",
        goal="minimum_norm",
        norm="l2",
    ),
}


def attack(name: str) -> Attack:
    """Look the function of an attack up; InputError names the known ones."""
    if name not in ATTACKS:
        raise InputError(f"unknown attack {name!r}; known: {', '.join(ATTACKS)}")
    return ATTACKS[name].function


def keywords_of(function: Attack) -> dict[str, dict[str, Any]]:
    """Return meaning, range and default of the settings in an attack's signature."""
    keyword = inspect.Parameter.KEYWORD_ONLY
    return {
        parameter.name: {
            "meaning": KEYWORDS[parameter.name].meaning,
            "range": KEYWORDS[parameter.name].range,
            "default": None if parameter.default is parameter.empty else parameter.default,
        }
        for parameter in inspect.signature(function).parameters.values()
        if parameter.kind is keyword and parameter.name != "generator"
    }


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
    "levels": Keyword("largest grey levels of files that images are rounded to", "> 0, several"),
    "by_rounding": Keyword("is set where an image gets past by rounding alone", "(N,) bool"),
    "targets": Keyword("likely wrong classes that are tried", ">= 1"),
    "early_stop": Keyword(
        "freeze images once they are wrong or no longer improve", "true or false"
    ),
    "pixels": Keyword("pixels that may change, each with all its channels", ">= 1"),
    "draws": Keyword("draws of noise, or probes of the first step", ">= 1"),
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
