import inspect

import pytest

from trainables.attacks import ATTACKS, attack, variant
from trainables.attacks.registry import KEYWORDS, keywords_of
from trainables.errors import InputError


def test_an_unknown_attack_names_the_known_ones() -> None:
    with pytest.raises(InputError, match="unknown attack 'nope'; known: fgsm, pgd"):
        attack("nope")


def test_attacks_are_found_by_name() -> None:
    assert all(attack(name) is entry.function for name, entry in ATTACKS.items())


def test_settings_of_attacks_are_keywords_and_end_in_the_generator() -> None:
    for name, entry in ATTACKS.items():
        parameters = list(inspect.signature(entry.function).parameters.values())
        assert [p.name for p in parameters[:3]] == ["model", "x", "y"], name
        assert all(p.kind is p.KEYWORD_ONLY for p in parameters[3:]), name
        assert parameters[-1].name == "generator", name


def test_the_keywords_of_an_attack_come_from_its_signature() -> None:
    keywords = keywords_of(attack("pgd"))
    assert "generator" not in keywords
    assert keywords["steps"]["default"] == 20
    assert keywords["eps"]["meaning"] == KEYWORDS["eps"].meaning


@pytest.mark.parametrize("name", ATTACKS)
def test_what_is_declared_of_an_attack_agrees_with_its_signature(name: str) -> None:
    entry, keywords = ATTACKS[name], set(keywords_of(attack(name)))
    assert (entry.goal == "ball") is ("eps" in keywords)
    assert (entry.goal == "pixels") is ("pixels" in keywords) is (entry.norm == "l0")
    assert (entry.sees == "surrogate") is ("surrogate" in keywords)
    assert (entry.sees == "detector") is ("reject_margin" in keywords)
    assert entry.sees in ("scores", "labels") or not keywords & {"queries", "draws"}
    assert entry.norm != "l2" or entry.goal == "minimum_norm"


def test_a_variant_is_measured_in_the_norm_that_it_fixes() -> None:
    assert (variant("pgd").norm, variant("pgd_l2").norm) == ("linf", "l2")
    assert variant("pgd_l2").in_ball and not variant("pgd_l2").minimum_norm
    assert variant("deepfool").minimum_norm and variant("deepfool").norm == "l2"
    assert variant("few_pixel").norm == "l0" and variant("few_pixel").score_only
    assert variant("pgd_dlr").meaning == f"{ATTACKS['pgd'].meaning}: loss dlr"
