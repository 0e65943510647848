import inspect

import pytest

from trainables.attacks import ATTACKS, attack
from trainables.attacks.registry import KEYWORDS, attack_facts
from trainables.errors import InputError


def test_an_unknown_attack_names_the_known_ones() -> None:
    with pytest.raises(InputError, match="unknown attack 'nope'; known: fgsm, pgd"):
        attack("nope")


def test_attacks_are_found_by_name() -> None:
    assert all(attack(name) is function for name, function in ATTACKS.items())


def test_settings_of_attacks_are_keywords_and_end_in_the_generator() -> None:
    for name, function in ATTACKS.items():
        parameters = list(inspect.signature(function).parameters.values())
        assert [p.name for p in parameters[:3]] == ["model", "x", "y"], name
        assert all(p.kind is p.KEYWORD_ONLY for p in parameters[3:]), name
        assert parameters[-1].name == "generator", name


def test_the_facts_of_an_attack_come_from_its_function() -> None:
    facts = attack_facts(ATTACKS["pgd"])
    assert facts.meaning.startswith("Climb a loss inside the ball")
    assert facts.source == "Madry et al., 2018"
    assert facts.parameters["steps"]["default"] == 20
    assert facts.parameters["eps"]["meaning"] == KEYWORDS["eps"].meaning
