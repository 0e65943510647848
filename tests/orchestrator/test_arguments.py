import pytest

from orchestrator.arguments import parse_duration, parse_named, parse_stack, parse_threats
from trainables.errors import InputError
from trainables.threats import THREATS


def test_names_carry_parameters() -> None:
    assert parse_named("none") == ("none", {})
    assert parse_named("temperature:T=fit") == ("temperature", {"T": "fit"})
    assert parse_named("a:x=1,y=0.5 radius") == ("a", {"x": "1", "y": "0.5 radius"})


def test_a_plus_joins_a_set_but_not_an_exponent() -> None:
    assert parse_named("a:eps=4/255+8/255")[1] == {"eps": ["4/255", "8/255"]}
    assert parse_named("a:lam=1e+3")[1] == {"lam": "1e+3"}


def test_an_import_path_may_carry_parameters() -> None:
    assert parse_named("my.module:Armour") == ("my.module:Armour", {})
    assert parse_named("my.module:Armour:x=1") == ("my.module:Armour", {"x": "1"})


@pytest.mark.parametrize("text", ["temperature:T", "a:x=", "a:=1", "a:x=1,x=2"])
def test_what_is_no_parameter_is_refused(text: str) -> None:
    with pytest.raises(InputError, match=r"write NAME|twice"):
        parse_named(text)


def test_a_stack_is_put_into_the_order_of_its_slots() -> None:
    stack = parse_stack(["temperature", "fgsm_adversarial_training:eps=1 radius", "none"], 0.15)
    assert [defense.name for defense in stack] == ["fgsm_adversarial_training", "temperature"]
    assert stack.defenses[0].canonical()["eps"] == 0.15


def test_threats_default_to_all_and_clean_stands_for_none() -> None:
    assert [threat.name for threat in parse_threats(None, 0.1)] == list(THREATS)
    assert parse_threats("clean", 0.1) == ()
    assert [threat.name for threat in parse_threats("clean, cost", 0.1)] == ["cost"]
    with pytest.raises(InputError, match="names none"):
        parse_threats(" , ", 0.1)


@pytest.mark.parametrize(
    ("text", "seconds"), [("90s", 90), ("30m", 1800), ("1.5h", 5400), ("1d", 86400)]
)
def test_durations_are_read(text: str, seconds: float) -> None:
    assert parse_duration(text) == seconds


@pytest.mark.parametrize("text", ["", "h", "10", "0s", "-1h", "infh", "nanh", "2 weeks"])
def test_what_is_no_duration_is_refused(text: str) -> None:
    with pytest.raises(InputError, match="--time-budget"):
        parse_duration(text)
